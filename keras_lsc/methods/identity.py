"""Identity starts of simple recurrent layers (IRNN)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from keras_lsc.arguments import number
from keras_lsc.methods.cells import cells_of
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.method import Method
from keras_lsc.stability.placing import place


@dataclass(frozen=True)
class Identity(Method):
    """Makes the recurrent matrix of every `SimpleRNN` the identity and its biases zero (IRNN).

    Their input kernels become small. Made for relu, with which a state is then kept for ever; all
    other layers are left.

    Args:
        scale: factor of the identity.
        input_deviation: standard deviation of the normal law of the input kernels.

    Source: Le, Jaitly and Hinton, arXiv 1504.00941, section 3: R = scale I, b = 0,
        W ~ N(0, 0.001^2).

    Example:
        >>> import keras, keras_lsc
        >>> model = keras.Sequential([keras.Input((9, 3)), keras.layers.SimpleRNN(2, "relu")])
        >>> keras_lsc.methods.Identity().apply(model, None)
        >>> keras.ops.convert_to_numpy(model.layers[0].cell.recurrent_kernel).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    name: ClassVar[str] = "identity"
    scale: float = 1.0
    input_deviation: float = 0.001

    def __post_init__(self) -> None:
        number("scale", self.scale, above=0)
        number("input_deviation", self.input_deviation, above=0)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws kernels and places identities; see `Method.apply`."""
        del x, y, verbose
        why = (
            "it makes a recurrent matrix the identity, which keeps the state of a SimpleRNN; gates "
            "and spikes are no state"
        )
        generator = generator_of(seed, self.name)
        for cell, _ in cells_of(model, (layers.SimpleRNNCell,), self.name, why):
            place(cell.recurrent_kernel, self.scale * np.eye(cell.units))
            drawn = generator.standard_normal(cell.kernel.shape)
            place(cell.kernel, self.input_deviation * drawn)
            if cell.use_bias:
                place(cell.bias, np.zeros(cell.units))
