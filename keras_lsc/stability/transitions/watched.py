"""Finds the recurrent layers that run by watching a call of the model, whatever its `call` does.

A model with a `call` of its own has no graph, and a layer may call others, which the graph of its
model does not show. What is seen are calls: of recurrent layers, of layers of registered classes
(`steps`), and of cells that the model steps itself, all calls of a cell being the steps of one
sequence. The states are those of the call, and so are the transitions in time. What lies between
two calls is not known: there are no transitions in depth.

Calls in a loop that is traced once, as by `ops.scan`, are seen, but not what they are given. They
are named, and so are layers whose first steps, one by one, give something else than they do.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.graph import Call, Graph, is_graph_model
from keras_lsc.stability.layers import call_in_inference, is_recurrent
from keras_lsc.stability.recorder import Direction, Recorder, is_spiking, run_cell, state_shapes
from keras_lsc.stability.steps import StepCell, Stepped, recurrence_of
from keras_lsc.stability.taps import in_place_of_call, leaves, untouched
from keras_lsc.stability.transitions.base import Transitions
from keras_lsc.stability.transitions.points import Points, Tensor
from keras_lsc.stability.transitions.recurrent import find_in_time
from keras_lsc.stability.transitions.supported import hiding, unknown_arguments, unsupported

# Sequences of the first look, and steps that are taken both ways: over many rounding may grow.
_ROWS, _TRIED = 2, 8
# Share of the largest output by which they may differ, in float32 and in lower precision.
_CLOSE, _ROUGH = 1e-3, 5e-2
_NO_DEPTH = (
    "radii in depth: of layers that are seen as they are called it is not known what lies between "
    "two of them; the energies of gradient and difference say what depth does"
)


def has_to_be_watched(model: keras.Model) -> bool:
    """Whether the graph of a model, if it has one, does not show all its recurrent layers."""
    if not is_graph_model(model):
        return True
    is_inside = any(_is_registered(layer) or _is_cell(layer) for layer in _leaves(model))
    return is_inside or any(
        not is_recurrent(layer) and hiding(layer) is not None for layer in _of_graph(model)
    )


def _of_graph(model: keras.Model) -> list[keras.Layer]:
    parts = [_of_graph(part) if is_graph_model(part) else [part] for part in model.layers]
    return [layer for part in parts for layer in part]


def _leaves(model: keras.Model) -> list[keras.Layer]:
    return leaves(model, _is_registered)


def _is_registered(layer: keras.Layer) -> bool:
    return recurrence_of(layer) is not None


def _is_cell(layer: keras.Layer) -> bool:
    return hasattr(layer, "state_size") and not is_recurrent(layer)


def _is_watched(layer: keras.Layer) -> bool:
    return is_recurrent(layer) or _is_registered(layer) or _is_cell(layer)


@dataclass
class _Seen:
    """A call of a layer, or all calls of a cell.

    Attributes:
        layer: that was called.
        why_not: it cannot be looked at; None where it can.
        not_followed: why its states are not those of one sequence; None where they are.
        record: as of `Recorder`.
        length: number of its steps.
        steps: of a cell, every call: input, states, output and new states.
        compared: pairs of what has to be the same: the first outputs of a layer, as it gives them
            and step by step; the states that a cell is given, and those that it gave before.
    """

    layer: keras.Layer
    why_not: str | None = None
    not_followed: str | None = None
    record: dict[str, Any] = field(default_factory=dict)
    length: int = 0
    steps: list[tuple[Tensor, list[Tensor], Tensor, list[Tensor]]] = field(default_factory=list)
    compared: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class WatchedTransitions(Transitions):
    """The transitions in time of the recurrent layers that run when a model is called.

    Args:
        model: a built `keras.Model` of any kind.
        rows: a few sequences, one array an input, flat.
        structure: a nest of the inputs that the model takes.

    Raises:
        ValueError: a layer is stateful, or the steps of a registered class are not those of its
            layer.
    """

    def __init__(self, model: keras.Model, rows: list[np.ndarray], structure: Any):
        self._model, self._structure = model, structure
        found = _leaves(model)
        self._layers = [layer for layer in found if _is_watched(layer)]
        _refuse_stateful(self._layers)
        self._recorders = {
            id(layer): Recorder(layer) for layer in self._layers if is_recurrent(layer)
        }
        # Of registered layers and of cells, as they are seen for the first time.
        self._stepped: dict[int, Stepped] = {}
        seen, numbers = self._look([array[:_ROWS] for array in rows])
        self._judge(seen, numbers)
        whys = {id(one.layer): one.why_not for one in seen if one.why_not is not None}
        called = {id(one.layer) for one in seen}
        idle = [layer for layer in self._layers if id(layer) not in called and not _is_cell(layer)]
        kept = [one for one in seen if id(one.layer) not in whys]
        self._layers = [one.layer for one in {id(one.layer): one for one in kept}.values()]
        self._expected = [id(one.layer) for one in kept]
        calls = [Call(self._stepped.get(id(one.layer), one.layer), (), {}, (), ()) for one in kept]
        graph = Graph((), (), tuple(calls), (), model.name)
        super().__init__(model, graph, calls, find_in_time(graph))
        hidden = [hiding(layer) for layer in found if not _is_watched(layer)]
        self.no_depth = _NO_DEPTH
        self.unseen = (
            *whys.values(),
            *(why for why in hidden if why is not None),
            *(f"{layer.name!r} ({type(layer).__name__}) is not called" for layer in idle),
        )
        self._steps = kept[0].length if kept else 0
        self._not_followed = {call: one.not_followed for call, one in zip(calls, kept, strict=True)}

    def steps(self, inputs: list[np.ndarray]) -> int:
        """The number of time steps of the first recurrent call that was seen, or 0."""
        del inputs
        return self._steps

    def not_followed(self, call: Call) -> str | None:
        """Why the states of a call do not follow one another; None where they do."""
        return self._not_followed[call]

    def sample(self, inputs: Any, position: Tensor) -> Points:
        """Runs the model once, without gradient, and stops at one point of every sequence.

        Args:
            inputs: a batch of the model's inputs, flat.
            position: `(batch,)` floats in [0, 1): where in each sequence, from its first to its
                last valid step.

        Raises:
            RuntimeError: the model makes other calls than it made when it was looked at.
        """

        def run() -> list[dict[str, Any]]:
            seen = self._watch(tree.pack_sequence_as(self._structure, inputs), is_trial=False)
            if [id(one.layer) for one in seen] != self._expected:
                raise RuntimeError(
                    f"Model {self._model.name!r} calls its recurrent layers in another order than "
                    "before. A model whose calls depend on its inputs cannot be looked at."
                )
            return [one.record for one in seen]

        records = [{"mask": None, "rate": None, **record} for record in backend.no_gradient(run)]
        return Points({}, {}, dict(zip(self.recurrent_calls, records, strict=True)), position)

    def _look(self, rows: list[np.ndarray]) -> tuple[list[_Seen], list[list[list[np.ndarray]]]]:
        """What is called, and the numbers that are to be compared of every call."""
        seen: list[_Seen] = []

        def run(inputs: Any) -> list[list[tuple[Tensor, Tensor]]]:
            seen[:] = self._watch(inputs, is_trial=True)
            return [one.compared for one in seen]

        inputs = tree.pack_sequence_as(self._structure, [_as_fed(array) for array in rows])
        compared = backend.as_graph(lambda x: backend.no_gradient(lambda: run(x)))(inputs)
        return seen, [
            [[ops.convert_to_numpy(ops.cast(x, "float32")) for x in pair] for pair in pairs]
            for pairs in compared
        ]

    def _judge(self, seen: list[_Seen], numbers: list[list[list[np.ndarray]]]) -> None:
        """Says of what was seen where steps are not what the layer does."""
        for one, pairs in zip(seen, numbers, strict=True):
            name = one.layer.name
            if _is_cell(one.layer):
                if not all(np.array_equal(x, y, equal_nan=True) for x, y in pairs):
                    one.not_followed = (
                        f"exponents of {name!r}: the model gives the cell other states than those "
                        "that it had before, so that its steps are not those of one sequence"
                    )
                continue
            share = _CLOSE if one.layer.compute_dtype in ("float32", "float64") else _ROUGH
            apart = [_apart(*pair) for pair in pairs]
            if all(far <= share for far in apart):
                continue
            if _is_registered(one.layer):
                raise ValueError(
                    f"The step that is registered for {type(one.layer).__name__} does not do what "
                    f"layer {name!r} does: in the first {_TRIED} steps their outputs differ by "
                    f"{max(apart):.2g} of the largest. Correct step or start, as given to "
                    "register_recurrence."
                )
            one.why_not = (
                f"recurrent layer {name!r} ({type(one.layer).__name__}) gives something else than "
                "its cell gives step by step; keras_lsc.register_recurrence says how a class steps"
            )

    def _watch(self, inputs: Any, is_trial: bool) -> list[_Seen]:
        """Calls the model, and keeps what its recurrent layers are given.

        Args:
            inputs: a batch, as the model takes it.
            is_trial: whether the first steps of every layer are taken both ways.
        """
        seen: list[_Seen] = []
        inside: list[keras.Layer] = []
        outside = backend.trace_level()

        def called(layer: keras.Layer, method: Callable, args: tuple, kwargs: Any) -> Any:
            # What a layer calls to take its steps are no calls of the model.
            if inside:
                return method(*args, **kwargs)
            inside.append(layer)
            try:
                outputs = method(*args, **kwargs)
                if backend.trace_level() != outside:
                    seen.append(_Seen(layer, _in_a_loop(layer)))
                    return outputs
                given = inspect.signature(method).bind(*args, **kwargs).arguments
                if _is_cell(layer):
                    _add_step(seen, layer, given, outputs)
                else:
                    seen.append(self._of_layer(layer, method, given, is_trial))
            finally:
                inside.clear()
            return outputs

        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(in_place_of_call(layer, functools.partial(called, layer)))
            with untouched(self._model):
                call_in_inference(self._model, inputs)
        for one in seen:
            if one.steps and one.why_not is None:
                self._join_steps(one)
        return seen

    def _of_layer(
        self, layer: keras.Layer, method: Callable, given: dict[str, Any], is_trial: bool
    ) -> _Seen:
        """A call of a layer that runs along time by itself."""
        given = {name: value for name, value in given.items() if value is not None}
        run = self._run_registered if _is_registered(layer) else self._run_recurrent
        if not _is_registered(layer):
            why_not = unsupported(layer) or unknown_arguments(layer, list(given)[1:])
            if why_not is not None:
                return _Seen(layer, why_not)
        _, record = run(layer, given)
        record = {name: value for name, value in record.items() if value is not None}
        one = _Seen(layer, record=record)
        if is_trial:
            axes = tuple(record["inputs"].shape[:2])
            one.length = axes[1]
            few = {
                name: value[:, :_TRIED] if tuple(getattr(value, "shape", ())[:2]) == axes else value
                for name, value in given.items()
            }
            own, stepwise = _first(method(**few)), _first(run(layer, few)[0])
            if len(stepwise.shape) == len(own.shape) + 1:
                stepwise = stepwise[:, -1]
            one.compared.append((own, stepwise))
        return one

    def _run_recurrent(self, layer: keras.Layer, given: dict[str, Any]) -> tuple[Any, dict]:
        (_, sequences), *others = given.items()
        options = {name: value for name, value in others if name != "training"}
        return self._recorders[id(layer)].call(sequences, **options)

    def _run_registered(self, layer: keras.Layer, given: dict[str, Any]) -> tuple[Any, dict]:
        if id(layer) not in self._stepped:
            cell = StepCell(layer, given)
            self._stepped[id(layer)] = Stepped(layer.name, cell, layer.compute_dtype)
        stepped = self._stepped[id(layer)]
        sequences = stepped.cell.sequences(given)
        direction = Direction(stepped, layer.name)
        outputs, before, _ = run_cell(direction, sequences, stepped.cell.start(given), None)
        mask = given.get("mask")
        record = {"inputs": sequences, "states": [before]}
        if mask is not None and len(mask.shape) == 2:
            record["mask"] = ops.cast(mask, "bool")
        return outputs, record

    def _join_steps(self, one: _Seen) -> None:
        """Makes of all calls of a cell the record of a sequence."""
        layer = one.layer
        shapes = [tuple(state.shape[1:]) for state in one.steps[0][1]]
        widths = {tuple(x.shape[1:]) for x, _, _, _ in one.steps}
        if len(widths) > 1 or shapes != state_shapes(layer):
            one.why_not = f"cell {layer.name!r} is called with inputs or states of unlike shapes"
            return
        self._stepped.setdefault(id(layer), Stepped(layer.name, layer, layer.compute_dtype))
        inputs, states, outputs, new_states = zip(*one.steps, strict=True)
        before = [ops.stack(of_all, axis=1) for of_all in zip(*states, strict=True)]
        after = [ops.stack(of_all, axis=1) for of_all in zip(*new_states, strict=True)]
        one.record = {"inputs": ops.stack(inputs, axis=1), "states": [before]}
        one.length = len(inputs)
        if is_spiking(self._stepped[id(layer)]):
            spikes = ops.cast(ops.stack(outputs, axis=1), "float32")
            one.record["rate"] = ops.mean(spikes, axis=tuple(range(1, len(spikes.shape))))
        one.compared = [
            (given[:, 1:], former[:, :-1])
            for given, former in zip(before, after, strict=True)
            if len(inputs) > 1
        ]


def _refuse_stateful(layers: list[keras.Layer]) -> None:
    for layer in layers:
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"Recurrent layer {layer.name!r} is stateful: it goes on from the states of the "
                "batch before, and takes batches of one size. Build the model with stateful=False."
            )


def _add_step(seen: list[_Seen], cell: keras.Layer, given: dict[str, Any], outputs: Any) -> None:
    """Adds a call of a cell to those that were seen of it."""
    one = next((one for one in seen if one.layer is cell), None)
    if one is None:
        one = _Seen(cell)
        seen.append(one)
    (_, x), (_, states), *others = given.items()
    if any(name != "training" and value is not None for name, value in others):
        names = [name for name, _ in others]
        one.why_not = f"cell {cell.name!r} is called with {names} beside its input and states"
        return
    output, after = outputs
    one.steps.append((x, tree.flatten(states), output, tree.flatten(after)))


def _in_a_loop(layer: keras.Layer) -> str:
    return (
        f"{layer.name!r} ({type(layer).__name__}) runs in a loop that is traced once, where what "
        "it is given cannot be seen; let keras.layers.RNN run a cell, or say by "
        "keras_lsc.register_recurrence how the layer around the loop steps"
    )


def _first(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


def _as_fed(array: np.ndarray) -> Tensor:
    """A tensor of a batch, in the dtype in which `predict` gives it to a model."""
    dtype = keras.config.floatx() if array.dtype.kind == "f" else None
    return ops.convert_to_tensor(array, dtype=dtype)


def _apart(x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference of what is finite, as a share of the largest of all."""
    if x.shape != y.shape or not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return np.inf
    is_finite = np.isfinite(x)
    x, y = x[is_finite], y[is_finite]
    largest = max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0))
    return float(np.abs(x - y).max(initial=0.0) / largest) if largest > 0 else 0.0
