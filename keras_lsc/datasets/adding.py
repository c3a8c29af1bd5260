"""The adding problem: the sum of two marked numbers, far apart."""

from __future__ import annotations

import numpy as np

from keras_lsc.arguments import integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated

INFO = generated(
    "adding",
    "The sum of the two numbers that are marked, one in each half of the sequence.",
    shape=(100, 2),
    target="value",
    outputs=1,
    homepage="https://doi.org/10.1162/neco.1997.9.8.1735",
    citation="""@article{hochreiter1997long,
  title   = {Long short-term memory},
  author  = {Hochreiter, Sepp and Schmidhuber, J{\\"u}rgen},
  journal = {Neural Computation},
  volume  = {9},
  number  = {8},
  pages   = {1735--1780},
  year    = {1997}
}""",
)


def read(
    split: str = "train", *, limit: int | None = None, length: int = 100, seed: int = 0
) -> Examples:
    """Draws sequences of random numbers, two of them marked, labelled with the sum of the two.

    Args:
        split: "train" (50,000 sequences), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` sequences of the split; None returns them all.
        length: time steps of a sequence, at least 2.
        seed: non-negative integer; the same seed gives the same sequences everywhere.

    Returns:
        Inputs: float32 (N, length, 2), feature 0 uniform in [0, 1), feature 1 the marks: 1 at one
            step of each half, else 0.
        Targets: float32 (N,), the sum of the marked numbers. Always answering 1 has a mean squared
            error of 1/6.

    Raises:
        ValueError: the split is unknown or a number is out of range.

    Example:
        >>> import numpy as np
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("adding", limit=100, length=50)
        >>> bool(np.allclose((x[:, :, 0] * x[:, :, 1]).sum(axis=1), y))
        True

    Source:
        S. Hochreiter, J. Schmidhuber, 1997; one mark in each half as in M. Arjovsky, A. Shah,
        Y. Bengio, arXiv 1511.06464.
    """
    integer("length", length, at_least=2)
    random, count = random_stream(split, seed), GENERATED_SIZES[split]
    first = random.integers(0, length // 2, size=count)
    second = random.integers(length // 2, length, size=count)
    # Row by row, so that the numbers kept are the first ones drawn whatever the limit.
    kept = count if limit is None else min(limit, count)
    x = np.zeros((kept, length, 2), dtype=np.float32)
    x[:, :, 0] = random.random((kept, length), dtype=np.float32)
    row = np.arange(kept)
    x[row, first[:kept], 1] = x[row, second[:kept], 1] = 1
    return Examples(x, (x[:, :, 0] * x[:, :, 1]).sum(axis=1))
