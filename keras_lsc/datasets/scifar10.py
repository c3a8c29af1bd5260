"""Sequential CIFAR-10: a photograph read pixel by pixel."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.datasets.cifar10 import cifar_info
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images

INFO = cifar_info(
    "scifar10",
    "Colour photographs of 10 kinds, one pixel of 3 colours a step.",
    (1024, 3),
    "cifar10",
    10,
)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads CIFAR-10 images as sequences of 1024 pixels of 3 colours, row by row.

    The splits are parts of what is prepared in `data_dir`. When that is a part of the dataset
    (see `keras_lsc.datasets.prepared`), so are they: say so where you report results.

    Args:
        split: "train" (the first nine tenths of the training file: 45,000 images), "validation"
            (its last tenth: 5,000) or "test" (10,000); no record is in two of them.
        limit: read only the first `limit` images of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        Inputs: float32 (N, 1024, 3), red, green and blue in [0, 1].
        Targets: int32 (N,), classes 0 to 9.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("scifar10", split="test", limit=100)
        >>> x.shape
        (100, 1024, 3)

    Source:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    pixels, labels = read_images(
        "scifar10", "cifar10", split, limit=limit, data_dir=data_dir, download=download
    )
    return Examples(np.divide(pixels, 255, dtype=np.float32).reshape(len(pixels), 1024, 3), labels)
