"""Collections of labelled pictures, and how each is read, in the splits of this package."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from keras_lsc.datasets import keras_mnist
from keras_lsc.datasets.source import (
    Part,
    checked_labels,
    damaged,
    decode_images,
    find_prepared,
    read_examples,
)

Pictures = tuple[np.ndarray, np.ndarray]
Reader = Callable[[str, int | None, str | os.PathLike[str] | None, bool], Pictures]


@dataclass(frozen=True)
class ImageSource:
    """A collection of labelled pictures.

    Attributes:
        folder: String, name of its folder among the prepared datasets; None where nothing is to be
            prepared.
        classes: Positive integer, number of classes.
        examples: Mapping from each split to its number of pictures.
        licence: String, licence of the pictures.
        homepage: String, address where they are from.
        citation: String, BibTeX.
        read: Function of the split, the largest number of pictures or None, the folder of the
            datasets or None, and whether to fetch what is absent. Returns pixels `(N, height,
            width, channels)` and int32 labels `(N,)`.
    """

    folder: str | None
    classes: int
    examples: Mapping[str, int]
    licence: str
    homepage: str
    citation: str
    read: Reader


def _parts(training_share: Fraction) -> dict[str, Part]:
    """The splits of what has no validation split: the end of its training file serves as one."""
    return {
        "train": Part("train", stop=training_share),
        "validation": Part("train", start=training_share),
        "test": Part("test"),
    }


def _read_prepared(
    name: str, mode: str, size: tuple[int, int], classes: int, training_share: Fraction
) -> Reader:
    """Returns what reads the pictures that TensorFlow Datasets has prepared."""
    parts = _parts(training_share)

    def read(
        split: str,
        limit: int | None,
        data_dir: str | os.PathLike[str] | None,
        download: bool,
    ) -> Pictures:
        examples = read_examples(
            name,
            parts[split],
            {"image": "bytes", "label": "integer"},
            limit=limit,
            data_dir=data_dir,
            download=download,
        )
        try:
            pixels = decode_images([example["image"] for example in examples], mode, size)
        except ValueError as error:
            raise damaged(name, data_dir, error) from error
        labels = checked_labels(name, examples, classes, data_dir)
        return pixels.reshape(len(pixels), *pixels.shape[1:3], -1), labels

    return read


_MNIST_TRAINING_SHARE = Fraction(11, 12)
_read_prepared_mnist = _read_prepared("mnist", "L", (28, 28), 10, _MNIST_TRAINING_SHARE)


def _read_mnist(
    split: str, limit: int | None, data_dir: str | os.PathLike[str] | None, download: bool
) -> Pictures:
    if find_prepared("mnist", data_dir) is not None:
        return _read_prepared_mnist(split, limit, data_dir, download)
    return keras_mnist.read(
        _parts(_MNIST_TRAINING_SHARE)[split], limit=limit, data_dir=data_dir, download=download
    )


_DIGITS = {"train": 1397, "validation": 200, "test": 200}


def _read_digits(
    split: str, limit: int | None, data_dir: str | os.PathLike[str] | None, download: bool
) -> Pictures:
    del data_dir, download
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading digits needs scikit-learn, which cannot be imported ({error}); install it "
            'with: pip install "keras-lsc[demo]"',
            name=error.name,
        ) from None
    found = load_digits()
    # The file is sorted by writers, so it is parted in an order drawn once.
    order = np.random.default_rng(0).permutation(len(found.target))
    parts = np.split(order, np.cumsum(list(_DIGITS.values()))[:-1])
    chosen = dict(zip(_DIGITS, parts, strict=True))[split][:limit]
    return found.images[chosen][..., np.newaxis], found.target[chosen].astype(np.int32)


MNIST = ImageSource(
    folder="mnist",
    classes=10,
    examples={"train": 55_000, "validation": 5_000, "test": 10_000},
    licence="CC BY-SA 3.0",
    homepage="http://yann.lecun.com/exdb/mnist/",
    citation="""@article{lecun2010mnist,
  title   = {{MNIST} handwritten digit database},
  author  = {LeCun, Yann and Cortes, Corinna and Burges, CJ},
  journal = {ATT Labs [Online]. Available: http://yann.lecun.com/exdb/mnist},
  volume  = {2},
  year    = {2010}
}""",
    read=_read_mnist,
)


def _cifar(name: str, classes: int) -> ImageSource:
    return ImageSource(
        folder=name,
        classes=classes,
        examples={"train": 45_000, "validation": 5_000, "test": 10_000},
        licence="not stated by its authors, who ask for the citation",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="""@techreport{krizhevsky2009learning,
  title       = {Learning multiple layers of features from tiny images},
  author      = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year        = {2009}
}""",
        read=_read_prepared(name, "RGB", (32, 32), classes, Fraction(9, 10)),
    )


CIFAR10, CIFAR100 = _cifar("cifar10", 10), _cifar("cifar100", 100)

# The test file of the UCI repository, which comes with scikit-learn.
DIGITS = ImageSource(
    folder=None,
    classes=10,
    examples=_DIGITS,
    licence="CC BY 4.0",
    homepage="https://doi.org/10.24432/C50P49",
    citation="""@misc{alpaydin1998digits,
  title  = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  year   = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi    = {10.24432/C50P49}
}""",
    read=_read_digits,
)
