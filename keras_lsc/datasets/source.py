"""Reading data that TensorFlow Datasets prepared, without importing TensorFlow."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

_MODULES = ("tensorflow_datasets", "array_record", "PIL", "requests")
_SECONDS_TO_ANSWER = 5.0
# The builders that come with this package; unlike most others they prepare without TensorFlow.
_OWN_BUILDERS = ("ptb", "shd")


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
        folder: that holds it.
        version: of the dataset.
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
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def chosen_data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns `data_dir`, or the default where it is None."""
    return default_data_dir() if data_dir is None else Path(data_dir).expanduser()


def find_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared | None:
    """Returns what is prepared of a dataset, or None where nothing is.

    It only reads the dataset's own description, so it needs no other package.

    Args:
        name: name of the dataset in the TensorFlow Datasets catalogue, such as "mnist".
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.
    """
    described = sorted(
        (chosen_data_dir(data_dir) / name).glob("*.*.*/dataset_info.json"),
        key=lambda file: [int(part) for part in file.parent.name.split(".") if part.isdigit()],
    )
    if not described:
        return None
    try:
        info = json.loads(described[-1].read_text())
        return Prepared(
            folder=described[-1].parent,
            version=info["version"],
            examples={
                split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]
            },
            size=sum(file.stat().st_size for file in described[-1].parent.iterdir()),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetUnavailableError(
            f"{name} is prepared in {described[-1].parent}, but its description cannot be read "
            f"({type(error).__name__}: {error}). Delete that folder and prepare it again."
        ) from error


def read_examples(
    name: str,
    part: Part,
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
        part: what to read.
        limit: how many examples to read at most.
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.
        manual_dir: folder with the original files, to prepare from them instead of a download.
        download: whether data that is not prepared yet may be downloaded and prepared.

    Returns:
        One dictionary per example; an image is the bytes of its file (see `decode_images`).

    Raises:
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> examples = read_examples("mnist", Part("test"), limit=10)
        >>> images = decode_images([example["image"] for example in examples])
    """
    builder = _prepared_builder(name, data_dir, manual_dir, download)
    import tensorflow_datasets as tfds

    # Left to itself the library decodes with the same Pillow, after a warning to install OpenCV.
    decoders = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
    rows = part.rows(builder.info.splits[part.file].num_examples, limit)
    if not rows:
        raise DatasetUnavailableError(
            f"{name} in {builder.data_path} has too few examples for this split: "
            f"{builder.info.splits[part.file].num_examples} in its file {part.file!r}. "
            "Prepare all of it."
        )
    try:
        source = builder.as_data_source(
            split=f"{part.file}[{rows.start}:{rows.stop}]", decoders=decoders
        )
        return list(source.__getitems__(range(len(source))))
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise unreadable(name, builder.data_path, error) from error


def read_records(
    name: str,
    features: dict[str, Any],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> list[dict[str, Any]]:
    """Reads the one file of a dataset with other features than those its builder declares.

    TensorFlow Datasets imports TensorFlow as soon as an audio feature is declared, even though a
    recording is stored as plain integers. Declared as a tensor it is read without.

    Args:
        name: name of the dataset in the TensorFlow Datasets catalogue.
        features: what to read, as arguments of `tfds.features.Tensor`, or "text" or "label".
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.
        download: whether data that is not prepared yet may be downloaded and prepared.

    Returns:
        One dictionary per example.

    Raises:
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    if find_prepared(name, data_dir) is None:
        _prepared_builder(name, data_dir, None, download)
    prepared = find_prepared(name, data_dir)
    _check_packages(name)
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    assert prepared is not None, "preparing either succeeds or raises"
    files = sorted(prepared.folder.glob(f"{name}-*.array_record-*"))
    if not files:
        raise DatasetUnavailableError(
            f"{name} in {prepared.folder} has no array_record files, the one format that is read "
            "here by random access. Choose another folder with TFDS_DATA_DIR, or delete the copy "
            "that is there."
        )
    makers = {"text": tfds.features.Text, "label": lambda: tfds.features.Scalar(np.int64)}
    declared = tfds.features.FeaturesDict(
        {
            key: makers[kind]() if isinstance(kind, str) else tfds.features.Tensor(**kind)
            for key, kind in features.items()
        }
    )
    try:
        with ArrayRecordDataSource(list(map(os.fspath, files))) as source:
            records = source.__getitems__(range(len(source)))
            examples = [declared.deserialize_example_np(record) for record in records]
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise unreadable(name, prepared.folder, error) from error
    if len(examples) != sum(prepared.examples.values()):
        raise unreadable(name, prepared.folder, f"{len(examples)} examples, not all of them")
    return examples


def decode_images(files: list[bytes]) -> np.ndarray:
    """Decodes equally large image files into one uint8 array (N, height, width[, channels])."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


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


def _prepared_builder(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    manual_dir: str | os.PathLike[str] | None,
    download: bool,
) -> Any:
    _check_packages(name)
    import tensorflow_datasets as tfds

    folder = chosen_data_dir(data_dir)
    manual_files = ()
    if name in _OWN_BUILDERS:
        module = f"keras_lsc.datasets.builders.{name}.{name}_dataset_builder"
        manual_files = importlib.import_module(module).Builder.MANUAL_FILES
    if find_prepared(name, folder) is None:
        if manual_dir is not None:
            _check_manual_files(name, folder, Path(manual_dir).expanduser(), manual_files)
        else:
            _check_download(name, folder, download)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    except ValueError as error:
        raise DatasetUnavailableError(
            f"{name} in {folder} cannot be opened as array_record, the one format that is read "
            f"here by random access: {error}. Choose another folder with TFDS_DATA_DIR, or "
            "delete the copy that is there."
        ) from error
    if not builder.is_prepared():
        _prepare(name, builder, folder, manual_dir)
    return builder


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


def _prepare(
    name: str, builder: Any, folder: Path, manual_dir: str | os.PathLike[str] | None
) -> None:
    import requests
    import tensorflow_datasets as tfds

    absent, remedy = _absent(name, folder)
    manual = None if manual_dir is None else Path(manual_dir).expanduser()
    try:
        # The library retries a dead network for minutes; one short question finds that out first.
        origin = getattr(builder, "URL", None)
        if manual is None and origin:
            requests.head(origin, timeout=_SECONDS_TO_ANSWER)
        # It writes beside the folder and renames at the end, so a failure leaves nothing there.
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual)
        )
    except _errors_of_preparing() as error:
        raise DatasetUnavailableError(
            f"{absent}, and fetching it failed: {error}. {remedy}"
        ) from error


def _errors_of_preparing() -> tuple[type[Exception], ...]:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    return OSError, NonMatchingChecksumError, DownloadError
