"""What turns pictures into the inputs of a task.

Each takes the pixels of N pictures, `(N, height, width, channels)`, and returns the inputs: an
array of N rows, which the task brings into its shape, or spike trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_lsc.arguments import number, positive_integer
from keras_lsc.datasets.events import SpikeTrains

# The seed that the literature shares (uRNN, scoRNN, expRNN and what followed them).
_PERMUTATION_SEED = 92916


def in_unit_range(pixels: np.ndarray) -> np.ndarray:
    """Returns bytes as float32 in [0, 1]."""
    return np.divide(pixels, 255, dtype=np.float32)


def z_scored(
    mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the transform (pixels / 255 - mean) / deviation to float32, by channel.

    The moments are those of the whole training set, not of what is read: a subset then gets the
    same numbers as the whole.
    """
    scale = (1 / (255 * np.asarray(deviation))).astype(np.float32)
    shift = (np.asarray(mean) / np.asarray(deviation)).astype(np.float32)
    return lambda pixels: pixels * scale - shift


def standardized(mean: float, deviation: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the transform (pixels - mean) / deviation to float32, of pixels on any scale.

    It divides in double precision, for which large datasets have no room.
    """
    return lambda pixels: ((pixels - mean) / deviation).astype(np.float32)


def permutation() -> np.ndarray:
    """Returns the order in which `permuted` reads 784 pixels, as their row-major indices.

    Example:
        >>> sorted(permutation().tolist()) == list(range(784))
        True
    """
    # RandomState, because its stream is frozen for good and it is the one the others drew from.
    return np.random.RandomState(_PERMUTATION_SEED).permutation(784)


def permuted(pixels: np.ndarray) -> np.ndarray:
    """Returns bytes as float32 in [0, 1], pixel by pixel in the order of `permutation`."""
    return in_unit_range(pixels.reshape(len(pixels), 784)[:, permutation()])


def latency(intensity: np.ndarray, time_constant: float, threshold: float) -> np.ndarray:
    """Returns when a leaky unit that starts at 0 and is driven by `intensity` reaches `threshold`.

    Args:
        intensity: Float array of any shape, the constant input of each unit.
        time_constant: Float, time constant of the leak in time steps.
        threshold: Float, at which a unit spikes.

    Returns:
        Float array of that shape, in time steps; infinite where the threshold is never reached.

    Example:
        >>> import numpy as np
        >>> latency(np.array([1.0, 0.1]), time_constant=20.0, threshold=0.2).round(2).tolist()
        [4.46, inf]
    """
    time = np.full(np.shape(intensity), np.inf)
    fires = intensity > threshold
    time[fires] = time_constant * np.log(intensity[fires] / (intensity[fires] - threshold))
    return time


@dataclass(frozen=True)
class LatencyCode:
    """Every pixel spikes once, the brighter the sooner, and a dark one never.

    A pixel of intensity p spikes in step floor(time_constant * log(p / (p - threshold))).

    Attributes:
        steps: Positive integer, time steps of a sequence; later spikes are left out.
        time_constant: Positive float, time constant of the unit behind each pixel, in steps.
        threshold: Float in (0, 1], intensity that a pixel must exceed to spike.

    Raises:
        ValueError: A number is not a possible one.

    Source:
        The code and its numbers are those of F. Zenke's SpyTorch (current2firing_time).
    """

    steps: int = 100
    time_constant: float = 20.0
    threshold: float = 0.2

    def __post_init__(self) -> None:
        positive_integer("steps", self.steps)
        number("time_constant", self.time_constant, above=0)
        number("threshold", self.threshold, above=0, at_most=1)

    def __call__(self, pixels: np.ndarray) -> SpikeTrains:
        """Returns the spikes of every picture, `(N, steps, pixels)`."""
        pixels = pixels.reshape(len(pixels), -1)
        # A pixel has one of 256 intensities, so their times need computing once.
        time = np.floor(latency(np.arange(256) / 255, self.time_constant, self.threshold))
        step = np.where(time < self.steps, time, -1).astype(np.int32)[pixels]
        example, pixel = np.nonzero(step >= 0)
        starts = np.searchsorted(example, np.arange(len(pixels) + 1))
        size = (self.steps, pixels.shape[1])
        return SpikeTrains(starts, step[example, pixel], pixel.astype(np.int32), size)
