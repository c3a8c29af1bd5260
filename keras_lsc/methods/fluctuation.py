"""Fluctuation-driven starts of spiking layers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_lsc.arguments import number
from keras_lsc.layers import LIFCell
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.method import Method
from keras_lsc.methods.signals import Reader
from keras_lsc.methods.spiking import (
    Traces,
    decays,
    one_step_later,
    spikes_of,
    spiking_readers,
    thresholds,
)
from keras_lsc.stability.placing import place

Array = np.ndarray

# Spikes depend on the weights that they are read through: so many looks at them.
_LOOKS = 6


@dataclass(frozen=True)
class Fluctuation(Method):
    """Draws the weights of LIF and ALIF so that voltages fluctuate up to the threshold.

    The voltage as it is without resets has a mean over neurons of `mean` and fluctuates in the
    course of x with a standard deviation of (threshold - mean)/z, in the mean of the variances of
    the neurons. Input and recurrent weights are normal, biases zero. Needs spiking layers.

    Args:
        mean: of the voltage, in thresholds; other than 0 it needs inputs whose sum has a mean.
        z: distance of the threshold from the mean, in standard deviations: the smaller, the more
            spikes.
        share: of the variance that the inputs have, where there are recurrent weights.

    Raises:
        FloatingPointError: the inputs of a layer do not vary.
        ValueError: no weights have this mean and variance.

    Source: Rossbroich, Gygax and Zenke 2022, arXiv 2206.10226, equations 5 to 9. Mean and variance
        of what a synapse sees are those of x rather than of Poisson spikes of a given rate; one
        correction of the draw makes them exact.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> x = (np.random.default_rng(0).random((64, 50, 30)) < 0.1).astype("float32")
        >>> model = keras.Sequential([keras.Input((50, 30)),
        ...     keras_lsc.layers.LIF(20, return_sequences=True)])
        >>> report = keras_lsc.stabilize(model, x, method=keras_lsc.methods.Fluctuation(z=2.0))
        >>> (rate,) = report.firing_rates.values()
        >>> 0.001 < rate < 0.2
        True
    """

    name: ClassVar[str] = "fluctuation"
    mean: float = 0.0
    z: float = 2.0
    share: float = 0.9

    def __post_init__(self) -> None:
        number("mean", self.mean, below=1)
        number("z", self.z, above=0)
        number("share", self.share, above=0, at_most=1)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the weights from the bottom up; see `Method.apply`."""
        del y, verbose
        signals, layers = spiking_readers(model, x, seed, self.name)
        generator = generator_of(seed, self.name)
        for reader, cell in layers:
            argument = signals.of(reader).argument.astype("float64")
            if cell.use_bias:
                place(cell.bias, np.zeros(cell.units))
            self._draw(model, reader, cell, argument, generator)

    def _draw(
        self,
        model: keras.Model,
        reader: Reader,
        cell: LIFCell,
        argument: Array,
        generator: np.random.Generator,
    ) -> None:
        theta = float(np.mean(thresholds(cell)))
        mean, variance = self.mean * theta, ((1.0 - self.mean) * theta / self.z) ** 2
        share = self.share if cell.recurrent else 1.0
        alphas = decays(cell)
        inputs = Traces(argument, alphas)
        drawn = inputs.centred(generator.standard_normal(cell.kernel.shape))
        ones = np.ones(cell.kernel.shape)
        level = 0.0 if mean == 0.0 else mean / (inputs.mean(ones) or np.inf)
        scale = _scale(
            inputs.covariance(drawn, drawn),
            2.0 * level * inputs.covariance(ones, drawn),
            level**2 * inputs.covariance(ones, ones) - share * variance,
        )
        if scale is None:
            raise ValueError(
                f"No weights of layer {reader.name!r} in model {model.name!r} give its voltage a "
                f"mean of {mean:g} and a variance of {variance:g}: its inputs do not vary, or "
                "their sum varies too much for its mean. Give x as the model will see it, or ask "
                "for mean=0."
            )
        place(cell.kernel, level + scale * drawn)
        if cell.recurrent:
            others = 1.0 - np.eye(cell.units)
            among = others * generator.standard_normal(others.shape)
            _balance(reader, cell, argument, (level * ones, scale * drawn, among), share, variance)


def _scale(squared: float, linear: float, constant: float) -> float | None:
    """The positive root of a quadratic, or None."""
    inside = linear**2 - 4.0 * squared * constant
    if not (squared > 0 and constant < 0 and np.isfinite(inside)):
        return None
    return float((np.sqrt(inside) - linear) / (2.0 * squared))


def _balance(
    reader: Reader,
    cell: LIFCell,
    argument: Array,
    weights: tuple[Array, Array, Array],
    share: float,
    variance: float,
) -> None:
    """Gives recurrent weights their share of the variance, and all weights together the whole.

    The neurons spike by these weights, and spikes are correlated with inputs, so it is looked at
    again until it fits.

    Args:
        reader: the call of the layer.
        cell: its cell.
        argument: what it reads.
        weights: those of the mean, those of the fluctuation, and the draw of the recurrent ones.
        share: of the variance that the inputs have.
        variance: of the voltage.
    """
    level, drawn, among = weights
    place(cell.recurrent_kernel, np.zeros(among.shape))
    alphas = decays(cell)
    for _ in range(_LOOKS):
        spikes = one_step_later(spikes_of(reader, cell, argument))
        spiking = Traces(spikes, alphas)
        centred = spiking.centred(among) * (among != 0)
        power = spiking.covariance(centred, centred)
        if power == 0:  # silent: there is nothing to read
            return
        recurrent = centred * np.sqrt((1.0 - share) * variance / power)
        both = Traces(np.concatenate([argument, spikes], axis=-1), alphas)
        fixed = np.concatenate([level, np.zeros(among.shape)])
        moving = np.concatenate([drawn, recurrent])
        factor = _scale(
            both.covariance(moving, moving),
            2.0 * both.covariance(fixed, moving),
            both.covariance(fixed, fixed) - variance,
        )
        if factor is None:
            return
        place(cell.kernel, level + factor * drawn)
        place(cell.recurrent_kernel, factor * recurrent)
