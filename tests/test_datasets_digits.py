"""Digits: those of scikit-learn, in splits that part them."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_lsc import datasets

pytestmark = pytest.mark.once
SPLITS = ("train", "validation", "test")


def rows(x, y):
    return sorted(
        [*image.ravel().round(3).tolist(), int(label)] for image, label in zip(x, y, strict=True)
    )


def test_the_splits_part_the_digits_of_scikit_learn():
    parts = [datasets.load("digits", split) for split in SPLITS]
    assert [len(y) for _, y in parts] == list(datasets.info("digits").examples.values())
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    assert (x.dtype, x.shape, y.dtype) == ("float32", (1797, 8, 8), "int32")
    # One shift and one scale, that of the training split, turn them back into pixels.
    train = parts[0][0].astype("float64")
    assert abs(train.mean()) < 1e-3
    assert abs(train.std() - 1) < 1e-3
    scale = 16 / (x.max() - x.min())
    pixels = (x - x.min()) * scale
    whole = load_digits()
    assert rows(pixels, y) == rows(whole.images, whole.target)


def test_every_split_has_every_digit():
    for split in SPLITS:
        assert np.bincount(datasets.load("digits", split)[1], minlength=10).min() >= 10


def test_the_first_are_the_first():
    x, y = datasets.load("digits", "test", limit=7)
    whole = datasets.load("digits", "test")
    np.testing.assert_array_equal(x, whole[0][:7])
    np.testing.assert_array_equal(y, whole[1][:7])


def test_without_scikit_learn_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs scikit-learn.*keras-lsc\[demo\]"):
        datasets.load("digits")
