"""Taps: a zero added to the output of every layer call of a model, to take gradients by it."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.layers import call_in_inference, is_recurrent
from keras_lsc.stability.probe import ModelProbe

Tensor = Any
# Sequences of one pass, and of those that are computed at once as many as take so many bytes, by
# what every call gives out, of which there are so many copies: added to it, the output itself, and
# their gradients.
ROWS = 64
_BYTES, _COPIES = 2**31, 6
# A layer, its first argument, its mask and what it gives out, and what is passed on in its place.
Visit = Callable[[keras.Layer, Any, Any, Tensor], Tensor]
# A layer's own method and the arguments of a call, and what the call returns.
Instead = Callable[[Callable, tuple, dict[str, Any]], Any]


class Tap(NamedTuple):
    """A call of a layer.

    Attributes:
        layer: the layer.
        name: its name; of a layer that is called again also "name[2]", ...
        shape: shape of its first output, without the axis of the rows.
        input_shape: the same of its first argument.
    """

    layer: keras.Layer
    name: str
    shape: tuple[int, ...]
    input_shape: tuple[int, ...]


class Run(NamedTuple):
    """What a model was seen to do.

    Attributes:
        result: Outputs of the model.
        arguments: of every call its first argument.
        outputs: of every call its first output.
        masks: of every call the mask that it was given, or None.
    """

    result: Any
    arguments: list[Tensor]
    outputs: list[Tensor]
    masks: list[Tensor | None]


class Taps:
    """The calls of a model's layers, in their order, and the model with something added to each.

    Any built model: Sequential, functional, or with a `call` of its own, whose layers may hold
    layers. What runs once a step (cells, the layer in a `TimeDistributed`) is no call of its own:
    the layer around it is. Nothing of the model is changed, also where it raises.

    Args:
        model: a built `keras.Model`.
        inputs: a batch of its inputs, in the structure that it takes.
        wanted: which layers; all without it.

    Attributes:
        calls: one `Tap` a call.
        output_shapes: shapes of the model's outputs, without the axis of the rows.
    """

    def __init__(
        self, model: keras.Model, inputs: Any, wanted: Callable[[keras.Layer], bool] | None = None
    ):
        self._model = model
        self._layers = [layer for layer in leaves(model) if wanted is None or wanted(layer)]
        self.calls, self.output_shapes = self._found(inputs)

    def _found(self, inputs: Any) -> tuple[list[Tap], list[tuple[int, ...]]]:
        calls: list[Tap] = []
        shapes: list[tuple[int, ...]] = []
        looped: set[int] = set()
        outside: list[Any] = []

        def visit(layer: keras.Layer, argument: Any, mask: Any, output: Tensor) -> Tensor:
            del mask
            if backend.trace_level() != outside[0]:
                looped.add(id(layer))
            elif keras.backend.is_float_dtype(keras.backend.standardize_dtype(output.dtype)):
                count = sum(call.layer is layer for call in calls)
                name = layer.name if count == 0 else f"{layer.name}[{count + 1}]"
                given = getattr(argument, "shape", ())
                calls.append(Tap(layer, name, tuple(output.shape[1:]), tuple(given[1:])))
            return output

        def run(inputs: Any) -> None:
            outside.append(backend.trace_level())
            with keras.StatelessScope():
                outputs = self._visited(inputs, visit)
            shapes.extend(tuple(output.shape[1:]) for output in tree.flatten(outputs))

        backend.dry_run(run, inputs)
        return [call for call in calls if id(call.layer) not in looped], shapes

    def run(self, inputs: Any, added: Sequence[Tensor]) -> Run:
        """Runs the model in inference, with `added[k]` added to the output of call k.

        Args:
            inputs: a batch, in the structure that the model takes.
            added: one tensor a call, `(rows, *shape)`.

        Raises:
            RuntimeError: the model makes other calls than it made when it was looked at.
        """
        arguments: list[Tensor] = []
        outputs: list[Tensor] = []
        masks: list[Tensor | None] = []
        tapped = {id(call.layer) for call in self.calls}

        def visit(layer: keras.Layer, argument: Any, mask: Any, output: Tensor) -> Tensor:
            dtype = keras.backend.standardize_dtype(output.dtype)
            if id(layer) not in tapped or not keras.backend.is_float_dtype(dtype):
                return output
            if len(outputs) == len(self.calls) or self.calls[len(outputs)].layer is not layer:
                raise RuntimeError(
                    f"Model {self._model.name!r} calls its layers in another order than before, "
                    f"first {layer.name!r}. A model whose calls depend on its inputs has no "
                    "gradient by layer."
                )
            output = output + ops.cast(added[len(outputs)], dtype)
            arguments.append(argument)
            outputs.append(output)
            masks.append(mask)
            return output

        result = self._visited(inputs, visit)
        return Run(result, arguments, outputs, masks)

    def untouched(self) -> contextlib.AbstractContextManager[Any]:
        """A scope in which a state that the model carries on is none of its own."""
        return untouched(self._model)

    def nothing(self, rows: Any) -> list[Tensor]:
        """What leaves every call as it is, added to so many rows."""
        return [ops.zeros((rows, *call.shape), dtype="float32") for call in self.calls]

    def _visited(self, inputs: Any, visit: Visit) -> Any:
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(_visiting(layer, visit))
            return call_in_inference(self._model, inputs)


class TapsProbe(ModelProbe):
    """A model that looks at another one through its taps.

    Args:
        model: the model to look at.
        taps: its layer calls.
        structure: a nest of the inputs that the model takes.
        what: is measured, for the name.

    Attributes:
        model: the model.
        taps: its layer calls.
        structure: the nest.
        rows_interact: whether what is computed of a row depends on the others beside it.
    """

    rows_interact = False

    def __init__(self, model: keras.Model, taps: Taps, structure: Any, what: str):
        # In float32: it reads weights itself, which a mixed policy of its own would round.
        super().__init__(model, f"{what}_probe", dtype="float32")
        self.taps = taps
        self.structure = structure

    def parted(self, inputs: list[Tensor]) -> tuple[Any, list[Tensor]]:
        """The inputs of the model, in its structure, and what follows them."""
        count = len(tree.flatten(self.structure))
        return tree.pack_sequence_as(self.structure, inputs[:count]), inputs[count:]

    def by_batches(self, arrays: list[np.ndarray]) -> Any:
        """What `call` returns of all rows, in its nest, in float64, a few rows at a time."""
        count = len(arrays[0])
        size = min(count, ROWS)
        if not self.rows_interact:
            row = _COPIES * sum(4 * math.prod(call.shape) for call in self.taps.calls)
            size = min(size, max(1, _BYTES // max(1, row)))
        found = []
        for start in range(0, count, size):
            # Functions are compiled for a number of rows, so the last batch is filled up.
            points = np.resize(np.arange(start, min(start + size, count)), size)
            part = self.predict_on_batch([array[points] for array in arrays])
            kept = min(size, count - start)
            found.append(tree.map_structure(lambda x, n=kept: np.asarray(x, "float64")[:n], part))
        return tree.map_structure(lambda *parts: np.concatenate(parts), *found)


def untouched(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """A scope in which a state that a model carries on is none of its own."""
    state = [(variable, variable.value) for variable in model.variables]
    return keras.StatelessScope(state_mapping=state)


def flat(x: Tensor) -> Tensor:
    """`(rows, ...)` as `(rows, all others)`."""
    return ops.reshape(x, (ops.shape(x)[0], -1))


def leaves(
    model: keras.Model, whole: Callable[[keras.Layer], bool] = lambda _: False
) -> list[keras.Layer]:
    """The layers of a model that call no others, or call them once a step.

    Args:
        model: a model, or a layer that may hold layers.
        whole: of which others nothing inside is wanted.

    Returns:
        Each once; `Bidirectional`, `TimeDistributed` and attention as a whole.
    """
    found: list[keras.Layer] = []
    seen: set[int] = set()

    def visit(layer: keras.Layer) -> None:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            return
        seen.add(id(layer))
        parts = [] if _is_whole(layer) or whole(layer) else _held(layer)
        if not parts:
            found.append(layer)
        for part in parts:
            visit(part)

    for part in _held(model):
        visit(part)
    return found


_WHOLE = (
    keras.layers.GroupQueryAttention,
    keras.layers.MultiHeadAttention,
    keras.layers.TimeDistributed,
)


def _is_whole(layer: keras.Layer) -> bool:
    return is_recurrent(layer) or isinstance(layer, _WHOLE)


def _held(layer: keras.Layer) -> list[keras.Layer]:
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    held: dict[int, keras.Layer] = {}
    for value in list(vars(layer).values()):
        if isinstance(value, keras.Layer | list | tuple | dict):
            parts = [part for part in tree.flatten(value) if isinstance(part, keras.Layer)]
            held.update((id(part), part) for part in parts)
    # A metric or a policy is no layer; an activation given as a layer is, and is called.
    return list(held.values())


def _visiting(layer: keras.Layer, visit: Visit) -> contextlib.AbstractContextManager[None]:
    """Has every call of a layer visited."""

    def instead(method: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        outputs = method(*args, **kwargs)
        argument = next(iter(tree.flatten((args, kwargs))), None)
        mask = kwargs.get("mask")
        if isinstance(outputs, list | tuple):
            first, *others = outputs
            return type(outputs)([visit(layer, argument, mask, first), *others])
        return visit(layer, argument, mask, outputs) if hasattr(outputs, "dtype") else outputs

    return in_place_of_call(layer, instead)


@contextlib.contextmanager
def in_place_of_call(layer: keras.Layer, instead: Instead) -> Iterator[None]:
    """A scope in which a function runs where a layer is called.

    Args:
        layer: of which nothing is changed but an attribute that hides its method.
        instead: is given the method, and the arguments of the call.
    """
    name = "call" if getattr(layer, "quantization_mode", None) is None else "quantized_call"
    method = getattr(layer, name)
    former = vars(layer).get(name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return instead(method, args, kwargs)

    # Past the layer's own bookkeeping of what it is given.
    object.__setattr__(layer, name, call)
    try:
        yield
    finally:
        if former is None:
            object.__delattr__(layer, name)
        else:
            object.__setattr__(layer, name, former)
