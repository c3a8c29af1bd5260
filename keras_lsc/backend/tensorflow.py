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


def running_states(
    step: Callable[[Any, Any], Any], start: Any, steps: Any, reverse: bool = False
) -> Any:
    """Returns the state after every step of `state = step(state, steps[t])`, time first."""
    flat_steps, flat_start = keras.tree.flatten(steps), keras.tree.flatten(start)
    length = flat_steps[0].shape[0] or tf.shape(flat_steps[0])[0]
    inputs = [
        tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in flat_steps
    ]
    visited = [tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in flat_start]

    def advance(t: Tensor, state: list[Tensor], visited: list[Any]) -> tuple:
        at = length - 1 - t if reverse else t
        here = keras.tree.pack_sequence_as(steps, [array.read(at) for array in inputs])
        new = keras.tree.flatten(step(keras.tree.pack_sequence_as(start, state), here))
        visited = [array.write(at, x) for array, x in zip(visited, new, strict=True)]
        return t + 1, new, visited

    _, _, visited = tf.while_loop(
        lambda t, *_: t < length,
        advance,
        (tf.constant(0), flat_start, visited),
        maximum_iterations=length,
    )
    return keras.tree.pack_sequence_as(start, [array.stack() for array in visited])


def with_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    backward: Callable[[tuple, tuple, tuple], tuple],
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns `function` with `backward(inputs, outputs, cotangents)` as its gradient.

    Inputs and outputs are float tensors. A cotangent that is None, given or returned, is zero.
    """

    @tf.custom_gradient
    def differentiable(*inputs: Tensor) -> tuple[tuple, Callable]:
        outputs = function(*inputs)
        return outputs, lambda *cotangents: backward(inputs, outputs, cotangents)

    return differentiable
