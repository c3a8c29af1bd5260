"""Recurrences that are no cells of Keras: how a layer of some class steps, said by who knows it."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
from keras import ops, tree

Tensor = Any


class Recurrence(NamedTuple):
    """How the layers of a class step; see `register_recurrence`.

    Attributes:
        step: one step.
        start: the state before the first one.
    """

    step: Callable[..., tuple[Any, Tensor]]
    start: Callable[..., Any]


_registered: dict[type, Recurrence] = {}


def register_recurrence(
    layer_class: type[keras.Layer],
    *,
    step: Callable[..., tuple[Any, Tensor]],
    start: Callable[..., Any],
) -> None:
    """Says how the layers of a class step, where they run along time in their own `call`.

    `keras.layers.RNN` and cells of Keras need nothing of this. With it `measure`, `diagnose`,
    `lyapunov` and `StabilityMonitor` see the layers of that class, and of classes derived from it,
    wherever a model calls them. When they look, they run the first steps both ways, and raise where
    these differ.

    Both functions may name further arguments of the layer's `call`. They are given what the model
    gave: `step` what has an axis of steps `(batch, steps, ...)` one step at a time, `start` all.

    Args:
        layer_class: a class of Keras layers whose first argument is a sequence
            `(batch, steps, ...)`, and whose (first) output is one, or its last step.
        step: `step(layer, state, x) -> state, y`, with x `(batch, ...)` one step of the first
            argument and y `(batch, ...)` one of the outputs, in operations of Keras or of the
            backend. Rows must not interact.
        start: `start(layer, batch_size) -> state`, a tensor `(batch, ...)` or a nest of them. What
            is not of floats, such as a counter, is no part of the time transition.

    Raises:
        TypeError: the class is no class of layers, or one of the functions none.

    Source: this project, `docs/guides/any_model.md`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> class Leaky(keras.Layer):
        ...     def call(self, x):
        ...         return keras.ops.cumsum(x, axis=1)
        >>> keras_lsc.register_recurrence(
        ...     Leaky,
        ...     step=lambda layer, total, x: (total + x, total + x),
        ...     start=lambda layer, batch_size: keras.ops.zeros((batch_size, 3)),
        ... )
        >>> model = keras.Sequential([keras.Input((20, 3)), Leaky(), keras.layers.Dense(2)])
        >>> float(keras_lsc.measure(model, np.random.normal(size=(8, 20, 3))).time[0])
        1.0
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            f"layer_class must be a class of Keras layers, got {layer_class!r:.200}. Give the "
            "class whose `call` runs along time."
        )
    for name, value in (("step", step), ("start", start)):
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {value!r:.200}.")
    _registered[layer_class] = Recurrence(step, start)


def recurrence_of(layer: Any) -> Recurrence | None:
    """How a layer steps, where its class or one that it derives from is registered."""
    return next((_registered[of] for of in type(layer).__mro__ if of in _registered), None)


@dataclass(frozen=True, eq=False)
class Stepped:
    """What is asked of a recurrent layer, of what has a cell and is none.

    Attributes:
        name: of the layer.
        cell: one step.
        compute_dtype: of the layer.
    """

    name: str
    cell: Any
    compute_dtype: str


class StepCell(keras.layers.Layer):
    """One step of a layer whose class is registered, as a cell of Keras.

    It reads all arguments that have an axis of steps, side by side.

    Args:
        layer: the layer.
        given: the arguments of its call, by name, the sequence first.
    """

    def __init__(self, layer: keras.Layer, given: dict[str, Any]):
        super().__init__(dtype=layer.dtype_policy, autocast=False, name=layer.name)
        recurrence = recurrence_of(layer)
        assert recurrence is not None
        self._recurrence = recurrence
        self.layer = layer
        start = recurrence.start(layer, 1)
        self._structure = tree.map_structure(lambda _: 0, start)
        leaves = tree.flatten(start)
        self.state_size = [math.prod(leaf.shape[1:]) for leaf in leaves]
        self.states_without_gradient = [
            k for k, leaf in enumerate(leaves) if not _is_float(leaf.dtype)
        ]
        sequence, *others = given
        steps = tuple(given[sequence].shape[1:2])
        wanted = [sequence, *(name for name in _further(recurrence.step, 3) if name in others)]
        self._parts = [
            (name, tuple(given[name].shape[2:]), keras.backend.standardize_dtype(given[name].dtype))
            for name in wanted
            if tuple(getattr(given[name], "shape", ())[1:2]) == steps
        ]
        self.built = True

    def get_initial_state(self, batch_size: Any = None) -> list[Tensor]:
        """The state before the first step, where the layer is told nothing of it."""
        return tree.flatten(self._recurrence.start(self.layer, batch_size))

    def start(self, given: dict[str, Any]) -> list[Tensor]:
        """The state before the first step of a call with these arguments."""
        sequence, *others = given
        told = {name: given[name] for name in others if name in _further(self._recurrence.start, 2)}
        rows = ops.shape(given[sequence])[0]
        return tree.flatten(self._recurrence.start(self.layer, rows, **told))

    def sequences(self, given: dict[str, Any]) -> Tensor:
        """What it reads of a call with these arguments, `(batch, steps, ...)`."""
        if len(self._parts) == 1:
            return given[self._parts[0][0]]
        dtype = "float64" if "float64" in [of for _, _, of in self._parts] else "float32"
        parts = [ops.cast(given[name], dtype) for name, _, _ in self._parts]
        rows, steps = ops.shape(parts[0])[:2]
        sizes = [math.prod(shape) for _, shape, _ in self._parts]
        return ops.concatenate(
            [
                ops.reshape(part, (rows, steps, size))
                for part, size in zip(parts, sizes, strict=True)
            ],
            axis=-1,
        )

    def call(self, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One step: its output and the new states."""
        x, others = self._parted(inputs)
        packed = tree.pack_sequence_as(self._structure, states)
        after, y = self._recurrence.step(self.layer, packed, x, **others)
        return y, tree.flatten(after)

    def _parted(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if len(self._parts) == 1:
            return inputs, {}
        found, begin = {}, 0
        for name, shape, dtype in self._parts:
            end = begin + math.prod(shape)
            part = ops.reshape(inputs[:, begin:end], (ops.shape(inputs)[0], *shape))
            found[name], begin = ops.cast(part, dtype), end
        sequence = next(iter(found))
        return found.pop(sequence), found


def _further(function: Callable, count: int) -> list[str]:
    """The names of the arguments behind the first ones."""
    return list(inspect.signature(function).parameters)[count:]


def _is_float(dtype: Any) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(dtype))
