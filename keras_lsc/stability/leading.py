"""The leading eigenvalue of M between the dominant subspaces of its powers, and its gradient.

With X and Y bases of what M^N and its transpose tend to, not differentiated, the eigenvalues of
(Y^T X)^-1 Y^T M X are eigenvalues of M, stationary in X and Y: so their derivative by M is exact.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_lsc.stability.powers import safe_sqrt

Tensor = Any

# What is left of the second vector of a range beside the first where the range is a line.
_LINE = 1e-3
_SHARP = 3e-6
# Two real leaders of opposite sign are one radius, and no gradient is its own; nor is that of two
# that nearly coincide.
_TIE = 1e-3
# A certain value is this close, if the next eigenvalue is so far off, as a share of the radius;
# and each residual alone, over the overlap, says that the vectors are not those of two that
# nearly coincide: less so where the powers parted them sharply.
_CLOSE = 5e-4
_NEXT = 0.1
_ALONE, _ALONE_IF_SHARP = 0.05, 0.5


class Basis(NamedTuple):
    """Two orthonormal columns of a range, and how many dimensions the range has.

    Attributes:
        vectors: `(..., n, 2)`.
        is_line: whether one holds the range.
        is_plane: whether the two do.
        is_sharp: whether next to nothing is left beside the line or the plane.
    """

    vectors: Tensor
    is_line: Tensor
    is_plane: Tensor
    is_sharp: Tensor


def basis_of(vectors: Tensor, tolerance: float) -> Basis:
    """An orthonormal basis of the range that three vectors `(..., n, 3)` are drawn from.

    Args:
        vectors: in a general position in the range.
        tolerance: what may be left of the third beside two for the range to count as a plane.

    Returns:
        `Basis`; of a line the second column is what rounding left, or zero.
    """
    first, second, third = (normalized(vectors[..., k])[0] for k in range(3))
    second = _without(second, first)
    second, beside_line = normalized(second)
    second = normalized(_without(second, first))[0]  # once is not enough where they are parallel
    beside_plane = normalized(_without(_without(third, first), second))[1]
    is_line = beside_line[..., 0] < _LINE
    is_plane = ops.logical_or(is_line, beside_plane[..., 0] < tolerance)
    is_sharp = ops.where(is_line, beside_line[..., 0], beside_plane[..., 0]) < _SHARP
    return Basis(ops.stack([first, second], axis=-1), is_line, is_plane, is_sharp)


def normalized(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors and lengths `(..., 1)`; a vector of no length becomes zero, not NaN."""
    size = ops.max(ops.abs(vectors), axis=-1, keepdims=True)
    is_zero = size == 0.0
    size = ops.where(is_zero, 1.0, size)
    vectors = vectors / size
    norm = safe_sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))
    return vectors / ops.where(is_zero, 1.0, norm), norm * size


def _without(vector: Tensor, direction: Tensor) -> Tensor:
    return vector - ops.sum(direction * vector, axis=-1, keepdims=True) * direction


def leading(
    left: Basis, right: Basis, rows: Tensor, value: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The modulus of the eigenvalue between two subspaces, and whether it is the leading one.

    Args:
        left: basis Y of what the powers of M^T tend to.
        right: basis X of what those of M tend to.
        rows: Y^T M, `(..., 2, n)`, differentiable.
        value: `(...,)`, the radius by other means.
        tolerance: as of `basis_of`.

    Returns:
        The modulus, and whether it is the radius' own, both `(...,)`.
    """
    overlap = ops.matmul(ops.swapaxes(left.vectors, -1, -2), right.vectors)
    block = ops.matmul(rows, right.vectors)
    # What rounding does to vectors is divided by their overlap.
    least = 1e-6 / tolerance
    on_line = ops.logical_and(left.is_line, right.is_line)
    line, line_is_regular = _line_modulus(overlap, block, least)
    plane, plane_is_regular, is_tie = _plane_modulus(overlap, block, value, least)
    modulus = ops.where(on_line, line, plane)
    in_plane = ops.logical_and(left.is_plane, right.is_plane)
    is_simple = ops.logical_and(plane_is_regular, ops.logical_not(is_tie))
    is_eigenvalue = ops.where(on_line, line_is_regular, ops.logical_and(in_plane, is_simple))
    agrees = ops.abs(modulus - value) < 0.02 * value
    return modulus, ops.logical_and(is_eigenvalue, agrees)


def _line_modulus(overlap: Tensor, block: Tensor, least: float) -> tuple[Tensor, Tensor]:
    is_regular = ops.abs(overlap[..., 0, 0]) > least
    return ops.abs(block[..., 0, 0] / ops.where(is_regular, overlap[..., 0, 0], 1.0)), is_regular


def _plane_modulus(
    overlap: Tensor, block: Tensor, value: Tensor, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Modulus of the eigenvalue of (Y^T X)^-1 Y^T M X that agrees with `value`.

    Returns:
        The modulus, whether the overlap is regular, and whether there are two real eigenvalues of
        equal modulus, or two that coincide.
    """
    area = _determinant(overlap)
    is_regular = ops.abs(area) > least
    area = ops.where(is_regular, area, 1.0)
    half_trace = 0.5 * (
        overlap[..., 1, 1] * block[..., 0, 0]
        - overlap[..., 0, 1] * block[..., 1, 0]
        + overlap[..., 0, 0] * block[..., 1, 1]
        - overlap[..., 1, 0] * block[..., 0, 1]
    )
    half_trace = half_trace / area
    determinant = _determinant(block) / area
    discriminant = half_trace**2 - determinant
    root = safe_sqrt(discriminant)
    candidates = [ops.abs(half_trace + root), ops.abs(half_trace - root)]
    first_is_nearer = ops.abs(candidates[0] - value) < ops.abs(candidates[1] - value)
    real = ops.where(first_is_nearer, *candidates)
    is_pair = discriminant < 0.0
    apart = ops.abs(candidates[0] - candidates[1])
    is_tie = ops.logical_and(ops.logical_not(is_pair), apart < _TIE * value)
    is_double = ops.abs(discriminant) < ops.square(_TIE * value)
    is_tie = ops.logical_or(is_tie, is_double)
    return ops.where(is_pair, safe_sqrt(determinant), real), is_regular, is_tie


def is_certain(
    left: Basis, right: Basis, rows: Tensor, images: Tensor, size: Tensor, value: Tensor
) -> Tensor:
    """Whether the eigenvalue between two subspaces is known to be close.

    The residuals of a left and a right vector bound their errors, and the eigenvalue is off by
    their product, over the overlap of the vectors and the distance of the next eigenvalue, which
    is taken to be a tenth of the radius; rounding is divided by the overlap too.

    Args:
        left: basis Y.
        right: basis X.
        rows: Y^T M, `(..., 2, n)`.
        images: M X, `(..., n, 2)`.
        size: `(...,)` Frobenius norm of M.
        value: `(...,)` the modulus.

    Returns:
        `(...,)` booleans.
    """
    on_line = ops.logical_and(left.is_line, right.is_line)
    overlap = ops.matmul(ops.swapaxes(left.vectors, -1, -2), right.vectors)
    # The smallest singular value is no smaller than that.
    narrowest = ops.abs(_determinant(overlap)) / _frobenius(overlap)
    narrowest = ops.where(on_line, ops.abs(overlap[..., 0, 0]), narrowest)
    is_regular = ops.logical_and(narrowest > 0.0, value > 0.0)
    of_right = _residual(right.vectors, images, on_line)
    of_left = _residual(left.vectors, ops.swapaxes(rows, -1, -2), on_line)
    rounding = float(np.finfo(ops.dtype(size)).eps) / 2 * size
    distance = ops.where(is_regular, _NEXT * value, 1.0)
    narrowest = ops.where(is_regular, narrowest, 1.0)
    error = (of_right * of_left / distance + rounding) / narrowest
    is_sharp = ops.logical_and(left.is_sharp, right.is_sharp)
    apart = ops.where(is_sharp, _ALONE_IF_SHARP, _ALONE)
    is_alone = ops.maximum(of_right, of_left) < apart * value * narrowest
    is_close = ops.logical_and(is_alone, error < _CLOSE * value)
    return ops.logical_and(is_regular, is_close)


def _residual(vectors: Tensor, images: Tensor, on_line: Tensor) -> Tensor:
    inside = ops.matmul(ops.swapaxes(vectors, -1, -2), images)
    plane = images - ops.matmul(vectors, inside)
    line = images[..., 0] - vectors[..., 0] * inside[..., 0, 0][..., None]
    return ops.where(on_line, normalized(line)[1][..., 0], _frobenius(plane))


def _frobenius(matrices: Tensor) -> Tensor:
    return safe_sqrt(ops.sum(ops.square(matrices), axis=(-2, -1)))


def _determinant(matrices: Tensor) -> Tensor:
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
