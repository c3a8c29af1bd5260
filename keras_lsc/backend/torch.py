"""Differentiation primitives on torch."""

from collections.abc import Callable
from typing import Any

import torch

Tensor = Any


def vjp(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable]:
    """Returns `function(x)` and the map from a cotangent of it to the cotangent of `x`."""
    x, y = _trace(function, x)
    return y, lambda cotangent: _gradient(y, x, cotangent)


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    x, y = _trace(function, x)
    # Rows do not interact: the derivative of their sum by one row is that row's Jacobian.
    basis = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    with torch.enable_grad():
        total = y.sum(dim=0)
    return _gradient(total, x, basis, is_grads_batched=True).transpose(0, 1)


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    with torch.no_grad():
        return function()


def _trace(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        return x, function(x)


def _gradient(y: Tensor, x: Tensor, cotangent: Tensor, is_grads_batched: bool = False) -> Tensor:
    unconnected = torch.zeros_like(x)
    if is_grads_batched:
        unconnected = unconnected.expand(len(cotangent), *x.shape)
    if not y.requires_grad:
        return unconnected
    (gradient,) = torch.autograd.grad(
        y,
        x,
        cotangent,
        # Inside `no_gradient` nobody differentiates the product again.
        create_graph=torch.is_grad_enabled(),
        retain_graph=True,
        is_grads_batched=is_grads_batched,
        allow_unused=True,
    )
    return unconnected if gradient is None else gradient
