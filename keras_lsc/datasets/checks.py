"""Checks of the arguments that every task shares."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def check_split(dataset: str, split: str, known: Collection[str]) -> None:
    """Raises ValueError unless `split` is one of the dataset's splits."""
    if split not in known:
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
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and above < float(value) <= at_most and math.isfinite(value)):
        raise ValueError(f"{argument}={value!r} is not a number in ({above:g}, {at_most:g}].")


def check_share(argument: str, value: Any) -> None:
    """Raises ValueError unless `value` is a number in [0, 1)."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and 0 <= float(value) < 1):
        raise ValueError(f"{argument}={value!r} is not a number in [0, 1).")
