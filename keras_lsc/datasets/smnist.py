"""Sequential MNIST: a handwritten digit read row by row."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images
from keras_lsc.datasets.mnist import mnist_info

INFO = mnist_info("smnist", "Handwritten digits, one row of 28 pixels a step.", (28, 28))


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads MNIST digits as sequences of 28 rows of 28 pixels.

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
        Inputs: float32 (N, 28, 28), rows as time steps, pixels in [0, 1].
        Targets: int32 (N,), the digits 0 to 9.

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
    pixels, labels = read_images(
        "smnist", "mnist", split, limit=limit, data_dir=data_dir, download=download
    )
    return Examples(np.divide(pixels[..., 0], 255, dtype=np.float32), labels)
