"""The conditions on a layer of spiking neurons, in closed form, and its simulation.

Source: arXiv 2202.00282, section 3.
"""

from dataclasses import dataclass

import numpy as np

from keras_lsc.arguments import one_of

Array = np.ndarray

_RESETS = ("subtractive", "multiplicative-1", "multiplicative-2")


def recurrent_mean(reset: str, alpha: float, theta: float, units: int) -> float:
    """Mean recurrent weight at which voltages are at the threshold where a half of neurons fire.

    From E[v] = theta with inputs of mean zero, spikes and voltages taken as independent. Of the
    reset "multiplicative-1" the published code has 2 (1 - alpha) theta / (units - 1), at which
    fewer neurons fire still.

    Args:
        reset: "subtractive", "multiplicative-1" or "multiplicative-2".
        alpha: decay of the voltage.
        theta: threshold.
        units: number of neurons.

    Example:
        >>> round(recurrent_mean("subtractive", 0.9, 1.0, 101), 6)
        0.012
    """
    one_of("reset", reset, _RESETS)
    sums = {
        "subtractive": 3.0 - 2.0 * alpha,
        "multiplicative-1": 4.0 - 2.0 * alpha,
        "multiplicative-2": 2.0 - alpha,
    }
    return sums[reset] * theta / (units - 1)


def recurrent_variance(input_variance: float, mean: float, units: int) -> float:
    """Variance of recurrent weights whose currents vary as much as those of the inputs.

    Over neurons, steps and sequences, where a half of the neurons fire, each by itself: the
    currents vary by (units - 1) (variance/2 + mean^2/4). The published code has a half of the first
    term, and its currents a half of the variance.

    Args:
        input_variance: of the currents of the inputs.
        mean: of the recurrent weights.
        units: number of neurons.

    Returns:
        The variance; below 0 where the mean alone makes currents vary more.
    """
    return 2.0 * input_variance / (units - 1) - mean**2 / 2.0


@dataclass(frozen=True)
class Neurons:
    """A population of (adaptive) LIF neurons, as `keras_lsc.layers.LIFCell` has them.

    Attributes:
        reset: of the voltage.
        alpha: decay of the voltage, `(units,)`.
        theta: threshold, `(units,)`.
        beta: how much the threshold rises with the adaptation, `(units,)`.
        rho: decay of the adaptation, `(units,)`.
    """

    reset: str
    alpha: Array
    theta: Array
    beta: Array
    rho: Array

    def run(self, currents: Array, weights: Array) -> "Course":
        """Runs along `(steps, rows, units)` currents of inputs, with recurrent weights."""
        v, a = np.zeros_like(currents[0]), np.zeros_like(currents[0])
        z = np.zeros_like(v)
        found = []
        for given in currents:
            among = z @ weights
            current = given + among
            kept = self.alpha * v
            if self.reset == "subtractive":
                after = kept + current - self.theta * z
            elif self.reset == "multiplicative-1":
                after = (kept + current) * (1.0 - z)
            else:
                after = kept * (1.0 - z) + current
            a = self.rho * a + (1.0 - self.rho) * z
            found.append((v, z, current, among))
            v = after
            z = (v > self.theta + self.beta * a).astype(v.dtype)
        later = found[len(found) // 2 :]
        return Course(*(np.stack(part) for part in zip(*later, strict=True)))

    def second_moment(self, course: "Course", weights: Array, slopes: Array) -> tuple:
        """The mean squared sum of what a voltage does to all of the next step, by dampening.

        Args:
            course: of the neurons.
            weights: recurrent weights.
            slopes: derivatives of the spikes for a dampening of 1, `(steps, rows, units)`.

        Returns:
            a, b, c of a + b dampening + c dampening^2.
        """
        free = 1.0 - course.z
        keep = np.broadcast_to(self.alpha, course.v.shape)
        reached = np.square(weights).sum(axis=1)
        if self.reset == "subtractive":
            through = np.broadcast_to(-self.theta, course.v.shape)
        elif self.reset == "multiplicative-1":
            keep, through = keep * free, -(self.alpha * course.v + course.current)
            reached = free @ np.square(weights).T
        else:
            keep, through = keep * free, -self.alpha * course.v
        return (
            float(np.mean(keep**2)),
            float(np.mean(2.0 * keep * slopes * through)),
            float(np.mean(slopes**2 * (through**2 + reached))),
        )


@dataclass(frozen=True)
class Course:
    """What neurons did in the later half of the steps, each `(steps, rows, units)`.

    Attributes:
        v: voltage before a step.
        z: spikes before it.
        current: all that a neuron is given in it.
        among: what of that comes from other neurons.
    """

    v: Array
    z: Array
    current: Array
    among: Array

    @property
    def rate(self) -> float:
        """Spikes a step and neuron."""
        return float(self.z.mean())


def largest_dampening(weights: Array, alpha: Array, theta: Array) -> float:
    """The dampening at which the largest gradient of a step back is that of the step after it.

    Of gradients of the next step between 0 and 1, a neuron whose spike has a derivative between 0
    and the dampening passes back at most max(alpha + d (S - theta), d S), S being the sum of its
    positive weights; this is 1 for the neuron where it is largest. With theta 0 it is the
    paper's (1 - alpha)/S.

    Args:
        weights: recurrent weights, `(units, units)`, from the rows to the columns.
        alpha: decays, `(units,)`.
        theta: thresholds of a subtractive reset, `(units,)`; 0 for others.
    """
    sums = np.maximum(weights, 0.0).sum(axis=1)
    with np.errstate(divide="ignore"):
        own = np.where(sums > theta, (1.0 - alpha) / np.maximum(sums - theta, 1e-300), np.inf)
        return float(np.min(np.minimum(own, 1.0 / sums)))
