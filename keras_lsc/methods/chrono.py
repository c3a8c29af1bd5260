"""Chrono starts: gate biases by the range of time lags."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, tree

from keras_lsc.arguments import integer
from keras_lsc.methods.cells import cells_of, numbers
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.method import Method
from keras_lsc.stability.placing import place


@dataclass(frozen=True)
class Chrono(Method):
    """Sets the gate biases of LSTM and GRU so that the units forget in 2 to `longest` steps.

    The biases of the gate that keeps the state are log(u), u uniform in [1, longest - 1], so that
    it leaks 1/(1 + u) a step; those of the input gate of an LSTM are the negative of that. All else
    is left, the biases of the other gates too.

    Args:
        longest: the longest lag in steps; without it the length of the sequences.

    Source: Tallec and Ollivier, arXiv 1804.11188, equation 16.

    Example:
        >>> import keras, keras_lsc
        >>> model = keras.Sequential([keras.Input((50, 3)), keras.layers.LSTM(4)])
        >>> keras_lsc.methods.Chrono(longest=50).apply(model, None)
        >>> b_input, b_forget = keras.ops.split(model.layers[0].cell.bias.value, 4)[:2]
        >>> bool(keras.ops.all(b_forget == -b_input))
        True
    """

    name: ClassVar[str] = "chrono"
    longest: int | None = None

    def __post_init__(self) -> None:
        if self.longest is not None:
            integer("longest", self.longest, at_least=3)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Places the biases; see `Method.apply`."""
        del y, verbose
        why = "it sets the biases of the gates of LSTM and GRU"
        cells = cells_of(model, (layers.LSTMCell, layers.GRUCell), self.name, why)
        for cell, name in cells:
            gate = keras.activations.serialize(cell.recurrent_activation)
            if not cell.use_bias or gate != "sigmoid":
                given = f"gates of {gate!r}" if cell.use_bias else "no biases"
                raise ValueError(
                    f"method={self.name!r} needs biases of sigmoid gates, and {name!r} of model "
                    f"{model.name!r} has {given}. Make it with use_bias=True and "
                    'recurrent_activation="sigmoid".'
                )
        longest = _length(x) if self.longest is None else self.longest
        generator = generator_of(seed, self.name)
        for cell, _ in cells:
            kept = np.log(generator.uniform(1.0, longest - 1.0, cell.units))
            bias = numbers(cell.bias)
            units = cell.units
            if isinstance(cell, layers.LSTMCell):
                bias[:units], bias[units : 2 * units] = -kept, kept
            elif bias.ndim == 2:  # of the inputs, and of the states
                bias[:, :units] = kept, np.zeros(units)
            else:
                bias[:units] = kept
            place(cell.bias, bias)


def _length(x: Any) -> int:
    lengths = [np.shape(array)[1] for array in tree.flatten(x) if np.ndim(array) > 1]
    longest = max(lengths, default=0)
    if longest < 3:
        raise ValueError(
            f"The sequences have {longest} steps, of which no range of lags follows. Give it: "
            "keras_lsc.methods.Chrono(longest=100)."
        )
    return longest
