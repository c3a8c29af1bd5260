"""What the closeness of radii costs, and how close each use of them asks for."""

from typing import NamedTuple


class Accuracy(NamedTuple):
    """What the closeness of radii costs.

    Attributes:
        squarings: Squarings of a Jacobian that is formed: radii are within an error of order
            2^-squarings.
        krylov: number of products with a Jacobian that is not formed.
        dense_limit: largest side of a Jacobian that is formed; above it only products are taken.
        tolerance: error of a vector up to which a gradient counts as the radius' own.
        certify: whether to find out which values are certain.
    """

    squarings: int = 14
    krylov: int = 96
    dense_limit: int = 256
    tolerance: float = 0.01
    certify: bool = True


# Radii of single matrices within 0.05 % of an eigensolver's, means far closer.
MEASURE = Accuracy()
# Means within 0.1 %: enough to see whether a radius is near its target. Above a side of 128 that
# many products take less time than squaring.
CHECK = Accuracy(squarings=10, krylov=96, dense_limit=128)
# One update sees a noisy mean over the points of a batch: 0.2 % of it is enough up to a side of
# 256, 0.7 % above.
UPDATE = Accuracy(squarings=10, krylov=64, dense_limit=128, tolerance=0.3, certify=False)
