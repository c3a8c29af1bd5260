"""The examples of one split, in whatever form takes little memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keras_lsc.datasets.events import check_memory


class Inputs(Protocol):
    """What a task keeps its inputs in: an array, or what becomes one when it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that all inputs together make: (N, ...)."""

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        """Returns the chosen rows as a dense array."""


@dataclass(frozen=True)
class Examples:
    """The examples of one split.

    Attributes:
        inputs: Inputs of all examples, an array (N, ...) or what becomes one when it is indexed.
        targets: int32 or float32 array whose first axis has length N.
        lengths: int array (N,), how many steps of each input count; None when all do.
    """

    inputs: Inputs
    targets: np.ndarray
    lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def mask(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns the bool array (rows, T) that is True where a step counts."""
        steps = self.inputs.shape[1]
        if self.lengths is None:
            return np.ones((len(self.targets[rows]), steps), dtype=bool)
        return np.arange(steps) < self.lengths[rows, np.newaxis]

    def take(self, rows: np.ndarray) -> Examples:
        """Returns the examples of the given rows, in their order."""
        lengths = None if self.lengths is None else self.lengths[rows]
        return Examples(self.inputs[rows], self.targets[rows], lengths)


def padded(sequences: list[np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Puts sequences of different lengths into one array, zeros after their end.

    Args:
        sequences: float arrays (T, features), T differing.
        steps: time steps of the result; longer sequences lose their end.

    Returns:
        The float32 array (N, steps, features) and the int32 lengths (N,).

    Raises:
        MemoryError: the array is larger than the memory of this computer.

    Example:
        >>> import numpy as np
        >>> x, lengths = padded([np.ones((2, 1)), np.ones((5, 1))], steps=3)
        >>> x[:, :, 0].tolist(), lengths.tolist()
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], [2, 3])
    """
    check_memory((len(sequences), steps, sequences[0].shape[1]))
    lengths = np.array([min(len(sequence), steps) for sequence in sequences], dtype=np.int32)
    x = np.zeros((len(sequences), steps, sequences[0].shape[1]), dtype=np.float32)
    for row, sequence, length in zip(x, sequences, lengths, strict=True):
        row[:length] = sequence[:length]
    return x, lengths
