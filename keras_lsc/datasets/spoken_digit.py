"""Spoken digits as log-mel frames."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.arguments import number, positive_integer
from keras_lsc.datasets.events import count_bins
from keras_lsc.datasets.examples import Examples, padded
from keras_lsc.datasets.recordings import RATE, read_recordings, recordings_info
from keras_lsc.datasets.source import damaged

_FRAME, _HOP, _TRANSFORM = 200, 80, 256
# About the noise floor of the recordings; without it silence would be minus infinity.
_FLOOR = 1e-7

INFO = recordings_info(
    "spoken_digit",
    "Spoken digits of five speakers, log-mel frames every 10 ms.",
    (98, 40),
    "audio",
    padded=True,
)


def log_mel(audio: np.ndarray, mels: int = 40) -> np.ndarray:
    """Returns the log of the energies in triangular bands, spaced by the mel scale.

    Args:
        audio: float array (samples,), 8000 samples a second; at least one frame long.
        mels: number of bands from 0 to 4000 Hz.

    Returns:
        Float array (T, mels): Hann-windowed frames of 25 ms, 10 ms apart.

    Example:
        >>> import numpy as np
        >>> log_mel(np.sin(np.arange(8000))).shape
        (98, 40)
    """
    frames = np.lib.stride_tricks.sliding_window_view(audio, _FRAME)[::_HOP]
    spectra = np.fft.rfft(frames * np.hanning(_FRAME), _TRANSFORM)
    return np.log(np.abs(spectra) ** 2 @ _mel_filters(mels).T / _FRAME + _FLOOR)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    mels: int = 40,
    max_time: float = 1.0,
) -> Examples:
    """Reads spoken digits as log-mel frames, z-scored by band and padded with zeros.

    Reading imports no TensorFlow, although the audio feature of TensorFlow Datasets does.

    Args:
        split: "train" (2,000 recordings, takes 10 to 49 of each speaker and digit), "validation"
            (250, takes 5 to 9) or "test" (250, takes 0 to 4, as its authors propose).
        limit: return only the first `limit` recordings of the split; None returns them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.
        mels: number of bands from 0 to 4000 Hz.
        max_time: seconds after which a recording is cut; 4 of the 2,500 last longer than 1 s.

    Returns:
        Inputs: float32 (N, T, mels), T = 98 frames in a second; mean 0 and variance 1 over the
            frames of the training split, zeros after the end of a recording (see `masks` of
            `keras_lsc.datasets.load`).
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y, mask = datasets.load("spoken_digit", split="test", masks=True)
        >>> x.shape, mask.shape
        ((250, 98, 40), (250, 98))

    Source:
        Z. Jackson, Free Spoken Digit Dataset, 2016.
    """
    positive_integer("mels", mels)
    number("max_time", max_time, above=0)
    samples = count_bins(max_time, 1 / RATE)
    if samples < _FRAME:
        raise ValueError(f"max_time={max_time!r} is shorter than a frame of 0.025 s.")
    (training, _), (audio, labels) = read_recordings(
        ("train", split), limit=None, data_dir=data_dir, download=download
    )
    if any(len(one) < _FRAME for one in (*training, *audio)):
        raise damaged("spoken_digit", data_dir, "a recording is shorter than a frame of 25 ms")
    reference = np.concatenate([log_mel(one[:samples], mels) for one in training])
    mean, deviation = reference.mean(axis=0), reference.std(axis=0)
    if not deviation.all():
        raise damaged("spoken_digit", data_dir, "all recordings are alike in a band")
    frames = [(log_mel(one[:samples], mels) - mean) / deviation for one in audio[:limit]]
    x, lengths = padded(frames, steps=1 + (samples - _FRAME) // _HOP)
    return Examples(x, labels[:limit], lengths)


def _mel_filters(mels: int) -> np.ndarray:
    # No band is empty only if each has a line of the spectrum of its own, or shares one.
    if mels > _TRANSFORM:
        raise ValueError(f"mels={mels} bands are too narrow for frames of 25 ms; use fewer.")
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(_TRANSFORM, 1 / RATE)
    low, middle, high = (edges[shift : mels + shift, np.newaxis] for shift in range(3))
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling))
    if not filters.any(axis=1).all():
        raise ValueError(f"mels={mels} bands are too narrow for frames of 25 ms; use fewer.")
    return filters
