"""Rows of a benchmark that is taken up where it stopped: which are there, and which are missing."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def is_of(row: Row, setting: Row) -> bool:
    """Whether a row is that of a setting."""
    return all(row[key] == value for key, value in setting.items())


def is_wanted(setting: Row, rows: Sequence[Row], only: Sequence[str], cap: float) -> bool:
    """Whether a row is to be measured.

    Args:
        setting: of the row.
        rows: that are there; one that did not end in time has the `cap` that it had.
        only: values that the setting has to have, as texts.
        cap: seconds that a row may take now.
    """
    known = [row for row in rows if is_of(row, setting)]
    is_there = any(cap <= row.get("cap", cap) for row in known)
    return not is_there and {*only} <= {str(value) for value in setting.values()}


def with_row(rows: Sequence[Row], row: Row, setting: Row, every: Iterable[Row]) -> list[Row]:
    """The rows with a new one in place of those of its setting, in the order of all settings."""
    kept = [row, *(other for other in rows if not is_of(other, setting))]
    return [one for wanted in every for one in kept if is_of(one, wanted)]
