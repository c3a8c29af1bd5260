"""MNIST from the file that `keras.datasets.mnist` fetches; NumPy alone reads it."""

from __future__ import annotations

import functools
import hashlib
import http.client
import lzma
import os
import struct
import tokenize
import urllib.request
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_lsc.datasets.source import DatasetUnavailableError, Part, Prepared, chosen_data_dir

_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
_SECONDS_TO_ANSWER = 5.0
# Nearly three times the largest array that belongs into the file.
_MOST_BYTES_OF_AN_ARRAY = 2**27
# What NumPy, the archive and the decompressors raise for damaged files.
_BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, SyntaxError, TypeError),
    *(OverflowError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    tokenize.TokenError,
)
_FAILED = (OSError, ValueError, http.client.HTTPException)
_PICTURE = (28, 28)
_CLASSES = 10


def path() -> Path:
    """Returns where Keras keeps the file: KERAS_HOME/datasets, or ~/.keras/datasets."""
    home = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
    return Path(home) / "datasets" / "mnist.npz"


def find() -> Prepared | None:
    """Returns what is in the file, or None where there is none.

    Raises:
        DatasetUnavailableError: It is damaged.
    """
    if not path().is_file():
        return None
    examples = {part: len(_from_file(part)[1]) for part in ("train", "test")}
    return Prepared(path().parent, path().name, examples, path().stat().st_size)


def read(
    part: Part,
    *,
    limit: int | None,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a part of MNIST in the order in which TensorFlow Datasets has it.

    Args:
        part: What to read.
        limit: Positive integer, how many digits to read at most; None reads the whole part.
        data_dir: Folder of the datasets that lacks MNIST, for messages; None means the default.
        download: Boolean, whether Keras may fetch the file where it is absent.

    Returns:
        The uint8 pixels `(N, 28, 28, 1)` and the int32 labels `(N,)`.

    Raises:
        DatasetUnavailableError: The file is damaged, or absent and could not be fetched.
    """
    if path().is_file():
        pixels, labels = _from_file(part.file)
    else:
        pixels, labels = _fetched(data_dir, download)[part.file]
    rows = _order(part.file, len(labels))[part.rows(len(labels), limit)]
    if not len(rows):
        raise _damaged(f"it has too few digits for this split, {len(labels)} for {part.file}")
    return pixels[rows][..., np.newaxis], labels[rows].astype(np.int32)


@functools.lru_cache
def _order(file: str, count: int) -> np.ndarray:
    """The order in which TensorFlow Datasets has the digits.

    It sorts them by the MD5 sum of the name of their file and their number, so that splits are made
    of the same digits in the same order whichever file they are read from.
    """
    name = hashlib.md5(file.encode(), usedforsecurity=False)

    def sort_key(number: int) -> bytes:
        digest = name.copy()
        digest.update(str(number).encode())
        return digest.digest()

    return np.array(sorted(range(count), key=sort_key), dtype=np.int64)


def _from_file(part: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with zipfile.ZipFile(path()) as archive:
            largest = max((member.file_size for member in archive.infolist()), default=0)
        if largest > _MOST_BYTES_OF_AN_ARRAY:
            raise ValueError(f"{largest} bytes are too many for one array")
        with np.load(path(), allow_pickle=False) as arrays:
            pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    except _BROKEN as error:
        raise _damaged(f"{type(error).__name__}: {error}") from None
    expected = (len(labels) if labels.ndim else 0, *_PICTURE)
    if pixels.dtype != np.uint8 or pixels.shape != expected:
        raise _damaged(f"x_{part} is {pixels.dtype} {pixels.shape}, not uint8 {expected}")
    if labels.ndim != 1 or labels.dtype.kind != "u" or (labels >= _CLASSES).any():
        raise _damaged(f"y_{part} has a label that is none of the {_CLASSES} classes")
    return pixels, labels


def _fetched(
    data_dir: str | os.PathLike[str] | None, download: bool
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    absent = f"mnist is not prepared in {chosen_data_dir(data_dir)}, nor is there {path()}"
    remedy = (
        "Set TFDS_DATA_DIR to a folder that holds it as TensorFlow Datasets prepares it, or fetch "
        f"it once on a computer with a network, and copy it to {path()}: "
        "python -c 'import keras; keras.datasets.mnist.load_data()'"
    )
    if not download:
        raise DatasetUnavailableError(f"{absent}, and download=False forbids fetching it. {remedy}")
    try:
        # A dead network keeps Keras waiting for minutes; one short question finds that out first.
        question = urllib.request.Request(_ORIGIN, method="HEAD")
        urllib.request.urlopen(question, timeout=_SECONDS_TO_ANSWER).close()
        train, test = keras.datasets.mnist.load_data()
    except Exception as error:
        # Keras says by a plain Exception that a download broke off; what is no such failure passes.
        if type(error) is not Exception and not isinstance(error, _FAILED):
            raise
        raise DatasetUnavailableError(
            f"{absent}, and fetching it failed: {error}. {remedy}"
        ) from None
    return {"train": train, "test": test}


def _damaged(reason: str) -> DatasetUnavailableError:
    return DatasetUnavailableError(
        f"mnist in {path()} cannot be read: {reason}. Delete that file and fetch it again: "
        "python -c 'import keras; keras.datasets.mnist.load_data()'"
    )
