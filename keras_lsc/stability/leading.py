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
# Left and right vectors of a defective eigenvalue are orthogonal, and what powers and rounding
# leave of their overlap may look like that of a simple one, far off. Of a random matrix it is of
# the order of n^(-1/2): much below that there is nothing to vouch for.
_NARROW = 0.4
_CONVERGED = 4e-6


class Subspaces(NamedTuple):
    """What the powers of M and of its transpose tend to.

    Attributes:
        left: `(..., n, 2)` orthonormal columns Y, of M^T.
        right: `(..., n, 2)` orthonormal columns X, of M.
        are_lines: `(...,)` whether one column holds either range.
        are_planes: whether the two do.
        are_sharp: whether next to nothing is left beside the lines or the planes.
    """

    left: Tensor
    right: Tensor
    are_lines: Tensor
    are_planes: Tensor
    are_sharp: Tensor


def subspaces(left: Tensor, right: Tensor, tolerance: float) -> Subspaces:
    """Orthonormal bases of the ranges that three vectors `(..., n, 3)` each are drawn from.

    Args:
        left: vectors in a general position in the range of powers of M^T.
        right: the same of M.
        tolerance: What may be left of the third beside two for a range to count as a plane.

    Returns:
        `Subspaces`; of a line the second column is what rounding left, or zero.
    """
    # Both at once: a graph of half the size.
    both = ops.stack([left, right])
    first, second, third = (normalized(both[..., k])[0] for k in range(3))
    second, beside_line = normalized(_without(second, first))
    second = normalized(_without(second, first))[0]  # once is not enough where they are parallel
    beside_plane = normalized(_without(_without(third, first), second))[1]
    bases = ops.stack([first, second], axis=-1)
    beside_line, beside_plane = (
        ops.max(beside[..., 0], axis=0) for beside in (beside_line, beside_plane)
    )
    are_lines = beside_line < _LINE
    are_planes = ops.logical_or(are_lines, beside_plane < tolerance)
    are_sharp = ops.where(are_lines, beside_line, beside_plane) < _SHARP
    return Subspaces(bases[0], bases[1], are_lines, are_planes, are_sharp)


def normalized(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors and lengths `(..., 1)`; a vector of no length becomes zero, not NaN."""
    norm = safe_sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))
    return vectors / ops.where(norm == 0.0, 1.0, norm), norm


def _without(vector: Tensor, direction: Tensor) -> Tensor:
    return vector - ops.sum(direction * vector, axis=-1, keepdims=True) * direction


def leading(
    spaces: Subspaces, rows: Tensor, value: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The modulus of the eigenvalue between two subspaces, and whether it is the leading one.

    Args:
        spaces: bases Y and X.
        rows: Y^T M, `(..., 2, n)`, differentiable.
        value: `(...,)`, the radius by other means.
        tolerance: Tolerance, as of `subspaces`.

    Returns:
        The modulus, and whether it is the radius' own, both `(...,)`.
    """
    overlap = ops.matmul(ops.swapaxes(spaces.left, -1, -2), spaces.right)
    block = ops.matmul(rows, spaces.right)
    # What rounding does to vectors is divided by their overlap.
    least = 1e-6 / tolerance
    line, line_is_regular = _line_modulus(overlap, block, least)
    plane, plane_is_simple = _plane_modulus(overlap, block, value, least)
    modulus = ops.where(spaces.are_lines, line, plane)
    in_plane = ops.logical_and(spaces.are_planes, plane_is_simple)
    is_eigenvalue = ops.where(spaces.are_lines, line_is_regular, in_plane)
    agrees = ops.abs(modulus - value) < 0.02 * value
    return modulus, ops.logical_and(is_eigenvalue, agrees)


def _line_modulus(overlap: Tensor, block: Tensor, least: float) -> tuple[Tensor, Tensor]:
    is_regular = ops.abs(overlap[..., 0, 0]) > least
    return ops.abs(block[..., 0, 0] / ops.where(is_regular, overlap[..., 0, 0], 1.0)), is_regular


def _plane_modulus(
    overlap: Tensor, block: Tensor, value: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Modulus of the eigenvalue of (Y^T X)^-1 Y^T M X that agrees with `value`.

    Returns:
        The modulus, and whether it is that of one eigenvalue or a pair with a regular overlap, not
        of two real eigenvalues of equal modulus, nor of two that coincide.
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
    is_simple = ops.logical_not(ops.logical_or(is_tie, is_double))
    modulus = ops.where(is_pair, safe_sqrt(determinant), real)
    return modulus, ops.logical_and(is_regular, is_simple)


def is_certain(spaces: Subspaces, residuals: Tensor, size: Tensor, value: Tensor) -> Tensor:
    """Whether the eigenvalue between two subspaces is known to be close.

    The residuals of a left and a right vector bound their errors, and the eigenvalue is off by
    their product, over the overlap of the vectors and the distance of the next eigenvalue, which
    is taken to be a tenth of the radius; rounding is divided by the overlap too. Vectors nearly
    orthogonal are those of an eigenvalue that is nearly a multiple one, and vouch for nothing.

    Args:
        spaces: bases Y and X.
        residuals: Residuals of both, `(2, ...)`.
        size: `(...,)` Frobenius norm of M.
        value: `(...,)` the modulus.

    Returns:
        `(...,)` booleans.
    """
    on_line = spaces.are_lines
    overlap = ops.matmul(ops.swapaxes(spaces.left, -1, -2), spaces.right)
    # The smallest singular value is no smaller than that.
    narrowest = ops.abs(_determinant(overlap)) / _frobenius(overlap)
    narrowest = ops.where(on_line, ops.abs(overlap[..., 0, 0]), narrowest)
    least = _NARROW / spaces.left.shape[-2] ** 0.5
    is_regular = ops.logical_and(narrowest > least, value > 0.0)
    rounding = float(np.finfo(ops.dtype(size)).eps) / 2 * size
    distance = ops.where(is_regular, _NEXT * value, 1.0)
    narrowest = ops.where(is_regular, narrowest, 1.0)
    error = (residuals[0] * residuals[1] / distance + rounding) / narrowest
    apart = ops.where(spaces.are_sharp, _ALONE_IF_SHARP, _ALONE)
    is_alone = ops.max(residuals, axis=0) < apart * value * narrowest
    is_close = ops.logical_and(is_alone, error < _CLOSE * value)
    return ops.logical_and(is_regular, is_close)


def are_converged(residuals: Tensor, value: Tensor) -> Tensor:
    """Whether what M makes of two subspaces stays in them, but for little more than rounding.

    A Krylov space that is not the whole one does not tell how far off the next eigenvalue is, and
    so how far a residual turns the vectors: with so small a one, that may be a thousandth of the
    radius.

    Args:
        residuals: Residuals of the subspaces, `(2, ...)`.
        value: `(...,)` the modulus.
    """
    return ops.max(residuals, axis=0) < _CONVERGED * value


def residuals_of(spaces: Subspaces, rows: Tensor, images: Tensor) -> Tensor:
    """Lengths `(2, ...)` of what Y^T M and M X have outside of Y and X.

    Args:
        spaces: bases Y and X.
        rows: Y^T M, `(..., 2, n)`.
        images: M X, `(..., n, 2)`.
    """
    vectors = ops.stack([spaces.left, spaces.right])
    images = ops.stack([ops.swapaxes(rows, -1, -2), images])
    inside = ops.matmul(ops.swapaxes(vectors, -1, -2), images)
    plane = images - ops.matmul(vectors, inside)
    line = images[..., 0] - vectors[..., 0] * inside[..., 0, 0][..., None]
    return ops.where(spaces.are_lines, _length(line), _frobenius(plane))


def _length(vectors: Tensor) -> Tensor:
    return safe_sqrt(ops.sum(ops.square(vectors), axis=-1))


def _frobenius(matrices: Tensor) -> Tensor:
    return safe_sqrt(ops.sum(ops.square(matrices), axis=(-2, -1)))


def _determinant(matrices: Tensor) -> Tensor:
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
