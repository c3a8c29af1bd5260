"""From a transition to its radius: value and exact gradient, dense and matrix-free.

The spectral radius is read off the powers of the Jacobian (`dense`, `powers`), or of the small
projection of it that Arnoldi iteration makes from products with it (`matrix_free`, `krylov`); its
gradient is that of the eigenvalue between the subspaces that the powers tend to (`leading`). Where
rounding keeps powers from vouching for a value, and there is a host to ask, LAPACK says what it is
(`lapack`).
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.stability import lapack
from keras_lsc.stability.accuracy import MEASURE, Accuracy
from keras_lsc.stability.dense import Spectral, dense, dense_norm, rms_gain, with_slope
from keras_lsc.stability.matrix_free import (
    Products,
    krylov_norm,
    krylov_radius,
    probed_gain,
    summed_gain,
)
from keras_lsc.stability.powers import from_safe_scale, to_safe_scale

Tensor = Any
Function = Callable[[Tensor], Tensor]
RadiusKind = Literal["spectral", "rms", "norm"]


class Measured(NamedTuple):
    """Radius and RMS gain `(points,)` of Jacobians of one shape `(n_out, n_in)`.

    Attributes:
        radius: Radius of the kind that was asked for.
        gain: RMS gain.
        shape: Shape of the Jacobians.
        is_own: `(points,)` whether the gradient of the radius is its own; elsewhere it is that
            of a common scale of all entries.
        is_certain: `(points,)` whether the value is known to be close; None where that was not
            asked for.
        jacobians: `(points, n_out, n_in)` the Jacobians whose radius this is, where they were
            formed.
    """

    radius: Tensor
    gain: Tensor
    shape: tuple[int, int]
    is_own: Tensor
    is_certain: Tensor | None
    jacobians: Tensor | None = None


def spectral_radius(
    matrices: Tensor, squarings: int = MEASURE.squarings, tolerance: float = MEASURE.tolerance
) -> Tensor:
    """Largest modulus of an eigenvalue: value from powers of M, exact gradient.

    The value is the growth rate (|M^N| / |M^(N/2)|)^(2/N), N = 2^squarings, within a relative
    error of order 1/N. M^N also spans the dominant left and right eigenspaces, a line or, for a
    complex pair, a plane; the gradient is that of the eigenvalue of M between them. Where the
    powers leave no such eigenvalue (equal moduli, defective matrices) the gradient is that of a
    common scale of all entries.

    Outside of a compiled function, matrices for which powers in their precision cannot vouch
    (left and right vector of the leader nearly orthogonal) are handed to LAPACK on the host. Inside
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
def _compiled_dense(accuracy: Accuracy) -> Callable[[Tensor], Spectral]:
    return backend.compiled(lambda matrices: dense(matrices, accuracy))


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
    asked = with_slope(radii, along, known, rms_gain(matrices), radii == 0.0)
    asked = from_safe_scale(asked, scale)
    return ops.where(certain, value, asked), ops.where(certain, is_own, known)


def spectral_norm(matrices: Tensor, squarings: int = MEASURE.squarings) -> Tensor:
    """Largest singular value of `(..., n_out, n_in)` matrices, `(...,)`; 0 for zero matrices."""
    return _compiled_norm(Accuracy(squarings, certify=False))(matrices).value


@functools.cache
def _compiled_norm(accuracy: Accuracy) -> Callable[[Tensor], Spectral]:
    return backend.compiled(lambda matrices: dense_norm(matrices, accuracy))


def radius_and_gain(
    function: Function,
    x: Tensor,
    kind: RadiusKind = "spectral",
    *,
    squarings: int = MEASURE.squarings,
    krylov: int = MEASURE.krylov,
    dense_limit: int = MEASURE.dense_limit,
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
    is_spectral = kind == "spectral" and not is_gain(kind, *measured.shape)
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
    accuracy: Accuracy = MEASURE,
) -> list[Measured]:
    """`radius_and_gain` of several functions, all in the graph: nothing is asked of the host.

    Jacobians of one shape share their products.

    Args:
        linearized: pairs of a function and its `(points, n_in)` argument.
        kind: Kind of radius, as in `radius_and_gain`.
        accuracy: Accuracy of the radii.

    Returns:
        One `Measured` for every pair. The radius of a Jacobian that is left to LAPACK is its gain
        until somebody asks, and not certain.
    """
    measured: list[Measured] = []
    formed: dict[tuple[int, int], list[int]] = {}
    for index, (function, x) in enumerate(linearized):
        if x.shape[-1] > accuracy.dense_limit:
            measured.append(_matrix_free(function, x, kind, accuracy))
            continue
        jacobians = backend.jacobian(*in_precision(function, x))
        n_out, n_in = jacobians.shape[-2:]
        row = _of_gain(rms_gain(jacobians), n_out, n_in)
        if not is_gain(kind, n_out, n_in):
            row = row._replace(jacobians=jacobians)
            formed.setdefault((n_out, n_in), []).append(index)
        measured.append(row)
    if sum(len(group) * max(shape) ** 3 for shape, group in formed.items()) <= accuracy.lapack_work:
        for index in itertools.chain(*formed.values()):
            unknown = ops.zeros_like(measured[index].is_certain)
            measured[index] = measured[index]._replace(is_certain=unknown)
        return measured
    of_kind = dense_norm if kind == "norm" else dense
    for group in formed.values():
        matrices = [measured[index].jacobians for index in group]
        found = of_kind(ops.concatenate(matrices), accuracy)
        parts = [
            [None] * len(group) if part is None else ops.split(part, len(group)) for part in found
        ]
        for index, radius, own, certain in zip(group, *parts, strict=True):
            measured[index] = measured[index]._replace(
                radius=radius, is_own=own, is_certain=certain
            )
    return measured


def in_precision(function: Function, x: Tensor) -> tuple[Function, Tensor]:
    """`function` and `x` in float32 (float64 for a float64 `x`), whatever a model computes in."""
    precision = "float64" if ops.dtype(x) == "float64" else "float32"
    return lambda inputs: ops.cast(function(inputs), precision), ops.cast(x, precision)


def is_gain(kind: RadiusKind, n_out: int, n_in: int) -> bool:
    """Whether the radius is the gain: a rectangular Jacobian has no eigenvalues."""
    return kind == "rms" or (kind == "spectral" and n_in != n_out)


def _of_gain(gain: Tensor, n_out: int, n_in: int) -> Measured:
    is_known = ops.isfinite(ops.stop_gradient(gain))
    return Measured(gain, gain, (n_out, n_in), is_known, is_known)


def check_radius_kind(kind: str) -> None:
    """Raises ValueError if `kind` names no radius."""
    arguments.one_of("radius", kind, get_args(RadiusKind))


def _matrix_free(function: Function, x: Tensor, kind: RadiusKind, accuracy: Accuracy) -> Measured:
    products = Products(*in_precision(function, x))
    x, y, scale = products.x, products.y, products.scale
    n_out, n_in = y.shape[-1], x.shape[-1]
    is_summed = accuracy.certify and n_out <= (
        accuracy.rows if is_gain(kind, n_out, n_in) else accuracy.dense_limit
    )
    gain = summed_gain(products) if is_summed else probed_gain(products, accuracy.certify)
    measured = _of_gain(gain, n_out, n_in)
    # Of both gains the gradient is that of an estimate.
    unknown = ops.zeros_like(measured.is_own)
    measured = measured._replace(
        is_own=unknown, is_certain=measured.is_certain if is_summed else unknown
    )
    if kind == "norm":
        found = krylov_norm(products, accuracy)
        measured = measured._replace(
            radius=found.value, is_own=found.is_own, is_certain=found.is_certain
        )
    elif not is_gain(kind, *measured.shape):
        found = krylov_radius(products, gain, accuracy)
        measured = measured._replace(
            radius=found.value, is_own=found.is_own, is_certain=found.is_certain
        )
    return measured._replace(
        radius=from_safe_scale(measured.radius, scale), gain=from_safe_scale(measured.gain, scale)
    )
