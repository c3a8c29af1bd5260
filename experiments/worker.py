"""A worker of the runner: settings of one network in, a row for each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from experiments.settings import Setting


def runner() -> Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]:
    """What makes the runs of settings that share a network, in the order of `in_order`."""
    return _rows


def _rows(given: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from experiments.runs import Workplace

    settings = [Setting.from_dict(values) for values in given]
    yield from Workplace(settings[0]).runs(settings)
