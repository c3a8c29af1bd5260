"""Seconds of calls, taken in turn in one process."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summary(samples: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return {"median": float(middle), "low": float(low), "high": float(high), "n": len(samples)}


def in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """The summary of each of several calls, made one after the other in every round."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(seconds(call))
    return {name: summary(values) for name, values in samples.items()}
