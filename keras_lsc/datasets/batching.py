"""Batches of examples as a `keras.utils.PyDataset`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lsc.arguments import flag, integer, positive_integer
from keras_lsc.datasets.examples import Examples


class Batches(keras.utils.PyDataset):
    """Batches of examples, as NumPy arrays, in an order that its seed determines.

    Made by `keras_lsc.datasets.batches`. `fit`, `evaluate` and `predict` take it, and a loop over
    it gives its batches once. Every epoch has another order, which seed and number of the epoch
    determine. Keras shuffles the order of the batches once more, with Python's own random numbers,
    unless it is told `fit(..., shuffle=False)`.

    Args:
        examples: to make batches of.
        batch_size: examples of a batch.
        shuffle: whether the examples are put into a random order, a new one every epoch.
        seed: Integer, seed of that order, a non-negative integer.
        masks: whether inputs are dictionaries {"x": inputs, "mask": bool (batch, T)}, the mask True
            where a step belongs to the sequence.
        drop_rest: whether to leave out a last batch that is smaller than the others.

    Attributes:
        epoch: how many epochs are over.

    Raises:
        ValueError: a number is not a possible one, or no batch is left.

    Example:
        >>> from keras_lsc import datasets
        >>> batches = datasets.batches("parity", "test", batch_size=128, seed=1)
        >>> len(batches), batches[0][0].shape
        (40, (128, 30, 1))
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        masks: bool = False,
        drop_rest: bool = False,
    ):
        super().__init__()
        positive_integer("batch_size", batch_size)
        integer("seed", seed, at_least=0)
        for argument, value in (("shuffle", shuffle), ("masks", masks), ("drop_rest", drop_rest)):
            flag(argument, value)
        if drop_rest and len(examples) < batch_size:
            raise ValueError(
                f"{len(examples)} examples do not fill one batch of batch_size={batch_size}; use "
                "drop_rest=False, or a smaller batch."
            )
        self.examples = examples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.masks = masks
        self.drop_rest = drop_rest
        self.epoch = 0
        self._order = self._draw_order()

    def __len__(self) -> int:
        """Number of batches."""
        whole, rest = divmod(len(self.examples), self.batch_size)
        return whole if self.drop_rest or not rest else whole + 1

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """Returns the inputs and targets of one batch."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, and no batch {index}.")
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x, y = self.examples.inputs[rows], self.examples.targets[rows]
        return ({"x": x, "mask": self.examples.mask(rows)} if self.masks else x), y

    def on_epoch_end(self) -> None:
        """Draws the order of the next epoch."""
        self.epoch += 1
        self._order = self._draw_order()

    def _draw_order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.examples))
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.examples))
