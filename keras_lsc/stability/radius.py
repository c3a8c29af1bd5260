"""From a transition to its radius: value and exact gradient, dense and matrix-free.

The spectral radius is read off the powers of the Jacobian (`powers`), or of the small projection
of it that Arnoldi iteration makes from products with it (`krylov`); its gradient is that of the
eigenvalue between the subspaces that the powers tend to (`leading`). Where rounding keeps powers
from vouching for a value, and there is a host to ask, LAPACK says what it is (`lapack`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.stability import lapack
from keras_lsc.stability.krylov import dominant_range, is_rounding, random_directions
from keras_lsc.stability.leading import (
    are_converged,
    is_certain,
    leading,
    normalized,
    residuals_of,
    subspaces,
)
from keras_lsc.stability.powers import from_safe_scale, powers, safe_sqrt, to_safe_scale

Tensor = Any
Function = Callable[[Tensor], Tensor]
RadiusKind = Literal["spectral", "rms", "norm"]


class Measured(NamedTuple):
    """Radius and RMS gain `(points,)` of Jacobians of one shape `(n_out, n_in)`.

    Attributes:
        radius: of the kind that was asked for.
        gain: RMS gain.
        shape: of the Jacobians.
        is_own: `(points,)` whether the gradient of the radius is its own; elsewhere it is that
            of a common scale of all entries.
        is_certain: `(points,)` whether the value is known to be close; None where that was not
            asked for.
    """

    radius: Tensor
    gain: Tensor
    shape: tuple[int, int]
    is_own: Tensor
    is_certain: Tensor | None


class Accuracy(NamedTuple):
    """What the closeness of radii costs.

    Attributes:
        squarings: of a Jacobian that is formed: radii are within an error of order 2^-squarings.
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
EXACT = Accuracy()
# Means within 0.1 %: enough to see whether a radius is near its target. Above a side of 128 that
# many products take less time than squaring.
COARSE = Accuracy(squarings=10, krylov=96, dense_limit=128)
# One update sees a noisy mean over the points of a batch: 0.2 % of it is enough up to a side of
# 256, 0.7 % above.
ROUGH = Accuracy(squarings=10, krylov=64, dense_limit=128, tolerance=0.3, certify=False)

# Residual of a singular pair, as a share of its value, up to which that is certain: the error of
# the value is of the order of its square.
_CLOSE_PAIR = 0.01


class _Spectral(NamedTuple):
    value: Tensor
    is_own: Tensor
    is_certain: Tensor | None


def spectral_radius(
    matrices: Tensor, squarings: int = EXACT.squarings, tolerance: float = EXACT.tolerance
) -> Tensor:
    """Largest modulus of an eigenvalue: value from powers of M, exact gradient.

    The value is the growth rate (|M^N| / |M^(N/2)|)^(2/N), N = 2^squarings, within a relative
    error of order 1/N. M^N also spans the dominant left and right eigenspaces, a line or, for a
    complex pair, a plane; the gradient is that of the eigenvalue of M between them. Where the
    powers leave no such eigenvalue (equal moduli, defective matrices) the gradient is that of a
    common scale of all entries.

    Outside of a compiled function, matrices for which powers in their precision cannot vouch
    (eigenvectors of a condition above some thousands) are handed to LAPACK on the host. Inside
    of one, value and gradient of these are estimates; `radii_and_gains` says which they are.

    Args:
        matrices: `(..., n, n)` floats.
        squarings: number of times the matrix is squared.
        tolerance: error of a vector up to which a gradient counts as the radius' own.

    Returns:
        `(...,)` radii; 0, with gradient 0, for zero and nilpotent matrices; inf or NaN for
        matrices that are not finite.
    """
    matrices = ops.convert_to_tensor(matrices)
    on_host = backend.is_concrete(ops.stop_gradient(matrices))
    accuracy = Accuracy(squarings, tolerance=tolerance, certify=on_host)
    found = _compiled_dense(accuracy)(matrices)
    if not on_host:
        return found.value
    return _ask_host(found.value, found.is_own, found.is_certain, matrices)[0]


@functools.cache
def _compiled_dense(accuracy: Accuracy) -> Callable[[Tensor], _Spectral]:
    return backend.compiled(lambda matrices: _dense(matrices, accuracy))


def _dense(matrices: Tensor, accuracy: Accuracy) -> _Spectral:
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
    radius = _with_slope(value, modulus, is_own, rms_gain(matrices), value == 0.0)
    return _Spectral(from_safe_scale(radius, scale), is_own, certain)


def _with_slope(
    value: Tensor, modulus: Tensor, is_own: Tensor, gain: Tensor, vanished: Tensor
) -> Tensor:
    """`value`, with the gradient of `modulus`, or of a common scale where that is not its own."""
    slope = ops.where(is_own, modulus, _per_own_value(gain) * value)
    slope = ops.where(vanished, 0.0, slope)
    return value + slope - ops.stop_gradient(slope)


def _ask_host(
    value: Tensor, is_own: Tensor, certain: Tensor, matrices: Tensor
) -> tuple[Tensor, Tensor]:
    """Values, and whether their gradients are their own, with LAPACK's where powers are unsure."""
    is_certain = ops.convert_to_numpy(certain)
    if is_certain.all():
        return value, is_own
    # As they were given: rounding them to another scale would move ill-conditioned eigenvalues.
    fixed = ops.convert_to_numpy(ops.stop_gradient(matrices))
    radii = np.zeros(is_certain.shape, fixed.dtype)
    directions = np.zeros(fixed.shape, fixed.dtype)
    known = np.zeros(is_certain.shape, bool)
    for index in np.ndindex(is_certain.shape):
        if is_certain[index]:
            continue
        radius, gradient = lapack.radius_and_gradient(fixed[index])
        radii[index] = radius
        if gradient is not None:
            directions[index], known[index] = gradient, True
    matrices, scale = to_safe_scale(matrices)
    radii, known = ops.convert_to_tensor(radii) / scale, ops.convert_to_tensor(known)
    along = ops.sum(ops.convert_to_tensor(directions) * matrices, axis=(-2, -1))
    asked = _with_slope(radii, along, known, rms_gain(matrices), radii == 0.0)
    asked = from_safe_scale(asked, scale)
    return ops.where(certain, value, asked), ops.where(certain, is_own, known)


def _per_own_value(x: Tensor) -> Tensor:
    """x / x: 1, with the derivative of log x; 0 where x is 0."""
    fixed = ops.stop_gradient(x)
    return ops.where(fixed == 0.0, 0.0, x / ops.where(fixed == 0.0, 1.0, fixed))


def spectral_norm(matrices: Tensor, squarings: int = EXACT.squarings) -> Tensor:
    """Largest singular value of `(..., n_out, n_in)` matrices, `(...,)`; 0 for zero matrices."""
    return _compiled_norm(Accuracy(squarings, certify=False))(matrices).value


@functools.cache
def _compiled_norm(accuracy: Accuracy) -> Callable[[Tensor], _Spectral]:
    return backend.compiled(lambda matrices: _dense_norm(matrices, accuracy))


def _dense_norm(matrices: Tensor, accuracy: Accuracy) -> _Spectral:
    matrices, scale = to_safe_scale(matrices)
    transposed = ops.swapaxes(matrices, -1, -2)
    n_out, n_in = matrices.shape[-2:]
    gram = ops.matmul(matrices, transposed) if n_out <= n_in else ops.matmul(transposed, matrices)
    squared = _dense(gram, accuracy)
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
    return from_safe_scale(safe_sqrt(_energy_per_gain(n_out, n_in) * energy), scale)


def radius_and_gain(
    function: Function,
    x: Tensor,
    kind: RadiusKind = "spectral",
    *,
    squarings: int = EXACT.squarings,
    krylov: int = EXACT.krylov,
    dense_limit: int = EXACT.dense_limit,
) -> Measured:
    """Radius and RMS gain of the Jacobian of `function` at every row of `x`.

    Outside of a compiled function LAPACK is asked where `spectral_radius` asks it.

    Args:
        function: maps `(points, n_in)` to `(points, n_out)`; rows must not interact.
        x: `(points, n_in)` floats.
        kind: "spectral" (square Jacobians; a rectangular one has no eigenvalues and gives its
            gain), "norm" (largest singular value) or "rms" (the gain itself).
        squarings: accuracy of the dense path.
        krylov: number of products with the Jacobian in the matrix-free path.
        dense_limit: largest side of a Jacobian that is formed.

    Returns:
        `Measured`, in float32 (float64 for a float64 `x`), differentiable by the weights that
        `function` reads.
    """
    accuracy = Accuracy(squarings, krylov, dense_limit)
    shapes: list[tuple[int, int]] = []

    def measure(x: Tensor) -> tuple[Tensor, ...]:
        (measured,) = radii_and_gains([(function, x)], kind, accuracy)
        shapes.append(measured.shape)
        return measured.radius, measured.gain, measured.is_own, measured.is_certain

    radius, gain, is_own, certain = backend.compiled(measure)(x)
    measured = Measured(radius, gain, shapes[-1], is_own, certain)
    is_spectral = kind == "spectral" and not _is_gain(kind, *measured.shape)
    if not is_spectral or not backend.is_concrete(ops.stop_gradient(measured.radius)):
        return measured
    if ops.convert_to_numpy(measured.is_certain).all():
        return measured
    matrices = backend.jacobian(*in_precision(function, x))
    radius, is_own = _ask_host(measured.radius, measured.is_own, measured.is_certain, matrices)
    is_certain = ops.ones_like(measured.is_certain)
    return measured._replace(radius=radius, is_own=is_own, is_certain=is_certain)


def radii_and_gains(
    linearized: Sequence[tuple[Function, Tensor]],
    kind: RadiusKind = "spectral",
    accuracy: Accuracy = EXACT,
) -> list[Measured]:
    """`radius_and_gain` of several functions, all in the graph: nothing is asked of the host.

    Jacobians of one shape share their products.

    Args:
        linearized: pairs of a function and its `(points, n_in)` argument.
        kind: as in `radius_and_gain`.
        accuracy: of the radii.

    Returns:
        One `Measured` for every pair.
    """
    measured: list[Measured] = []
    to_square: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
    for index, (function, x) in enumerate(linearized):
        if x.shape[-1] > accuracy.dense_limit:
            measured.append(_matrix_free(function, x, kind, accuracy))
            continue
        matrices = backend.jacobian(*in_precision(function, x))
        n_out, n_in = matrices.shape[-2:]
        measured.append(_of_gain(rms_gain(matrices), n_out, n_in))
        if not _is_gain(kind, n_out, n_in):
            to_square.setdefault((n_out, n_in), []).append((index, matrices))
    of_kind = _dense_norm if kind == "norm" else _dense
    for group in to_square.values():
        found = of_kind(ops.concatenate([matrices for _, matrices in group]), accuracy)
        parts = [
            [None] * len(group) if part is None else ops.split(part, len(group)) for part in found
        ]
        for (index, _), radius, own, certain in zip(group, *parts, strict=True):
            measured[index] = measured[index]._replace(
                radius=radius, is_own=own, is_certain=certain
            )
    return measured


def in_precision(function: Function, x: Tensor) -> tuple[Function, Tensor]:
    """`function` and `x` in float32 (float64 for a float64 `x`), whatever a model computes in."""
    precision = "float64" if ops.dtype(x) == "float64" else "float32"
    return lambda inputs: ops.cast(function(inputs), precision), ops.cast(x, precision)


def _is_gain(kind: RadiusKind, n_out: int, n_in: int) -> bool:
    # A rectangular Jacobian has no eigenvalues: its radius is its gain.
    return kind == "rms" or (kind == "spectral" and n_in != n_out)


def _of_gain(gain: Tensor, n_out: int, n_in: int) -> Measured:
    is_known = ops.isfinite(ops.stop_gradient(gain))
    return Measured(gain, gain, (n_out, n_in), is_known, is_known)


def check_radius_kind(kind: str) -> None:
    """Raises ValueError if `kind` names no radius."""
    arguments.one_of("radius", kind, get_args(RadiusKind))


def _energy_per_gain(n_out: int, n_in: int) -> float:
    return 0.5 * (1.0 / n_out + 1.0 / n_in)


def _matrix_free(function: Function, x: Tensor, kind: RadiusKind, accuracy: Accuracy) -> Measured:
    products = _Products(*in_precision(function, x))
    x, y, scale = products.x, products.y, products.scale
    gain = _probed_gain(products, accuracy.certify)
    measured = _of_gain(gain, y.shape[-1], x.shape[-1])
    if kind == "norm":
        found = _krylov_norm(products, accuracy)
        measured = measured._replace(
            radius=found.value, is_own=found.is_own, is_certain=found.is_certain
        )
    elif not _is_gain(kind, *measured.shape):
        found = _krylov_radius(products, gain, accuracy)
        measured = measured._replace(
            radius=found.value, is_own=found.is_own, is_certain=found.is_certain
        )
    return measured._replace(
        radius=from_safe_scale(measured.radius, scale), gain=from_safe_scale(measured.gain, scale)
    )


class _Products:
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


def _probed_gain(products: _Products, deflate: bool, probes: int = 8) -> Tensor:
    """RMS gain from |u^T M| for random u, other ones at every point.

    Hutchinson's estimate of the Frobenius norm, which is far off where few directions hold most of
    it. With `deflate` the value is that of Hutch++ (arXiv 2010.09649), which finds these first,
    takes them exactly, and estimates only the rest; the gradient is that of the plain estimate.
    """
    n_out, n_in = products.y.shape[-1], products.x.shape[-1]
    directions = _directions_of_points(2 * probes if deflate else probes, products.y)
    rows = ops.stack([products.pullback(directions[k]) for k in range(probes)])
    energy = ops.sum(ops.square(rows), axis=(0, 2)) / probes
    gain = safe_sqrt(_energy_per_gain(n_out, n_in) * energy)
    if not deflate:
        return gain
    held, basis = backend.no_gradient(lambda: _range_of_rows(products, directions[probes:]))
    rest = ops.stop_gradient(rows)
    rest = rest - ops.einsum("pmk,pmn->kpn", ops.einsum("kpn,pmn->pmk", rest, basis), basis)
    energy = held + ops.sum(ops.square(rest), axis=(0, 2)) / probes
    closer = safe_sqrt(_energy_per_gain(n_out, n_in) * energy)
    return closer + (gain - ops.stop_gradient(gain))


def _range_of_rows(products: _Products, directions: Tensor) -> tuple[Tensor, Tensor]:
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


def _krylov_radius(products: _Products, gain: Tensor, accuracy: Accuracy) -> _Spectral:
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
    return _Spectral(_with_slope(value, modulus, is_own, gain, value == 0.0), is_own, certain)


def _krylov_norm(products: _Products, accuracy: Accuracy) -> _Spectral:
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
    return _Spectral(value, ops.ones_like(certain), certain)
