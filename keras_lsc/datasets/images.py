"""Pixels and labels of the image datasets, in the splits of this package."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np

from keras_lsc.datasets.checks import check_limit, check_split
from keras_lsc.datasets.source import (
    Part,
    checked_labels,
    damaged,
    decode_images,
    read_examples,
)

# None of them has a validation split of its own, so the end of the training file serves as one:
# 5,000 of 60,000 for MNIST, a tenth for the others.
_TRAINING_SHARE = {
    "mnist": Fraction(11, 12),
    "cifar10": Fraction(9, 10),
    "cifar100": Fraction(9, 10),
}
# Mode, size and classes of each.
_PICTURES = {
    "mnist": ("L", (28, 28), 10),
    "cifar10": ("RGB", (32, 32), 10),
    "cifar100": ("RGB", (32, 32), 100),
}


def read_images(
    task: str,
    dataset: str,
    split: str,
    *,
    limit: int | None,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split of an image dataset.

    Args:
        task: name of the task that asks, for messages.
        dataset: "mnist", "cifar10" or "cifar100".
        split: "train", "validation" or "test".
        limit: read only the first `limit` images; None reads them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.

    Returns:
        The uint8 pixels (N, height, width, channels) and the int32 labels (N,).

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    share = _TRAINING_SHARE[dataset]
    parts = {
        "train": Part("train", stop=share),
        "validation": Part("train", start=share),
        "test": Part("test"),
    }
    check_split(task, split, parts)
    check_limit(limit)
    mode, size, classes = _PICTURES[dataset]
    examples = read_examples(
        dataset,
        parts[split],
        {"image": "bytes", "label": "integer"},
        limit=limit,
        data_dir=data_dir,
        download=download,
    )
    try:
        pixels = decode_images([example["image"] for example in examples], mode, size)
    except ValueError as error:
        raise damaged(dataset, data_dir, error) from error
    labels = checked_labels(dataset, examples, classes, data_dir)
    return pixels.reshape(len(pixels), *pixels.shape[1:3], -1), labels


def z_scored(
    pixels: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> np.ndarray:
    """Returns (pixels / 255 - mean) / deviation, flat, as float32 (N, height * width * channels).

    The moments are those of the whole training set, not of what is read: a subset then gets the
    same numbers as the whole.
    """
    scale = 1 / (255 * np.asarray(deviation))
    shift = np.asarray(mean) / np.asarray(deviation)
    scaled = pixels * scale.astype(np.float32) - shift.astype(np.float32)
    return scaled.reshape(len(pixels), -1)
