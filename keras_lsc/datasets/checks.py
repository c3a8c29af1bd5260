"""Checks of the arguments that every task shares."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any


def check_split(dataset: str, split: str, known: Collection[str]) -> None:
    """Raises ValueError unless `split` is one of the dataset's splits."""
    if split not in known:
        raise ValueError(f"{dataset} has no split {split!r}; use one of {', '.join(known)}.")


def check_count(argument: str, value: Any, at_least: int) -> None:
    """Raises ValueError unless `value` is an integer of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"{argument}={value!r} is not an integer of at least {at_least}.")
