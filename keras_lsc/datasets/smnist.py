"""Sequential MNIST: a handwritten digit read row by row."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.datasets.checks import check_count, check_split
from keras_lsc.datasets.source import decode_images, read_examples

# MNIST has no validation split of its own, so the last 5,000 training images serve as one.
_SPLITS = {
    "train": ("train", 0, 55_000),
    "validation": ("train", 55_000, 60_000),
    "test": ("test", 0, 10_000),
}


def load(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Loads MNIST digits as sequences of 28 rows of 28 pixels.

    The images and their order are those of `mnist` 3.0.1 in TensorFlow Datasets. Reading needs
    the extra `keras-lsc[datasets]`, but no TensorFlow and, once prepared, no network.

    Args:
        split: "train" (55,000 digits), "validation" (the last 5,000 of the training file) or
            "test" (10,000); no digit is in two of them.
        limit: read only the first `limit` digits of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        x: float32 array of shape (N, 28, 28), rows as time steps, pixels in [0, 1].
        y: int32 array of shape (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("smnist", split="train", limit=20_000)
        >>> x.shape
        (20000, 28, 28)

    Source:
        Y. LeCun, C. Cortes, C. Burges, "MNIST handwritten digit database", 2010.
    """
    check_split("smnist", split, _SPLITS)
    file, start, stop = _SPLITS[split]
    if limit is not None:
        check_count("limit", limit, at_least=1)
        stop = min(stop, start + limit)
    examples = read_examples(
        "mnist", f"{file}[{start}:{stop}]", data_dir=data_dir, download=download
    )
    pixels = decode_images([example["image"] for example in examples])
    x = np.divide(pixels, 255, dtype=np.float32)
    y = np.array([example["label"] for example in examples], dtype=np.int32)
    return x, y
