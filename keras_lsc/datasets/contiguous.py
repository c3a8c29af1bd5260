"""Batches of a text that continue where the last batch left off."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_lsc.arguments import flag, positive_integer
from keras_lsc.datasets.text import DEFAULT_STEPS


def _checked(tokens: Any) -> np.ndarray:
    try:
        found = np.asarray(tokens)
    except ValueError:
        # Lists of unequal length.
        found = np.empty(0)
    if found.ndim == 1 and found.dtype.kind in "iu":
        return found
    raise ValueError(f"tokens must be an array (n,) of integers, got {tokens!r:.200}.")


class ContiguousBatches(keras.utils.PyDataset):
    """Batches of a token stream for a network that carries its state from batch to batch.

    The stream is cut into `batch_size` contiguous parts of equal length. Row r of every batch is
    from part r, and begins with the token after the last one of row r of the batch before. So
    recurrent layers in a `keras_lsc.layers.CarriedState` read each part from beginning to end, and
    are trained by truncated backpropagation through time.

    Made by `keras_lsc.datasets.batches`. It must be read in order: pass `shuffle=False` to `fit`,
    which shuffles batches by default; a wrong order raises. Reset the states between epochs with
    `keras_lsc.callbacks.ResetStates`.

    Args:
        tokens: Integer array `(n,)`.
        batch_size: Positive integer, number of parts.
        steps: Positive integer, tokens of a part in one batch.
        drop_rest: Boolean, whether to leave out the end of each part that does not fill a batch.
            Kept, these steps are made up for by a first batch of fewer steps than the others:
            first, because TensorFlow takes the shapes from the first batches.

    Raises:
        ValueError: a number is not a possible one, the tokens are no integers, or the text is too
            short for it.

    Example:
        >>> import numpy as np
        >>> from keras_lsc.datasets import ContiguousBatches
        >>> [x.tolist() for x, y in ContiguousBatches(np.arange(9), batch_size=2, steps=2)]
        [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    """

    def __init__(
        self,
        tokens: np.ndarray,
        *,
        batch_size: int = 20,
        steps: int = DEFAULT_STEPS,
        drop_rest: bool = True,
    ):
        super().__init__()
        positive_integer("batch_size", batch_size)
        positive_integer("steps", steps)
        flag("drop_rest", drop_rest)
        tokens = _checked(tokens)
        length = (len(tokens) - 1) // batch_size
        if length < (steps if drop_rest else 1):
            raise ValueError(
                f"{len(tokens)} tokens are too few for batch_size={batch_size} "
                f"contiguous parts of steps={steps}; use smaller numbers."
            )
        self.batch_size = batch_size
        self.steps = steps
        self.drop_rest = drop_rest
        self._first = length % steps if not drop_rest and length % steps else steps
        kept = length * batch_size
        self._inputs = np.asarray(tokens[:kept]).reshape(batch_size, length)
        self._targets = np.asarray(tokens[1 : kept + 1]).reshape(batch_size, length)
        self._last = -1

    def __len__(self) -> int:
        """Number of batches."""
        return 1 + (self._inputs.shape[1] - self._first) // self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and targets of one batch, int32 (batch_size, steps) both."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, and no batch {index}.")
        # Whoever looks twice at a batch, or begins anew, is welcome; whoever skips one is not.
        if index not in (0, self._last, self._last + 1):
            raise ValueError(
                f"batch {index} was asked for after batch {self._last}, but the state that is "
                "carried along belongs to batches in order; pass shuffle=False to fit."
            )
        self._last = index
        stop = self._first + index * self.steps
        window = slice(max(0, stop - self.steps), stop)
        return self._inputs[:, window], self._targets[:, window]
