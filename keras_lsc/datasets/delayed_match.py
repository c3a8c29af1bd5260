"""N-delayed-match: whether the last bit equals the one some steps before."""

from __future__ import annotations

import numpy as np

from keras_lsc.arguments import integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_lengths, random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated
from keras_lsc.datasets.parity import INFO as PARITY

INFO = generated(
    "delayed_match",
    "Whether the last bit equals the one n - 1 steps before (N-delayed-match).",
    shape=(21, 1),
    target="label",
    outputs=2,
    padded=True,
    homepage=PARITY.homepage,
    citation=PARITY.citation,
)


def label(bits: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """Whether the last bit equals the one n - 1 steps before.

    Args:
        bits: `(count, T)`, 0 or 1.
        lengths: `(count,)`, steps of each sequence.
        n: the bits compared are the first and the last of the last `n`.

    Returns:
        int `(count,)`, 1 where they are equal, else 0.
    """
    row = np.arange(len(bits))
    return (bits[row, lengths - n] == bits[row, lengths - 1]).astype(int)


def draw(
    random: np.random.Generator, count: int, n: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws sequences of random bits and whether x[T - n + 1] = x[T], counting steps from 1.

    Args:
        random: the source of random numbers.
        count: number of sequences.
        n: the bits compared are the first and the last of the last `n`.
        length: T of every sequence; None draws lengths uniformly from n + 2 to 4 n + 1.

    Returns:
        Bits, int (count, longest), zeros after the end of a sequence; int labels (count,); int
        lengths (count,).
    """
    lengths = random_lengths(random, count, n, length)
    bits = random.integers(0, 2, size=(count, 4 * n + 1 if length is None else length))
    is_there = np.arange(bits.shape[1]) < lengths[:, np.newaxis]
    return np.where(is_there, bits, 0), label(bits, lengths, n), lengths


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    n: int = 5,
    length: int | None = None,
    seed: int = 0,
) -> Examples:
    """Draws random bit sequences, labelled by whether the last bit is that of n - 1 steps before.

    Args:
        split: "train" (50,000 sequences), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` sequences of the split; None returns them all.
        n: at least 2; the bits compared are the first and the last of the last `n`.
        length: time steps of a sequence, at least `n`; None draws the length of each uniformly
            from n + 2 to 4 n + 1 and pads with zeros.
        seed: non-negative integer; the same seed gives the same sequences everywhere.

    Returns:
        Inputs: float32 (N, length or 4 n + 1, 1), each entry 0 or 1; zeros after the end (see
            `masks` of `keras_lsc.datasets.load`).
        Targets: int32 (N,), 1 where the two bits are equal, else 0.

    Raises:
        ValueError: the split is unknown, a number is out of range, or `length < n`.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("delayed_match", limit=3, n=4, length=9)
        >>> bool((y == (x[:, -4, 0] == x[:, -1, 0])).all())
        True

    Source:
        The N-delayed-match-to-sample task of arXiv 2309.12927.
    """
    integer("n", n, at_least=2)
    if length is not None:
        integer("length", length, at_least=n)
    bits, labels, lengths = draw(random_stream(split, seed), GENERATED_SIZES[split], n, length)
    x = bits[:limit, :, np.newaxis].astype(np.float32)
    return Examples(x, labels[:limit].astype(np.int32), lengths[:limit])
