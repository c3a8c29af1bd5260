"""Scans h_t = A_t h_{t-1} + b_t whose A_t are matrices: diagonal, of blocks, or dense.

As in `layers.scan`, blocks of steps are taken side by side, and the states between blocks are again
such a recurrence. Nothing here has a gradient of its own: it is what gradients are made of.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_lsc import backend
from keras_lsc.layers.scan import blocked, flipped, joined, linear_scan, shifted

Tensor = Any
# Both are tuples of tensors; which they are is a matter of the algebra.
Matrix = tuple[Tensor, ...]
Vector = tuple[Tensor, ...]

_BLOCK = 16
# From so many numbers of a matrix on, products of matrices cost more than steps one by one.
_WIDE = 4096


class Algebra(NamedTuple):
    """How matrices of one kind are multiplied, at many steps at once.

    Attributes:
        times: the product of two matrices.
        apply: the product of a matrix and a vector.
        transposed: of a matrix.
        identity: the unit matrices for vectors.
    """

    times: Callable[[Matrix, Matrix], Matrix]
    apply: Callable[[Matrix, Vector], Vector]
    transposed: Callable[[Matrix], Matrix]
    identity: Callable[[Vector], Matrix]


def _times_of_blocks(x: Matrix, y: Matrix) -> Matrix:
    return (
        x[0] * y[0] + x[1] * y[2],
        x[0] * y[1] + x[1] * y[3],
        x[2] * y[0] + x[3] * y[2],
        x[2] * y[1] + x[3] * y[3],
    )


def _identity_of_blocks(v: Vector) -> Matrix:
    one, zero = ops.ones_like(v[0]), ops.zeros_like(v[0])
    return one, zero, zero, one


def _dense_identity(v: Vector) -> Matrix:
    size = v[0].shape[-1]
    return (ops.expand_dims(ops.ones_like(v[0]), -1) * ops.eye(size, dtype=v[0].dtype),)


# A vector is (v,) and a matrix (its diagonal,), all `(..., units)`.
DIAGONAL = Algebra(
    times=lambda x, y: (x[0] * y[0],),
    apply=lambda x, v: (x[0] * v[0],),
    transposed=lambda x: x,
    identity=lambda v: (ops.ones_like(v[0]),),
)
# A vector is (v_0, v_1), and a matrix (x_00, x_01, x_10, x_11), all `(..., units)`.
BLOCKS = Algebra(
    times=_times_of_blocks,
    apply=lambda x, v: (x[0] * v[0] + x[1] * v[1], x[2] * v[0] + x[3] * v[1]),
    transposed=lambda x: (x[0], x[2], x[1], x[3]),
    identity=_identity_of_blocks,
)
# A vector is (v,), `(..., n)`, and a matrix (x,), `(..., n, n)`.
DENSE = Algebra(
    times=lambda x, y: (ops.matmul(x[0], y[0]),),
    apply=lambda x, v: (ops.squeeze(ops.matmul(x[0], ops.expand_dims(v[0], -1)), -1),),
    transposed=lambda x: (ops.swapaxes(x[0], -1, -2),),
    identity=_dense_identity,
)


def affine_scan(
    algebra: Algebra,
    a: Matrix,
    b: Vector,
    start: Vector | None = None,
    reverse: bool = False,
    block: int = _BLOCK,
) -> Vector:
    """Returns every state of h_t = A_t h_{t-1} + b_t.

    Args:
        algebra: the kind of the matrices.
        a: A, tuple of `(T, ...)` tensors.
        b: the drive, tuple of `(T, ...)` tensors.
        start: h before the first step; zero without it.
        reverse: whether time runs from the last step to the first.
        block: number of steps of a block.

    Returns:
        Tuple of `(T, ...)` tensors, of the shapes of `b`.

    Example:
        >>> import numpy as np
        >>> turn = np.float32([[[0, -1], [1, 0]]] * 3)
        >>> drive = np.float32([[1, 0], [0, 0], [0, 0]])
        >>> (h,) = affine_scan(DENSE, (turn,), (drive,))
        >>> ops.convert_to_numpy(h).tolist()
        [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    """
    a, b = tuple(map(ops.convert_to_tensor, a)), tuple(map(ops.convert_to_tensor, b))
    if start is None:
        start = tuple(ops.zeros_like(part[0]) for part in b)
    if algebra is DIAGONAL and block == _BLOCK:
        return (linear_scan(a[0], b[0], start[0], reverse),)
    if reverse:
        return flipped(affine_scan(algebra, flipped(a), flipped(b), start, block=block))
    length = backend.static_length(b[0])
    if length is None or length <= block or _is_wide(a[0]):
        return _loop(algebra, a, b, start)
    a, b = blocked(a, length, block), blocked(b, length, block)
    local, product = _local_states(algebra, a, b)
    ends = affine_scan(
        algebra,
        tuple(part[-1] for part in product),
        tuple(part[-1] for part in local),
        start,
        block=block,
    )
    entering = shifted(ends, start, False)
    states = _plus(local, algebra.apply(product, entering))
    return joined(states, length, block)


def _is_wide(x: Tensor) -> bool:
    if backend.is_exporting() or None in x.shape:
        return False
    return math.prod(x.shape[1:]) >= _WIDE


def _loop(algebra: Algebra, a: Matrix, b: Vector, start: Vector) -> Vector:
    def step(h: Vector, at: tuple) -> Vector:
        return _plus(algebra.apply(at[: len(a)], h), at[len(a) :])

    return backend.running_states(step, start, (*a, *b))


def _local_states(algebra: Algebra, a: Matrix, b: Vector) -> tuple[Vector, Matrix]:
    """The states inside the blocks, each from zero, and the products of their matrices so far."""
    nothing = tuple(ops.zeros_like(part[0]) for part in b)
    count = len(b)

    def step(carry: tuple, at: tuple) -> tuple:
        matrix, drive = at[: len(a)], at[len(a) :]
        h = _plus(algebra.apply(matrix, carry[:count]), drive)
        return (*h, *algebra.times(matrix, carry[count:]))

    visited = backend.running_states(step, (*nothing, *algebra.identity(nothing)), (*a, *b))
    return visited[:count], visited[count:]


def _plus(x: Vector, y: Vector) -> Vector:
    return tuple(p + q for p, q in zip(x, y, strict=True))
