"""Radius and gain of Jacobians that are not formed, from products with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_lsc import backend
from keras_lsc.stability.accuracy import Accuracy
from keras_lsc.stability.dense import Spectral, energy_per_gain, with_slope
from keras_lsc.stability.krylov import dominant_range, is_rounding, random_directions
from keras_lsc.stability.leading import (
    are_converged,
    is_certain,
    leading,
    normalized,
    residuals_of,
    subspaces,
)
from keras_lsc.stability.powers import safe_sqrt, to_safe_scale

Tensor = Any
Function = Callable[[Tensor], Tensor]

# Residual of a singular pair, as a share of its value, up to which that is certain: the error of
# the value is of the order of its square.
_CLOSE_PAIR = 0.01


class Products:
    """Products with the Jacobians of rows, which are not formed, at a scale of safe squares.

    Attributes:
        x: `(points, n_in)` where the function is linearised.
        y: `(points, n_out)` its value there.
        scale: `(points,)` what products are divided by, 1 for most.
    """

    def __init__(self, function: Function, x: Tensor):
        self.x = x
        self.y, self._pull = backend.vjp(function, x)
        probe = backend.no_gradient(lambda: self._pull(random_directions(1, self.y)[0]))
        _, self.scale = to_safe_scale(probe[:, None, :])

    def pullback(self, u: Tensor) -> Tensor:
        """M^T u of rows u."""
        return self._divided(self._pull(u))

    def pushforward(self) -> Function:
        """v -> M v: the transpose of a linear map is its own derivative."""
        _, transpose = backend.vjp(self._pull, ops.zeros_like(self.y))
        return lambda v: self._divided(transpose(v))

    def _divided(self, product: Tensor) -> Tensor:
        # With the derivative 1, as in `to_safe_scale`.
        fixed = ops.stop_gradient(product)
        return fixed / self.scale[:, None] + (product - fixed)


def summed_gain(products: Products) -> Tensor:
    """RMS gain from every row of M, one after the other, with the gradient of `probed_gain`."""
    n_out, n_in = products.y.shape[-1], products.x.shape[-1]

    def with_row(k: Tensor, energy: Tensor) -> Tensor:
        unit = ops.cast(ops.equal(ops.arange(n_out), k), ops.dtype(products.y))
        row = products.pullback(ops.broadcast_to(unit, ops.shape(products.y)))
        return energy + ops.sum(ops.square(row), axis=-1)

    energy = backend.no_gradient(
        lambda: ops.fori_loop(0, n_out, with_row, ops.zeros_like(products.x[:, 0]))
    )
    estimate = probed_gain(products, deflate=False)
    return safe_sqrt(energy_per_gain(n_out, n_in) * energy) + (
        estimate - ops.stop_gradient(estimate)
    )


def probed_gain(products: Products, deflate: bool, probes: int = 8) -> Tensor:
    """RMS gain from |u^T M| for random u, other ones at every point.

    Hutchinson's estimate of the Frobenius norm, which is far off where few directions hold most of
    it. With `deflate` the value is that of Hutch++ (arXiv 2010.09649), which finds these first,
    takes them exactly, and estimates only the rest; the gradient is that of the plain estimate.
    """
    n_out, n_in = products.y.shape[-1], products.x.shape[-1]
    directions = _directions_of_points(2 * probes if deflate else probes, products.y)
    rows = ops.stack([products.pullback(directions[k]) for k in range(probes)])
    energy = ops.sum(ops.square(rows), axis=(0, 2)) / probes
    gain = safe_sqrt(energy_per_gain(n_out, n_in) * energy)
    if not deflate:
        return gain
    held, basis = backend.no_gradient(lambda: _range_of_rows(products, directions[probes:]))
    rest = ops.stop_gradient(rows)
    rest = rest - ops.einsum("pmk,pmn->kpn", ops.einsum("kpn,pmn->pmk", rest, basis), basis)
    energy = held + ops.sum(ops.square(rest), axis=(0, 2)) / probes
    closer = safe_sqrt(energy_per_gain(n_out, n_in) * energy)
    return closer + (gain - ops.stop_gradient(gain))


def _range_of_rows(products: Products, directions: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis `(points, k, n)` of random rows u^T M, and the energy of M on it."""
    pushforward = products.pushforward()
    count, (points, n) = directions.shape[0], ops.shape(products.x)[:2]
    basis = ops.zeros((points, count, n), dtype=ops.dtype(products.x))

    def body(k: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        energy, basis = carry
        row = rest = products.pullback(ops.take(directions, k, axis=0))
        for _ in range(2):  # once is not enough in float32
            overlap = ops.einsum("pmn,pn->pm", basis, rest)
            rest = rest - ops.einsum("pm,pmn->pn", overlap, basis)
        vector = normalized(ops.where(is_rounding(rest, row), 0.0, rest))[0]
        energy = energy + ops.sum(ops.square(pushforward(vector)), axis=-1)
        return energy, ops.slice_update(basis, [0, k, 0], vector[:, None, :])

    return ops.fori_loop(0, count, body, (ops.zeros_like(products.x[:, 0]), basis))


def _directions_of_points(count: int, like: Tensor, points: int = 32) -> Tensor:
    """Random vectors `(count, points, n)`: those of so many points differ, then they repeat."""
    drawn = np.random.default_rng(0).standard_normal((count, points, like.shape[-1]))
    turn = ops.arange(ops.shape(like)[0]) % points
    return ops.take(ops.convert_to_tensor(drawn, dtype=ops.dtype(like)), turn, axis=1)


def krylov_radius(products: Products, gain: Tensor, accuracy: Accuracy) -> Spectral:
    """Returns the spectral radius of Jacobians with these RMS gains, `(points,)`."""
    n = products.x.shape[-1]
    size = min(accuracy.krylov, n)
    start = random_directions(1, products.y)[0]
    pullback = products.pullback

    def ranges() -> tuple[Tensor, ...]:
        left, value, is_zero, is_closed = dominant_range(pullback, start, size, accuracy.squarings)
        pushforward = products.pushforward()
        right, *_ = dominant_range(pushforward, start, size, accuracy.squarings)
        spaces = subspaces(left, right, accuracy.tolerance)
        vectors = [spaces.right[..., k] for k in range(2)] if accuracy.certify else []
        images = [pushforward(vector) for vector in vectors]
        return spaces, value, is_zero, is_closed, images

    spaces, value, is_zero, is_closed, images = backend.no_gradient(ranges)
    rows = ops.stack([pullback(spaces.left[..., k]) for k in range(2)], axis=1)
    modulus, is_own = leading(spaces, rows, value, accuracy.tolerance)
    # Stationary in both vectors, the eigenvalue is closer than the values of the projections.
    value = ops.where(is_own, ops.stop_gradient(modulus), value)
    certain = None
    if accuracy.certify:
        norm = ops.stop_gradient(gain) * n**0.5
        residuals = residuals_of(spaces, ops.stop_gradient(rows), ops.stack(images, axis=-1))
        by_vectors = is_certain(spaces, residuals, norm, value)
        by_vectors = ops.logical_and(by_vectors, is_own)
        certain = ops.logical_or(is_zero, by_vectors)
        # A closed space does not say how often the leader occurs.
        is_own = ops.logical_and(by_vectors, ops.logical_not(is_closed))
        if size < n:
            is_own = ops.logical_and(is_own, are_converged(residuals, value))
    return Spectral(with_slope(value, modulus, is_own, gain, value == 0.0), is_own, certain)


def krylov_norm(products: Products, accuracy: Accuracy) -> Spectral:
    """Returns the largest singular value of Jacobians, `(points,)`."""
    size = min(accuracy.krylov, products.x.shape[-1], products.y.shape[-1])
    start = random_directions(1, products.y)[0]
    pullback, pushforward = products.pullback, products.pushforward()

    def singular_vectors() -> tuple[Tensor, ...]:
        found, _, is_zero, _ = dominant_range(
            lambda u: pushforward(pullback(u)), start, size, accuracy.squarings
        )
        left = normalized(found[..., 0])[0]
        right, value = normalized(pullback(left))
        residual = normalized(pushforward(right) - value * left)[1]
        is_close = residual < _CLOSE_PAIR * value
        return left, right, ops.logical_or(is_zero, is_close[:, 0])

    left, right, certain = backend.no_gradient(singular_vectors)
    value = ops.sum(pullback(left) * right, axis=-1)
    return Spectral(value, ops.ones_like(certain), certain)
