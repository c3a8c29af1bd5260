"""States that are carried from batch to batch begin anew with an epoch."""

from typing import Any

import keras


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
