"""Differentiation primitives on TensorFlow."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

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
    x = tf.stop_gradient(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs, others = function(x)

    def of(output: Tensor) -> Callable:
        return lambda cotangent: tape.gradient(
            output, x, output_gradients=cotangent, unconnected_gradients="zero"
        )

    return outputs, [of(output) for output in outputs], others


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the Jacobian of every row, `(rows, n_out, n_in)`; rows must not interact."""
    x = tf.stop_gradient(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        # Rows do not interact: the derivative of their sum by one row is that row's Jacobian.
        total = tf.reduce_sum(function(x), axis=0)
    return tf.transpose(tape.jacobian(total, x, unconnected_gradients="zero"), (1, 0, 2))


def gradients(function: Callable[[], Tensor], variables: list[Any]) -> list[Tensor]:
    """Returns the gradients of a scalar `function()` by the values of Keras variables."""
    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        result = as_graph(function)()
    found = tape.gradient(result, values, unconnected_gradients="zero")
    # The gradient of an embedding is a slice of it.
    return [tf.convert_to_tensor(gradient) for gradient in found]


def no_gradient(function: Callable[[], Any]) -> Any:
    """Returns `function()`, through which no derivative passes."""
    return keras.tree.map_structure(tf.stop_gradient, function())


def dry_run(function: Callable, *args: Any) -> None:
    """Runs `function` on the shapes of its arguments alone, where the backend can."""
    specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), args)
    tf.function(function, autograph=False).get_concrete_function(*specs)


def trace_level() -> Any:
    """Returns what differs between a function and the body of a loop that is traced in it."""
    return tf.compat.v1.get_default_graph()


def compiled(function: Callable) -> Callable:
    """Returns `function`, whose operations need no compiler."""
    return function


def as_graph(function: Callable) -> Callable:
    """Returns `function` as one graph, so that a loop in it is traced as a whole.

    AutoGraph would rewrite every function below it, for longer than tracing takes; Keras' own
    steps are not rewritten either.
    """
    return tf.function(function, autograph=False)


def is_concrete(x: Tensor) -> bool:
    """Returns whether the value of x is known now, outside of a function that is compiled."""
    return not tf.is_symbolic_tensor(x)


def tally(count: int) -> Any:
    """Returns so many sums of what layers come to while they run, compiled or not.

    `add` takes a scalar for each sum, and `read` returns the sums once all that was begun has run.
    """
    return _Tally(count)


class _Tally:
    def __init__(self, count: int):
        # Of the process, also where a layer is made as a function is traced.
        with tf.init_scope():
            self._sums = [
                tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.SUM)
                for _ in range(count)
            ]

    def add(self, *values: Tensor) -> None:
        for total, value in zip(self._sums, values, strict=True):
            total.assign_add(tf.cast(value, total.dtype))

    def read(self) -> list[float]:
        return [float(total.numpy()) for total in self._sums]


def cos_and_sin(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine in the dtype of x; those of `keras.ops` make float32 of float64."""
    return tf.cos(x), tf.sin(x)


def heaviside(x: Tensor) -> Tensor:
    """Returns 1 where x > 0 and 0 elsewhere, in the dtype of x, without a derivative."""
    return tf.cast(x > 0, x.dtype)


def multiply_add(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Returns x y + z; the compiler, where there is one, makes one operation of it."""
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
    length = steps[0].shape[0] or tf.shape(steps[0])[0]
    inputs = [tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x) for x in steps]
    visited = tuple(tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in start)

    def advance(t: Tensor, state: tuple, visited: tuple) -> tuple:
        at = length - 1 - t if reverse else t
        state = tuple(step(state, tuple(array.read(at) for array in inputs)))
        visited = tuple(array.write(at, x) for array, x in zip(visited, state, strict=True))
        return t + 1, state, visited

    _, _, visited = tf.while_loop(
        lambda t, *_: t < length,
        advance,
        (tf.constant(0), start, visited),
        maximum_iterations=length,
    )
    return tuple(array.stack() for array in visited)


def custom_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    backward: Callable[[tuple, tuple, tuple], tuple],
) -> Callable[..., tuple[Tensor, ...]]:
    """Returns `function` with `backward(inputs, outputs, cotangents)` as its gradient.

    Inputs and outputs are float tensors. A cotangent that is None is zero; `backward` returns
    for every input a function that makes its cotangent, or None.
    """

    def attach(inputs: tuple, outputs: tuple) -> tuple[Tensor, ...]:
        """Outputs that are known, with this gradient: for derivatives of the gradient too."""

        @tf.custom_gradient
        def known(*_: Tensor) -> tuple[tuple, Callable]:
            def pullback(*cotangents: Tensor) -> list[Tensor | None]:
                gradients = backward(inputs, attach(inputs, outputs), cotangents)
                return [None if gradient is None else gradient() for gradient in gradients]

            return tuple(tf.identity(x) for x in outputs), pullback

        return known(*inputs)

    def differentiable(*inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(tf.convert_to_tensor(x) for x in inputs)
        outputs = function(*(tf.stop_gradient(x) for x in inputs))
        return attach(inputs, tuple(tf.stop_gradient(x) for x in outputs))

    return differentiable


def is_exporting() -> bool:
    """Returns whether a graph is traced for ONNX or torch.export: never by this backend's means."""
    return False


def loops_are_slow() -> bool:
    """Returns whether a loop of small steps takes much longer than what the steps compute."""
    return True


def export_options(kind: str, signature: Any) -> dict[str, Any]:
    """Returns what `export` of a model has to be told besides, for a format and its inputs."""
    del signature
    if kind != "litert":
        return {}
    # Without those of TensorFlow itself, which not every runtime has.
    return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}


def static_length(x: Tensor) -> int | None:
    """Returns the size of the first axis as a graph is made for it; None where it is open."""
    return x.shape[0]


def first_non_finite_operation(function: Callable[[], Any]) -> str | None:
    """Returns the name of the first operation of `function()` whose result is NaN or infinite."""
    tf.debugging.enable_check_numerics()
    try:
        function()
    except tf.errors.InvalidArgumentError as error:
        named = re.search(r'op "(\w+)"', str(error))
        return named[1] if named else None
    finally:
        tf.debugging.disable_check_numerics()
    return None


def aside_from_random_draws() -> contextlib.AbstractContextManager[Any]:
    """A scope whose draws leave those that follow as they would be: all are functions of seeds."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def quiet_tracing() -> Iterator[None]:
    """Keeps TensorFlow from advice on functions that are traced often.

    It counts by the code of a function, and that of Keras' `predict` is the same for all models.
    """
    logger = tf.get_logger()
    logger.addFilter(_is_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)


def is_mirrored(variable: Any) -> bool:
    """Returns whether a Keras variable stands for copies of it, as `tf.distribute` makes them."""
    return isinstance(variable.value, tf.distribute.DistributedValues)


def device_name() -> str:
    """Returns the kind of device that tensors are on by default."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return "cpu"
    return tf.config.experimental.get_device_details(devices[0]).get("device_name", "gpu")


def peak_device_memory() -> int | None:
    """Returns the most bytes in use on the device so far; None where it does not count them."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]
