"""Copy memory: repeat some symbols after a long wait."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_lsc.arguments import positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated

SYMBOLS = 8
BLANK, GO = SYMBOLS, SYMBOLS + 1

INFO = generated(
    "copy_memory",
    "Ten symbols, to be repeated after a wait.",
    shape=(120, SYMBOLS + 2),
    target="label per step",
    outputs=SYMBOLS + 1,
    homepage="https://arxiv.org/abs/1511.06464",
    citation="""@inproceedings{arjovsky2016unitary,
  title     = {Unitary evolution recurrent neural networks},
  author    = {Arjovsky, Martin and Shah, Amar and Bengio, Yoshua},
  booktitle = {International Conference on Machine Learning},
  year      = {2016}
}""",
)


@dataclass(frozen=True)
class OneHot:
    """Tokens that become one-hot vectors when they are indexed, a tenth of the memory before.

    Attributes:
        tokens: uint8 array (N, T).
        size: number of tokens there are.
    """

    tokens: np.ndarray
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense array, (N, T, size)."""
        return (*self.tokens.shape, self.size)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns the chosen rows as float32 (rows, T, size)."""
        return np.eye(self.size, dtype=np.float32)[self.tokens[rows]]


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    delay: int = 100,
    symbols: int = 10,
    seed: int = 0,
) -> Examples:
    """Draws sequences of symbols that are to be repeated, in order, after a wait.

    A sequence is `symbols` random ones of eight symbols, `delay - 1` blanks, a sign to start, and
    `symbols` blanks, during which the symbols are to be repeated; before, the answer is blank.

    Args:
        split: "train" (50,000 sequences), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` sequences of the split; None returns them all.
        delay: steps from the last symbol to the first answer, at least 1.
        symbols: how many symbols are to be repeated.
        seed: non-negative integer; the same seed gives the same sequences everywhere.

    Returns:
        Inputs: float32 (N, T, 10) with T = delay + 2 symbols, one-hot: 0 to 7 the symbols, 8
            blank, 9 the sign.
        Targets: int32 (N, T), 0 to 7 the symbols, 8 blank. Guessing the symbols at random and
            knowing when has a mean cross-entropy of symbols * log(8) / T.

    Raises:
        ValueError: the split is unknown or a number is out of range.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("copy_memory", limit=100, delay=20)
        >>> bool((x[:, :10].argmax(axis=-1) == y[:, -10:]).all())
        True

    Source:
        M. Arjovsky, A. Shah, Y. Bengio, arXiv 1511.06464.
    """
    positive_integer("delay", delay)
    positive_integer("symbols", symbols)
    drawn = random_stream(split, seed).integers(0, SYMBOLS, size=(GENERATED_SIZES[split], symbols))[
        :limit
    ]
    tokens = np.full((len(drawn), delay + 2 * symbols), BLANK, dtype=np.uint8)
    targets = tokens.astype(np.int32)
    tokens[:, :symbols] = targets[:, -symbols:] = drawn
    tokens[:, symbols + delay - 1] = GO
    return Examples(OneHot(tokens, SYMBOLS + 2), targets)
