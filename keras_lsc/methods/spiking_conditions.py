"""The four conditions of stable spiking networks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_lsc.arguments import one_of
from keras_lsc.layers import ALIFCell, LIFCell
from keras_lsc.methods.cells import numbers
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.method import Method
from keras_lsc.methods.signals import Reader
from keras_lsc.methods.spiking import decays, spiking_readers, thresholds
from keras_lsc.methods.spiking_theory import (
    Course,
    Neurons,
    largest_dampening,
    recurrent_mean,
    recurrent_variance,
)
from keras_lsc.stability.placing import place

Array = np.ndarray

_ROWS = 16
_RATE, _OFF = 0.5, 0.02
# Where a population fires either not at all or all of it, less of its excitation comes from itself.
_SHARES = (1.0, 0.5, 0.0, -0.5, -1.0)
_LOOKS, _DOUBLINGS, _HALVINGS = 4, 12, 14


@dataclass(frozen=True)
class SpikingConditions(Method):
    """Sets weights of LIF and ALIF so that a half of the neurons fire, and the height of gradients.

    Conditions I and II: the mean recurrent weight at which a neuron fires in every second step, and
    the variance at which currents of neurons vary as much as those of the inputs. Then, by the
    height of the surrogate derivative (`log_slope`), condition III or IV: the largest gradient is
    1, or its second moment is. Input kernels are left. Needs spiking layers with recurrent weights
    and biases, without a refractory period.

    The mean is that of the closed form, with a current (the bias) that makes up what it is off by:
    the closed form takes spikes and voltages for independent, which multiplicative resets are not.
    With the reset "multiplicative-1" a neuron that fires is silent in the next step, so that a half
    is the most there is: the current is then large. Where inputs fluctuate little, neurons that
    excite each other fire all or none; then less of the excitation is theirs, and more of it the
    current.

    Args:
        gradient: "second-moment" (IV), "largest" (III), or "as-it-is", which leaves the height.

    Raises:
        ValueError: no current makes a half of the neurons fire, or no height does it.

    Source: arXiv 2202.00282, conditions I to IV. III is of gradients between 0 and 1 in time alone;
        IV is solved for the height rather than the sharpness, which no weight holds, at the
        states of x rather than for a uniform law of voltages.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(48, 60, 20)).astype("float32")
        >>> model = keras.Sequential([keras.Input((60, 20)),
        ...     keras_lsc.layers.LIF(50, return_sequences=True)])
        >>> report = keras_lsc.stabilize(model, x, method="spiking-conditions")
        >>> (rate,) = report.firing_rates.values()
        >>> 0.3 < rate < 0.6
        True
    """

    name: ClassVar[str] = "spiking-conditions"
    gradient: str = "second-moment"

    def __post_init__(self) -> None:
        one_of("gradient", self.gradient, ("second-moment", "largest", "as-it-is"))

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Sets the weights from the bottom up; see `Method.apply`."""
        del y, verbose
        signals, layers = spiking_readers(model, x, seed, self.name)
        for reader, cell in layers:
            if not cell.recurrent or not cell.use_bias or cell.refractory or cell.units < 2:
                raise ValueError(
                    f"method={self.name!r} sets recurrent weights and biases of several neurons "
                    f"that may always fire, and {reader.name!r} of model {model.name!r} has "
                    f"recurrent={cell.recurrent}, use_bias={cell.use_bias}, refractory="
                    f"{cell.refractory}, units={cell.units}."
                )
        generator = generator_of(seed, self.name)
        for reader, cell in layers:
            argument = signals.of(reader).argument[:_ROWS].astype("float64")
            layer = _Layer(reader, cell, argument, generator)
            course = layer.settle(model)
            place(cell.recurrent_kernel, layer.weights)
            place(cell.bias, np.full(cell.units, layer.bias))
            if self.gradient != "as-it-is":
                self._set_height(model, layer, course)

    def _set_height(self, model: keras.Model, layer: "_Layer", course: Course) -> None:
        cell, neurons = layer.cell, layer.neurons
        if self.gradient == "largest":
            theta = neurons.theta if cell.reset == "subtractive" else np.zeros(cell.units)
            wanted = largest_dampening(layer.weights, neurons.alpha, theta)
            place(cell.log_slope, np.log([wanted / cell.surrogate.dampening]))
            return
        u = ops.convert_to_tensor((course.v - neurons.theta).astype("float32"))
        slopes = ops.convert_to_numpy(cell.surrogate.derivative(u)).astype("float64")
        fixed, linear, squared = neurons.second_moment(course, layer.weights, slopes)
        inside = linear**2 - 4.0 * squared * (fixed - 1.0)
        if squared == 0 or fixed >= 1.0:
            raise ValueError(
                f"No height of the surrogate derivative of {layer.reader.name!r} in model "
                f"{model.name!r} gives its gradient a second moment of 1: the voltages are never "
                "near enough to the threshold. Take a surrogate with a longer tail."
            )
        place(cell.log_slope, np.log([(np.sqrt(inside) - linear) / (2.0 * squared)]))


class _Layer:
    """A layer whose recurrent weights and current are looked for.

    Args:
        reader: the call of the layer.
        cell: its cell.
        argument: what it reads.
        generator: of its recurrent weights.
    """

    def __init__(
        self, reader: Reader, cell: LIFCell, argument: Array, generator: np.random.Generator
    ):
        self.reader, self.cell = reader, cell
        units = cell.units
        is_adaptive = isinstance(cell, ALIFCell)
        self.neurons = Neurons(
            cell.reset,
            decays(cell),
            thresholds(cell),
            numbers(cell.beta) if is_adaptive else np.zeros(units),
            np.exp(-np.exp(-numbers(cell.log_tau_adaptation))) if is_adaptive else np.zeros(units),
        )
        self.currents = np.swapaxes(argument @ numbers(cell.kernel), 0, 1)
        self._others = 1.0 - np.eye(units)
        drawn = generator.standard_normal((units, units)) * self._others
        count = units * (units - 1)
        # Entries of mean 0 and variance 1, those of the diagonal left out.
        drawn = (drawn - drawn.sum() / count) * self._others
        self._drawn = drawn / np.sqrt(np.square(drawn).sum() / count)
        self.weights, self.bias = np.zeros((units, units)), 0.0

    def settle(self, model: keras.Model) -> Course:
        """Finds weights and current; returns what the neurons do with them."""
        units, neurons = self.cell.units, self.neurons
        alpha, theta = float(np.mean(neurons.alpha)), float(np.mean(neurons.theta))
        closed = recurrent_mean(self.cell.reset, alpha, theta, units)
        given = float(self.currents[len(self.currents) // 2 :].var())
        for share in _SHARES:
            mean = share * closed
            variance = recurrent_variance(given, mean, units)
            if variance <= 0:
                continue
            for _ in range(_LOOKS):
                self.weights = (mean + np.sqrt(variance) * self._drawn) * self._others
                course = self._fire_a_half()
                if course is None:
                    break
                # Neurons that fire together make currents vary more than those that do not.
                factor = given / float(course.among.var())
                if abs(factor - 1.0) < _OFF:
                    break
                variance *= factor
            if course is not None and abs(factor - 1.0) < 4 * _OFF:
                return course
        raise ValueError(
            f"No current makes a half of the neurons of {self.reader.name!r} in model "
            f"{model.name!r} fire with currents of {np.sqrt(given):.3g} (standard deviation) for a "
            f"threshold of {theta:.3g}: all of them fire or none. Scale its kernel up, or "
            "normalise its inputs."
        )

    def _fire_a_half(self) -> Course | None:
        """Finds the current that does it, with the weights as they are."""

        def course_with(bias: float) -> Course:
            self.bias = bias
            return self.neurons.run(self.currents + bias, self.weights)

        course = course_with(self.bias)
        if abs(course.rate - _RATE) <= _OFF:
            return course
        sign = 1.0 if course.rate < _RATE else -1.0
        near, step = self.bias, 0.05 * float(np.mean(self.neurons.theta))
        for _ in range(_DOUBLINGS):
            far = near + sign * step
            course = course_with(far)
            if sign * (course.rate - _RATE) >= 0:
                break
            near, step = far, 2.0 * step
        else:
            return None
        for _ in range(_HALVINGS):
            if abs(course.rate - _RATE) <= _OFF:
                return course
            middle = (near + far) / 2.0
            course = course_with(middle)
            near, far = (middle, far) if sign * (course.rate - _RATE) < 0 else (near, middle)
        return course if abs(course.rate - _RATE) <= _OFF else None
