"""When the regularisation of firing rates sets in."""

from typing import Any

import keras

from keras_lsc.arguments import number
from keras_lsc.layers import FiringRateRegularizer


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
