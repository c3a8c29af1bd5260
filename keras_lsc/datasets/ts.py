"""Reader of `.ts`, the text format of the UEA archive of multivariate time series."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class TimeSeriesFormatError(ValueError):
    """A file is not in the `.ts` format, or is damaged."""


@dataclass(frozen=True)
class TimeSeries:
    """What a `.ts` file holds.

    Attributes:
        name: of the problem.
        series: float64 arrays (T, dimensions); T may differ, and missing values are NaN.
        labels: int32 array (N,), indices into `classes`; None for files without labels.
        classes: names of the classes, in the order of the file's header.
    """

    name: str
    series: list[np.ndarray]
    labels: np.ndarray | None
    classes: tuple[str, ...]


def read_ts(path: str | os.PathLike[str]) -> TimeSeries:
    """Reads a `.ts` file: a header of lines `@key value`, then one example a line.

    In an example the dimensions are separated by colons, the values of one by commas, and the
    label comes last. Files with time stamps are refused.

    Args:
        path: of the file.

    Returns:
        A `TimeSeries`.

    Raises:
        FileNotFoundError: there is no such file.
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
    path = Path(path)
    header: dict[str, str] = {}
    classes: tuple[str, ...] = ()
    series, labels = [], []
    in_data = False
    for number, raw in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        line, place = raw.strip(), f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        if not in_data:
            if not line.startswith("@"):
                raise TimeSeriesFormatError(f"{place}: data before the line @data")
            key, _, value = line[1:].partition(" ")
            header[key.lower()] = value.strip()
            in_data = key.lower() == "data"
            if in_data:
                classes = _classes(header, place)
            continue
        *values, last = line.split(":")
        if not classes:
            values.append(last)
        elif last.strip() in classes:
            labels.append(classes.index(last.strip()))
        else:
            raise TimeSeriesFormatError(
                f"{place}: ends in {last.strip()[:40]!r}, which is none of the classes "
                f"{', '.join(classes)}; is the file complete?"
            )
        series.append(_example(values, header, place))
    if not series:
        raise TimeSeriesFormatError(f"{path}: no examples; is the file complete?")
    return TimeSeries(
        name=header.get("problemname", path.stem),
        series=series,
        labels=np.array(labels, dtype=np.int32) if classes else None,
        classes=classes,
    )


def _classes(header: dict[str, str], place: str) -> tuple[str, ...]:
    if header.get("timestamps", "false").lower() == "true":
        raise TimeSeriesFormatError(
            f"{place}: files with time stamps are not read; resample to even steps first"
        )
    has_labels, *names = header.get("classlabel", "false").split()
    return tuple(names) if has_labels.lower() == "true" else ()


def _example(values: list[str], header: dict[str, str], place: str) -> np.ndarray:
    try:
        dimensions = [
            [np.nan if value.strip() == "?" else float(value) for value in dimension.split(",")]
            for dimension in values
        ]
    except ValueError as error:
        raise TimeSeriesFormatError(f"{place}: {error}") from error
    if len({len(dimension) for dimension in dimensions}) != 1:
        raise TimeSeriesFormatError(f"{place}: the dimensions differ in length")
    expected = header.get("dimensions", header.get("dimension"))
    if expected is not None and len(dimensions) != int(expected):
        raise TimeSeriesFormatError(
            f"{place}: {len(dimensions)} dimensions, and the header says {expected}"
        )
    length = header.get("serieslength")
    if length is not None and len(dimensions[0]) != int(length):
        raise TimeSeriesFormatError(
            f"{place}: {len(dimensions[0])} time steps, and the header says {length}"
        )
    return np.array(dimensions).T
