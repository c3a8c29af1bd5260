"""Digits: 1,797 small handwritten digits that scikit-learn ships, so no network is needed."""

from __future__ import annotations

import numpy as np

from keras_lsc.datasets.checks import check_limit, check_split
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.info import TaskInfo

_SIZES = {"train": 1397, "validation": 200, "test": 200}
# Of the pixels of the training split, 0 to 16.
_MEAN, _DEVIATION = 4.887, 6.016

INFO = TaskInfo(
    name="digits",
    description="Small handwritten digits, one row of 8 pixels a step; comes with scikit-learn.",
    kind="image",
    shape=(8, 8),
    target="label",
    outputs=10,
    examples=_SIZES,
    licence="CC BY 4.0",
    homepage="https://doi.org/10.24432/C50P49",
    citation="""@misc{alpaydin1998digits,
  title  = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  year   = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi    = {10.24432/C50P49}
}""",
)


def read(split: str = "train", *, limit: int | None = None) -> Examples:
    """Reads the digits of scikit-learn as sequences of 8 rows of 8 pixels, z-scored.

    They are the test file of the UCI repository, in an order drawn once: the file is sorted by
    writers.

    Args:
        split: "train" (1,397 digits), "validation" (200) or "test" (200); no digit is in two of
            them.
        limit: read only the first `limit` digits of the split; None reads them all.

    Returns:
        Inputs: float32 (N, 8, 8), rows as time steps, mean 0 and variance 1 over the pixels of
        the training split.
        Targets: int32 (N,), the digits 0 to 9.

    Raises:
        ValueError: `split` or `limit` is not a possible one.
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("digits", split="test")
        >>> x.shape
        (200, 8, 8)

    Source:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    check_split("digits", split, _SIZES)
    check_limit(limit)
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading digits needs scikit-learn, which cannot be imported ({error}); install it "
            'with: pip install "keras-lsc[demo]"',
            name=error.name,
        ) from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    parts = np.split(order, np.cumsum(list(_SIZES.values()))[:-1])
    chosen = dict(zip(_SIZES, parts, strict=True))[split][:limit]
    pixels = (found.images[chosen] - _MEAN) / _DEVIATION
    return Examples(pixels.astype(np.float32), found.target[chosen].astype(np.int32))
