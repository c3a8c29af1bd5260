"""Permuted sequential MNIST: a digit read pixel by pixel, in a fixed random order."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images
from keras_lsc.datasets.mnist import mnist_info

INFO = mnist_info(
    "psmnist", "Handwritten digits, one pixel a step, in one fixed random order.", (784, 1)
)
# The seed that the literature shares (uRNN, scoRNN, expRNN and what followed them).
_PERMUTATION_SEED = 92916


def permutation() -> np.ndarray:
    """Returns the order in which the 784 pixels are read, an int array of their row-major indices.

    Example:
        >>> from keras_lsc.datasets.psmnist import permutation
        >>> sorted(permutation().tolist()) == list(range(784))
        True
    """
    # RandomState, because its stream is frozen for good and it is the one the others drew from.
    return np.random.RandomState(_PERMUTATION_SEED).permutation(784)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads MNIST digits as sequences of 784 single pixels, in the order of `permutation()`.

    Args:
        split: "train" (55,000 digits), "validation" (the last 5,000 of the training file) or
            "test" (10,000); no digit is in two of them.
        limit: read only the first `limit` digits of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        Inputs: float32 (N, 784, 1), pixels in [0, 1].
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("psmnist", split="test", limit=100)
        >>> x.shape
        (100, 784, 1)

    Source:
        The task is that of Q. V. Le, N. Jaitly, G. E. Hinton, arXiv 1504.00941.
    """
    pixels, labels = read_images(
        "psmnist", "mnist", split, limit=limit, data_dir=data_dir, download=download
    )
    ordered = pixels.reshape(len(pixels), 784)[:, permutation(), np.newaxis]
    return Examples(np.divide(ordered, 255, dtype=np.float32), labels)
