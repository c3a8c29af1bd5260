"""Finds the local transitions of a model in time and in depth, and linearises them at points.

Definitions (normative for the project): the state of a recurrent layer is the concatenation of
all state tensors of its cell; its time transition is the derivative of the new state by the old
at fixed input, its depth transition the derivative of its output by the output of the recurrent
layer below at fixed old state, through every layer in between. A feed-forward model has depth
transitions only, one per weighted layer with what follows it up to the next weighted layer.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.data import in_order
from keras_lsc.stability.graph import Call, Graph, Ref, flatten
from keras_lsc.stability.layers import (
    acts_per_step,
    hidden_recurrent_layer,
    is_probability,
    is_recurrent,
    is_weighted,
    without_activation,
)
from keras_lsc.stability.recorder import (
    Direction,
    Recorder,
    directions_of,
    is_spiking,
    merge_directions,
    state_shapes,
    step,
)

Tensor = Any
Function = Callable[[Tensor], Tensor]

_WITH_IMAGES_AS_STATE = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)


@dataclass(frozen=True, eq=False)
class Transition:
    """One local transition: what is differentiated by what.

    Attributes:
        name: unique in the model, `layer.kind`.
        kind: "time", "depth" or "input" (the depth transition of a first layer).
        layer: index of its layer among the recurrent (or weighted) layers, from 0.
        state: what is differentiated, such as "state 64+64" or "output 64".
        linearize: maps `Points` to `(function, x)`, both flat over features: the transition at
            point p is the Jacobian of row p of `function(x)` by row p of `x`.
    """

    name: str
    kind: str
    layer: int
    state: str
    linearize: Callable[["Points"], tuple[Function, Tensor]]


@dataclass(frozen=True, eq=False)
class Points:
    """What a forward pass left at the sample points: one point a sequence, at step `steps`."""

    values: dict[Ref, Tensor]
    records: dict[Call, dict[str, Any]] = field(default_factory=dict)
    position: Tensor | None = None

    def index(self, call: Call) -> Tensor:
        """The sampled position in the input sequence of a recurrent call, `(points,)`."""
        record = self.records[call]
        length = ops.shape(record["inputs"])[1]
        batch = ops.shape(record["inputs"])[0]
        if record["mask"] is None:
            index = ops.floor(self.position * ops.cast(length, "float32"))
            return ops.minimum(ops.cast(index, "int32"), length - 1)
        mask = ops.cast(ops.broadcast_to(record["mask"], (batch, length)), "int32")
        order = ops.cumsum(mask, axis=1)
        count = order[:, -1]
        chosen = ops.floor(self.position * ops.cast(count, "float32"))
        chosen = ops.minimum(ops.cast(chosen, "int32"), count - 1)
        # A sequence without a valid step falls to its first one.
        hit = ops.logical_and(order == chosen[:, None] + 1, mask == 1)
        return ops.cast(ops.argmax(ops.cast(hit, "int32"), axis=1), "int32")

    def inputs(self, call: Call) -> Tensor:
        """The input of a recurrent call at the sampled step, `(points, features)`."""
        return take_step(self.records[call]["inputs"], self.index(call))

    def states(self, call: Call, direction: int) -> list[Tensor]:
        """The states of one direction of a recurrent call before the sampled step."""
        index = self.index(call)
        if directions_of(call.layer)[direction].go_backwards:
            index = ops.shape(self.records[call]["inputs"])[1] - 1 - index
        return [take_step(state, index) for state in self.records[call]["states"][direction]]

    def firing_rates(self) -> list[Tensor]:
        """Mean spikes a step and neuron in every spiking layer's sequences, each `(points,)`."""
        return [record["rate"] for record in self.records.values() if record["rate"] is not None]


def take_step(sequence: Tensor, index: Tensor) -> Tensor:
    """Returns row b's step `index[b]` of a `(batch, steps, ...)` tensor."""
    index = ops.reshape(index, (-1, *(1,) * (len(sequence.shape) - 1)))
    return ops.squeeze(ops.take_along_axis(sequence, index, axis=1), axis=1)


class TransitionMap:
    """All transitions of a model, and the forward pass that collects what they need.

    Args:
        model: a built Sequential or functional `keras.Model` with at least one recurrent or
            weighted layer.

    Attributes:
        transitions: list of `Transition`, in the order of the layers.
        depth: number of recurrent (else weighted) layers, the paper's L.
        is_recurrent: whether the model has recurrent layers, and so time transitions.

    Raises:
        TypeError: `model` is not a Sequential or functional Keras model.
        ValueError: the model has no such layer, or a part that is not supported; the message
            names it.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.graph = flatten(model)
        self.recurrent_calls = [call for call in self.graph.calls if is_recurrent(call.layer)]
        self.is_recurrent = bool(self.recurrent_calls)
        self.transitions: list[Transition] = []
        self._layers_taking_part: list[Any] = []
        self._kept: tuple[Ref, ...] = ()
        self._recorders: dict[Call, Any] = {
            call: Recorder(call.layer) for call in self.recurrent_calls
        }
        if self.is_recurrent:
            self._refuse_hidden_recurrence()
            self.depth = _RecurrentTransitions(self).add()
        else:
            self.depth = _FeedForwardTransitions(self).add()

    @property
    def trained(self) -> list[int]:
        """Indices of the transitions that pre-training moves: all but the input transitions."""
        return [i for i, row in enumerate(self.transitions) if row.kind != "input"]

    @property
    def spiking_layers(self) -> list[Any]:
        """The recurrent layers whose outputs are spikes."""
        return [call.layer for call in self.recurrent_calls if is_spiking(call.layer)]

    @property
    def variables_taking_part(self) -> list[tuple[Any, int | None]]:
        """Variables that shape a trained transition, each with its gate width.

        They are trainable, but for those of a cell's `variables_of_gradient`, on which the
        gradient depends and the outputs do not.

        The gate width is the size of the cell's state for the weights of a cell (a matrix with a
        multiple of that many columns holds one block a gate) and None elsewhere.
        """
        taking_part: dict[int, tuple[Any, int | None]] = {}
        for layer in self._layers_taking_part:
            width = state_shapes(layer)[0][-1] if hasattr(layer, "state_size") else None
            of_gradient = getattr(layer, "variables_of_gradient", [])
            for variable in (*layer.trainable_variables, *of_gradient):
                taking_part.setdefault(id(variable), (variable, width))
        return list(taking_part.values())

    def steps(self, inputs: Any) -> int:
        """The number of time steps T of the first recurrent layer; 0 for feed-forward models."""
        if not self.is_recurrent:
            return 0
        call = self.recurrent_calls[0]
        declared = call.inputs[0].shape[1]
        if declared is not None:
            return int(declared)
        return int(tree.flatten(inputs)[0].shape[1])

    def sample(self, inputs: Any, position: Tensor) -> Points:
        """Runs the model once, without gradient, and stops at one point of every sequence.

        Args:
            inputs: a batch of the model's inputs.
            position: `(batch,)` floats in [0, 1): where in each sequence, from its first to its
                last valid step.

        Returns:
            `Points`, on which every transition can be linearised.
        """

        def run() -> tuple[list[Tensor], list[dict[str, Any]]]:
            values, records = self._input_values(inputs), []
            for call in self._calls_to_run:
                if call in self._recorders:
                    record = call.run(values, self._recorders[call])
                    outputs = record.pop("outputs")
                    records.append({k: v for k, v in record.items() if v is not None})
                else:
                    outputs = call.run(values)
                values.update(zip(call.outputs, tree.flatten(outputs), strict=True))
            return [values[ref] for ref in self._kept], records

        kept, records = backend.no_gradient(run)
        records = [{"mask": None, "rate": None, **record} for record in records]
        return Points(
            dict(zip(self._kept, kept, strict=True)),
            dict(zip(self.recurrent_calls, records, strict=True)),
            position,
        )

    def spikes(self, points: Points) -> list[Tensor]:
        """Spikes of every spiking layer at the sampled step, `(points, units)` each.

        They are the outputs of that one step, differentiable by the weights, as radii are.
        """
        return [
            _output_at_step(points, call)(points.inputs(call))
            for call in self.recurrent_calls
            if is_spiking(call.layer)
        ]

    def forward_directions(self) -> list[Direction]:
        """The pass of every recurrent layer, first to last.

        Raises:
            ValueError: the model is feed-forward, or a recurrent layer runs backwards.
        """
        if not self.is_recurrent:
            raise ValueError(
                f"Model {self.model.name!r} is feed-forward: it has no grid of time and depth."
            )
        directions = [d for call in self.recurrent_calls for d in directions_of(call.layer)]
        for direction in directions:
            if direction.go_backwards:
                raise ValueError(
                    f"Recurrent layer {direction.name!r} runs backwards in time. The grid of time "
                    "and depth needs layers that all run forward."
                )
        return directions

    def perturbed_output(self, inputs: Any, perturbation: list[Tensor]) -> Tensor:
        """The last recurrent layer's output when something is added to the states.

        Args:
            inputs: a batch of the model's inputs.
            perturbation: for every cell what is added to its state after each step,
                `(batch, steps, state)`.

        Returns:
            The outputs of the last recurrent layer, as it returns them.
        """
        remaining = list(perturbation)
        values = self._input_values(inputs)
        for call in self._calls_to_run:
            if call in self._recorders:
                noise = []
                for cell in directions_of(call.layer)[0].cells:
                    noise.extend(unflatten_states(remaining.pop(0), state_shapes(cell)))
                recorder = functools.partial(self._recorders[call], perturbation=noise)
                outputs = call.run(values, recorder)["outputs"]
            else:
                outputs = call.run(values)
            values.update(zip(call.outputs, tree.flatten(outputs), strict=True))
        return values[self.recurrent_calls[-1].outputs[0]]

    def _input_values(self, inputs: Any) -> dict[Ref, Tensor]:
        leaves = in_order(inputs, self.model.inputs)
        return {
            ref: ops.convert_to_tensor(leaf)
            for ref, leaf in zip(self.graph.inputs, leaves, strict=True)
        }

    def keep(self, refs: tuple[Ref, ...]) -> None:
        """Has the forward pass keep these tensors for a stage between layers."""
        self._kept = (*self._kept, *(ref for ref in refs if ref not in self._kept))

    @functools.cached_property
    def _calls_to_run(self) -> list[Call]:
        wanted = [*self._kept, *(ref for call in self.recurrent_calls for ref in call.outputs)]
        needed = {call for ref in wanted for call in self.graph.between((), ref)[0]}
        return [call for call in self.graph.calls if call in needed]

    def _refuse_hidden_recurrence(self) -> None:
        for call in self.graph.calls:
            layer = call.layer
            if isinstance(layer, _WITH_IMAGES_AS_STATE):
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) has a state that is an image; "
                    "convolutional recurrent layers are not supported."
                )
            if is_recurrent(layer):
                _refuse_unsupported_bidirectional(layer)
                continue
            inner = hidden_recurrent_layer(layer)
            if inner is not None:
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) hides the recurrent layer "
                    f"{inner.name!r} in its call(), where its steps cannot be reached. Use the "
                    "recurrent layer directly in a Sequential or functional model (nested models "
                    "and Bidirectional are looked into), or give the outer layer a `cell`."
                )


def _refuse_unsupported_bidirectional(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Bidirectional):
        return
    if layer.merge_mode is None:
        raise ValueError(
            f"Bidirectional layer {layer.name!r} has merge_mode=None: its two outputs have no "
            'common depth transition. Use "concat", "sum", "ave" or "mul".'
        )
    for direction in directions_of(layer):
        if len(direction.cells) > 1:
            raise ValueError(
                f"Bidirectional layer {layer.name!r} runs stacked cells. Use one Bidirectional "
                "layer per cell."
            )


class _RecurrentTransitions:
    """Adds the transitions of the recurrent layers of a model to its map."""

    def __init__(self, transition_map: TransitionMap):
        self.map = transition_map
        self.graph: Graph = transition_map.graph
        self.outputs = [call.outputs[0] for call in transition_map.recurrent_calls]

    def add(self) -> int:
        """Adds them all; returns the number of layers."""
        layer = 0
        for call in self.map.recurrent_calls:
            cells = directions_of(call.layer)[0].cells
            for cell_index in range(len(cells)):
                for direction_index, direction in enumerate(directions_of(call.layer)):
                    self._add_time(call, direction_index, direction, cell_index, layer)
                if cell_index == 0:
                    self._add_depth_from_below(call, layer)
                else:
                    self._add_depth_inside_stack(call, cell_index, layer)
                layer += 1
        return layer

    def _add_time(
        self, call: Call, direction_index: int, direction: Direction, cell_index: int, layer: int
    ) -> None:
        cell = direction.cells[cell_index]
        shapes = state_shapes(cell)
        label = direction.name if len(direction.cells) == 1 else f"{direction.name}.{cell.name}"

        def linearize(points: Points) -> tuple[Function, Tensor]:
            inputs, states = _at_cell(points, call, direction_index, cell_index)

            def next_state(flat: Tensor) -> Tensor:
                _, new_states = step(cell, inputs, unflatten_states(flat, shapes))
                return flatten_states(new_states)

            return next_state, flatten_states(states)

        sizes = "+".join(str(math.prod(shape)) for shape in shapes)
        self.map.transitions.append(
            Transition(f"{label}.time", "time", layer, f"state {sizes}", linearize)
        )
        self.map._layers_taking_part.append(cell)

    def _add_depth_inside_stack(self, call: Call, cell_index: int, layer: int) -> None:
        (direction,) = directions_of(call.layer)
        cell = direction.cells[cell_index]

        def linearize(points: Points) -> tuple[Function, Tensor]:
            inputs, states = _at_cell(points, call, 0, cell_index)
            return lambda x: step(cell, x, states)[0], inputs

        name = f"{direction.name}.{cell.name}.depth"
        self.map.transitions.append(Transition(name, "depth", layer, "output", linearize))

    def _add_depth_from_below(self, call: Call, layer: int) -> None:
        input_ref = call.inputs[0]
        stage, starts = self.graph.between(self.outputs, input_ref)
        below = [ref for ref in starts if ref in self.outputs]
        if not below:
            self._add_input(call, layer)
            return
        for source in below:
            lower = self.graph.producer(source)
            assert lower is not None
            self._require_same_steps(lower, call, stage)
            name = f"{call.layer.name}.depth"
            if len(below) > 1:
                name = f"{name}[{lower.layer.name}]"
            linearize = self._through_stage(call, source, stage, starts)
            self.map.transitions.append(Transition(name, "depth", layer, "output", linearize))
        self.map.keep(starts)
        self.map._layers_taking_part.extend(
            inner.layer for inner in stage if isinstance(inner.layer, keras.Layer)
        )

    def _add_input(self, call: Call, layer: int) -> None:
        def linearize(points: Points) -> tuple[Function, Tensor]:
            return _output_at_step(points, call), points.inputs(call)

        name = f"{call.layer.name}.input"
        self.map.transitions.append(Transition(name, "input", layer, "output", linearize))

    def _require_same_steps(self, lower: Call, call: Call, stage: tuple[Call, ...]) -> None:
        between = ", ".join(repr(inner.layer.name) for inner in stage) or "nothing"
        if not lower.layer.return_sequences:
            raise ValueError(
                f"Recurrent layer {call.layer.name!r} reads only the last output of "
                f"{lower.layer.name!r} (return_sequences=False, then {between}): there is no "
                "depth transition at equal time steps. Set return_sequences=True below."
            )
        steps_below, steps_here = lower.outputs[0].shape[1], call.inputs[0].shape[1]
        if steps_below != steps_here:
            raise ValueError(
                f"Between {lower.layer.name!r} and {call.layer.name!r}, {between} changes the "
                f"number of time steps from {steps_below} to {steps_here}: there is no depth "
                "transition at equal time steps. Use stages that keep the steps."
            )

    def _through_stage(
        self, call: Call, source: Ref, stage: tuple[Call, ...], starts: tuple[Ref, ...]
    ) -> Callable[[Points], tuple[Function, Tensor]]:
        graph, target = self.graph, call.inputs[0]
        steps = source.shape[1]
        per_step = all(acts_per_step(inner.layer) for inner in stage) and all(
            len(ref.shape) >= 2 and ref.shape[1] == steps for ref in starts
        )

        def linearize(points: Points) -> tuple[Function, Tensor]:
            index = points.index(call)
            output = _output_at_step(points, call)
            x = take_step(points.values[source], index)
            others = {ref: points.values[ref] for ref in starts if ref is not source}

            def one_step(y: Tensor) -> Tensor:
                values = {
                    ref: ops.expand_dims(take_step(value, index), 1)
                    for ref, value in others.items()
                }
                values[source] = ops.expand_dims(y, 1)
                return output(ops.squeeze(graph.run(stage, values)[target], axis=1))

            def whole_sequence(y: Tensor) -> Tensor:
                sequence = points.values[source]
                here = ops.arange(ops.shape(sequence)[1], dtype="int32") == index[:, None]
                here = ops.cast(here[..., None], sequence.dtype)
                perturbed = sequence * (1 - here) + ops.expand_dims(y, 1) * here
                values = graph.run(stage, {**others, source: perturbed})
                return output(take_step(values[target], index))

            return (one_step if per_step else whole_sequence), x

        return linearize


def _output_at_step(points: Points, call: Call) -> Function:
    """The output of a recurrent call at the sampled step as a function of its input there."""
    passes = directions_of(call.layer)
    states = [points.states(call, index) for index in range(len(passes))]

    def output(x: Tensor) -> Tensor:
        outputs = []
        for direction, before in zip(passes, states, strict=True):
            first = direction.cells[0]
            outputs.append(step(first, x, before[: len(state_shapes(first))])[0])
        return merge_directions(call.layer, outputs)

    return output


def _at_cell(
    points: Points, call: Call, direction_index: int, cell_index: int
) -> tuple[Tensor, list[Tensor]]:
    """The input and the states of one cell of a recurrent call at the sampled step."""
    inputs = points.inputs(call)
    states = points.states(call, direction_index)
    for cell in directions_of(call.layer)[direction_index].cells[:cell_index]:
        count = len(state_shapes(cell))
        inputs = ops.stop_gradient(step(cell, inputs, states[:count])[0])
        states = states[count:]
    cell = directions_of(call.layer)[direction_index].cells[cell_index]
    return inputs, states[: len(state_shapes(cell))]


def flatten_states(states: list[Tensor]) -> Tensor:
    """Joins the state tensors of a cell to one `(points, size)` tensor."""
    flat = [flatten_features(state) for state in states]
    return flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)


def flatten_features(x: Tensor) -> Tensor:
    """Joins all axes but the first, with a static size."""
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def unflatten_states(flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Splits a `(..., size)` tensor into states of these shapes."""
    sizes = [math.prod(shape) for shape in shapes]
    boundaries = [sum(sizes[: k + 1]) for k in range(len(sizes) - 1)]
    parts = ops.split(flat, boundaries, axis=-1) if boundaries else [flat]
    leading = ops.shape(flat)[:-1]
    return [
        ops.reshape(part, (*leading, *shape)) for part, shape in zip(parts, shapes, strict=True)
    ]


class _FeedForwardTransitions:
    """Adds the transitions of the weighted layers of a feed-forward model to its map."""

    def __init__(self, transition_map: TransitionMap):
        self.map = transition_map
        self.graph: Graph = transition_map.graph
        self.weighted = [call for call in self.graph.calls if is_weighted(call.layer)]

    def add(self) -> int:
        """Adds them all; returns the number of weighted layers."""
        if not self.weighted:
            raise ValueError(
                f"Model {self.map.model.name!r} has no recurrent layer and no layer with a weight "
                "matrix, so it has no transitions. Its layers: "
                f"{', '.join(sorted({type(c.layer).__name__ for c in self.graph.calls}))}."
            )
        for call in self.weighted:
            if hidden_recurrent_layer(call.layer) is not None:
                self.map._refuse_hidden_recurrence()
        layer_of = {call.inputs[0]: index for index, call in enumerate(self.weighted)}
        targets = [call.inputs[0] for call in self.weighted[1:]]
        targets.extend(self._logits(ref) for ref in self.graph.outputs)
        for target in dict.fromkeys(targets):
            sources = [ref for ref in layer_of if ref is not target]
            stage, starts = self.graph.between(sources, target)
            for source in (ref for ref in starts if ref in layer_of):
                self._add_stage(source, target, stage, starts, layer_of[source])
        self.map.transitions.sort(key=lambda row: row.layer)
        return len(self.weighted)

    def _logits(self, ref: Ref) -> Ref:
        # Cross-entropy hands its gradient to the logits, so a last softmax is not on its path.
        call = self.graph.producer(ref)
        while call is not None and is_probability(call.layer) and not is_weighted(call.layer):
            ref = call.inputs[0]
            call = self.graph.producer(ref)
        return ref

    def _add_stage(
        self,
        source: Ref,
        target: Ref,
        stage: tuple[Call, ...],
        starts: tuple[Ref, ...],
        index: int,
    ) -> None:
        graph, weighted = self.graph, self.weighted[index]
        last = graph.producer(target)
        assert last is not None
        is_head = target in [self._logits(ref) for ref in graph.outputs]
        drop_activation = is_head and is_weighted(last.layer) and is_probability(last.layer)

        def linearize(points: Points) -> tuple[Function, Tensor]:
            x = points.values[source]
            others = {ref: points.values[ref] for ref in starts if ref is not source}
            shape = (-1, *x.shape[1:])

            def next_input(flat: Tensor) -> Tensor:
                values = {**others, source: ops.reshape(flat, shape)}
                if drop_activation:
                    with without_activation(last.layer):
                        values = graph.run(stage, values)
                else:
                    values = graph.run(stage, values)
                return flatten_features(values[target])

            return next_input, flatten_features(x)

        kind = "input" if source in graph.inputs or index == 0 else "depth"
        siblings = [row for row in self.map.transitions if row.layer == index]
        name = f"{weighted.layer.name}.{kind}" + (f"[{len(siblings)}]" if siblings else "")
        self.map.transitions.append(Transition(name, kind, index, "output", linearize))
        self.map.keep(starts)
        if kind == "depth":
            self.map._layers_taking_part.extend(
                inner.layer for inner in stage if isinstance(inner.layer, keras.Layer)
            )
