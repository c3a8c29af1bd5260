"""Differentiation primitives on torch."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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
    x, (outputs, others) = _trace(function, x)

    def of(output: Tensor) -> Callable:
        return lambda cotangent: _gradient(output, x, cotangent)

    return outputs, [of(output) for output in outputs], others


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    x, y = _trace(function, x)
    # Rows do not interact: the derivative of their sum by one row is that row's Jacobian.
    basis = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    with torch.enable_grad():
        total = y.sum(dim=0)
    return _gradient(total, x, basis, is_grads_batched=True).transpose(0, 1)


def gradients(function: Callable[[], Tensor], variables: list[Any]) -> list[Tensor]:
    """Returns the gradients of a scalar `function()` by the values of Keras variables."""
    values = [variable.value for variable in variables]
    with torch.enable_grad():
        found = torch.autograd.grad(function(), values, allow_unused=True)
    return [
        torch.zeros_like(value) if gradient is None else gradient
        for value, gradient in zip(values, found, strict=True)
    ]


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    with torch.no_grad():
        return function()


def dry_run(function: Callable, *args: Any) -> None:
    """Runs `function` on the shapes of its arguments alone, where the backend can."""
    with torch.no_grad():
        function(*keras.tree.map_structure(keras.ops.convert_to_tensor, args))


def trace_level() -> Any:
    """Returns what differs between a function and the body of a loop that is traced in it."""
    return None


def compiled(function: Callable) -> Callable:
    """Returns `function`, whose operations need no compiler."""
    return function


def as_graph(function: Callable) -> Callable:
    """Returns `function`, of which nothing is traced."""
    return function


def is_concrete(x: Tensor) -> bool:
    """Returns whether the value of x is known now, outside of a function that is compiled."""
    del x
    return not torch.compiler.is_compiling()


def tally(count: int) -> Any:
    """Returns so many sums of what layers come to while they run, compiled or not.

    `add` takes a scalar for each sum, and `read` returns the sums once all that was begun has run.
    """
    return _Tally(count)


class _Tally:
    def __init__(self, count: int):
        self._sums: list[Any] = [0.0] * count

    def add(self, *values: Tensor) -> None:
        # Tensors, because reading one waits for the device.
        self._sums = [
            total + value.detach() for total, value in zip(self._sums, values, strict=True)
        ]

    def read(self) -> list[float]:
        return [float(total) for total in self._sums]


def cos_and_sin(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine in the dtype of x; those of `keras.ops` make float32 of float64."""
    return torch.cos(x), torch.sin(x)


def heaviside(x: Tensor) -> Tensor:
    """Returns 1 where x > 0 and 0 elsewhere, in the dtype of x, without a derivative."""
    # `torch.heaviside` and comparisons take several times as long.
    return torch.sign(x.detach()).relu()


def multiply_add(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Returns x y + z; one operation where operators would be two."""
    return torch.addcmul(z, x, y)


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
    unbound = [x.unbind() for x in steps]
    order = range(len(unbound[0]))
    state, visited = start, []
    for t in reversed(order) if reverse else order:
        state = step(state, tuple([x[t] for x in unbound]))
        visited.append(state)
    if reverse:
        visited.reverse()
    return tuple(torch.stack(states) for states in zip(*visited, strict=True))


def custom_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    backward: Callable[[tuple, tuple, tuple], tuple],
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns `function` with `backward(inputs, outputs, cotangents)` as its gradient.

    Inputs and outputs are float tensors. A cotangent that is None is zero; `backward` returns
    for every input a function that makes its cotangent, or None.
    """

    class Differentiable(torch.autograd.Function):
        # Inputs and outputs are all that is saved: so the gradient has a gradient as well.
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = function(*inputs)
            ctx.count = len(inputs)
            ctx.save_for_backward(*inputs, *outputs)
            ctx.set_materialize_grads(False)
            return outputs

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
            saved = ctx.saved_tensors
            gradients = backward(saved[: ctx.count], saved[ctx.count :], cotangents)
            return tuple(
                gradient() if wanted and gradient is not None else None
                for gradient, wanted in zip(gradients, ctx.needs_input_grad, strict=True)
            )

    def differentiable(*inputs: Tensor) -> tuple[Tensor, ...]:
        # An exported graph has no gradient, and the ONNX exporter confuses the outputs of an
        # autograd function: those that were made first take the places of the others.
        if is_exporting():
            return function(*inputs)
        return Differentiable.apply(*inputs)

    return differentiable


def is_exporting() -> bool:
    """Returns whether a graph is traced for ONNX or torch.export, which nobody differentiates."""
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()


def loops_are_slow() -> bool:
    """Returns whether a loop of small steps takes much longer than what the steps compute."""
    return True


def export_options(kind: str, signature: Any) -> dict[str, Any]:
    """Returns what `export` of a model has to be told besides, for a format and its inputs."""
    if kind != "torch":
        return {}
    # Of one argument, which may be a nest; an error where the batch cannot be left open.
    batch = {0: torch.export.Dim.DYNAMIC}
    return {"dynamic_shapes": [(keras.tree.map_structure(lambda _: batch, signature),)]}


def static_length(x: Tensor) -> int:
    """Returns the size of the first axis as a graph is made for it."""
    if not torch.onnx.is_in_onnx_export():
        return x.shape[0]
    # Sizes are tensors there, and torch warns of decisions by them; the graph is of one length.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(x.shape[0])


def first_non_finite_operation(function: Callable[[], Any]) -> str | None:
    """Returns the name of the first operation of `function()` whose result is NaN or infinite."""

    class Watch(TorchDispatchMode):
        found: str | None = None

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            del types
            result = operation(*args, **(kwargs or {}))
            is_known = self.found is not None or not isinstance(result, torch.Tensor)
            if not is_known and result.is_floating_point() and not torch.isfinite(result).all():
                self.found = operation.overloadpacket.__name__
            return result

    with torch.no_grad(), Watch() as watch:
        function()
    return watch.found


def aside_from_random_draws() -> contextlib.AbstractContextManager[Any]:
    """A scope whose draws leave those that follow as they would be."""
    # Keras' recurrent layers draw masks of dropout in inference too, from torch's own generator.
    return torch.random.fork_rng()


def quiet_tracing() -> contextlib.AbstractContextManager[None]:
    """Nothing, as this backend says nothing of functions that are traced often."""
    return contextlib.nullcontext()


def is_mirrored(variable: Any) -> bool:
    """Returns whether a Keras variable stands for copies of it that one process trains: never."""
    del variable
    return False


def device_name() -> str:
    """Returns the kind of device that tensors are on by default."""
    device = keras.ops.zeros(()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_device_memory() -> int | None:
    """Returns the most bytes in use on the device so far; None where it does not count them."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _trace(function: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, Any]:
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
