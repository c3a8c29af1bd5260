"""Spike trains kept as events, and made dense a batch at a time."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpikeTrains:
    """Spikes of N examples as events, which become counts (rows, T, channels) when indexed.

    Dense, these arrays are mostly zeros and seldom fit into memory: all of latency-coded MNIST
    takes 17 gigabytes.

    Attributes:
        starts: int64 array (N + 1,); the events of example i are `starts[i]` to `starts[i + 1]`.
        steps: integer array (events,), the time step of each event.
        channels: integer array (events,), its channel.
        size: time steps T and number of channels.
    """

    starts: np.ndarray
    steps: np.ndarray
    channels: np.ndarray
    size: tuple[int, int]

    @classmethod
    def from_examples(
        cls, examples: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int]
    ) -> SpikeTrains:
        """Makes spike trains of pairs (steps, channels), one per example."""
        starts = np.cumsum([0, *(len(steps) for steps, _ in examples)])
        steps = np.concatenate([steps for steps, _ in examples] or [np.zeros(0)])
        channels = np.concatenate([channels for _, channels in examples] or [np.zeros(0)])
        return cls(starts, steps.astype(np.int32), channels.astype(np.int32), size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense array, (N, T, channels)."""
        return (len(self.starts) - 1, *self.size)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns the spike counts of the chosen examples, float32 (rows, T, channels).

        Raises:
            MemoryError: the array is larger than the memory of this computer.
        """
        starts, stops = self.starts[:-1][rows], self.starts[1:][rows]
        shape = (len(starts), *self.size)
        check_memory(shape)
        counts = np.zeros(shape, dtype=np.float32)
        lengths = stops - starts
        # The positions of all events of all chosen rows, without a loop over the rows.
        before = np.cumsum(lengths) - lengths
        events = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
        example = np.repeat(np.arange(len(starts)), lengths)
        # add.at, unlike an assignment, counts two spikes of one channel in one step as two.
        np.add.at(counts, (example, self.steps[events], self.channels[events]), 1.0)
        return counts


def check_memory(shape: tuple[int, ...]) -> None:
    """Raises MemoryError where a float32 array is larger than the memory of this computer."""
    wanted = 4 * math.prod(map(int, shape))
    if not hasattr(os, "sysconf"):  # Windows refuses such an allocation by itself.
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory:
        raise MemoryError(
            f"an array of shape {shape} takes {wanted / 1e9:.1f} GB and this computer has "
            f"{memory / 1e9:.1f} GB; pass limit=, or use keras_lsc.datasets.batches, which makes "
            "one batch at a time."
        )


def count_bins(max_time: float, bin_width: float) -> int:
    """Returns how many bins make up a time, at least one.

    Raises:
        ValueError: there are more than an array can have.

    Example:
        >>> count_bins(1.4, 0.014)
        100
    """
    bins = max_time / bin_width
    if not bins < np.iinfo(np.int32).max:
        raise ValueError(
            f"max_time={max_time!r} with bin_width={bin_width!r} makes too many time steps "
            f"({bins:g}); use a shorter time or wider bins."
        )
    return max(1, round(bins))


def binned(
    times: np.ndarray, channels: np.ndarray, bin_width: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns time steps and channels of the spikes that fall into `steps` bins.

    Args:
        times: float array (events,), seconds.
        channels: int array (events,).
        bin_width: seconds.
        steps: number of bins; spikes after the last one are left out.

    Returns:
        Two int32 arrays (kept events,).

    Example:
        >>> import numpy as np
        >>> step, channel = binned(np.array([0.0, 0.019, 0.5]), np.array([3, 4, 5]), 0.01, 10)
        >>> step.tolist(), channel.tolist()
        ([0, 1], [3, 4])
    """
    # In float64: recordings come with half precision, whose quotients would round up to the next.
    step = np.floor(np.asarray(times, dtype=np.float64) / bin_width)
    kept = (step >= 0) & (step < steps)
    return step[kept].astype(np.int32), np.asarray(channels)[kept].astype(np.int32)
