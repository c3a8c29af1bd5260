"""Delayed parity: a generated task whose only clue is in the past."""

from __future__ import annotations

import numpy as np

from keras_lsc.arguments import integer, positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_lengths, random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated

INFO = generated(
    "parity",
    "The parity of n bits, some steps after them (N-parity, delayed).",
    shape=(30, 1),
    target="label",
    outputs=2,
    padded=True,
    homepage="https://arxiv.org/abs/2309.12927",
    citation="""@article{khajehabdollahi2023emergent,
  title   = {Emergent mechanisms for long timescales depend on training curriculum and affect
             performance in memory tasks},
  author  = {Khajehabdollahi, Sina and Zeraati, Roxana and Giannakakis, Emmanouil and
             Sch{\\"a}fer, Tim Jakob and Martius, Georg and Levina, Anna},
  journal = {arXiv preprint arXiv:2309.12927},
  year    = {2023}
}""",
)


def label(bits: np.ndarray, lengths: np.ndarray, n: int, delay: int = 0) -> np.ndarray:
    """The parity of `n` consecutive bits.

    Args:
        bits: `(count, T)`, 0 or 1.
        lengths: `(count,)`, steps of each sequence.
        n: how many bits count.
        delay: how many follow them.

    Returns:
        int `(count,)`, 0 or 1.
    """
    step, end = np.arange(bits.shape[1]), lengths[:, np.newaxis]
    counts = (step >= end - delay - n) & (step < end - delay)
    return (bits * counts).sum(axis=1) % 2


def draw(
    random: np.random.Generator, count: int, n: int, length: int | None = None, delay: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws sequences of random bits and the parity of `n` consecutive ones.

    Args:
        random: the source of random numbers.
        count: number of sequences.
        n: how many bits count.
        length: Length of every sequence; None draws lengths uniformly from n + 2 to 4 n + 1, plus
            delay.
        delay: how many bits follow those that count.

    Returns:
        Bits, int (count, longest), zeros after the end of a sequence; int labels (count,); int
        lengths (count,).
    """
    lengths = random_lengths(random, count, n, length)
    if length is None:
        lengths = lengths + delay
    bits = random.integers(0, 2, size=(count, 4 * n + 1 + delay if length is None else length))
    is_there = np.arange(bits.shape[1]) < lengths[:, np.newaxis]
    return np.where(is_there, bits, 0), label(bits, lengths, n, delay), lengths


def read(
    split: str = "train",
    *,
    limit: int | None = None,
    n: int = 2,
    delay: int = 10,
    length: int | None = 30,
    seed: int = 0,
) -> Examples:
    """Draws random bit sequences, labelled with the parity of `n` consecutive bits.

    The bits that count are the `n` that end `delay` steps before the end of the sequence, so a
    network has to combine them and then hold the result over `delay` irrelevant bits. With
    `delay=0` and `length=None` it is the N-parity task of the paper below.

    Args:
        split: "train" (50,000 sequences), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` sequences of the split; None returns them all.
        n: how many bits count.
        delay: how many bits follow them.
        length: time steps of a sequence, at least `n + delay`; None draws the length of each
            uniformly from n + 2 to 4 n + 1, plus `delay`, and pads with zeros.
        seed: non-negative integer; the same seed gives the same sequences everywhere.

    Returns:
        Inputs: float32 (N, length, 1), each entry 0 or 1.
        Targets: int32 (N,), `sum(x[:, length - delay - n : length - delay]) mod 2`.

    Raises:
        ValueError: the split is unknown, a number is out of range, or `length < n + delay`.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("parity", limit=3, n=2, delay=0, length=4)
        >>> bool((y == x[:, -2:, 0].sum(axis=1) % 2).all())
        True

    Source:
        The N-parity task of arXiv 2309.12927.
    """
    positive_integer("n", n)
    integer("delay", delay, at_least=0)
    if length is not None:
        positive_integer("length", length)
        if length < n + delay:
            raise ValueError(
                f"length={length} is too short for n={n} bits followed by delay={delay} more; "
                f"use length={n + delay} or larger."
            )
    bits, labels, lengths = draw(
        random_stream(split, seed), GENERATED_SIZES[split], n, length, delay
    )
    x = bits[:limit, :, np.newaxis].astype(np.float32)
    return Examples(x, labels[:limit].astype(np.int32), lengths[:limit])
