"""The powers of a matrix by repeated squaring: how fast they grow, and what they tend to.

There is no eigensolver here: none has a gradient on every backend, XLA lacks one on some devices,
and on others it can wait for threads that wait for it. The spectral radius is the growth rate of
M, M^2, M^4, ...: matrix products only, for complex pairs, defective and zero matrices alike, and
M^N spans the dominant eigenspaces. What rounding makes of the powers of a matrix that is far from
normal grows with them, so a value counts as certain only where there is more to vouch for it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

Tensor = Any

# Powers are kept at this norm: the square of an entry 1e-30 times smaller is still a number.
_SIZE = 2.0**20
# The energy of a power below which nothing is left of it.
_NO_ENERGY = 1e-36
# Matrices outside of these sizes are brought to 1 first; rounding would cost others nothing but
# the zeros that cancel exactly.
_SAFE_SIZES = (2.0**-10, 2.0**10)
# By what: XLA divides by multiplying with the reciprocal, which would be flushed of larger ones.
_SCALES = (1e-37, 1e37)
_PROBES = 3
# By how much, relative to a radius, rounding may move it; and the largest growth of a power beside
# that of the radius, as a logarithm, that is told from others.
_HARMLESS = 2e-4
_MOST_GROWTH = 30.0
# How far from commuting with its transpose, relative to its square, a matrix is normal.
_NORMAL = 1e-4


class Powers(NamedTuple):
    """What the powers of matrices `(..., n, n)` say; N is the last exponent.

    Attributes:
        value: `(...,)` growth rate (|M^N| / |M^(N/2)|)^(2/N), the spectral radius within a
            relative error of order 1/N.
        right: `(..., n, 3)` three vectors of the range of M^N.
        left: `(..., n, 3)` the same of its transpose.
        is_zero: `(...,)` whether M is zero, and its radius with it.
        is_certain: `(...,)` whether `value` lies between an upper and a lower bound that
            are close, and rounding is too small to matter; None where it was not asked for.
    """

    value: Tensor
    right: Tensor
    left: Tensor
    is_zero: Tensor
    is_certain: Tensor | None


def to_safe_scale(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices whose squares are in range, and what they were divided by, 1 for most.

    The gradient of a radius, a norm or a gain does not depend on the scale of the matrix, so the
    division has the derivative 1, as that of `from_safe_scale` has: neither can overflow.

    Args:
        matrices: `(..., n_out, n_in)` floats.

    Returns:
        The matrices, and their scales `(...,)`.
    """
    matrices = ops.convert_to_tensor(matrices)
    fixed = ops.stop_gradient(matrices)
    size = ops.max(ops.abs(fixed), axis=(-2, -1))
    low, high = _SAFE_SIZES
    is_safe = ops.logical_or(ops.logical_and(size >= low, size <= high), size == 0.0)
    scale = ops.where(is_safe, 1.0, ops.clip(size, *_SCALES))
    return fixed / scale[..., None, None] + (matrices - fixed), scale


def from_safe_scale(values: Tensor, scale: Tensor) -> Tensor:
    """Radii, norms or gains of the matrices that `to_safe_scale` was given."""
    fixed = ops.stop_gradient(values)
    return fixed * scale + (values - fixed)


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root with the derivative 0 where x is not positive, and the value 0."""
    is_zero = x <= 0.0
    return ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, x)))


def powers(matrices: Tensor, squarings: int, certify: bool = False) -> Powers:
    """Raises matrices to N = 2^squarings.

    Args:
        matrices: `(..., n, n)` floats whose squares are in range; not differentiated.
        squarings: number of times a matrix is squared.
        certify: whether to follow bounds and rounding, for `is_certain`.

    Returns:
        `Powers`. Where nothing is left of a power but the matrix is not zero, it was nilpotent, or
        a small part of it was lost beside a large one: there `value` is the lower bound that the
        traces of the powers give, 0 for nilpotent matrices, and it is not certain.
    """
    n, dtype = matrices.shape[-1], ops.dtype(matrices)
    is_zero = ops.max(ops.abs(matrices), axis=(-2, -1)) == 0.0
    nothing = ops.zeros_like(matrices[..., 0, 0])

    def body(_: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        *state, rates, unit = carry
        unit, *state = _at_size(ops.matmul(unit, unit), state)
        # Those of all powers, in their order: the last ones of so many.
        rates = ops.concatenate([rates[1:], state[1][None]])
        return (*state, rates, unit)

    # The exponent, the rates of the last power and of the one before, the lower bound, and
    # whether nothing is left of the powers.
    start = (ops.ones((), dtype), nothing, nothing, nothing - np.inf, nothing > 0.0)
    unit, *first = _at_size(matrices * _SIZE**2, start)
    rates = ops.stack([first[1]] * (squarings + 1 if certify else 1))
    carry = ops.fori_loop(0, squarings, body, (*first, rates, unit))
    _, rate, former, lower, is_gone, rates, unit = carry
    unit = unit / _SIZE
    value = ops.exp(ops.where(is_gone, lower, 2.0 * rate - former))
    certain = None
    if certify:
        certain = _bounds_are_close(unit, rate, value, 2.0**squarings)
        is_harmless = ops.logical_or(_is_normal(matrices), _rounding_is_small(rates, value))
        certain = ops.logical_and(certain, is_harmless)
        certain = ops.logical_or(is_zero, ops.logical_and(certain, ops.logical_not(is_gone)))
    probes = _probes(n, dtype)
    return Powers(
        value,
        ops.matmul(unit, probes),
        ops.matmul(ops.swapaxes(unit, -1, -2), probes),
        is_zero,
        certain,
    )


def _at_size(raised: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A power brought to the norm `_SIZE`, and what is known of the powers with it.

    `raised` is the square of the power before, or M, times `_SIZE` twice.
    """
    exponent, rate, _, lower, is_gone = state
    energy = ops.sum(ops.square(raised), axis=(-2, -1))
    is_gone = ops.logical_or(is_gone, energy < _NO_ENERGY)
    norm = ops.sqrt(ops.where(is_gone, 1.0, energy))
    next_rate = rate + (ops.log(norm) - 2 * math.log(_SIZE)) / exponent
    unit = raised * (_SIZE / norm)[..., None, None]
    bound = _from_trace(_trace(unit) / _SIZE, unit.shape[-1], next_rate, exponent)
    lower = ops.where(is_gone, lower, ops.maximum(lower, bound))
    return unit, 2.0 * exponent, next_rate, rate, lower, is_gone


def _trace(matrices: Tensor) -> Tensor:
    return ops.trace(matrices, axis1=-2, axis2=-1)


def _probes(n: int, dtype: str) -> Tensor:
    directions = np.random.default_rng(0).standard_normal((n, _PROBES))
    return ops.convert_to_tensor(directions, dtype=dtype)


def _from_trace(trace: Tensor, n: int, rate: Tensor, exponent: Tensor | float) -> Tensor:
    """Logarithm of (|trace M^N| / n)^(1/N), which no eigenvalue's largest modulus is below.

    `trace` is that of the power at norm 1, `rate` the logarithm of its norm over N.
    """
    is_none = trace == 0.0
    logarithm = ops.log(ops.abs(ops.where(is_none, 1.0, trace)) / n) / exponent
    return ops.where(is_none, -np.inf, rate + logarithm)


def _is_normal(matrices: Tensor) -> Tensor:
    """Whether M commutes with its transpose, as far as random vectors tell.

    Powers of such a matrix do not amplify what rounding made of the ones before.
    """
    transposed = ops.swapaxes(matrices, -1, -2)
    probes = _probes(matrices.shape[-1], ops.dtype(matrices))
    backward = ops.matmul(transposed, ops.matmul(matrices, probes))
    forward = ops.matmul(matrices, ops.matmul(transposed, probes))
    apart, size = (ops.sum(ops.square(x), axis=(-2, -1)) for x in (backward - forward, backward))
    return apart <= _NORMAL**2 * size


def _rounding_is_small(rates: Tensor, value: Tensor) -> Tensor:
    """Whether what rounding makes of every power moves the radius by next to nothing.

    The square of M^k is rounded by eps |M^k|^2. Relative to r^2k, r the radius, that moves its
    leading eigenvalues by eps (|M^k|/r^k)^2 times the norm of their projection, which is that of
    the last power, and their 2k-th root by a 2k-th of it. Projections of eigenvalues that are
    defective, or nearly, are large; those of one that is repeated are not, though no single vector
    stands for it.

    Args:
        rates: Logarithms of |M^k| over k, for k = 1, 2, 4, ...; `(exponents, ...)`.
        value: r, `(...,)`.
    """
    exponents = np.reshape(2.0 ** np.arange(rates.shape[0]), (-1,) + (1,) * len(value.shape))
    exponents = ops.convert_to_tensor(exponents, dtype=ops.dtype(rates))
    logarithm = ops.log(ops.where(value > 0.0, value, 1.0))
    growth = ops.exp(ops.minimum(exponents * (rates - logarithm), _MOST_GROWTH))
    eps = float(np.finfo(ops.dtype(rates)).eps) / 2
    moved = ops.sum(eps * ops.square(growth[:-1]) / (2.0 * exponents[:-1]), axis=0) * growth[-1]
    return ops.logical_and(value > 0.0, moved < _HARMLESS)


def _bounds_are_close(unit: Tensor, rate: Tensor, value: Tensor, exponent: float) -> Tensor:
    """Whether the growth rate is hardly above what the traces of M^N and M^2N allow at least."""
    n = unit.shape[-1]
    trace = _trace(unit)
    trace_of_square = ops.sum(unit * ops.swapaxes(unit, -1, -2), axis=(-2, -1))
    lower = ops.maximum(
        _from_trace(trace, n, rate, exponent),
        _from_trace(trace_of_square, n, rate, 2.0 * exponent),
    )
    # Rounding doubles with every squaring, and is a part of the trace.
    noise = 4.0 * exponent * float(np.finfo(ops.dtype(unit)).eps) / 2
    is_known = ops.maximum(ops.abs(trace), ops.abs(trace_of_square)) > noise
    # With fewer squarings less is asked for.
    tolerance = max(1e-3, 10.0 / exponent)
    return ops.logical_and(is_known, value * (1.0 - tolerance) < ops.exp(lower))
