"""MNIST as flat vectors, for feed-forward networks."""

from __future__ import annotations

import os

from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.images import read_images, z_scored
from keras_lsc.datasets.info import Kind, TaskInfo

_CITATION = """@article{lecun2010mnist,
  title   = {{MNIST} handwritten digit database},
  author  = {LeCun, Yann and Cortes, Corinna and Burges, CJ},
  journal = {ATT Labs [Online]. Available: http://yann.lecun.com/exdb/mnist},
  volume  = {2},
  year    = {2010}
}"""
_MEAN, _DEVIATION = (0.1307,), (0.3081,)


def mnist_info(
    name: str, description: str, shape: tuple[int, ...], kind: Kind = "image"
) -> TaskInfo:
    """Returns the information of a task whose data is MNIST."""
    return TaskInfo(
        name=name,
        description=description,
        kind=kind,
        shape=shape,
        target="label",
        outputs=10,
        examples={"train": 55_000, "validation": 5_000, "test": 10_000},
        source="mnist",
        licence="CC BY-SA 3.0",
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation=_CITATION,
    )


INFO = mnist_info(
    "mnist", "Handwritten digits, all 784 pixels at once, z-scored (feed-forward).", (784,)
)


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads MNIST digits as flat vectors of 784 pixels, z-scored.

    The splits are those of `smnist`.

    Args:
        split: "train" (55,000 digits), "validation" (the last 5,000 of the training file) or
            "test" (10,000); no digit is in two of them.
        limit: read only the first `limit` digits of the split; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        Inputs: float32 (N, 784), mean 0 and variance 1 over the pixels of the training file.
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("mnist", split="test", limit=100)
        >>> x.shape
        (100, 784)

    Source:
        Y. LeCun, C. Cortes, C. Burges, "MNIST handwritten digit database", 2010.
    """
    pixels, labels = read_images(
        "mnist", "mnist", split, limit=limit, data_dir=data_dir, download=download
    )
    return Examples(z_scored(pixels, _MEAN, _DEVIATION), labels)
