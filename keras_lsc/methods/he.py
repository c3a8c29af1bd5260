"""He starts."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.matrices import matrices_of
from keras_lsc.methods.method import Method


@dataclass(frozen=True)
class He(Method):
    """Gives the entries of every matrix a normal law of variance 2/fan_in; made for relu.

    Gate by gate; biases and all other weights are left.

    Source: He et al., arXiv 1502.01852, equation 10.

    Example:
        >>> import keras, keras_lsc
        >>> model = keras.Sequential([keras.Input((50,)), keras.layers.Dense(400, "relu")])
        >>> keras_lsc.methods.He().apply(model, None)
        >>> kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
        >>> round(float(kernel.var()) * 50, 1)
        2.0
    """

    name: ClassVar[str] = "he"

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the matrices; see `Method.apply`."""
        del x, y, verbose
        generator = generator_of(seed, self.name)
        for matrix in matrices_of(model):
            matrix.draw(
                lambda m: math.sqrt(2.0 / m.rows) * generator.standard_normal((m.rows, m.columns))
            )
