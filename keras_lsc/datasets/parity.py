"""Delayed parity: a generated task whose only clue is in the past."""

from __future__ import annotations

import numpy as np

from keras_lsc.datasets.checks import check_count, check_split

_SIZES = {"train": 50_000, "validation": 5_000, "test": 5_000}


def load(
    split: str = "train",
    *,
    limit: int | None = None,
    n: int = 2,
    delay: int = 10,
    length: int = 30,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws random bit sequences, labelled with the parity of `n` consecutive bits.

    The bits that count are the `n` that end `delay` steps before the end of the sequence, so a
    network has to combine them and then hold the result over `delay` irrelevant bits. With
    `delay=0` it is the N-parity task of the paper below, at a fixed length.

    Args:
        split: "train" (50,000 sequences), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` sequences of the split; None returns them all.
        n: how many bits count.
        delay: how many bits follow them.
        length: time steps of a sequence, at least `n + delay`.
        seed: non-negative integer; the same seed gives the same sequences everywhere.

    Returns:
        x: float32 array of shape (N, length, 1), each entry 0 or 1.
        y: int32 array of shape (N,), `sum(x[:, length - delay - n : length - delay]) mod 2`.

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
    check_split("parity", split, _SIZES)
    if limit is not None:
        check_count("limit", limit, at_least=1)
    check_count("n", n, at_least=1)
    check_count("delay", delay, at_least=0)
    check_count("length", length, at_least=1)
    check_count("seed", seed, at_least=0)
    if length < n + delay:
        raise ValueError(
            f"length={length} is too short for n={n} bits followed by delay={delay} more; "
            f"use length={n + delay} or larger."
        )
    random = np.random.default_rng([seed, list(_SIZES).index(split)])
    bits = random.integers(0, 2, size=(_SIZES[split], length))[:limit]
    end = length - delay
    x = bits[:, :, np.newaxis].astype(np.float32)
    y = (bits[:, end - n : end].sum(axis=1) % 2).astype(np.int32)
    return x, y
