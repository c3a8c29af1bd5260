"""Reading data that TensorFlow Datasets prepared, without importing TensorFlow."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

_MODULES = ("tensorflow_datasets", "array_record", "PIL", "requests")
_SECONDS_TO_ANSWER = 5.0


class DatasetUnavailableError(RuntimeError):
    """The data of a task is not on this computer and could not be fetched."""


def default_data_dir() -> Path:
    """Returns the folder that TensorFlow Datasets uses: TFDS_DATA_DIR, or one in the home."""
    # TensorFlow Datasets reads the variable once, at import; a later change would be lost there.
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def read_examples(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> list[dict[str, Any]]:
    """Reads the examples of a TensorFlow Datasets split, images still encoded.

    Args:
        name: name of the dataset in the TensorFlow Datasets catalogue, such as "mnist".
        split: split in their notation, such as "train[0:100]".
        data_dir: folder of the prepared datasets; None means `default_data_dir()`.
        download: whether data that is not prepared yet may be downloaded and prepared.

    Returns:
        One dictionary per example; an image is the bytes of its file (see `decode_images`).

    Raises:
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> examples = read_examples("mnist", "test[0:10]")
        >>> images = decode_images([example["image"] for example in examples])
    """
    missing = [module for module in _MODULES if not _is_installed(module)]
    if missing:
        raise ModuleNotFoundError(
            f"reading {name} needs {', '.join(missing)}, which cannot be imported; "
            'install them with: pip install "keras-lsc[datasets]"',
            name=missing[0],
        )
    import tensorflow_datasets as tfds

    folder = Path(data_dir).expanduser() if data_dir is not None else default_data_dir()
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    except ValueError as error:
        raise DatasetUnavailableError(
            f"{name} in {folder} cannot be opened as array_record, the one format that is read "
            f"here by random access: {error}. Choose another folder with TFDS_DATA_DIR, or "
            "delete the copy that is there."
        ) from error
    if not builder.is_prepared():
        _prepare(name, builder, folder, download)
    # Left to itself the library decodes with the same Pillow, after a warning to install OpenCV.
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    try:
        return list(source.__getitems__(range(len(source))))
    except RuntimeError as error:
        raise DatasetUnavailableError(
            f"{name} is prepared in {folder}, but its files cannot be read: {error}. "
            f"Delete {builder.data_path} and prepare it again."
        ) from error


def decode_images(files: list[bytes]) -> np.ndarray:
    """Decodes equally large image files into one uint8 array (N, height, width[, channels])."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _prepare(name: str, builder: Any, folder: Path, download: bool) -> None:
    import requests

    absent = f"{name} is not prepared in {folder}"
    remedy = (
        "Set TFDS_DATA_DIR to a folder that holds it, or prepare it once on a computer with "
        "TensorFlow and a network: python -c 'import tensorflow_datasets as tfds; "
        f'tfds.builder("{name}", file_format="array_record").download_and_prepare()\''
    )
    if not download:
        raise DatasetUnavailableError(f"{absent}, and download=False forbids fetching it. {remedy}")
    if not _is_installed("tensorflow"):
        raise DatasetUnavailableError(
            f"{absent}, and preparing it (not reading it) needs TensorFlow, which is not "
            f"installed. {remedy}"
        )
    try:
        # The library retries a dead network for minutes; one short question finds that out first.
        if origin := getattr(builder, "URL", None):
            requests.head(origin, timeout=_SECONDS_TO_ANSWER)
        builder.download_and_prepare()
    except OSError as error:
        raise DatasetUnavailableError(
            f"{absent}, and fetching it failed: {error}. {remedy}"
        ) from error
