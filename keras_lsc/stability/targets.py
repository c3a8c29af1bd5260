"""What radius a transition should have: the paper's targets and the energy-preserving ones."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lsc.arguments import integer, is_too_large

Target = str | float | tuple[float, float]

# Squares of radii are float32.
_SMALLEST, _LARGEST = 1e-15, 1e15
_NAMED = ("variance", "unbalanced", "variance-unbalanced")


def resolve(target: Target, depth: int, steps: int) -> tuple[float, float]:
    """Returns the radii (rho_t, rho_l) that `target` asks of a network.

    Args:
        target: "variance" (rho_t = rho_l = 1/sqrt(2): energies add, rho_t^2 + rho_l^2 = 1), one
            number for both, a pair (rho_t, rho_l), "unbalanced" (rho_l = L/(L+T),
            rho_t = T/(L+T), arXiv 2308.12075) or "variance-unbalanced" (the same for the squares).
        depth: number of layers L.
        steps: number of time steps T; 0 for a feed-forward network, where no energy goes through
            time and every named target asks rho_l = 1.

    Returns:
        The pair of floats (rho_t, rho_l).

    Raises:
        ValueError: `target` is none of these, or not from 1e-15 to 1e15.

    Example:
        >>> resolve((0.9, 0.4), depth=2, steps=28)
        (0.9, 0.4)
    """
    depth, steps = integer("depth", depth, at_least=1), integer("steps", steps, at_least=0)
    chosen = checked(target)
    if isinstance(chosen, tuple):
        return chosen
    if not isinstance(chosen, str):
        return chosen, chosen
    if chosen == "variance":
        share = 0.5 if steps else 1.0
        return math.sqrt(1.0 - share) if steps else 1.0, math.sqrt(share)
    time, layers = steps / (depth + steps), depth / (depth + steps)
    if chosen == "variance-unbalanced":
        time, layers = math.sqrt(time), math.sqrt(layers)
    return (time, layers) if steps else (1.0, layers)


def checked(target: Any) -> Target:
    """Returns a target in plain Python types, as it is written to files and messages.

    Args:
        target: Target, as `resolve` takes it; numbers and pairs of NumPy are taken as well.

    Returns:
        The name, a float, or a pair of floats.

    Raises:
        ValueError: `target` is none of these, or not from 1e-15 to 1e15.

    Example:
        >>> checked([1, 0.5])
        (1.0, 0.5)
    """
    if isinstance(target, str):
        if target in _NAMED:
            return str(target)
        raise ValueError(
            f"Unknown target {target!r}. Expected one of {', '.join(map(repr, _NAMED))}, "
            "a positive number, or a pair (rho_t, rho_l)."
        )
    given = target.tolist() if isinstance(target, np.ndarray) else target
    radii = tuple(given) if isinstance(given, Sequence) else (given, given)
    if len(radii) != 2 or not all(_is_radius(radius) for radius in radii):
        raise ValueError(
            f"Target {target!r} is not a radius. Expected a positive finite number, from "
            f"{_SMALLEST:g} to {_LARGEST:g}, a pair (rho_t, rho_l) of them, or one of "
            f"{', '.join(map(repr, _NAMED))}."
        )
    pair = float(radii[0]), float(radii[1])
    return pair if isinstance(given, Sequence) else pair[0]


def _is_radius(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return not is_too_large(value) and _SMALLEST <= float(value) <= _LARGEST
