"""AutoInit: weights drawn for the mean and variance of the signal at every layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.matrices import Matrix
from keras_lsc.methods.method import Method
from keras_lsc.methods.signals import Reader, Signals

# The state of a recurrent layer depends on the matrix that reads it: so many looks at it.
_LOOKS = 3


@dataclass(frozen=True)
class AutoInit(Method):
    """Draws the kernel of every layer for the mean and variance of what it reads, from below up.

    Its entries have the variance 1/(fan_in (variance + mean^2)), so that what a layer makes of its
    input has zero mean and unit variance. In a recurrent layer input and state have a half of that
    each, in every gate; the moments of the state are looked at again until they fit. Biases are
    left. Needs dense, convolutional or recurrent layers.

    The paper estimates mean and variance by a rule for each kind of layer; here they are measured
    on x, so that any layer may stand between those with kernels.

    Raises:
        FloatingPointError: what a layer reads is zero or not finite.

    Source: Bingham and Miikkulainen, arXiv 2109.08958, section 3.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> stack = [keras.layers.Dense(200, "relu") for _ in range(3)]
        >>> model = keras.Sequential([keras.Input((50,)), *stack, keras.layers.Dense(500)])
        >>> x = 2.0 + np.random.default_rng(0).normal(size=(128, 50))
        >>> keras_lsc.methods.AutoInit().apply(model, x)
        >>> bool(0.7 < np.mean(np.square(model.predict(x, verbose=0))) < 1.4)
        True
    """

    name: ClassVar[str] = "autoinit"

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the kernels; see `Method.apply`."""
        del y, verbose
        signals = Signals(model, x, seed)
        generator = generator_of(seed, self.name)
        for reader in signals.readers:
            share = 0.5 if reader.recurrent else 1.0
            moment = _second_moment(model, reader, signals.of(reader).read())
            for kernel in reader.kernels:
                _draw(kernel, share / moment, generator)
            self._draw_recurrent(model, reader, signals, generator)

    @staticmethod
    def _draw_recurrent(
        model: keras.Model, reader: Reader, signals: Signals, generator: np.random.Generator
    ) -> None:
        moment = 1.0
        for matrix in reader.recurrent:
            _draw(matrix, 0.5 / moment, generator)
        for _ in range(_LOOKS if reader.recurrent else 0):
            found = _second_moment(model, reader, signals.of(reader).given())
            for matrix in reader.recurrent:
                matrix.scale(np.full(matrix.blocks, np.sqrt(moment / found)))
            moment = found


def _draw(matrix: Matrix, variance: float, generator: np.random.Generator) -> None:
    deviation = np.sqrt(variance / matrix.rows)
    matrix.draw(lambda m: deviation * generator.standard_normal((m.rows, m.columns)))


def _second_moment(model: keras.Model, reader: Reader, values: np.ndarray) -> float:
    """Variance and squared mean together, over rows, steps and units."""
    moment = float(np.mean(np.square(values)))
    if not (np.isfinite(moment) and moment > 0):
        raise FloatingPointError(
            f"The signal at layer {reader.name!r} of model {model.name!r} has the second moment "
            f"{moment:.3g}: units are dead or saturated, spikes are none, or inputs are zero. "
            "Give x as the model will see it."
        )
    return moment
