"""Sequence tasks as NumPy arrays, the same on every backend.

Each task is one module with a function `load(split, **options)`; a new task is added by writing
its module and naming it in `_LOADERS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lsc.datasets import parity, smnist
from keras_lsc.datasets.source import DatasetUnavailableError

__all__ = ["DatasetUnavailableError", "load", "names"]

_LOADERS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "parity": parity.load,
    "smnist": smnist.load,
}


def names() -> list[str]:
    """Lists the names that `load` knows, in alphabetical order.

    Example:
        >>> from keras_lsc import datasets
        >>> datasets.names()
        ['parity', 'smnist']
    """
    return sorted(_LOADERS)


def load(name: str, split: str = "train", **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Loads one split of a sequence task.

    Args:
        name: one of `names()`.
        split: "train", "validation" or "test".
        **options: what the task itself takes. Every task takes `limit`, the largest number of
            examples to return, counted from the start of the split; for the rest see
            `keras_lsc.datasets.smnist.load` and `keras_lsc.datasets.parity.load`.

    Returns:
        x: float32 array of shape (N, T, features).
        y: int32 array of shape (N,), class indices from 0.

    Raises:
        ValueError: the name, the split or an option's value is not a known one.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("parity", split="test", limit=100, n=2, length=16)
        >>> x.shape, y.shape
        ((100, 16, 1), (100,))
    """
    if name not in _LOADERS:
        closest = difflib.get_close_matches(name, names(), cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, closest))}? " if closest else ""
        raise ValueError(f"unknown dataset {name!r}; {hint}Known datasets: {', '.join(names())}.")
    return _LOADERS[name](split, **options)
