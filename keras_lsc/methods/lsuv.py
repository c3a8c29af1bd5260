"""Layer-sequential unit variance."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_lsc.arguments import number, positive_integer
from keras_lsc.layers.parameters import orthogonal
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.matrices import Matrix, matrices_of
from keras_lsc.methods.method import Method
from keras_lsc.methods.signals import Reader, Signals


@dataclass(frozen=True)
class LSUV(Method):
    """Scales the kernel of every layer until what it makes of real inputs has unit variance.

    Of matrices that were drawn orthonormal, from the bottom layer up. What has unit variance is the
    product of kernel and input, before biases and activation; of a gated cell that of every gate.
    Recurrent matrices stay orthogonal, biases as they are. Needs dense, convolutional or recurrent
    layers.

    Args:
        tolerance: largest |variance - 1| to accept.
        most: number of times that a layer is scaled before it gives up.

    Raises:
        FloatingPointError: what a layer reads does not vary, or overflows.
        ValueError: a variance stayed outside the tolerance: a constraint of the kernel holds it.

    Source: Mishkin and Matas, arXiv 1511.06422, algorithm 1.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "relu")])
        >>> x = 3.0 + np.random.normal(size=(64, 5))
        >>> report = keras_lsc.stabilize(model, x, method=keras_lsc.methods.LSUV(tolerance=0.02))
        >>> product = x @ keras.ops.convert_to_numpy(model.layers[0].kernel)
        >>> bool(0.7 < product.var() < 1.3)
        True
    """

    name: ClassVar[str] = "lsuv"
    tolerance: float = 0.01
    most: int = 5

    def __post_init__(self) -> None:
        number("tolerance", self.tolerance, above=0)
        positive_integer("most", self.most)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws and scales; see `Method.apply`."""
        del y, verbose
        signals = Signals(model, x, seed)
        generator = generator_of(seed, self.name)
        for matrix in matrices_of(model):
            matrix.draw(lambda m: orthogonal((m.rows, m.columns), generator))
        for reader in signals.readers:
            argument = _whole(signals, reader)
            for kernel in reader.kernels:
                self._scale(model, reader, kernel, argument)

    def _scale(
        self, model: keras.Model, reader: Reader, kernel: Matrix, argument: np.ndarray
    ) -> None:
        for attempt in range(self.most + 1):
            product = reader.product(kernel, argument)
            gates = product.reshape(-1, kernel.blocks, kernel.columns)
            variances = gates.var(axis=(0, 2))
            if not (np.isfinite(variances) & (variances > 0)).all():
                raise FloatingPointError(
                    f"What layer {reader.name!r} of model {model.name!r} makes of its inputs has "
                    f"the variance {variances.min():.3g}: they are the same for all examples, dead "
                    "or not finite. Give x as the model will see it, or draw the layers below anew."
                )
            if np.abs(variances - 1.0).max() <= self.tolerance:
                return
            if attempt < self.most:
                kernel.scale(1.0 / np.sqrt(variances))
        raise ValueError(
            f"Layer {reader.name!r} of model {model.name!r} has the variance {variances.max():.3g} "
            f"after {self.most} attempts, not 1. A constraint of {kernel.weight.path!r} forbids "
            "it; make the layer without, or allow a larger tolerance: "
            "keras_lsc.methods.LSUV(tolerance=...)."
        )


def _whole(signals: Signals, reader: Reader) -> np.ndarray:
    """What a layer reads: of valid steps, or as it is where a convolution looks at more of them."""
    signal = signals.of(reader)
    is_flat = all(len(kernel.weight.shape) == 2 for kernel in reader.kernels)
    return signal.read() if is_flat else signal.argument
