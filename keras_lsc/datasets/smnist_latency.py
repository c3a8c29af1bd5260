"""Latency-coded MNIST: every pixel spikes once, the brighter the sooner."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.datasets.checks import check_count, check_number
from keras_lsc.datasets.events import SpikeTrains
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images
from keras_lsc.datasets.mnist import mnist_info

INFO = mnist_info(
    "smnist_latency",
    "Handwritten digits as spikes: each of 784 pixels fires once, bright ones first.",
    (100, 784),
    "spikes",
)


def latency(intensity: np.ndarray, time_constant: float, threshold: float) -> np.ndarray:
    """Returns when a leaky unit that starts at 0 and is driven by `intensity` reaches `threshold`.

    Args:
        intensity: float array of any shape, constant input of each unit.
        time_constant: of the leak, in time steps.
        threshold: of the unit.

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


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    steps: int = 100,
    time_constant: float = 20.0,
    threshold: float = 0.2,
) -> Examples:
    """Reads MNIST digits as spike trains: a bright pixel spikes early, a dark one never.

    All of a split as one dense array takes 0.3 MB per digit, 17 GB for the training split; use
    `limit`, or `keras_lsc.datasets.batches`, which makes one batch at a time.

    Args:
        split: "train" (55,000 digits), "validation" (the last 5,000 of the training file) or
            "test" (10,000); no digit is in two of them.
        limit: read only the first `limit` digits of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.
        steps: time steps T of a sequence; later spikes are left out.
        time_constant: time constant of the unit behind each pixel, in steps.
        threshold: intensity in [0, 1) that a pixel must exceed to spike.

    Returns:
        Inputs: float32 (N, steps, 784), 1 where a pixel spikes; at most one 1 per pixel, in step
            floor(time_constant * log(p / (p - threshold))) for intensity p.
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split`, `limit` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("smnist_latency", split="test", limit=100)
        >>> x.shape
        (100, 100, 784)

    Source:
        The code and its numbers are those of F. Zenke's SpyTorch (current2firing_time).
    """
    check_count("steps", steps, at_least=1)
    check_number("time_constant", time_constant, above=0)
    check_number("threshold", threshold, above=0, at_most=1)
    pixels, labels = read_images(
        "smnist_latency", "mnist", split, limit=limit, data_dir=data_dir, download=download
    )
    # A pixel has one of 256 intensities, so their times need computing once.
    time = np.floor(latency(np.arange(256) / 255, time_constant, threshold))
    step = np.where(time < steps, time, -1).astype(np.int32)[pixels.reshape(len(pixels), 784)]
    example, pixel = np.nonzero(step >= 0)
    starts = np.searchsorted(example, np.arange(len(pixels) + 1))
    spikes = SpikeTrains(starts, step[example, pixel], pixel.astype(np.int32), (steps, 784))
    return Examples(spikes, labels)
