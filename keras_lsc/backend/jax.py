"""Differentiation primitives on JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tensor = Any


def vjp(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable]:
    """Returns `function(x)` and the map from a cotangent of it to the cotangent of `x`."""
    y, pullback = jax.vjp(function, x)
    return y, lambda cotangent: pullback(cotangent)[0]


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    y, pullback = jax.vjp(function, x)

    def row(basis_vector: Tensor) -> Tensor:
        return pullback(jnp.broadcast_to(basis_vector, y.shape))[0]

    return jax.vmap(row, out_axes=1)(jnp.eye(y.shape[-1], dtype=y.dtype))


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    return jax.tree.map(jax.lax.stop_gradient, function())
