"""Differentiation primitives on JAX."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.extend.core import get_opaque_trace_state

Tensor = Any


def pullbacks(
    function: Callable[[Tensor], tuple[tuple[Tensor, ...], Any]], x: Tensor
) -> tuple[tuple[Tensor, ...], list[Callable], Any]:
    """Returns the outputs of a function, their pullbacks, and what else it returns.

    Args:
        function: Of x, to a tuple of outputs, and a nest of tensors that are not differentiated.
        x: Tensor.

    Returns:
        The outputs; of each the map from a cotangent of it to the cotangent of `x`; the nest.
    """
    outputs, pullback, others = jax.vjp(function, x, has_aux=True)

    def of(k: int) -> Callable:
        def pull(cotangent: Tensor) -> Tensor:
            nothing = [jnp.zeros_like(output) for output in outputs]
            return pullback((*nothing[:k], cotangent, *nothing[k + 1 :]))[0]

        return pull

    return outputs, [of(k) for k in range(len(outputs))], others


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    y, pullback = jax.vjp(function, x)

    def row(basis_vector: Tensor) -> Tensor:
        return pullback(jnp.broadcast_to(basis_vector, y.shape))[0]

    return jax.vmap(row, out_axes=1)(jnp.eye(y.shape[-1], dtype=y.dtype))


def gradients(function: Callable[[], Tensor], variables: list[Any]) -> list[Tensor]:
    """Returns the gradients of a scalar `function()` by the values of Keras variables."""

    def scalar(values: list[Tensor]) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function()

    return jax.jit(jax.grad(scalar))([variable.value for variable in variables])


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    return jax.tree.map(jax.lax.stop_gradient, function())


def dry_run(function: Callable, *args: Any) -> None:
    """Runs `function` on the shapes of its arguments alone, where the backend can."""
    jax.eval_shape(function, *args)


def trace_level() -> Any:
    """Returns what differs between a function and the body of a loop that is traced in it."""
    return get_opaque_trace_state(convention="nnx")


def compiled(function: Callable) -> Callable:
    """Returns `function` as one program: by itself every operation is compiled for every shape."""
    return jax.jit(function)


def as_graph(function: Callable) -> Callable:
    """Returns `function` as one program, so that a loop in it is traced as a whole."""
    return jax.jit(function)


def is_concrete(x: Tensor) -> bool:
    """Returns whether the value of x is known now, outside of a function that is compiled."""
    return not isinstance(x, jax.core.Tracer)


def tally(count: int) -> Any:
    """Returns so many sums of what layers come to while they run, compiled or not.

    `add` takes a scalar for each sum, and `read` returns the sums once all that was begun has run.
    """
    return _Tally(count)


class _Tally:
    def __init__(self, count: int):
        self._sums = [0.0] * count

    def add(self, *values: Tensor) -> None:
        if all(map(is_concrete, values)):
            self._note(*values)
        else:
            # A program that is compiled tells the host as it runs.
            jax.debug.callback(self._note, *values)

    def _note(self, *values: Tensor) -> None:
        self._sums = [total + float(value) for total, value in zip(self._sums, values, strict=True)]

    def read(self) -> list[float]:
        jax.effects_barrier()
        return list(self._sums)


def cos_and_sin(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine in the dtype of x; those of `keras.ops` make float32 of float64."""
    return jnp.cos(x), jnp.sin(x)


def heaviside(x: Tensor) -> Tensor:
    """Returns 1 where x > 0 and 0 elsewhere, in the dtype of x, without a derivative."""
    return (x > 0).astype(x.dtype)


def multiply_add(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Returns x y + z; the compiler makes one operation of it."""
    return x * y + z


def running_states(
    step: Callable[[tuple, tuple], tuple],
    start: tuple[Tensor, ...],
    steps: tuple[Tensor, ...],
    reverse: bool = False,
) -> tuple[Tensor, ...]:
    """Returns the state after every step of `state = step(state, at)`, time first.

    Args:
        step: Function from the tuples of the states and of what the step is given to the new
            states.
        start: tuple of tensors.
        steps: tuple of tensors `(T, ...)`; a step is given a slice of each.
        reverse: whether time runs from the last step to the first.

    Returns:
        Tuple of `(T, ...)` tensors.
    """

    def advance(state: tuple, at: tuple) -> tuple[tuple, tuple]:
        state = tuple(step(state, at))
        return state, state

    return jax.lax.scan(advance, start, steps, reverse=reverse)[1]


def custom_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    backward: Callable[[tuple, tuple, tuple], tuple],
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns `function` with `backward(inputs, outputs, cotangents)` as its gradient.

    Inputs and outputs are float tensors. A cotangent that is None is zero; `backward` returns
    for every input a function that makes its cotangent, or None.
    """

    def forward(*inputs: Tensor) -> tuple[tuple, tuple]:
        # With this gradient for the residuals too, for derivatives of the gradient.
        outputs = differentiable(*inputs)
        return outputs, (inputs, outputs)

    def pullback(residuals: tuple, cotangents: tuple) -> tuple:
        inputs, outputs = residuals
        gradients = backward(inputs, outputs, cotangents)
        return tuple(
            jnp.zeros_like(x) if gradient is None else gradient()
            for x, gradient in zip(inputs, gradients, strict=True)
        )

    differentiable = jax.custom_vjp(function)
    differentiable.defvjp(forward, pullback)
    return differentiable


def is_exporting() -> bool:
    """Returns whether a graph is traced for ONNX or torch.export: never by this backend's means."""
    return False


def loops_are_slow() -> bool:
    """Returns whether a loop of small steps takes much longer than what the steps compute."""
    return jax.default_backend() != "cpu"


def export_options(kind: str, signature: Any) -> dict[str, Any]:
    """Returns what `export` of a model has to be told besides, for a format and its inputs."""
    del kind, signature
    return {}


def static_length(x: Tensor) -> int | None:
    """Returns the size of the first axis as a graph is made for it; None for a symbol."""
    return x.shape[0] if isinstance(x.shape[0], int) else None


def first_non_finite_operation(function: Callable[[], Any]) -> str | None:
    """Returns the name of the first operation of `function()` whose result is NaN or infinite."""
    try:
        with jax.debug_nans(True), jax.debug_infs(True), jax.disable_jit():
            function()
    except FloatingPointError as error:
        named = re.search(r"encountered in ([\w-]+)", str(error))
        return named[1] if named else None
    return None


def aside_from_random_draws() -> contextlib.AbstractContextManager[Any]:
    """A scope whose draws leave those that follow as they would be: all are functions of seeds."""
    return contextlib.nullcontext()


def quiet_tracing() -> contextlib.AbstractContextManager[None]:
    """Nothing, as this backend says nothing of functions that are traced often."""
    return contextlib.nullcontext()


def is_mirrored(variable: Any) -> bool:
    """Returns whether a Keras variable stands for copies of it that one process trains: never."""
    del variable
    return False


def device_name() -> str:
    """Returns the kind of device that tensors are on by default."""
    return jax.devices()[0].device_kind


def peak_device_memory() -> int | None:
    """Returns the most bytes in use on the device so far; None where it does not count them."""
    counted = jax.devices()[0].memory_stats()
    return None if counted is None else counted.get("peak_bytes_in_use")
