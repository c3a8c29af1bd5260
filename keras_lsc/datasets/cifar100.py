"""CIFAR-100 as flat vectors, for feed-forward networks."""

from __future__ import annotations

import os

from keras_lsc.datasets.cifar10 import cifar_info
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images, z_scored

_MEAN, _DEVIATION = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

INFO = cifar_info(
    "cifar100",
    "Colour photographs of 100 kinds, all 3072 values at once, z-scored (feed-forward).",
    (3072,),
    "cifar100",
    100,
)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads CIFAR-100 images as flat vectors of 32 x 32 pixels of 3 colours, z-scored by colour.

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
        Inputs: float32 (N, 3072), mean 0 and variance 1 per colour over the training file.
        Targets: int32 (N,), classes 0 to 99.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("cifar100", split="test", limit=100)
        >>> x.shape
        (100, 3072)

    Source:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    pixels, labels = read_images(
        "cifar100", "cifar100", split, limit=limit, data_dir=data_dir, download=download
    )
    return Examples(z_scored(pixels, _MEAN, _DEVIATION), labels)
