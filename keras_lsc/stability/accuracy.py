"""What the closeness of radii costs, and how close each use of them asks for."""

from typing import NamedTuple

import keras


class Accuracy(NamedTuple):
    """What the closeness of radii costs.

    Attributes:
        squarings: Squarings of a Jacobian that is formed: radii are within an error of order
            2^-squarings.
        krylov: number of products with a Jacobian that is not formed.
        dense_limit: largest side of a Jacobian that is formed; above it only products are taken.
        tolerance: error of a vector up to which a gradient counts as the radius' own.
        certify: whether to find out which values are certain.
        rows: largest number of outputs of a Jacobian that is not formed up to which its gain is
            summed over its rows, where that is its radius; a random estimate is within a few
            percent.
        lapack_work: sum of the cubed sides of square Jacobians up to which they are only formed,
            and LAPACK on the host finds their radii: at every point it takes that times 10 ns,
            where a backend takes seconds to compile powers.
    """

    squarings: int = 14
    krylov: int = 96
    dense_limit: int = 256
    tolerance: float = 0.01
    certify: bool = True
    rows: int = 1024
    lapack_work: int = 0


# On torch nothing is compiled, and the powers of many Jacobians at once take less than LAPACK.
_COMPILES = keras.backend.backend() != "torch"

# Radii of single matrices within 0.05 % of an eigensolver's, means far closer.
MEASURE = Accuracy(lapack_work=3 * 128**3 if _COMPILES else 32**3)
# Means within 0.1 %: enough to see whether a radius is near its target, at many points. Above a
# side of 128 that many products take less time than squaring.
CHECK = Accuracy(
    squarings=10, krylov=96, dense_limit=128, lapack_work=5 * 48**3 if _COMPILES else 0
)
# One update sees a noisy mean over the points of a batch: 0.2 % of it is enough up to a side of
# 256, 0.7 % above.
UPDATE = Accuracy(squarings=10, krylov=64, dense_limit=128, tolerance=0.3, certify=False)
# Within 1 %, less than radii differ from point to point: enough to see them move while a network
# trains, at a tenth of what CHECK costs.
GLANCE = Accuracy(squarings=8, krylov=32, dense_limit=128, certify=False)
