"""What radius a transition should have: the paper's targets and the energy-preserving ones."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

Target = str | float | tuple[float, float]

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
        ValueError: `target` is none of these, or not positive and finite.

    Example:
        >>> resolve((0.9, 0.4), depth=2, steps=28)
        (0.9, 0.4)
    """
    if isinstance(target, str):
        if target not in _NAMED:
            raise ValueError(
                f"Unknown target {target!r}. Expected one of {', '.join(map(repr, _NAMED))}, "
                "a positive number, or a pair (rho_t, rho_l)."
            )
        if target == "variance":
            share = 0.5 if steps else 1.0
            return math.sqrt(1.0 - share) if steps else 1.0, math.sqrt(share)
        time, layers = steps / (depth + steps), depth / (depth + steps)
        if target == "variance-unbalanced":
            time, layers = math.sqrt(time), math.sqrt(layers)
        return (time, layers) if steps else (1.0, layers)
    pair = target if isinstance(target, Sequence) else (target, target)
    if len(pair) != 2 or not all(_is_radius(value) for value in pair):
        raise ValueError(
            f"Target {target!r} is not a radius. Expected a positive finite number, a pair "
            f"(rho_t, rho_l) of them, or one of {', '.join(map(repr, _NAMED))}."
        )
    return float(pair[0]), float(pair[1])


def _is_radius(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
