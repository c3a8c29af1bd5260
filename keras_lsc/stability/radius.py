"""From a transition to its radius: value and exact gradient, dense and matrix-free.

There is no eigensolver: none has a gradient on every backend, XLA lacks one on some devices, and
on others it can wait for threads that wait for it. The spectral radius is read off the growth of
the powers M, M^2, M^4, ...: matrix products only, for complex pairs, defective and zero matrices
alike. M^N also spans the dominant eigenspaces; the gradient is that of the eigenvalue of M between
them. The matrix-free path does the same to the small projection of M that Arnoldi iteration makes
from products with it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from keras import ops

from keras_lsc import backend

Tensor = Any
Function = Callable[[Tensor], Tensor]
RadiusKind = Literal["spectral", "rms", "norm"]


class _Range(NamedTuple):
    """Basis `(points, n, 2)` of what M^N tends to, its growth rate, and whether M^N vanishes."""

    vectors: Tensor
    value: Tensor
    vanished: Tensor


class Measured(NamedTuple):
    """Radius and RMS gain `(points,)` of Jacobians of one shape `(n_out, n_in)`."""

    radius: Tensor
    gain: Tensor
    shape: tuple[int, int]


class Accuracy(NamedTuple):
    """What the closeness of radii costs.

    Attributes:
        squarings: of a Jacobian that is formed: radii are within an error of order 2^-squarings.
        krylov: number of products with a Jacobian that is not formed.
        dense_limit: largest side of a Jacobian that is formed; above it only products are taken.
    """

    squarings: int = 14
    krylov: int = 96
    dense_limit: int = 256


# Radii of single matrices within 0.05 % of an eigensolver's, means far closer.
EXACT = Accuracy()
# Means within 0.1 %: enough to see whether a radius is near its target. Above a side of 128 that
# many products take less time than squaring.
COARSE = Accuracy(squarings=10, krylov=96, dense_limit=128)
# One update sees a noisy mean over the points of a batch: 0.2 % of it is enough up to a side of
# 256, 0.7 % above.
ROUGH = Accuracy(squarings=10, krylov=64, dense_limit=128)
# A power whose norm falls by this factor in one squaring has vanished, and a radius so much
# smaller than its matrix is rounding noise: both count as zero.
_VANISHED = 1e-12
_NEGLIGIBLE = {"float32": 1e-5, "float64": 1e-11}
# Shorter vectors have no direction.
_NO_LENGTH = 1e-30


def spectral_radius(matrices: Tensor, squarings: int = EXACT.squarings) -> Tensor:
    """Largest modulus of an eigenvalue: value from powers of M, exact gradient.

    The value is the growth rate (|M^N| / |M^(N/2)|)^(2/N), N = 2^squarings, within a relative
    error of order 1/N. M^N also spans the dominant left and right eigenspaces, a line or, for a
    complex pair, a plane; the gradient is that of the eigenvalue of M between them. Where the
    powers leave no such eigenvalue (orthogonal and defective matrices) the gradient is that of a
    common scale of all entries.

    Args:
        matrices: `(..., n, n)` floats.
        squarings: number of times the matrix is squared.

    Returns:
        `(...,)` radii; exactly 0, with gradient 0, for zero and nilpotent matrices.
    """
    value, power, vanished = _growth(ops.stop_gradient(matrices), squarings)
    right = _range(power)
    left = ops.swapaxes(_range(ops.swapaxes(power, -1, -2)), -1, -2)
    block = ops.matmul(left, ops.matmul(matrices, right))
    modulus, is_eigenvalue = _leading_modulus(ops.matmul(left, right), block, value)
    return _with_slope(value, modulus, is_eigenvalue, rms_gain(matrices), vanished)


def _with_slope(
    value: Tensor, modulus: Tensor, is_eigenvalue: Tensor, gain: Tensor, vanished: Tensor
) -> Tensor:
    """`value`, with the gradient of `modulus`, or of a common scale where that is no eigenvalue."""
    slope = ops.where(is_eigenvalue, modulus, _per_own_value(gain) * value)
    slope = ops.where(vanished, 0.0, slope)
    return value + slope - ops.stop_gradient(slope)


def _growth(matrices: Tensor, squarings: int) -> tuple[Tensor, Tensor, Tensor]:
    """Growth rate of the powers, the last power at norm 1, and whether the powers vanish."""
    power, log_norm, half_way = matrices, 0.0, 0.0
    vanished = None
    for k in range(squarings + 1):
        energy = ops.sum(ops.square(power), axis=(-2, -1))
        vanishes = energy <= (_VANISHED**2 if k else 1e-36)
        vanished = vanishes if vanished is None else ops.logical_or(vanished, vanishes)
        norm = ops.sqrt(ops.where(vanished, 1.0, energy))
        half_way = log_norm
        log_norm = log_norm + ops.log(norm) / 2.0**k
        power = power / norm[..., None, None]
        if k < squarings:
            power = ops.matmul(power, power)
    value = ops.exp(2.0 * log_norm - half_way)
    size = _safe_sqrt(ops.sum(ops.square(matrices), axis=(-2, -1)))
    vanished = ops.logical_or(vanished, value < _NEGLIGIBLE[ops.dtype(matrices)] * size)
    return ops.where(vanished, 0.0, value), power, vanished


def _range(power: Tensor) -> Tensor:
    """Two orthonormal columns of the range of a power `(..., n, n)`: `(..., n, 2)`."""
    start = np.random.default_rng(0).standard_normal((power.shape[-1], 2))
    return _orthonormal(ops.matmul(power, ops.convert_to_tensor(start, dtype=ops.dtype(power))))


def _leading_modulus(overlap: Tensor, block: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Modulus of the eigenvalue of M between the ranges of M^N and of its transpose.

    With X and Y bases of two dimensions of these ranges, not differentiated, it is an eigenvalue
    of (Y^T X)^-1 Y^T M X: stationary in X and Y, so its derivative by M is exact. Of a real
    dominant eigenvalue the second dimension is arbitrary, and so is the other eigenvalue; the one
    that agrees with `value` is taken.

    Args:
        overlap: Y^T X, `(..., 2, 2)`.
        block: Y^T M X, `(..., 2, 2)`.
        value: `(...,)`, the radius by other means.

    Returns:
        The modulus, and whether it agrees with `value`, both `(...,)`.
    """
    area = _determinant(overlap)
    is_regular = ops.abs(area) > 1e-4
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
    root = _safe_sqrt(discriminant)
    candidates = [ops.abs(half_trace + root), ops.abs(half_trace - root)]
    first_is_nearer = ops.abs(candidates[0] - value) < ops.abs(candidates[1] - value)
    real = ops.where(first_is_nearer, *candidates)
    modulus = ops.where(discriminant < 0.0, _safe_sqrt(determinant), real)
    agrees = ops.abs(modulus - value) < 0.02 * value
    return modulus, ops.logical_and(is_regular, agrees)


def _determinant(matrices: Tensor) -> Tensor:
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]


def _orthonormal(pairs: Tensor) -> Tensor:
    """Orthonormal columns that span those of `(..., n, 2)`, by Gram and Schmidt."""
    first = _normalized(pairs[..., 0])[0]
    second = _normalized(pairs[..., 1])[0]
    for _ in range(2):  # once is not enough where they are nearly parallel
        second = second - ops.sum(first * second, axis=-1, keepdims=True) * first
        second = _normalized(second)[0]
    return ops.stack([first, second], axis=-1)


def _per_own_value(x: Tensor) -> Tensor:
    """x / x: 1, with the derivative of log x; 0 where x is 0."""
    fixed = ops.stop_gradient(x)
    return ops.where(fixed == 0.0, 0.0, x / ops.where(fixed == 0.0, 1.0, fixed))


def spectral_norm(matrices: Tensor, squarings: int = EXACT.squarings) -> Tensor:
    """Largest singular value of `(..., n_out, n_in)` matrices, `(...,)`; 0 for zero matrices."""
    transposed = ops.swapaxes(matrices, -1, -2)
    n_out, n_in = matrices.shape[-2:]
    gram = ops.matmul(matrices, transposed) if n_out <= n_in else ops.matmul(transposed, matrices)
    squared = spectral_radius(gram, squarings)
    is_zero = squared == 0.0
    return ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, squared)))


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
    return _safe_sqrt(_energy_per_gain(n_out, n_in) * ops.sum(ops.square(matrices), axis=(-2, -1)))


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
    (measured,) = radii_and_gains(
        [(function, x)], kind, squarings=squarings, krylov=krylov, dense_limit=dense_limit
    )
    return measured


def radii_and_gains(
    linearized: Sequence[tuple[Function, Tensor]],
    kind: RadiusKind = "spectral",
    *,
    squarings: int = EXACT.squarings,
    krylov: int = EXACT.krylov,
    dense_limit: int = EXACT.dense_limit,
) -> list[Measured]:
    """`radius_and_gain` of several functions; Jacobians of one shape share their products.

    Args:
        linearized: pairs of a function and its `(points, n_in)` argument.
        kind: as in `radius_and_gain`, and so are the others.
        squarings: accuracy of the dense path.
        krylov: number of products with the Jacobian in the matrix-free path.
        dense_limit: largest side of a Jacobian that is formed.

    Returns:
        One `Measured` for every pair.
    """
    measured: list[Measured] = []
    to_square: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
    for index, (function, x) in enumerate(linearized):
        if x.shape[-1] > dense_limit:
            measured.append(_matrix_free(function, x, kind, krylov, squarings))
            continue
        matrices = backend.jacobian(*in_precision(function, x))
        n_out, n_in = matrices.shape[-2:]
        gain = rms_gain(matrices)
        measured.append(Measured(gain, gain, (n_out, n_in)))
        if not _is_gain(kind, n_out, n_in):
            to_square.setdefault((n_out, n_in), []).append((index, matrices))
    of_kind = spectral_norm if kind == "norm" else spectral_radius
    for group in to_square.values():
        radii = of_kind(ops.concatenate([matrices for _, matrices in group]), squarings)
        for (index, _), radius in zip(group, ops.split(radii, len(group)), strict=True):
            measured[index] = measured[index]._replace(radius=radius)
    return measured


def in_precision(function: Function, x: Tensor) -> tuple[Function, Tensor]:
    """`function` and `x` in float32 (float64 for a float64 `x`), whatever a model computes in."""
    precision = "float64" if ops.dtype(x) == "float64" else "float32"
    return lambda inputs: ops.cast(function(inputs), precision), ops.cast(x, precision)


def _is_gain(kind: RadiusKind, n_out: int, n_in: int) -> bool:
    # A rectangular Jacobian has no eigenvalues: its radius is its gain.
    return kind == "rms" or (kind == "spectral" and n_in != n_out)


def _matrix_free(
    function: Function, x: Tensor, kind: RadiusKind, krylov: int, squarings: int
) -> Measured:
    function, x = in_precision(function, x)
    y, pullback = backend.vjp(function, x)
    n_out, n_in = y.shape[-1], x.shape[-1]
    gain = _probed_gain(pullback, y)
    if _is_gain(kind, n_out, n_in):
        radius = gain
    elif kind == "norm":
        radius = _krylov_norm(x, y, pullback, krylov, squarings)
    else:
        radius = _krylov_radius(x, y, pullback, gain, krylov, squarings)
    return Measured(radius, gain, (n_out, n_in))


def check_radius_kind(kind: str) -> None:
    """Raises ValueError if `kind` names no radius."""
    if kind not in get_args(RadiusKind):
        raise ValueError(
            f"Unknown radius {kind!r}. Expected one of "
            f"{', '.join(map(repr, get_args(RadiusKind)))}."
        )


def _energy_per_gain(n_out: int, n_in: int) -> float:
    return 0.5 * (1.0 / n_out + 1.0 / n_in)


def _safe_sqrt(x: Tensor) -> Tensor:
    is_zero = x <= 0.0
    return ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, x)))


def _random_directions(count: int, like: Tensor) -> Tensor:
    """`count` fixed random vectors, the same on every backend and for every point."""
    vectors = np.random.default_rng(0).standard_normal((count, 1, like.shape[-1]))
    return ops.convert_to_tensor(vectors, dtype=ops.dtype(like)) + ops.zeros_like(like)


def _probed_gain(pullback: Function, y: Tensor, probes: int = 8) -> Tensor:
    """RMS gain from |u^T M| for random u (Hutchinson's estimate of the Frobenius norm)."""
    directions = _random_directions(probes, y)
    energy, n_in = 0.0, 0
    for k in range(probes):
        product = pullback(directions[k])
        n_in = product.shape[-1]
        energy = energy + ops.sum(ops.square(product), axis=-1) / probes
    return _safe_sqrt(_energy_per_gain(y.shape[-1], n_in) * energy)


def _pushforward(pullback: Function, y: Tensor) -> Function:
    """v -> M v, from u -> M^T u: the transpose of a linear map is its own derivative."""
    _, transpose = backend.vjp(pullback, ops.zeros_like(y))
    return transpose


def _arnoldi(product: Function, start: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Orthonormal Krylov basis `(points, size, n)` and projection `(points, size, size)`."""
    n, dtype = start.shape[-1], ops.dtype(start)
    count = ops.shape(start)[0]
    unit = ops.eye(size + 1, size, dtype=dtype)
    vector, _ = _normalized(start)
    basis = ops.zeros((count, size, n), dtype=dtype)
    projection = ops.zeros((count, size, size), dtype=dtype)

    def body(j: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vector, basis, projection = carry
        # Written in place where a backend can: the basis is too large to be copied every time.
        basis = ops.slice_update(basis, [0, j, 0], vector[:, None, :])
        vector = product(vector)
        column = ops.zeros((count, size), dtype=dtype)
        for _ in range(2):  # once is not enough in float32
            overlap = ops.einsum("pmn,pn->pm", basis, vector)
            vector = vector - ops.einsum("pm,pmn->pn", overlap, basis)
            column = column + overlap
        vector, norm = _normalized(vector)
        column = column + norm * ops.take(unit, j + 1, axis=0)
        projection = ops.slice_update(projection, [0, 0, j], column[:, :, None])
        return vector, basis, projection

    _, basis, projection = ops.fori_loop(0, size, body, (vector, basis, projection))
    return ops.reshape(basis, (-1, size, n)), projection


def _normalized(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors and lengths; a vector of (nearly) no length becomes zero, not NaN."""
    norm = _safe_sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))
    vanishes = norm < _NO_LENGTH
    return ops.where(vanishes, 0.0, vectors / ops.where(vanishes, 1.0, norm)), ops.where(
        vanishes, 0.0, norm
    )


def _dominant_range(product: Function, start: Tensor, size: int, squarings: int) -> _Range:
    """What the powers of a large matrix tend to, from those of its projection."""
    basis, projection = _arnoldi(product, start, size)
    value, power, vanished = _growth(projection, squarings)
    return _Range(ops.einsum("pmk,pmn->pnk", _range(power), basis), value, vanished)


def _krylov_radius(
    x: Tensor, y: Tensor, pullback: Function, gain: Tensor, size: int, squarings: int
) -> Tensor:
    size = min(size, x.shape[-1])
    start = _random_directions(1, y)[0]

    def ranges() -> tuple[_Range, _Range]:
        left = _dominant_range(pullback, start, size, squarings)
        return left, _dominant_range(_pushforward(pullback, y), start, size, squarings)

    left, right = backend.no_gradient(ranges)
    rows = [pullback(left.vectors[..., k]) for k in range(2)]
    block = ops.stack([ops.einsum("pn,pnk->pk", row, right.vectors) for row in rows], axis=1)
    overlap = ops.einsum("pnj,pnk->pjk", left.vectors, right.vectors)
    modulus, is_eigenvalue = _leading_modulus(overlap, block, left.value)
    # Stationary in both vectors, the quotient is closer than the values of the projections.
    value = ops.where(is_eigenvalue, ops.stop_gradient(modulus), left.value)
    return _with_slope(value, modulus, is_eigenvalue, gain, left.vanished)


def _krylov_norm(x: Tensor, y: Tensor, pullback: Function, size: int, squarings: int) -> Tensor:
    size = min(size, x.shape[-1], y.shape[-1])
    start = _random_directions(1, y)[0]
    pushforward = _pushforward(pullback, y)

    def singular_vectors() -> tuple[Tensor, Tensor]:
        found = _dominant_range(lambda u: pushforward(pullback(u)), start, size, squarings)
        left = _normalized(found.vectors[..., 0])[0]
        return left, _normalized(pullback(left))[0]

    left, right = backend.no_gradient(singular_vectors)
    return ops.sum(pullback(left) * right, axis=-1)
