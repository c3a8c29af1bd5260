"""Glorot starts."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_lsc.arguments import one_of
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.matrices import Matrix, matrices_of
from keras_lsc.methods.method import Method


@dataclass(frozen=True)
class Glorot(Method):
    """Gives the entries of every matrix a variance of 2/(fan_in + fan_out); needs nothing.

    Gate by gate: the fan of Keras' own initialiser counts all gates of an LSTM as one matrix, whose
    entries are smaller. Biases and all other weights are left.

    Args:
        distribution: "uniform" or "normal".

    Source: Glorot and Bengio 2010, equation 12.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(6)])
        >>> keras_lsc.methods.Glorot().apply(model, None)
        >>> bool(abs(keras.ops.convert_to_numpy(model.layers[0].kernel)).max() <= (6 / 15) ** 0.5)
        True
    """

    name: ClassVar[str] = "glorot"
    distribution: str = "uniform"

    def __post_init__(self) -> None:
        one_of("distribution", self.distribution, ("uniform", "normal"))

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the matrices; see `Method.apply`."""
        del x, y, verbose
        generator = generator_of(seed, self.name)

        def entries(matrix: Matrix) -> Any:
            deviation = math.sqrt(2.0 / (matrix.rows + matrix.fan_out))
            shape = (matrix.rows, matrix.columns)
            if self.distribution == "normal":
                return deviation * generator.standard_normal(shape)
            return deviation * math.sqrt(3.0) * generator.uniform(-1.0, 1.0, shape)

        for matrix in matrices_of(model):
            matrix.draw(entries)
