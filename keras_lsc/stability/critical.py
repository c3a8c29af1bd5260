"""Critical initialisation of deep feed-forward nets: neither signals nor gradients grow or decay.

With biases of variance C_b and weights of variance C_W / fan_in, a preactivation of variance K has
the variance C_b + C_W g(K) a layer on, g(K) being the mean of sigma(z)^2 over z ~ N(0, K). The
distance of two copies grows by chi_parallel = C_W g'(K) along the signal and by chi_perp = C_W
<sigma'(z)^2> across it, and gradients as well. A net is critical where K stays as it is and both
are 1.

Source: Roberts, Yaida and Hanin, The Principles of Deep Learning Theory, arXiv 2106.10165, ch. 5.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_lsc import arguments

Array = np.ndarray
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_STEP = 1e-5


class Critical(NamedTuple):
    """A critical initialisation.

    Attributes:
        bias_variance: C_b.
        weight_variance: C_W, of weights of variance C_W / fan_in.
        signal: K, the variance of preactivations that stays; None where any does, 0 where it decays
            slowly (as one over the depth).
    """

    bias_variance: float
    weight_variance: float
    signal: float | None


def _gelu(z: Array) -> Array:
    return 0.5 * z * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0)))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "sin": np.sin,
    "gelu": _gelu,
    "silu": lambda z: z / (1.0 + np.exp(-z)),
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
}


def critical(activation: str | Callable[[Array], Array]) -> Critical:
    """Returns the variances at which a deep net of an activation is critical.

    He's initialisation is that of relu (C_W = 2), and for tanh orthogonal matrices and Glorot's of
    square ones are (C_W = 1).

    Args:
        activation: "linear", "relu", "tanh", "sin", "gelu", "silu", "sigmoid", or a smooth function
            of a NumPy array.

    Raises:
        ValueError: it has no critical initialisation, as the sigmoid, or the name is unknown.

    Source: arXiv 2106.10165, sections 5.2 to 5.4.

    Example:
        >>> critical("relu")
        Critical(bias_variance=0.0, weight_variance=2.0, signal=None)
        >>> [round(value, 4) for value in critical("gelu")[:2]]
        [0.1729, 1.9831]
    """
    if callable(activation):
        function = activation
    else:
        function = _ACTIVATIONS[arguments.one_of("activation", activation, _ACTIVATIONS)]
    z = np.linspace(-3.0, 3.0, 25)
    if np.allclose(function(2.0 * z), 2.0 * function(z), atol=1e-12):
        # A kink at zero is between nodes, whose number is even.
        return Critical(0.0, round(1.0 / _mean_square(function, 1.0), 12), None)
    signals = np.geomspace(1e-2, 30.0, 60)
    differences = [_difference(function, signal) for signal in signals]
    for near, far, one, other in zip(
        signals, signals[1:], differences, differences[1:], strict=False
    ):
        if one * other < 0:
            found = _at(function, _root(function, near, far))
            if found.bias_variance >= 0:
                return found
    at_zero = float(function(np.zeros(1))[0])
    slope = float(_slopes(function, np.zeros(1))[0])
    if abs(at_zero) < 1e-12 and abs(slope) > 1e-6:
        return Critical(0.0, round(1.0 / slope**2, 9), 0.0)
    raise ValueError(
        f"The activation {activation!r} has no critical initialisation: at no variance do signals "
        "stay as they are while gradients do. Subtract its value at zero, or take another."
    )


def residual_growth(layers: int, scale: float) -> float:
    """How much the variance of a signal grows in residual layers x + scale * f(x).

    Of branches that keep the variance of what they read, as critical ones do: (1 + scale^2)^layers.
    With 1/sqrt(layers) it stays below e at any depth.

    Args:
        layers: number of residual layers.
        scale: factor of every branch.

    Example:
        >>> round(residual_growth(1000, 1000**-0.5), 3)
        2.717
    """
    layers = arguments.positive_integer("layers", layers)
    scale = arguments.number("scale", scale, at_least=0)
    return (1.0 + scale**2) ** layers


def _mean_square(function: Callable, signal: float) -> float:
    return float(_WEIGHTS @ np.square(function(math.sqrt(signal) * _NODES)))


def _slopes(function: Callable, z: Array) -> Array:
    return (function(z + _STEP) - function(z - _STEP)) / (2.0 * _STEP)


def _difference(function: Callable, signal: float) -> float:
    """g'(K) - <sigma'^2>: where it is 0, one C_W makes both growths 1."""
    z = math.sqrt(signal) * _NODES
    along = float(_WEIGHTS @ (np.square(function(z)) * (z**2 - signal))) / (2.0 * signal**2)
    return along - float(_WEIGHTS @ np.square(_slopes(function, z)))


def _root(function: Callable, near: float, far: float) -> float:
    side = _difference(function, near)
    for _ in range(60):
        middle = math.sqrt(near * far)
        near, far = (middle, far) if side * _difference(function, middle) > 0 else (near, middle)
    return math.sqrt(near * far)


def _at(function: Callable, signal: float) -> Critical:
    across = float(_WEIGHTS @ np.square(_slopes(function, math.sqrt(signal) * _NODES)))
    weight_variance = 1.0 / across
    bias_variance = signal - weight_variance * _mean_square(function, signal)
    return Critical(bias_variance, weight_variance, signal)
