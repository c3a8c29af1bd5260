"""Spoken digits as spikes of a model of the inner ear."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.arguments import number, positive_integer
from keras_lsc.datasets.cochlea import Cochlea
from keras_lsc.datasets.events import SpikeTrains, binned, count_bins
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.recordings import RATE, read_recordings, recordings_info

INFO = recordings_info(
    "spoken_digit_spikes",
    "Spoken digits of five speakers, spikes of 64 to 700 channels of a model of the inner ear.",
    (100, 64),
    "spikes",
    padded=True,
)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    channels: int = 64,
    bin_width: float = 0.01,
    max_time: float = 1.0,
) -> Examples:
    """Reads spoken digits as spike counts of a model of the inner ear, in time bins.

    Each recording is brought to peak 1 and then goes through `keras_lsc.datasets.Cochlea`. The
    encoding is computed on every call, in time proportional to `channels`.

    Args:
        split: "train" (2,000 recordings, takes 10 to 49 of each speaker and digit), "validation"
            (250, takes 5 to 9) or "test" (250, takes 0 to 4, as its authors propose).
        limit: return only the first `limit` recordings of the split; None returns them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.
        channels: number of channels, from 60 Hz to 3600 Hz.
        bin_width: Width of a time step, in seconds.
        max_time: seconds after which a recording is cut; 4 of the 2,500 last longer than 1 s.

    Returns:
        Inputs: float32 (N, T, channels), spikes of each channel in each of T = round(max_time /
            bin_width) bins; zeros after the end of a recording (see `masks` of
            `keras_lsc.datasets.load`).
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("spoken_digit_spikes", split="test", limit=9, channels=700)
        >>> x.shape
        (9, 100, 700)

    Source:
        The recordings: Z. Jackson, Free Spoken Digit Dataset, 2016. The encoder:
        `keras_lsc.datasets.Cochlea`.
    """
    positive_integer("channels", channels)
    number("bin_width", bin_width, above=0)
    number("max_time", max_time, above=0)
    steps = count_bins(max_time, bin_width)
    samples = count_bins(max_time, 1 / RATE)
    ((audio, labels),) = read_recordings(
        (split,), limit=limit, data_dir=data_dir, download=download
    )
    audio = [one[:samples] / max(np.abs(one).max(), 1e-9) for one in audio]
    events = [
        binned(times, units, bin_width, steps)
        for times, units in Cochlea(channels=channels, rate=RATE).encode(audio)
    ]
    lengths = np.ceil([len(one) / RATE / bin_width for one in audio]).astype(np.int32)
    spikes = SpikeTrains.from_examples(events, (steps, channels))
    return Examples(spikes, labels, np.minimum(lengths, steps))
