"""Checks of the arguments that every task shares."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

from keras_lsc.arguments import is_too_large


def check_split(dataset: str, split: str, known: Collection[str]) -> None:
    """Raises ValueError unless `split` is one of the dataset's splits."""
    # A split need not be hashable to be refused.
    if split not in list(known):
        raise ValueError(f"{dataset} has no split {split!r}; use one of {', '.join(known)}.")


def check_limit(limit: Any) -> None:
    """Raises ValueError unless `limit` is None or a number of examples."""
    if limit is not None:
        check_count("limit", limit, at_least=1)


def check_count(argument: str, value: Any, at_least: int) -> None:
    """Raises ValueError unless `value` is an integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{argument}={value!r} is not an integer of at least {at_least}.")


def check_number(argument: str, value: Any, above: float, at_most: float = math.inf) -> None:
    """Raises ValueError unless `value` is a number in (above, at_most] and finite."""
    if not (_is_finite(value) and above < value <= at_most):
        raise ValueError(f"{argument}={value!r} is not a number in ({above:g}, {at_most:g}].")


def check_share(argument: str, value: Any) -> None:
    """Raises ValueError unless `value` is a number in [0, 1)."""
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"{argument}={value!r} is not a number in [0, 1).")


def check_flag(argument: str, value: Any) -> None:
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument}={value!r} is neither True nor False.")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return not is_too_large(value) and math.isfinite(value)
