"""Orthogonal starts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_lsc.arguments import number
from keras_lsc.layers.parameters import orthogonal
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.matrices import matrices_of
from keras_lsc.methods.method import Method


@dataclass(frozen=True)
class Orthogonal(Method):
    """Gives every matrix, gate by gate, orthonormal rows or columns; needs nothing.

    Biases and all other weights are left. A kernel of a convolution is one matrix from all that
    an output reads.

    Args:
        gain: factor of the matrices, their singular values.

    Source: Saxe et al., arXiv 1312.6120, equation 15: W^T W = gain^2 I.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(4)])
        >>> report = keras_lsc.stabilize(model, np.ones((8, 20, 3)), method="orthogonal")
        >>> kernel = keras.ops.convert_to_numpy(model.layers[0].cell.recurrent_kernel)[:, :4]
        >>> bool(np.allclose(kernel.T @ kernel, np.eye(4), atol=1e-5))
        True
    """

    name: ClassVar[str] = "orthogonal"
    gain: float = 1.0

    def __post_init__(self) -> None:
        number("gain", self.gain, above=0)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the matrices; see `Method.apply`."""
        del x, y, verbose
        generator = generator_of(seed, self.name)
        for matrix in matrices_of(model):
            matrix.draw(lambda m: self.gain * orthogonal((m.rows, m.columns), generator))
