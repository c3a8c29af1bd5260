"""Differentiation primitives on TensorFlow."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Tensor = Any


def vjp(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable]:
    """Returns `function(x)` and the map from a cotangent of it to the cotangent of `x`."""
    x = tf.stop_gradient(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = function(x)
    return y, lambda cotangent: tape.gradient(
        y, x, output_gradients=cotangent, unconnected_gradients="zero"
    )


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    x = tf.stop_gradient(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        # Rows do not interact: the derivative of their sum by one row is that row's Jacobian.
        total = tf.reduce_sum(function(x), axis=0)
    return tf.transpose(tape.jacobian(total, x, unconnected_gradients="zero"), (1, 0, 2))


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    return keras.tree.map_structure(tf.stop_gradient, function())
