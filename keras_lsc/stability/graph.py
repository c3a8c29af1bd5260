"""A model as a flat list of layer calls, nested models inlined, that can be run in parts.

Keras says which layer produced a symbolic tensor only in the tensor's history (the triple that
every saved functional model stores under "keras_history"). It is read here and nowhere else.
"""

import functools
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc.stability.data import in_order, input_structure, is_batched
from keras_lsc.stability.layers import call_in_inference

Tensor = Any
# What stands for a number of steps that a model leaves open, where only shapes are computed.
_SOME_STEPS = 96


class Ref:
    """One tensor of the graph: its shape and dtype as Keras knows them, a name for messages."""

    def __init__(self, symbolic: keras.KerasTensor):
        self.shape = tuple(symbolic.shape)
        self.dtype = symbolic.dtype
        self.name = symbolic.name

    def __repr__(self) -> str:
        return f"<Ref {self.name} {self.shape}>"


class Entry:
    """Takes a tensor into a model as the model itself does: its dtype, its rank and its mask.

    It is a model of that kind with the same input and nothing behind it, so Keras does the work;
    only the sizes of the axes are left open, for a step of a sequence to pass as well.
    """

    acts_per_step = True

    def __init__(self, model: keras.Model, symbolic: keras.KerasTensor):
        self.name = f"input of {model.name}"
        *front, last = symbolic.shape
        inputs = keras.Input(
            # An axis of size 1 at the end is what Keras adds and takes away.
            batch_shape=(*(None for _ in front), 1 if front and last == 1 else None),
            dtype=symbolic.dtype,
            sparse=symbolic.sparse,
            name="entry_input",
        )
        if isinstance(model, keras.Sequential):
            through = keras.layers.Identity(dtype=symbolic.dtype, name="entry_identity")
            self._model = keras.Sequential([inputs, through], name="entry")
        else:
            self._model = keras.Model(inputs, inputs, name="entry")

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the tensor as layers inside of the model see it."""
        return self._model(x, mask=mask, training=False)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer (or of a Keras operation): its arguments hold `Ref`s for tensors.

    Attributes:
        layer: the layer, operation or `Entry`.
        args: its positional arguments.
        kwargs: its arguments by name.
        outputs: its outputs, flat.
        owners: the models that it stands in, the outermost first.
    """

    layer: Any
    args: tuple
    kwargs: dict
    outputs: tuple[Ref, ...]
    owners: tuple[keras.Model, ...] = ()

    @property
    def inputs(self) -> list[Ref]:
        """The tensors among its arguments."""
        return [leaf for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Ref)]

    @property
    def first_argument(self) -> Any:
        """What the layer acts on: its first argument, given by its name or not."""
        return self.args[0] if self.args else self._bound()[0]

    @property
    def first_input(self) -> Ref:
        """The first tensor of the first argument."""
        leaves = tree.flatten(self.first_argument)
        return next((leaf for leaf in leaves if isinstance(leaf, Ref)), self.inputs[0])

    @property
    def by_name(self) -> dict[str, Any]:
        """What else than the first argument was given, by the name of the argument."""
        return self._bound()[1]

    def _bound(self) -> tuple[Any, dict[str, Any]]:
        bound = inspect.signature(self.layer.call).bind(*self.args, **self.kwargs).arguments
        (_, first), *others = bound.items()
        return first, dict(others)

    def run(self, values: dict[Ref, Tensor]) -> Any:
        """Calls the layer on the tensors in `values`."""
        args, kwargs = filled_in((self.args, self.kwargs), values)
        if isinstance(self.layer, Entry):
            return self.layer(*args, **kwargs)
        return call_in_inference(self.layer, *args, **kwargs)


def filled_in(arguments: Any, values: dict[Ref, Tensor]) -> Any:
    """Returns a nest in which the tensors in `values` stand for their `Ref`s."""
    return tree.map_structure(
        lambda leaf: values[leaf] if isinstance(leaf, Ref) else leaf, arguments
    )


@dataclass(frozen=True, eq=False)
class Graph:
    """The calls of a model in an order in which they can be run.

    Attributes:
        inputs: Inputs of the model, in the order of `model.inputs`.
        entries: What takes each of them from what `fit` is given.
        calls: the calls.
        outputs: Outputs of the model, in the order of `model.outputs`.
        name: Name of the model.
    """

    inputs: tuple[Ref, ...]
    entries: tuple[Entry, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]
    name: str

    @functools.cached_property
    def _producers(self) -> dict[Ref, Call]:
        return {ref: call for call in self.calls for ref in call.outputs}

    def producer(self, ref: Ref) -> Call | None:
        """The call that `ref` is an output of; None for an input of the model."""
        return self._producers.get(ref)

    def suffix(self, call: Call) -> str:
        """What tells the calls of a layer, or of layers of one name, apart: "", "[2]", ..."""
        alike = [other for other in self.calls if other.layer.name == call.layer.name]
        count = alike.index(call) + 1
        return "" if count == 1 else f"[{count}]"

    def run(self, calls: Iterable[Call], values: dict[Ref, Tensor]) -> dict[Ref, Tensor]:
        """Adds the outputs of `calls` to `values`, in the order of the graph."""
        for call in calls:
            values.update(zip(call.outputs, tree.flatten(call.run(values)), strict=True))
        return values

    def shapes(
        self, calls: Iterable[Call], known: dict[Ref, tuple[int | None, ...]]
    ) -> dict[Ref, tuple[int | None, ...]]:
        """The shapes of the outputs of `calls`, from those of the tensors that they start from.

        A number of steps that is not known stays the same unknown number where it is not changed.
        """
        specs = {}
        for ref, shape in known.items():
            batch, *sizes = shape
            sizes = [_SOME_STEPS if size is None else size for size in sizes]
            specs[ref] = keras.KerasTensor((batch, *sizes), dtype=ref.dtype)
        for call in calls:
            args, kwargs = filled_in((call.args, call.kwargs), specs)
            if isinstance(call.layer, Entry):
                (ref,) = call.outputs
                specs[ref] = _of_rank(args[0], len(ref.shape), ref.dtype)
                continue
            outputs = tree.flatten(call.layer.compute_output_spec(*args, **kwargs))
            if any(None in spec.shape[1:] for spec in outputs):
                # A layer may leave sizes open that its call does not, such as EinsumDense.
                traced = keras.Operation.compute_output_spec(call.layer, *args, **kwargs)
                outputs = tree.flatten(traced)
            specs.update(zip(call.outputs, outputs, strict=True))
        return {ref: tuple(spec.shape) for ref, spec in specs.items()}

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


def _of_rank(spec: keras.KerasTensor, rank: int, dtype: str) -> keras.KerasTensor:
    shape = tuple(spec.shape)
    shape = {-1: (*shape, 1), 0: shape, 1: shape[:-1]}[len(shape) - rank]
    return keras.KerasTensor(shape, dtype=dtype)


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
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built, so it has no weights yet. Give it an "
            "Input(shape) as first layer, or call it once on data."
        )
    if not is_graph_model(model):
        raise TypeError(
            f"Model {model.name!r} is a subclass of keras.Model with its own call(), whose layers "
            "cannot be traced. Express it with keras.Sequential or the functional API: "
            'keras.Model(inputs, outputs). As it is, stabilize(method="level"), measure, diagnose '
            "and lyapunov take it."
        )
    inputs = tuple(Ref(tensor) for tensor in model.inputs)
    entries = tuple(Entry(model, tensor) for tensor in model.inputs)
    calls: list[Call] = []
    outputs = _inline(model, inputs, calls, (model,))
    return Graph(inputs, entries, tuple(calls), outputs, model.name)


def is_graph_model(layer: Any) -> bool:
    """Whether `layer` is a model whose graph Keras knows and runs: Sequential or functional."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return False
    return type(layer).call in (keras.Sequential.call, _functional_class().call)


def structure_of(model: keras.Model, x: Any) -> Any:
    """A nest of symbolic inputs, as the model takes them: its own, or like x where it has none."""
    if is_graph_model(model):
        return input_structure(model)
    if is_batched(x):
        raise TypeError(
            f"Model {model.name!r} has a call of its own, of which it is not known what inputs it "
            f"takes: give x as arrays, got {type(x).__name__}."
        )
    return tree.map_structure(
        lambda array: keras.KerasTensor(
            (None, *np.shape(array)[1:]), keras.backend.standardize_dtype(array.dtype)
        ),
        tree.map_structure(np.asarray, x),
    )


@functools.cache
def _functional_class() -> type[keras.Model]:
    """The class of functional models, which has no public name."""
    inputs = keras.Input((1,), name="entry_input")
    return type(keras.Model(inputs, inputs, name="entry"))


def _inline(
    model: keras.Model, inputs: Sequence[Ref], calls: list[Call], owners: tuple[keras.Model, ...]
) -> tuple[Ref, ...]:
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
            entered = _enter(operation, args, kwargs, calls, owners)
            outputs = _inline(operation, entered, calls, (*owners, operation))
        else:
            outputs = tuple(Ref(output) for output in node.outputs)
            calls.append(Call(operation, args, kwargs, outputs, owners))
        refs.update((id(output), ref) for output, ref in zip(node.outputs, outputs, strict=True))
    return tuple(refs[id(tensor)] for tensor in model.outputs)


def _enter(
    model: keras.Model, args: tuple, kwargs: dict, calls: list[Call], owners: tuple
) -> list[Ref]:
    """Adds the calls that take the arguments of a nested model into it; returns its inputs."""
    given = inspect.signature(model.call).bind(*args, **kwargs).arguments
    leaves = in_order(given["inputs"], input_structure(model))
    mask = given.get("mask")
    masks = [None] * len(leaves) if mask is None else tree.flatten(mask)
    entered = []
    for symbolic, leaf, its_mask in zip(model.inputs, leaves, masks, strict=False):
        inner = Ref(symbolic)
        masked = {} if its_mask is None else {"mask": its_mask}
        calls.append(Call(Entry(model, symbolic), (leaf,), masked, (inner,), owners))
        entered.append(inner)
    return entered
