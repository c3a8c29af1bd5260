"""Callbacks for pre-training, and for training on the tasks of `keras_lsc.datasets`."""

from typing import Any

import keras

from keras_lsc.arguments import flag, integer, number, text
from keras_lsc.datasets import GrowingTask
from keras_lsc.layers import FiringRateRegularizer

__all__ = ["FiringRateSchedule", "NCurriculum", "ResetStates", "StopWhenStable", "UpdateCounter"]


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


class ResetStates(keras.callbacks.Callback):
    """Resets the states of layers that carry them, before every epoch and every evaluation.

    Without it a text that is read in contiguous batches (`keras_lsc.datasets.batches`) would begin
    with the state that its end, or the end of another text, left behind. The layers are those in a
    `keras_lsc.layers.CarriedState`, and those with `stateful=True`.

    Example:
        >>> import keras_lsc
        >>> callback = keras_lsc.callbacks.ResetStates()
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Resets the states that the epoch before, or its validation, left behind."""
        del epoch, logs
        self._reset()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Resets the states that the training left behind."""
        del logs
        self._reset()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Resets the states that whatever came before left behind."""
        del logs
        self._reset()

    def _reset(self) -> None:
        nested = [self.model]
        while nested:
            layer = nested.pop()
            nested.extend(getattr(layer, "layers", []))
            # A model has the attribute too, but not the method.
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
                layer.reset_state()


class NCurriculum(keras.callbacks.Callback):
    """Makes a task harder, n to n + 1, after every epoch whose accuracy is above a threshold.

    Args:
        task: a `keras_lsc.datasets.GrowingTask`, the same one that is trained on.
        monitor: name of the metric that decides.
        threshold: value that the metric has to exceed.
        stop_at_largest: whether to end the training when the largest n is passed too.

    Attributes:
        history: the n of every epoch so far.

    Raises:
        ValueError: there is no such metric; or an argument is of no use.

    Example:
        >>> import keras_lsc
        >>> task = keras_lsc.datasets.GrowingTask("parity", n=2, largest=10)
        >>> curriculum = keras_lsc.callbacks.NCurriculum(task)
        >>> curriculum.threshold
        0.98

    Source:
        arXiv 2309.12927: N grows by 1 when the accuracy exceeds 98 %.
    """

    def __init__(
        self,
        task: GrowingTask,
        monitor: str = "accuracy",
        threshold: float = 0.98,
        stop_at_largest: bool = True,
    ):
        super().__init__()
        if not isinstance(task, GrowingTask):
            raise ValueError(
                f"task must be a keras_lsc.datasets.GrowingTask, got {task!r}. Give the one that "
                "is trained on."
            )
        self.task = task
        self.monitor = text("monitor", monitor)
        self.threshold = number("threshold", threshold)
        self.stop_at_largest = flag("stop_at_largest", stop_at_largest)
        self.history: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets n grow if the accuracy is high enough."""
        del epoch
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"NCurriculum found no {self.monitor!r} among the metrics {sorted(logs)}. Compile "
                "the model with it, or choose another with monitor=."
            )
        self.history.append(self.task.n)
        passed = float(logs[self.monitor]) > self.threshold
        if passed and not self.task.grow() and self.stop_at_largest:
            self.model.stop_training = True


class FiringRateSchedule(keras.callbacks.Callback):
    """Switches every `keras_lsc.layers.FiringRateRegularizer` of a model on in the course of `fit`.

    The switch is 0 in the first epochs, then rises linearly, and then stays 1.

    Args:
        begin: fraction of the epochs after which it rises.
        end: fraction of the epochs after which it is 1.

    Raises:
        ValueError: the fractions are not 0 <= begin < end <= 1, or the model has no such layer.

    Source: arXiv 2202.00282, sparsity schedule (1/5 and 3/5).

    Example:
        >>> import keras_lsc
        >>> schedule = keras_lsc.callbacks.FiringRateSchedule()
        >>> [round(schedule.switch(epoch, 10), 2) for epoch in (0, 2, 4, 6, 9)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, begin: float = 0.2, end: float = 0.6):
        super().__init__()
        self.begin = number("begin", begin, at_least=0, below=1)
        self.end = number("end", end, above=0, at_most=1)
        if self.begin >= self.end:
            raise ValueError(
                f"Expected 0 <= begin < end <= 1, got begin={begin!r} and end={end!r}."
            )

    def switch(self, epoch: int, epochs: int) -> float:
        """The value of the switch in an epoch, counted from 0."""
        return min(max((epoch / epochs - self.begin) / (self.end - self.begin), 0.0), 1.0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the layers."""
        del logs
        self._layers = _regularizers_in(self.model)
        if not self._layers:
            raise ValueError(
                f"Model {self.model.name!r} has no FiringRateRegularizer to switch on. Put one "
                "behind each spiking layer."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sets the switches."""
        del logs
        for layer in self._layers:
            layer.switch.assign(self.switch(epoch, self.params["epochs"]))


def _regularizers_in(model: keras.Model) -> list[FiringRateRegularizer]:
    found = []
    for layer in model.layers:
        if isinstance(layer, FiringRateRegularizer):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found.extend(_regularizers_in(layer))
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
