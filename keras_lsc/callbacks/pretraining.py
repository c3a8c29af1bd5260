"""Callbacks of pre-training."""

from typing import Any

import keras

from keras_lsc.arguments import integer, number


class StopWhenStable(keras.callbacks.Callback):
    """Ends pre-training once every recent mean radius is within a tolerance of its target.

    Args:
        tolerance: largest |mean radius - target|, over the transitions, to stop at.
        min_updates: number of updates before which the recent means are not trusted.

    Attributes:
        updates: number of updates made so far.

    Raises:
        ValueError: the tolerance is not positive, or the number of updates negative.

    Example:
        >>> import keras_lsc
        >>> keras_lsc.callbacks.StopWhenStable(tolerance=0.02).tolerance
        0.02
    """

    def __init__(self, tolerance: float = 0.02, min_updates: int = 8):
        super().__init__()
        self.tolerance = number("tolerance", tolerance, above=0)
        self.min_updates = integer("min_updates", min_updates, at_least=0)
        self.updates = 0
        self._since_reset = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The metrics start anew with every epoch."""
        del epoch, logs
        self._since_reset = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops the training if the largest deviation is small enough."""
        del batch
        self.updates += 1
        self._since_reset += 1
        logs = logs or {}
        if "max_deviation" not in logs:
            raise ValueError(
                "StopWhenStable found no 'max_deviation' among the metrics "
                f"{sorted(logs)}. It works with keras_lsc.LSCPretrainer only."
            )
        if self._since_reset < self.min_updates:
            return
        if float(logs["max_deviation"]) <= self.tolerance:
            self.model.stop_training = True


class UpdateCounter(keras.callbacks.Callback):
    """Counts updates, over all trainings that it is given to.

    Attributes:
        updates: number of updates made so far.

    Example:
        >>> import keras_lsc
        >>> keras_lsc.callbacks.UpdateCounter().updates
        0
    """

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts."""
        del batch, logs
        self.updates += 1
