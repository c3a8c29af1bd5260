"""Krylov spaces of a Jacobian that is not formed: its small projection, from products with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_lsc.stability.leading import normalized
from keras_lsc.stability.powers import powers

Tensor = Any
Function = Callable[[Tensor], Tensor]

# Where so little of a product is new, as a share of it, that is rounding: the space is closed
# under products, and noise made to a unit vector would be taken for a part of it.
_CLOSED = {"float32": 1e-5, "float64": 1e-12}


def dominant_range(
    product: Function, start: Tensor, size: int, squarings: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the powers of a large matrix tend to, from those of its projection.

    Args:
        product: M v of rows v, `(points, n)`.
        start: `(points, n)` first vectors.
        size: number of products.
        squarings: Squarings, as of `powers`.

    Returns:
        Three vectors of the range of M^N, `(points, n, 3)`; and `(points,)` the radius of the
        projection, whether it is the zero matrix, and whether the space was closed before it
        was full, as where M has few distinct eigenvalues, or one many times.
    """
    basis, projection = arnoldi(product, start, size)
    of_projection = powers(projection, squarings)
    vectors = ops.einsum("pmk,pmn->pnk", of_projection.right, basis)
    if size == 1:  # Of which TensorFlow has nothing below the diagonal.
        is_closed = ops.zeros_like(of_projection.is_zero)
    else:
        below = ops.diagonal(projection, offset=-1, axis1=-2, axis2=-1)
        is_closed = ops.any(below == 0.0, axis=-1)
    return vectors, of_projection.value, of_projection.is_zero, is_closed


def arnoldi(product: Function, start: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Orthonormal Krylov basis `(points, size, n)` and projection `(points, size, size)`.

    Where the space is closed before `size` products, the rest of both is zero.
    """
    n, dtype = start.shape[-1], ops.dtype(start)
    count = ops.shape(start)[0]
    unit = ops.eye(size + 1, size, dtype=dtype)
    vector, _ = normalized(start)
    basis = ops.zeros((count, size, n), dtype=dtype)
    projection = ops.zeros((count, size, size), dtype=dtype)

    def body(j: Tensor, carry: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vector, basis, projection = carry
        # Written in place where a backend can: the basis is too large to be copied every time.
        basis = ops.slice_update(basis, [0, j, 0], vector[:, None, :])
        vector = product(vector)
        before = vector
        column = ops.zeros((count, size), dtype=dtype)
        for _ in range(2):  # once is not enough in float32
            overlap = ops.einsum("pmn,pn->pm", basis, vector)
            vector = vector - ops.einsum("pm,pmn->pn", overlap, basis)
            column = column + overlap
        is_closed = is_rounding(vector, before)
        after = ops.where(is_closed, 0.0, _length(vector))
        vector = ops.where(is_closed, 0.0, vector / ops.where(is_closed, 1.0, after))
        column = column + after * ops.take(unit, j + 1, axis=0)
        projection = ops.slice_update(projection, [0, 0, j], column[:, :, None])
        return vector, basis, projection

    _, basis, projection = ops.fori_loop(0, size, body, (vector, basis, projection))
    return ops.reshape(basis, (-1, size, n)), projection


def is_rounding(rest: Tensor, vectors: Tensor) -> Tensor:
    """Whether what is left of vectors beside a basis is nothing but rounding, `(points, 1)`."""
    return _length(rest) <= _CLOSED[ops.dtype(rest)] * _length(vectors)


def _length(vectors: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))


def random_directions(count: int, like: Tensor) -> Tensor:
    """`count` fixed random vectors, the same on every backend and for every point."""
    vectors = np.random.default_rng(0).standard_normal((count, 1, like.shape[-1]))
    return ops.convert_to_tensor(vectors, dtype=ops.dtype(like)) + ops.zeros_like(like)
