"""A model as a flat list of layer calls, nested models inlined, that can be run in parts.

Keras says which layer produced a symbolic tensor only in the tensor's history (the triple that
every saved functional model stores under "keras_history"). It is read here and nowhere else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from keras_lsc.stability.layers import call_in_inference

Tensor = Any


class Ref:
    """One tensor of the graph: its shape as Keras knows it, and a name for messages."""

    def __init__(self, symbolic: keras.KerasTensor):
        self.shape = tuple(symbolic.shape)
        self.name = symbolic.name

    def __repr__(self) -> str:
        return f"<Ref {self.name} {self.shape}>"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer (or of a Keras operation): its arguments hold `Ref`s for tensors."""

    layer: Any
    args: tuple
    kwargs: dict
    outputs: tuple[Ref, ...]

    @property
    def inputs(self) -> list[Ref]:
        return [leaf for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Ref)]

    def run(self, values: dict[Ref, Tensor], layer: Callable | None = None) -> Any:
        """Calls the layer, or `layer` in its stead, on the tensors in `values`."""
        args, kwargs = tree.map_structure(
            lambda leaf: values[leaf] if isinstance(leaf, Ref) else leaf, (self.args, self.kwargs)
        )
        if layer is not None:
            return layer(*args, **kwargs)
        return call_in_inference(self.layer, *args, **kwargs)


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in an order in which they can be run."""

    inputs: tuple[Ref, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]

    def producer(self, ref: Ref) -> Call | None:
        """The call that `ref` is an output of; None for an input of the model."""
        return next((call for call in self.calls if ref in call.outputs), None)

    def run(self, calls: Iterable[Call], values: dict[Ref, Tensor]) -> dict[Ref, Tensor]:
        """Adds the outputs of `calls` to `values`, in the order of the graph."""
        for call in calls:
            values.update(zip(call.outputs, tree.flatten(call.run(values)), strict=True))
        return values

    def between(
        self, sources: Sequence[Ref], target: Ref
    ) -> tuple[tuple[Call, ...], tuple[Ref, ...]]:
        """The calls that lead to `target`, and the tensors they start from.

        Walks back from `target` and stops at the tensors in `sources` and at the model's inputs;
        those of them that were met are the second value.
        """
        needed, starts, pending = set(), [], [target]
        while pending:
            ref = pending.pop()
            call = self.producer(ref)
            if call is None or ref in sources:
                if ref not in starts:
                    starts.append(ref)
            elif call not in needed:
                needed.add(call)
                pending.extend(call.inputs)
        return tuple(call for call in self.calls if call in needed), tuple(starts)


def flatten(model: keras.Model) -> Graph:
    """Returns the graph of a built Sequential or Functional model.

    Args:
        model: a `keras.Model` made with the functional API or `keras.Sequential`, built.

    Returns:
        A `Graph` in which the calls inside nested models stand in place of the nested model.

    Raises:
        TypeError: `model` is not a Keras model, or a subclassed one.
        ValueError: `model` is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model (Sequential or functional), got {type(model).__name__}."
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built, so it has no weights yet. Give it an "
            "Input(shape) as first layer, or call it once on data."
        )
    if not is_graph_model(model):
        raise TypeError(
            f"Model {model.name!r} is a subclass of keras.Model with its own call(), whose layers "
            "cannot be traced. Express it with keras.Sequential or the functional API: "
            "keras.Model(inputs, outputs)."
        )
    inputs = tuple(Ref(tensor) for tensor in model.inputs)
    calls: list[Call] = []
    outputs = _inline(model, inputs, calls)
    return Graph(inputs, tuple(calls), outputs)


def is_graph_model(layer: Any) -> bool:
    """Whether `layer` is a model whose graph Keras knows: Sequential or functional, built."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _inline(model: keras.Model, inputs: Sequence[Ref], calls: list[Call]) -> tuple[Ref, ...]:
    refs = {id(tensor): ref for tensor, ref in zip(model.inputs, inputs, strict=True)}
    pending = list(reversed(model.outputs))
    while pending:
        tensor = pending[-1]
        if id(tensor) in refs:
            pending.pop()
            continue
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        missing = [parent for parent in node.input_tensors if id(parent) not in refs]
        if missing:
            pending.extend(reversed(missing))
            continue
        args, kwargs = tree.map_structure(
            lambda leaf: refs[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf,
            (tuple(node.arguments.args), dict(node.arguments.kwargs)),
        )
        if is_graph_model(operation):
            nested_inputs = [ref for ref in tree.flatten(args) if isinstance(ref, Ref)]
            outputs = _inline(operation, nested_inputs, calls)
        else:
            outputs = tuple(Ref(output) for output in node.outputs)
            calls.append(Call(operation, args, kwargs, outputs))
        refs.update((id(output), ref) for output, ref in zip(node.outputs, outputs, strict=True))
    return tuple(refs[id(tensor)] for tensor in model.outputs)
