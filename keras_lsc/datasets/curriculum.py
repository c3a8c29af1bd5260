"""Generated batches of a task whose difficulty n can grow while a network is trained on it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lsc.arguments import flag, integer, one_of, positive_integer
from keras_lsc.datasets import delayed_match, parity

_TASKS = {"parity": parity, "delayed_match": delayed_match}
_HEADS = ("single", "multi")
_LEAST = 2


class GrowingTask(keras.utils.PyDataset):
    """Batches of N-parity or N-delayed-match with an n that can grow.

    Every batch is drawn afresh, by seed, epoch, n and its number. Lengths are uniform between
    n + 2 and 4 n + 1; all batches are padded to the length that the largest n needs, so that the
    network is compiled once. `keras_lsc.callbacks.NCurriculum` lets n grow.

    With a single head a network answers for the present n alone, and for the next one by the same
    weights. With heads="multi" it has a head for every n from 2 to the largest, which are asked of
    the same sequences, and those above the present n have the weight 0.

    Args:
        name: "parity" or "delayed_match".
        n: to begin with, at least 2.
        largest: to which n may grow.
        batch_size: sequences of a batch.
        batches: Batches of an epoch.
        seed: non-negative integer.
        masks: whether inputs are dictionaries {"x": inputs, "mask": bool (batch, T)}.
        heads: "single" or "multi".

    Attributes:
        n: the present one.

    Raises:
        ValueError: the name or a number is not a possible one.

    Example:
        >>> from keras_lsc import datasets
        >>> task = datasets.GrowingTask("parity", n=2, largest=10)
        >>> inputs, y = task[0]
        >>> inputs["x"].shape, inputs["mask"].shape, y.shape
        ((64, 41, 1), (64, 41), (64,))
        >>> inputs, y, weights = datasets.GrowingTask("parity", largest=10, heads="multi")[0]
        >>> y.shape, weights[0].tolist()
        ((64, 9), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    Source:
        The tasks and the curriculum of arXiv 2309.12927.
    """

    def __init__(
        self,
        name: str,
        *,
        n: int = 2,
        largest: int = 20,
        batch_size: int = 64,
        batches: int = 100,
        seed: int = 0,
        masks: bool = True,
        heads: str = "single",
    ):
        super().__init__()
        if name not in list(_TASKS):
            raise ValueError(f"the task {name!r} cannot grow; use one of {', '.join(_TASKS)}.")
        integer("n", n, at_least=_LEAST)
        integer("largest", largest, at_least=n)
        positive_integer("batch_size", batch_size)
        positive_integer("batches", batches)
        integer("seed", seed, at_least=0)
        flag("masks", masks)
        one_of("heads", heads, _HEADS)
        self.name = name
        self.n = n
        self.largest = largest
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.masks = masks
        self.heads = heads
        self.epoch = 0

    def grow(self) -> bool:
        """Makes n larger by one; returns False, and leaves it, when it is the largest."""
        if self.n == self.largest:
            return False
        self.n += 1
        return True

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return self.batches

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Returns inputs, float32 (batch, 4 largest + 1, 1), and labels, int32 (batch,).

        With heads="multi" the labels are (batch, largest - 1), of n = 2 to the largest, and weights
        of that shape follow, float32.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, and no batch {index}.")
        task = _TASKS[self.name]
        random = np.random.default_rng([self.seed, self.epoch, self.n, index])
        bits, labels, lengths = task.draw(random, self.batch_size, self.n)
        x = np.zeros((self.batch_size, 4 * self.largest + 1, 1), dtype=np.float32)
        x[:, : bits.shape[1], 0] = bits
        mask = np.arange(x.shape[1]) < lengths[:, np.newaxis]
        inputs = {"x": x, "mask": mask} if self.masks else x
        if self.heads == "single":
            return inputs, labels.astype(np.int32)
        asked = np.arange(_LEAST, self.largest + 1)
        every = np.zeros((self.batch_size, len(asked)), dtype=np.int32)
        for head, n in enumerate(asked[asked <= self.n]):
            every[:, head] = task.label(bits, lengths, n)
        weights = np.broadcast_to(asked <= self.n, every.shape).astype(np.float32)
        return inputs, every, weights

    def on_epoch_end(self) -> None:
        """Lets the next epoch draw other sequences."""
        self.epoch += 1
