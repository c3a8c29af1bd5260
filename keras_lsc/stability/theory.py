"""What local radii mean for the gradient of the whole network.

The gradient at grid point (t, l) is the sum of what comes back through time and through depth,
delta_{t,l} = M_t^T delta_{t+1,l} + M_l^T delta_{t,l+1}. If all paths point the same way their
amplitudes add (the bound of arXiv 2308.12075: constant for rho_t + rho_l = 1); in an isotropic
network they are nearly orthogonal and their energies add (this project's law: constant in
depth for rho_t^2 + rho_l^2 = 1).
"""

import math
from collections.abc import Sequence

import numpy as np

from keras_lsc.arguments import integer, number, positive_integer

# The exponential of more is no float.
_LARGEST_EXPONENT = 709.0


def number_of_paths(steps: int, layers: int) -> int:
    """Number of gradient paths between grid points `steps` apart in time, `layers` in depth.

    Args:
        steps: number of time transitions on every path.
        layers: number of depth transitions on every path.

    Returns:
        The binomial coefficient C(steps + layers, layers).

    Raises:
        ValueError: a number is negative, or no integer.

    Source: arXiv 2308.12075, section 3.

    Example:
        >>> number_of_paths(2, 1)
        3
    """
    steps = integer("steps", steps, at_least=0)
    layers = integer("layers", layers, at_least=0)
    return math.comb(steps + layers, layers)


def _times_powers(paths: int, rho_time: float, steps: int, rho_depth: float, layers: int) -> float:
    """paths rho_time^steps rho_depth^layers, where its factors may be too large for a float."""
    factors = [(rho, power) for rho, power in ((rho_time, steps), (rho_depth, layers)) if power]
    if any(rho == 0.0 for rho, _ in factors):
        return 0.0
    logarithm = math.log(paths) + sum(power * math.log(rho) for rho, power in factors)
    # Where every factor is a plain float their product is closer.
    parts = [math.log(paths), *(power * math.log(rho) for rho, power in factors)]
    if max(map(abs, parts), default=0.0) < _LARGEST_EXPONENT / 3:
        return float(paths) * math.prod(rho**power for rho, power in factors)
    return math.inf if logarithm > _LARGEST_EXPONENT else math.exp(logarithm)


def coherent_bound(rho_time: float, rho_depth: float, steps: int, layers: int) -> float:
    """The paper's bound on a gradient between two grid points: paths times their radii.

    Args:
        rho_time: radius of every time transition.
        rho_depth: radius of every depth transition.
        steps: distance in time.
        layers: distance in depth.

    Returns:
        C(steps + layers, layers) rho_time^steps rho_depth^layers; infinite where it is too large
        for a float.

    Raises:
        ValueError: a radius is negative, or a distance is no integer of 0 or more.

    Source: arXiv 2308.12075, theorem 1.

    Example:
        >>> coherent_bound(0.5, 0.5, steps=1, layers=1)
        0.5
    """
    rho_time = number("rho_time", rho_time, at_least=0)
    rho_depth = number("rho_depth", rho_depth, at_least=0)
    paths = number_of_paths(steps, layers)
    return _times_powers(paths, rho_time, int(steps), rho_depth, int(layers))


def propagate(
    time_factors: Sequence[float], depth_factors: Sequence[float], steps: int
) -> np.ndarray:
    """Solves g_{t,l} = a_l g_{t+1,l} + b_{l+1} g_{t,l+1} back from g = 1 at the last point.

    With squared radii as factors g is the energy of the gradient (the energy law), with the radii
    themselves it is the coherent bound on its norm.

    Args:
        time_factors: a_l of every layer, L numbers.
        depth_factors: b_l of every layer, L numbers, of which the first (into the lowest layer)
            plays no part.
        steps: number of time steps T.

    Returns:
        `(T, L)` array of g, time first; its last entry is 1.

    Raises:
        ValueError: not as many factors in time as in depth, one that is no finite number, or no
            positive number of steps.

    Example:
        >>> propagate([0.5, 0.5], [0.0, 0.5], steps=2)
        array([[0.5, 0.5],
               [0.5, 1. ]])
    """
    steps = positive_integer("steps", steps)
    for name, factors in (("time_factors", time_factors), ("depth_factors", depth_factors)):
        if not isinstance(factors, Sequence | np.ndarray) or isinstance(factors, str | bytes):
            raise ValueError(f"{name} must be a list of one number a layer, got {factors!r:.200}.")
    layers = len(time_factors)
    if layers == 0 or len(depth_factors) != layers:
        raise ValueError(
            f"time_factors and depth_factors need one number a layer each, got {layers} and "
            f"{len(depth_factors)}."
        )
    for name, factors in (("time_factors", time_factors), ("depth_factors", depth_factors)):
        for layer, factor in enumerate(factors):
            number(f"{name}[{layer}]", factor)
    grid = np.zeros((steps, layers))
    grid[-1, -1] = 1.0
    for t in range(steps - 1, -1, -1):
        for layer in range(layers - 1, -1, -1):
            if t < steps - 1:
                grid[t, layer] += time_factors[layer] * grid[t + 1, layer]
            if layer < layers - 1:
                grid[t, layer] += depth_factors[layer + 1] * grid[t, layer + 1]
    return grid


def energy_summed_over_time(rho_time: float, rho_depth: float, layers_below_top: int) -> float:
    """Gradient energy of a layer, summed over a long past, relative to that of the last point.

    Args:
        rho_time: radius of every time transition, below 1.
        rho_depth: radius of every depth transition.
        layers_below_top: how far the layer is from the top one, whose energy counts from 0.

    Returns:
        (rho_l^2 / (1 - rho_t^2))^(L-l) / (1 - rho_t^2): the same for every layer exactly when
        rho_t^2 + rho_l^2 = 1. Infinite where it is too large for a float.

    Raises:
        ValueError: rho_time is not below 1, where the sum has no limit; or a number is of no use.

    Example:
        >>> round(energy_summed_over_time(0.5**0.5, 0.5**0.5, 7), 6)
        2.0
    """
    advice = "The energy summed over an endless past needs 0 <= rho_time < 1."
    rho_time = number("rho_time", rho_time, at_least=0, below=1, advice=advice)
    rho_depth = number("rho_depth", rho_depth, at_least=0)
    layers_below_top = integer("layers_below_top", layers_below_top, at_least=0)
    lost = 1.0 - rho_time**2
    return _times_powers(1, rho_depth, 2 * layers_below_top, 1.0 / lost, layers_below_top + 1)


def far_corner_radius(steps: int, layers: int) -> float:
    """The equal radius in time and depth that keeps the gradient between the grid's far corners.

    From the last output to the first input lead C(T+L-2, L-1) paths of T+L-2 transitions each. In
    an isotropic network their energies add, and the radius makes the sum 1: it is near to 1 for
    long sequences and few layers, and near to 1/sqrt(2) where there are as many of both.

    Args:
        steps: number of time steps T.
        layers: number of layers L.

    Returns:
        C(T+L-2, L-1)^(-1/(2(T+L-2))).

    Raises:
        ValueError: steps or layers are below 1, or the grid is a single point without transitions.

    Example:
        >>> round(far_corner_radius(steps=112, layers=2), 2)
        0.98
    """
    advice = "A grid without steps or layers has no transitions."
    steps = positive_integer("steps", steps, advice=advice)
    layers = positive_integer("layers", layers, advice=advice)
    transitions = steps + layers - 2
    if transitions == 0:
        raise ValueError(
            f"A grid of {steps} steps and {layers} layers has no transitions between two corners: "
            "give 1 or more of each, and 2 or more of one."
        )
    # The number of paths may be too large for a float, its logarithm is not.
    energy_to_lose = math.log(number_of_paths(steps - 1, layers - 1))
    return math.exp(-energy_to_lose / (2 * transitions))


class PascalRNN:
    """The scalar network y_{t,l} = rho_t y_{t-1,l} + rho_l y_{t,l-1}: all paths add up exactly.

    Args:
        rho_time: weight in time.
        rho_depth: weight in depth.
        layers: number of layers L.

    Raises:
        ValueError: a weight is negative, or the number of layers is no positive integer.

    Source: arXiv 2308.12075, its counting example, here with unequal weights.

    Example:
        >>> PascalRNN(0.5, 0.5, layers=3).gradient_sum()
        1.0
    """

    def __init__(self, rho_time: float, rho_depth: float, layers: int):
        self.rho_time = number("rho_time", rho_time, at_least=0)
        self.rho_depth = number("rho_depth", rho_depth, at_least=0)
        self.layers = positive_integer("layers", layers)

    def gradient(self, delay: int) -> float:
        """d y_{t+delay,L} / d x_t = rho_l^L rho_t^delay C(L + delay - 1, L - 1)."""
        delay = integer("delay", delay, at_least=0)
        paths = number_of_paths(delay, self.layers - 1)
        return _times_powers(paths, self.rho_time, delay, self.rho_depth, self.layers)

    def gradient_sum(self, steps: int | None = None) -> float:
        """Sum of the gradient over delays 0 to `steps` - 1; over all delays without it.

        Returns:
            A float; over all delays (rho_l / (1 - rho_t))^L, infinite for rho_t >= 1.
        """
        if steps is not None:
            steps = integer("steps", steps, at_least=0)
            return float(sum(self.gradient(delay) for delay in range(steps)))
        if self.rho_time >= 1:
            return math.inf
        return _times_powers(1, self.rho_depth / (1 - self.rho_time), self.layers, 1.0, 0)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Top layer's outputs `(T,)` for the inputs `(T,)` of the lowest layer."""
        below = np.asarray(inputs, dtype=float)
        if below.ndim != 1:
            raise ValueError(f"inputs must be one number a step, got the shape {below.shape}.")
        for _ in range(self.layers):
            state, outputs = 0.0, np.empty_like(below)
            for t, x in enumerate(below):
                state = self.rho_time * state + self.rho_depth * x
                outputs[t] = state
            below = outputs
        return below
