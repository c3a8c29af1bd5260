"""Spiking Heidelberg Digits: spoken digits as the spikes of a model of the ear."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_lsc.arguments import number
from keras_lsc.datasets.events import SpikeTrains, binned, count_bins
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import Part, checked_labels, damaged, read_examples

CHANNELS = 700
# The file has no validation split. Its examples are in random order, as TensorFlow Datasets
# shuffles them by a fixed hash, so the end of it holds all classes and speakers.
_PARTS = {
    "train": Part("train", stop=Fraction(9, 10)),
    "validation": Part("train", start=Fraction(9, 10)),
    "test": Part("test"),
}

INFO = TaskInfo(
    name="shd",
    description="Spiking Heidelberg Digits: English and German digits, spikes of 700 channels.",
    kind="spikes",
    shape=(100, CHANNELS),
    target="label",
    outputs=20,
    examples={"train": 7_340, "validation": 816, "test": 2_264},
    source="shd",
    licence="CC BY 4.0",
    homepage="https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    citation=(Path(__file__).parent / "builders" / "shd" / "CITATIONS.bib").read_text().strip(),
)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    bin_width: float = 0.014,
    max_time: float = 1.4,
) -> Examples:
    """Reads spoken digits as spike counts in time bins.

    The reader is tested on generated files in the layout of the official ones, not on the
    official files themselves, which were not at hand; their published MD5 sums are checked when
    the dataset is prepared.

    Args:
        split: "train" (the first nine tenths of the training file, 7,340 recordings),
            "validation" (its last tenth, 816) or "test" (2,264, two of their speakers heard
            nowhere else); no recording is in two of them.
        limit: read only the first `limit` recordings of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        manual_dir: folder with shd_train.h5 and shd_test.h5, from which the data is prepared when
            it is not in `data_dir`; None fetches them. Preparing needs h5py, not TensorFlow.
        download: whether the data may be fetched when it is not in `data_dir`.
        bin_width: Width of a time step, in seconds.
        max_time: length of a sequence, in seconds; later spikes are left out.

    Returns:
        Inputs: float32 (N, T, 700), spikes of each channel in each of T = round(max_time /
            bin_width) bins.
        Targets: int32 (N,), 0 to 9 the digits in German, 10 to 19 in English.

    Raises:
        ValueError: `split` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read or prepare the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("shd", "test", limit=64, manual_dir="downloads")  # doctest: +SKIP
        >>> x.shape  # doctest: +SKIP
        (64, 100, 700)

    Source:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, arXiv 1910.07407.
    """
    number("bin_width", bin_width, above=0)
    number("max_time", max_time, above=0)
    steps = count_bins(max_time, bin_width)
    recordings = read_examples(
        "shd",
        _PARTS[split],
        {"times": "floats", "units": "integers", "label": "integer"},
        limit=limit,
        data_dir=data_dir,
        manual_dir=manual_dir,
        download=download,
    )
    for times, units in ((one["times"], one["units"]) for one in recordings):
        is_whole = len(times) == len(units) and bool(np.isfinite(times).all())
        if not is_whole or (len(units) and not 0 <= units.min() <= units.max() < CHANNELS):
            reason = f"spikes are not pairs of a time and one of {CHANNELS} channels"
            raise damaged("shd", data_dir, reason)
    events = [
        binned(recording["times"], recording["units"], bin_width, steps) for recording in recordings
    ]
    labels = checked_labels("shd", recordings, INFO.outputs or 0, data_dir)
    return Examples(SpikeTrains.from_examples(events, (steps, CHANNELS)), labels)
