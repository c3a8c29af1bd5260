"""Reading data that TensorFlow Datasets prepared, without importing TensorFlow."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc.arguments import flag
from keras_lsc.datasets.records import DamagedRecordsError, FeatureKind, read_records

_MODULES = ("tensorflow_datasets", "array_record", "PIL", "requests")
_SECONDS_TO_ANSWER = 5.0
# The builders that come with this package; unlike most others they prepare without TensorFlow.
_OWN_BUILDERS = ("ptb", "shd")
_VERSION = re.compile("([0-9]{1,9})[.]([0-9]{1,9})[.]([0-9]{1,9})")
_SPLIT = re.compile("[A-Za-z0-9_]{1,100}")
_LENGTH = re.compile("[0-9]{1,15}")
_MOST_BYTES_OF_A_DESCRIPTION = 2**24
# What Pillow raises for damaged pictures besides OSError, SyntaxError and EOFError.
_BROKEN = (ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error, zlib.error)


class DatasetUnavailableError(RuntimeError):
    """The data of a task is not on this computer and could not be fetched."""


@dataclass(frozen=True)
class Part:
    """A part of a file of examples that serves as a split.

    Attributes:
        file: split of TensorFlow Datasets.
        start: where the part starts, as a share of the file.
        stop: where it ends.
    """

    file: str
    start: Fraction = Fraction(0)
    stop: Fraction = Fraction(1)

    def rows(self, count: int, limit: int | None) -> range:
        """Returns the rows of the part, of a file of `count` examples, at most `limit`."""
        start, stop = int(self.start * count), int(self.stop * count)
        return range(start, stop if limit is None else min(stop, start + limit))


@dataclass(frozen=True)
class Prepared:
    """A dataset that is prepared on this computer.

    Attributes:
        folder: Folder that holds it.
        version: Version of the dataset.
        examples: number of examples in each of its files.
        size: bytes that it takes on the disk.
    """

    folder: Path
    version: str
    examples: dict[str, int]
    size: int


def default_data_dir() -> Path:
    """Returns the folder that TensorFlow Datasets uses: TFDS_DATA_DIR, or one in the home."""
    # TensorFlow Datasets reads the variable once, at import; a later change would be lost there.
    return _folder("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def chosen_data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns `data_dir`, or the default where it is None.

    Raises:
        ValueError: it is no path of a folder.
    """
    return default_data_dir() if data_dir is None else _folder("data_dir", data_dir)


def _folder(argument: str, value: Any) -> Path:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{argument} must be the path of a folder, got {value!r}.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # What begins with ~ names a user that there is not.
        raise ValueError(f"{argument}={value!r} names no folder: {error}") from None


def find_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared | None:
    """Returns what is prepared of a dataset, or None where nothing is.

    It only reads the dataset's own description, so it needs no other package.

    Args:
        name: name of the dataset in the TensorFlow Datasets catalogue, such as "mnist".
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.

    Raises:
        DatasetUnavailableError: the description is damaged.
    """
    described = _described(name, data_dir)
    return None if described is None else described.prepared


@dataclass(frozen=True)
class _Described:
    """What the description of a prepared dataset says.

    Attributes:
        prepared: What users see of it.
        shards: number of examples in each file of a split, by the name of the split.
        file_format: File format of these files.
    """

    prepared: Prepared
    shards: dict[str, list[int]]
    file_format: str


def _described(name: str, data_dir: str | os.PathLike[str] | None) -> _Described | None:
    versions = {
        tuple(map(int, found.groups())): file
        for file in (chosen_data_dir(data_dir) / name).glob("*.*.*/dataset_info.json")
        if (found := _VERSION.fullmatch(file.parent.name))
    }
    if not versions:
        return None
    file = versions[max(versions)]
    try:
        # A description has a few kilobytes; nothing else is read into memory in its place.
        if file.stat().st_size > _MOST_BYTES_OF_A_DESCRIPTION:
            raise ValueError(f"{file.stat().st_size} bytes are too many for one")
        version, shards, file_format = _checked_description(json.loads(file.read_bytes()))
        size = sum(other.stat().st_size for other in file.parent.iterdir())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetUnavailableError(
            f"{name} is prepared in {file.parent}, but its description cannot be read "
            f"({type(error).__name__}: {error}). Delete that folder and prepare it again."
        ) from None
    examples = {split: sum(lengths) for split, lengths in shards.items()}
    return _Described(Prepared(file.parent, version, examples, size), shards, file_format)


def _checked_description(content: Any) -> tuple[str, dict[str, list[int]], str]:
    """Returns version, examples by file and split, and format; ValueError where one is not told."""
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} in place of a dictionary")
    version, file_format = content.get("version"), content.get("fileFormat", "array_record")
    if not isinstance(version, str) or not isinstance(file_format, str):
        raise ValueError(f"version {version!r}, fileFormat {file_format!r}")
    splits = content.get("splits")
    if not isinstance(splits, list):
        raise ValueError(f"splits must be a list, got {str(splits)[:40]}")
    shards: dict[str, list[int]] = {}
    for split in splits:
        split_name = split.get("name") if isinstance(split, dict) else None
        lengths = split.get("shardLengths") if isinstance(split, dict) else None
        # Names become parts of paths; protocol buffers write 64-bit numbers as texts.
        if not isinstance(split_name, str) or not _SPLIT.fullmatch(split_name):
            raise ValueError(f"the name of a split is {str(split_name)[:40]!r}")
        if split_name in shards:
            raise ValueError(f"two splits are named {split_name!r}")
        if not isinstance(lengths, list) or not lengths:
            raise ValueError(f"shardLengths of {split_name!r} are {str(lengths)[:40]}")
        for length in lengths:
            if isinstance(length, bool) or not _LENGTH.fullmatch(str(length)):
                raise ValueError(f"shardLengths of {split_name!r} have {str(length)[:40]!r}")
        shards[split_name] = [int(length) for length in lengths]
    return version, shards, file_format


def read_examples(
    name: str,
    part: Part,
    features: Mapping[str, FeatureKind],
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> list[dict[str, Any]]:
    """Reads examples of a dataset, images still encoded.

    Args:
        name: name of the dataset in the TensorFlow Datasets catalogue, such as "mnist", or of a
            builder of this package.
        part: What to read.
        features: What to read of every example; see `records.read_records`.
        limit: how many examples to read at most.
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.
        manual_dir: folder with the original files, to prepare from them instead of a download.
        download: whether data that is not prepared yet may be downloaded and prepared.

    Returns:
        One dictionary per example; an image is the bytes of its file (see `decode_images`).

    Raises:
        ValueError: a folder is no path, or `download` is neither True nor False.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> features = {"image": "bytes", "label": "integer"}
        >>> examples = read_examples("mnist", Part("test"), features, limit=10)
        >>> images = decode_images([example["image"] for example in examples], "L", (28, 28))
    """
    flag("download", download)
    _check_packages(name)
    if find_prepared(name, data_dir) is None:
        _prepare_absent(name, data_dir, manual_dir, download)
    described = _described(name, data_dir)
    assert described is not None, "preparing either succeeds or raises"
    folder = described.prepared.folder
    if described.file_format != "array_record":
        raise DatasetUnavailableError(
            f"{name} in {folder} cannot be opened as array_record, the one format that is read "
            f"here by random access: its files are {described.file_format[:40]!r}. Choose another "
            "folder with TFDS_DATA_DIR, or delete the copy that is there."
        )
    lengths = described.shards.get(part.file, [])
    rows = part.rows(sum(lengths), limit)
    if not rows:
        raise DatasetUnavailableError(
            f"{name} in {folder} has too few examples for this split: {sum(lengths)} in its file "
            f"{part.file!r}. Prepare all of it."
        )
    stem, count = f"{name}-{part.file}.array_record", len(lengths)
    files = [folder / f"{stem}-{shard:05d}-of-{count:05d}" for shard in range(count)]
    try:
        return read_records(files, lengths, rows, features)
    except (DamagedRecordsError, OSError) as error:
        raise unreadable(name, folder, error) from error


def decode_images(files: list[bytes], mode: str, size: tuple[int, int]) -> np.ndarray:
    """Decodes PNG files into one uint8 array (N, height, width[, channels]).

    Args:
        files: contents of the files.
        mode: Mode of every picture, as Pillow calls it: "L" or "RGB".
        size: width and height of every picture.

    Raises:
        ValueError: a file is damaged, or no such picture.
    """
    from PIL import Image

    pictures = []
    for file in files:
        # What the header declares is compared before a pixel is decoded: no file unpacks to more.
        try:
            with Image.open(io.BytesIO(file), formats=("PNG",)) as picture:
                if picture.mode != mode or picture.size != size:
                    raise ValueError(
                        f"a picture is {picture.mode} of {picture.size}, and not {mode} of {size}"
                    )
                pictures.append(np.asarray(picture))
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError, *_BROKEN) as error:
            raise ValueError(f"a picture is damaged: {error}") from error
    return np.stack(pictures)


def checked_labels(
    name: str,
    examples: list[dict[str, Any]],
    classes: int,
    data_dir: str | os.PathLike[str] | None,
) -> np.ndarray:
    """Returns the "label" of every example, int32 (N,).

    Raises:
        DatasetUnavailableError: one is none of the classes.
    """
    labels = np.array([example["label"] for example in examples], dtype=np.int64)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise damaged(name, data_dir, f"a label is none of the {classes} classes")
    return labels.astype(np.int32)


def damaged(
    name: str, data_dir: str | os.PathLike[str] | None, reason: Any
) -> DatasetUnavailableError:
    """Returns the error that says that a dataset in a folder of datasets is damaged."""
    return unreadable(name, chosen_data_dir(data_dir) / name, reason)


def unreadable(name: str, folder: Any, reason: Any) -> DatasetUnavailableError:
    """Returns the error that says that prepared data is damaged."""
    return DatasetUnavailableError(
        f"{name} is prepared in {folder}, but its files cannot be read: {reason}. "
        f"Delete {folder} and prepare it again."
    )


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_packages(name: str) -> None:
    missing = [module for module in _MODULES if not _is_installed(module)]
    if missing:
        raise ModuleNotFoundError(
            f"reading {name} needs {', '.join(missing)}, which cannot be imported; "
            'install them with: pip install "keras-lsc[datasets]"',
            name=missing[0],
        )


def _prepare_absent(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    manual_dir: str | os.PathLike[str] | None,
    download: bool,
) -> None:
    folder = chosen_data_dir(data_dir)
    manual = None if manual_dir is None else _folder("manual_dir", manual_dir)
    manual_files = ()
    if name in _OWN_BUILDERS:
        module = f"keras_lsc.datasets.builders.{name}.{name}_dataset_builder"
        manual_files = importlib.import_module(module).Builder.MANUAL_FILES
    if manual is not None:
        _check_manual_files(name, folder, manual, manual_files)
    else:
        _check_download(name, folder, download)
    _prepare(name, folder, manual)


def _absent(name: str, folder: Path) -> tuple[str, str]:
    remedy = "Set TFDS_DATA_DIR to a folder that holds it, or prepare it once "
    if name in _OWN_BUILDERS:
        remedy += (
            "from its files, without a network: python -c 'import keras_lsc; "
            f'keras_lsc.datasets.load("{name}", manual_dir="...")\''
        )
    else:
        remedy += (
            "on a computer with TensorFlow and a network: python -c 'import tensorflow_datasets "
            f'as tfds; tfds.builder("{name}", file_format="array_record").download_and_prepare()\''
        )
    return f"{name} is not prepared in {folder}", remedy


def _check_manual_files(name: str, folder: Path, manual_dir: Path, files: tuple[str, ...]) -> None:
    missing = [file for file in files if not (manual_dir / file).is_file()]
    if missing:
        raise DatasetUnavailableError(
            f"{name} is not prepared in {folder}, and manual_dir={manual_dir} lacks "
            f"{', '.join(missing)}; it has to hold {', '.join(files)}."
        )


def _check_download(name: str, folder: Path, download: bool) -> None:
    absent, remedy = _absent(name, folder)
    if not download:
        raise DatasetUnavailableError(f"{absent}, and download=False forbids fetching it. {remedy}")
    if name not in _OWN_BUILDERS and not _is_installed("tensorflow"):
        raise DatasetUnavailableError(
            f"{absent}, and preparing it (not reading it) needs TensorFlow, which is not "
            f"installed. {remedy}"
        )


def _prepare(name: str, folder: Path, manual: Path | None) -> None:
    import requests
    import tensorflow_datasets as tfds

    absent, remedy = _absent(name, folder)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        # The library retries a dead network for minutes; one short question finds that out first.
        origin = getattr(builder, "URL", None)
        if manual is None and origin:
            requests.head(origin, timeout=_SECONDS_TO_ANSWER)
        # It writes beside the folder and renames at the end, so a failure leaves nothing there.
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual)
        )
    except _errors_of_preparing() as error:
        # The causes, one below the other in a library of the network, say no more than the last.
        raise DatasetUnavailableError(
            f"{absent}, and fetching it failed: {error}. {remedy}"
        ) from None


def _errors_of_preparing() -> tuple[type[Exception], ...]:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    return OSError, NonMatchingChecksumError, DownloadError
