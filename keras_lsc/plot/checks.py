"""Checks of what a picture is drawn from."""

from collections.abc import Sequence
from typing import Any


def check_labels(labels: Sequence[str]) -> None:
    """Raises ValueError unless there are two texts."""
    is_list = isinstance(labels, list | tuple)
    if not is_list or len(labels) != 2 or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a pair of strings, got {labels!r}.")


def check_type(name: str, value: Any, expected: type, advice: str) -> None:
    """Raises ValueError, which ends in the advice, for a value of another class."""
    if not isinstance(value, expected):
        raise ValueError(f"{name} must be a {expected.__name__}, got {value!r:.200}. {advice}")
