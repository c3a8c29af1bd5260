"""Radius and gain of Jacobians that are formed: value from powers, exact gradient."""

from typing import Any, NamedTuple

from keras import ops

from keras_lsc.stability.accuracy import Accuracy
from keras_lsc.stability.leading import is_certain, leading, residuals_of, subspaces
from keras_lsc.stability.powers import from_safe_scale, powers, safe_sqrt, to_safe_scale

Tensor = Any


class Spectral(NamedTuple):
    """A radius, or largest singular value, of every matrix.

    Attributes:
        value: `(...,)` floats, differentiable.
        is_own: `(...,)` booleans, whether the gradient of the value is its own; elsewhere it is
            that of a common scale of all entries.
        is_certain: `(...,)` booleans, whether the value is known to be close; None where that was
            not asked for.
    """

    value: Tensor
    is_own: Tensor
    is_certain: Tensor | None


def dense(matrices: Tensor, accuracy: Accuracy) -> Spectral:
    """Returns the spectral radius of `(..., n, n)` matrices."""
    matrices, scale = to_safe_scale(matrices)
    fixed = ops.stop_gradient(matrices)
    found = powers(fixed, accuracy.squarings, accuracy.certify)
    spaces = subspaces(found.left, found.right, accuracy.tolerance)
    rows = ops.matmul(ops.swapaxes(spaces.left, -1, -2), matrices)
    modulus, is_own = leading(spaces, rows, found.value, accuracy.tolerance)
    certain, value = None, found.value
    if accuracy.certify:
        size = safe_sqrt(ops.sum(ops.square(fixed), axis=(-2, -1)))
        images = ops.matmul(fixed, spaces.right)
        residuals = residuals_of(spaces, ops.stop_gradient(rows), images)
        by_vectors = is_certain(spaces, residuals, size, value)
        is_own = by_vectors = ops.logical_and(by_vectors, is_own)
        # Stationary in both vectors, the eigenvalue between them is closer than the growth rate.
        value = ops.where(by_vectors, ops.stop_gradient(modulus), value)
        certain = ops.logical_or(found.is_certain, by_vectors)
    radius = with_slope(value, modulus, is_own, rms_gain(matrices), value == 0.0)
    return Spectral(from_safe_scale(radius, scale), is_own, certain)


def with_slope(
    value: Tensor, modulus: Tensor, is_own: Tensor, gain: Tensor, vanished: Tensor
) -> Tensor:
    """`value`, with the gradient of `modulus`, or of a common scale where that is not its own."""
    slope = ops.where(is_own, modulus, _per_own_value(gain) * value)
    slope = ops.where(vanished, 0.0, slope)
    return value + slope - ops.stop_gradient(slope)


def _per_own_value(x: Tensor) -> Tensor:
    """x / x: 1, with the derivative of log x; 0 where x is 0."""
    fixed = ops.stop_gradient(x)
    return ops.where(fixed == 0.0, 0.0, x / ops.where(fixed == 0.0, 1.0, fixed))


def dense_norm(matrices: Tensor, accuracy: Accuracy) -> Spectral:
    """Returns the largest singular value of `(..., n_out, n_in)` matrices."""
    matrices, scale = to_safe_scale(matrices)
    transposed = ops.swapaxes(matrices, -1, -2)
    n_out, n_in = matrices.shape[-2:]
    gram = ops.matmul(matrices, transposed) if n_out <= n_in else ops.matmul(transposed, matrices)
    squared = dense(gram, accuracy)
    is_zero = squared.value == 0.0
    norm = ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, squared.value)))
    return squared._replace(value=from_safe_scale(norm, scale))


def rms_gain(matrices: Tensor) -> Tensor:
    """Root mean square of what M does to the length of a random vector.

    |M|_F sqrt((1/n_in + 1/n_out)/2): for square matrices |M|_F/sqrt(n), the root mean square of
    |u^T M| over random unit u; for others the mean of the energy gains forward and backward. It
    is 1 for a Glorot-initialised linear layer, and for a large square matrix with independent
    entries it equals the spectral radius (circular law).

    Args:
        matrices: `(..., n_out, n_in)` floats.

    Returns:
        `(...,)` gains.
    """
    n_out, n_in = matrices.shape[-2:]
    matrices, scale = to_safe_scale(matrices)
    energy = ops.sum(ops.square(matrices), axis=(-2, -1))
    return from_safe_scale(safe_sqrt(energy_per_gain(n_out, n_in) * energy), scale)


def energy_per_gain(n_out: int, n_in: int) -> float:
    """Returns the squared RMS gain of a matrix of this shape over its squared Frobenius norm."""
    return 0.5 * (1.0 / n_out + 1.0 / n_in)
