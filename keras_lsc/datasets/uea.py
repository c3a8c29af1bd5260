"""The UEA archive: any of its multivariate time series, from its files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from keras_lsc.arguments import number
from keras_lsc.datasets.examples import Examples, padded
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import DatasetUnavailableError, chosen_data_dir
from keras_lsc.datasets.ts import TimeSeries, TimeSeriesFormatError, read_ts

INFO = TaskInfo(
    name="uea",
    description="A multivariate time series of the UEA archive, from its .ts files.",
    kind="series",
    shape=(None, None),
    target="label",
    outputs=None,
    examples={"train": None, "validation": None, "test": None},
    padded=True,
    source="uea",
    licence="differs from problem to problem; see the archive",
    homepage="https://www.timeseriesclassification.com",
    citation="""@article{bagnall2018uea,
  title   = {The {UEA} multivariate time series classification archive, 2018},
  author  = {Bagnall, Anthony and Dau, Hoang Anh and Lines, Jason and Flynn, Michael and
             Large, James and Bostrom, Aaron and Southam, Paul and Keogh, Eamonn},
  journal = {arXiv preprint arXiv:1811.00075},
  year    = {2018}
}""",
)


_NAME = re.compile("[A-Za-z0-9_-]+")


def find_problems(data_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Returns the names of the problems whose files are in a folder, in alphabetical order.

    Args:
        data_dir: folder of the archive; None means the folder `uea` of the datasets.
    """
    return sorted(
        file.parent.name
        for file in _folder(data_dir).glob("*/*_TRAIN.ts")
        if file.name == f"{file.parent.name}_TRAIN.ts"
    )


def read(
    split: str = "train",
    *,
    problem: str | None = None,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    validation_share: float = 0.2,
) -> Examples:
    """Reads one problem of the UEA archive, padded with zeros to its longest series.

    The archive is a download of its own (see `info("uea").homepage`): unpack it so that
    `<data_dir>/<problem>/<problem>_TRAIN.ts` exists. `keras_lsc.datasets.read_ts` reads a single
    file.

    Args:
        split: "train" or "validation", both from the file _TRAIN, or "test", the file _TEST.
        problem: name of the problem, such as "JapaneseVowels".
        limit: return only the first `limit` series of the split; None returns them all.
        data_dir: folder of the archive; None means the folder `uea` of the datasets, which are in
            TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: accepted for likeness with the other tasks; the archive is never fetched.
        validation_share: the last part of each class in the file _TRAIN, in [0, 1), that is for
            validation, rounded up. With 0 all of it is for training, as in published results.

    Returns:
        Inputs: float32 (N, T, dimensions), T of the longest series of both files; zeros after the
            end of a series (see `masks` of `keras_lsc.datasets.load`).
        Targets: int32 (N,), indices of the classes in the order of the file's header.

    Raises:
        ValueError: the split, the problem or a number is not a possible one, or values are missing
            or too large for float32.
        DatasetUnavailableError: the files are not there, damaged, or of two problems.
        MemoryError: the padded series do not fit into the memory of this computer.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("uea", problem="JapaneseVowels", data_dir="uea")  # doctest: +SKIP
        >>> x.shape  # doctest: +SKIP
        (216, 29, 12)

    Source:
        A. Bagnall and others, arXiv 1811.00075.
    """
    del download
    number("validation_share", validation_share, at_least=0, below=1)
    if problem is not None and not (isinstance(problem, str) and _NAME.fullmatch(problem)):
        raise ValueError(
            f"problem must be the name of a problem, such as 'JapaneseVowels', got {problem!r}."
        )
    if problem is None:
        found = find_problems(data_dir)
        raise ValueError(
            "uea is an archive of many problems; name one, such as problem='JapaneseVowels'. In "
            f"{_folder(data_dir)} there are: {', '.join(found) or 'none'}."
        )
    files = {part: _read_file(problem, part, data_dir) for part in ("TRAIN", "TEST")}
    steps = max(len(series) for file in files.values() for series in file.series)
    train, test = files["TRAIN"], files["TEST"]
    for what, one, other in (
        ("classes", train.classes, test.classes),
        ("dimensions", train.series[0].shape[1], test.series[0].shape[1]),
    ):
        if one != other:
            raise DatasetUnavailableError(
                f"the two files of the uea problem {problem} do not belong together: their {what} "
                f"are {str(one)[:200]} and {str(other)[:200]}. Fetch both again."
            )
    file = files["TEST" if split == "test" else "TRAIN"]
    if file.labels is None:
        raise ValueError(f"the problem {problem} has no classes, so it is no classification task.")
    rows = np.arange(len(file.series))
    if split != "test":
        is_validation = _last_of_each_class(file.labels, validation_share)
        rows = rows[is_validation if split == "validation" else ~is_validation]
    if len(rows) == 0:
        raise ValueError(f"validation_share={validation_share!r} leaves {split} without examples.")
    rows = rows[:limit]
    series = [file.series[row] for row in rows]
    largest = max(float(np.abs(one).max()) for one in series)
    if largest > float(np.finfo(np.float32).max):
        raise ValueError(
            f"values of {problem} are up to {largest:g}, too large for float32; read the file with "
            "keras_lsc.datasets.read_ts and scale them."
        )
    x, lengths = padded(series, steps)
    if np.isnan(x).any():
        raise ValueError(
            f"values are missing in {problem}; read the file with keras_lsc.datasets.read_ts and "
            "fill the gaps, which are NaN there."
        )
    return Examples(x, file.labels[rows], lengths)


def _folder(data_dir: str | os.PathLike[str] | None) -> Path:
    return chosen_data_dir(data_dir) / ("uea" if data_dir is None else "")


def _read_file(problem: str, part: str, data_dir: str | os.PathLike[str] | None) -> TimeSeries:
    path = _folder(data_dir) / problem / f"{problem}_{part}.ts"
    if not path.is_file():
        found = find_problems(data_dir)
        raise DatasetUnavailableError(
            f"uea problem {problem!r} is not prepared: {path} does not exist. There are: "
            f"{', '.join(found) or 'none'}. Fetch it from {INFO.homepage} and unpack it there."
        )
    try:
        return read_ts(path)
    except (TimeSeriesFormatError, OSError) as error:
        raise DatasetUnavailableError(
            f"the file of the uea problem {problem} cannot be read: {error}. Fetch it again."
        ) from error


def _last_of_each_class(labels: np.ndarray, share: float) -> np.ndarray:
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen[rows[len(rows) - int(np.ceil(share * len(rows))) :]] = True
    return chosen
