"""Reader of `.ts`, the text format of the UEA archive of multivariate time series."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# More digits than any count of values on a disk has; int() itself takes thousands, and signs.
_COUNT = re.compile("[0-9]{1,15}")
_FLAGS = ("timestamps", "univariate", "equallength", "missing", "targetlabel")


class TimeSeriesFormatError(ValueError):
    """A file is not in the `.ts` format, or is damaged."""


@dataclass(frozen=True)
class TimeSeries:
    """What a `.ts` file holds.

    Attributes:
        name: Name of the problem.
        series: float64 arrays (T, dimensions); T may differ, and missing values are NaN.
        labels: int32 array (N,), indices into `classes`; None for files without labels.
        classes: names of the classes, in the order of the file's header.
    """

    name: str
    series: list[np.ndarray]
    labels: np.ndarray | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Header:
    """What the lines before the data say; None where they say nothing."""

    name: str | None
    classes: tuple[str, ...]
    dimensions: int | None
    length: int | None
    is_equal_length: bool


def read_ts(path: str | os.PathLike[str]) -> TimeSeries:
    """Reads a `.ts` file: a header of lines `@key value`, then one example a line.

    In an example the dimensions are separated by colons, the values of one by commas, and the
    label comes last. Files with time stamps, or with numbers to be predicted in place of classes,
    are refused, and so is all that the header says otherwise than the data.

    Args:
        path: Path of the file.

    Returns:
        A `TimeSeries`.

    Raises:
        ValueError: `path` is no path.
        OSError: there is no such file (FileNotFoundError), or it cannot be read.
        TimeSeriesFormatError: the file is not in the format, or breaks off; with the line.

    Example:
        >>> import keras_lsc
        >>> data = keras_lsc.datasets.read_ts("BasicMotions_TRAIN.ts")  # doctest: +SKIP
        >>> data.series[0].shape, data.classes  # doctest: +SKIP
        ((100, 6), ('Standing', 'Running', 'Walking', 'Badminton'))

    Source:
        A. Bagnall and others, "The UEA multivariate time series classification archive",
        arXiv 1811.00075.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise ValueError(f"path must be the path of a .ts file, got {path!r}.")
    path = Path(path)
    lines = _lines(path)
    header = _read_header(lines, path)
    series: list[np.ndarray] = []
    labels = []
    for place, line in lines:
        *values, last = line.split(":")
        if not header.classes:
            values.append(last)
        elif last.strip() in header.classes:
            labels.append(header.classes.index(last.strip()))
        else:
            raise TimeSeriesFormatError(
                f"{place}: ends in {last.strip()[:40]!r}, which is none of the classes "
                f"{', '.join(header.classes)[:200]}; is the file complete?"
            )
        example = _example(values, place)
        _check_shape(example.shape, series[0].shape if series else None, header, place)
        series.append(example)
    if not series:
        raise TimeSeriesFormatError(f"{path}: no examples; is the file complete?")
    return TimeSeries(
        name=header.name or path.stem,
        series=series,
        labels=np.array(labels, dtype=np.int32) if header.classes else None,
        classes=header.classes,
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Gives the lines that say something, each after its place."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            place = f"{path}, line {number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise TimeSeriesFormatError(
                    f"{place}: no text in UTF-8 ({error.reason} at byte {error.start} of the line)"
                ) from None
            if "\0" in line:
                raise TimeSeriesFormatError(f"{place}: has a NUL byte, so it is no line of text")
            if line and not line.startswith("#"):
                yield place, line


def _read_header(lines: Iterator[tuple[str, str]], path: Path) -> _Header:
    given: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, line in lines:
        if not line.startswith("@"):
            raise TimeSeriesFormatError(f"{place}: data before the line @data")
        key, *rest = line[1:].split(maxsplit=1)[:2] or [""]
        key, value = key.lower(), rest[0] if rest else ""
        if not key:
            raise TimeSeriesFormatError(f"{place}: an @ without a key")
        if given.get(key, value) != value:
            raise TimeSeriesFormatError(
                f"{place}: @{key} is {value[:40]!r}, and was {given[key][:40]!r} before"
            )
        given[key], places[key] = value, place
        if key == "data":
            if value:
                raise TimeSeriesFormatError(f"{place}: @data stands alone on its line")
            return _checked_header(given, places)
    raise TimeSeriesFormatError(f"{path}: no line @data; is the file complete?")


def _checked_header(given: dict[str, str], places: dict[str, str]) -> _Header:
    flags = {key: _flag(given.get(key, "false"), key, places) for key in _FLAGS}
    if flags["timestamps"]:
        raise TimeSeriesFormatError(
            f"{places['data']}: files with time stamps are not read; resample to even steps first"
        )
    if flags["targetlabel"]:
        raise TimeSeriesFormatError(
            f"{places['targetlabel']}: files with numbers to be predicted are not read, only those "
            "with classes (@classLabel) or without labels"
        )
    dimensions = [
        _count(given[key], key, places) for key in ("dimensions", "dimension") if key in given
    ]
    if flags["univariate"]:
        dimensions.append(1)
    if len(set(dimensions)) > 1:
        raise TimeSeriesFormatError(
            f"{places['data']}: the header gives {' and '.join(map(str, dimensions))} dimensions"
        )
    return _Header(
        name=given.get("problemname"),
        classes=_classes(given, places),
        dimensions=dimensions[0] if dimensions else None,
        length=(
            _count(given["serieslength"], "serieslength", places)
            if "serieslength" in given
            else None
        ),
        is_equal_length=flags["equallength"],
    )


def _flag(value: str, key: str, places: dict[str, str]) -> bool:
    if value.lower() not in ("true", "false"):
        raise TimeSeriesFormatError(
            f"{places[key]}: @{key} must be true or false, got {value[:40]!r}"
        )
    return value.lower() == "true"


def _count(value: str, key: str, places: dict[str, str]) -> int:
    if not _COUNT.fullmatch(value) or int(value) == 0:
        raise TimeSeriesFormatError(
            f"{places[key]}: @{key} must be a positive integer, got {value[:40]!r}"
        )
    return int(value)


def _classes(given: dict[str, str], places: dict[str, str]) -> tuple[str, ...]:
    has_labels, *names = given.get("classlabel", "false").split() or [""]
    if not _flag(has_labels, "classlabel", places):
        return ()
    if not names or len(set(names)) < len(names):
        what = "names a class twice" if names else "names no classes"
        raise TimeSeriesFormatError(f"{places['classlabel']}: @classLabel true {what}")
    return tuple(names)


def _example(values: list[str], place: str) -> np.ndarray:
    dimensions = [[_number(value, place) for value in one.split(",")] for one in values]
    if not dimensions:
        raise TimeSeriesFormatError(f"{place}: a label without a series")
    if len({len(dimension) for dimension in dimensions}) != 1:
        raise TimeSeriesFormatError(f"{place}: the dimensions differ in length")
    return np.array(dimensions).T


def _number(value: str, place: str) -> float:
    if value.strip() == "?":
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    # float() also takes digits of other scripts, underscores, "nan", and 1e999 as infinity.
    if not math.isfinite(number) or "_" in value or not value.isascii():
        raise TimeSeriesFormatError(
            f"{place}: {value.strip()[:40]!r} is no finite number, nor ? for a missing one"
        )
    return number


def _check_shape(
    shape: tuple[int, ...], first: tuple[int, ...] | None, header: _Header, place: str
) -> None:
    length, dimensions = shape
    if header.dimensions not in (None, dimensions):
        raise TimeSeriesFormatError(
            f"{place}: {dimensions} dimensions, and the header says {header.dimensions}"
        )
    if header.length not in (None, length):
        raise TimeSeriesFormatError(
            f"{place}: {length} time steps, and the header says {header.length}"
        )
    if first is None:
        return
    if dimensions != first[1]:
        raise TimeSeriesFormatError(
            f"{place}: {dimensions} dimensions, and the examples before have {first[1]}"
        )
    if header.is_equal_length and length != first[0]:
        raise TimeSeriesFormatError(
            f"{place}: {length} time steps where the first has {first[0]}, and the header says "
            "that all are equally long"
        )
