"""What the generated tasks share: streams of random numbers, and lengths."""

from __future__ import annotations

import numpy as np

from keras_lsc.arguments import integer
from keras_lsc.datasets.info import GENERATED_SIZES


def random_stream(split: str, seed: int) -> np.random.Generator:
    """Returns the random numbers of a split; those of two splits have nothing in common.

    Raises:
        ValueError: `seed` is no integer of 0 or more.
    """
    integer("seed", seed, at_least=0)
    return np.random.default_rng([seed, list(GENERATED_SIZES).index(split)])


def random_lengths(
    random: np.random.Generator, count: int, n: int, length: int | None
) -> np.ndarray:
    """Returns the int array (count,) of sequence lengths: all `length`, or uniform when None.

    Uniform is between n + 2 and 4 n + 1, as in arXiv 2309.12927.
    """
    if length is not None:
        return np.full(count, length)
    return random.integers(n + 2, 4 * n + 1, size=count, endpoint=True)
