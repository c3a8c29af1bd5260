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


def running_states(
    step: Callable[[Any, Any], Any], start: Any, steps: Any, reverse: bool = False
) -> Any:
    """Returns the state after every step of `state = step(state, steps[t])`, time first."""

    def advance(state: Any, at: Any) -> tuple[Any, Any]:
        state = step(state, at)
        return state, state

    return jax.lax.scan(advance, start, steps, reverse=reverse)[1]


def with_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    backward: Callable[[tuple, tuple, tuple], tuple],
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns `function` with `backward(inputs, outputs, cotangents)` as its gradient.

    Inputs and outputs are float tensors. A cotangent that is None, given or returned, is zero.
    """

    def forward(*inputs: Tensor) -> tuple[tuple, tuple]:
        outputs = function(*inputs)
        return outputs, (inputs, outputs)

    def pullback(residuals: tuple, cotangents: tuple) -> tuple:
        inputs, outputs = residuals
        gradients = backward(inputs, outputs, cotangents)
        return tuple(
            jnp.zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(inputs, gradients, strict=True)
        )

    differentiable = jax.custom_vjp(function)
    differentiable.defvjp(forward, pullback)
    return differentiable
