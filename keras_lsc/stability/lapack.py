"""Radii by LAPACK on the host, of the matrices for which powers cannot vouch."""

from typing import Any

import numpy as np

Array = np.ndarray

# Eigenvalues whose moduli are as close as this are one radius, and their vectors not its gradient.
_EQUAL = 1e-5
# Where left and right vector are nearly orthogonal the eigenvalue is defective.
_DEFECTIVE = 1e-6


def radii(matrices: Array) -> Array:
    """Largest modulus of an eigenvalue of `(..., n, n)` matrices, in float64.

    Returns:
        `(...,)`; inf or NaN of a matrix that is not finite.
    """
    return _of_finite(matrices, lambda finite: np.abs(np.linalg.eigvals(finite)).max(axis=-1))


def norms(matrices: Array) -> Array:
    """Largest singular value of `(..., n_out, n_in)` matrices, in float64; else as `radii`."""
    return _of_finite(matrices, lambda finite: np.linalg.norm(finite, ord=2, axis=(-2, -1)))


def _of_finite(matrices: Array, function: Any) -> Array:
    matrices = np.asarray(matrices, dtype="float64")
    is_finite = np.isfinite(matrices).all(axis=(-2, -1))
    found = np.array(np.abs(matrices).max(axis=(-2, -1)))
    found[is_finite] = function(matrices[is_finite])
    return found


def radius_and_gradient(matrix: Array) -> tuple[float, Array | None]:
    """The radius of one matrix, and its gradient.

    Args:
        matrix: `(n, n)` floats.

    Returns:
        The largest modulus |lambda| of an eigenvalue, and
        Re(conj(lambda)/|lambda| u v^T / (u^T v)) `(n, n)`, u and v its left and right vector; None
        where that is no gradient: the radius is 0, or shared by other eigenvalues than a complex
        pair, or defective.
    """
    matrix = np.asarray(matrix, dtype="float64")
    if not np.isfinite(matrix).all():
        return float(np.abs(matrix).max()), None
    values, right = np.linalg.eig(matrix)
    leader = int(np.argmax(np.abs(values)))
    value, radius = values[leader], float(np.abs(values[leader]))
    sharing = np.abs(values) > (1 - _EQUAL) * radius
    is_pair = sharing.sum() == 2 and abs(value.imag) > _EQUAL * radius
    if radius == 0.0 or not (sharing.sum() == 1 or is_pair):
        return radius, None
    values_of_left, left = np.linalg.eig(matrix.T)
    u = left[:, np.argmin(np.abs(values_of_left - value))]
    v = right[:, leader]
    overlap = u @ v
    if abs(overlap) < _DEFECTIVE:
        return radius, None
    return radius, np.real(np.conj(value) / radius * np.outer(u, v) / overlap)
