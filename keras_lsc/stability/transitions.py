"""Finds the local transitions of a model in time and in depth, and linearises them at points.

Definitions (normative for the project): the state of a recurrent layer is the concatenation of
all state tensors of its cell; its time transition is the derivative of the new state by the old
at fixed input, its depth transition the derivative of its output by the output of the recurrent
layer below at fixed old state, through every layer in between. States through which no derivative
can pass, such as counters, are not part of it (`states_without_gradient` of the cell).

Both are taken at the same step. Where a layer in between changes the number of steps (pooling,
strides, cropping, padding, upsampling), step t above is held against the last step below that
feeds it; steps that only padding feeds have no depth transition.

A sequence without a valid step, padding from end to end, has no transitions; it is left out of
every mean. A feed-forward model has depth
transitions only, one per weighted layer with what follows it up to the next weighted layer.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.data import in_order, input_structure
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.graph import Call, Entry, Graph, Ref, filled_in, flatten
from keras_lsc.stability.layers import (
    acts_per_step,
    can_map_steps,
    feeding,
    hidden_recurrent_layer,
    is_probability,
    is_recurrent,
    is_weighted,
    without_activation,
)
from keras_lsc.stability.masks import mask_of, with_mask
from keras_lsc.stability.recorder import (
    Direction,
    Recorder,
    differentiable_states,
    directions_of,
    is_spiking,
    merge_directions,
    state_shapes,
    state_width,
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
        weight: maps `Points` to `(points,)` floats, 1 where there is such a transition and 0
            where there is none; or to None, if there is one at every point.
    """

    name: str
    kind: str
    layer: int
    state: str
    linearize: Callable[["Points"], tuple[Function, Tensor]]
    weight: Callable[["Points"], Tensor | None] = lambda _: None


@dataclass(frozen=True, eq=False)
class Points:
    """What a forward pass left at the sample points: one point a sequence, at step `steps`."""

    values: dict[Ref, Tensor]
    masks: dict[Ref, Tensor] = field(default_factory=dict)
    records: dict[Call, dict[str, Any]] = field(default_factory=dict)
    position: Tensor | None = None

    def index(self, call: Call) -> Tensor:
        """The sampled position in the input sequence of a recurrent call, `(points,)`."""
        record = self.records[call]
        length = ops.shape(record["inputs"])[1]
        if record["mask"] is None:
            index = ops.floor(ops.cast(self.position, "float32") * ops.cast(length, "float32"))
            return ops.minimum(ops.cast(index, "int32"), length - 1)
        mask = self._valid_steps(call)
        order = ops.cumsum(mask, axis=1)
        count = order[:, -1]
        chosen = ops.floor(ops.cast(self.position, "float32") * ops.cast(count, "float32"))
        chosen = ops.minimum(ops.cast(chosen, "int32"), count - 1)
        # A sequence without a valid step falls to its first one; its weight is 0.
        hit = ops.logical_and(order == chosen[:, None] + 1, mask == 1)
        return ops.cast(ops.argmax(ops.cast(hit, "int32"), axis=1), "int32")

    def weight(self, call: Call) -> Tensor | None:
        """1 where a sequence of a recurrent call has a valid step, else 0; None for 1 at all."""
        if self.records[call]["mask"] is None:
            return None
        return ops.cast(ops.any(self._valid_steps(call) == 1, axis=1), "float32")

    def _valid_steps(self, call: Call) -> Tensor:
        record = self.records[call]
        shape = ops.shape(record["inputs"])[:2]
        return ops.cast(ops.broadcast_to(record["mask"], shape), "int32")

    def inputs(self, call: Call) -> Tensor:
        """The input of a recurrent call at the sampled step, `(points, features)`."""
        return take_step(self.records[call]["inputs"], self.index(call))

    def states(self, call: Call, direction: int) -> list[Tensor]:
        """The states of one direction of a recurrent call before the sampled step."""
        index = self.index(call)
        if directions_of(call.layer)[direction].go_backwards:
            index = ops.shape(self.records[call]["inputs"])[1] - 1 - index
        return [take_step(state, index) for state in self.records[call]["states"][direction]]

    def masked(self, ref: Ref) -> Tensor:
        """A tensor with the mask that it had in the forward pass."""
        return with_mask(self.values[ref], self.masks.get(ref))

    def firing_rates(self) -> list[Tensor]:
        """Mean spikes a step and neuron in every spiking layer's sequences, each `(points,)`."""
        return [self.records[call]["rate"] for call in self._spiking]

    def firing_weights(self) -> list[Tensor | None]:
        """The weight, as in `Transition`, of each of the firing rates."""
        return [self.weight(call) for call in self._spiking]

    @property
    def _spiking(self) -> list[Call]:
        return [call for call, record in self.records.items() if record["rate"] is not None]


def mean_over_points(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of `(points, ...)` values over the points of weight 1; 0 if there are none."""
    if weight is None:
        return ops.mean(values)
    weight = ops.reshape(weight, (-1, *(1,) * (len(values.shape) - 1)))
    total = ops.sum(values * ops.cast(weight, values.dtype))
    width = math.prod(values.shape[1:])
    return total / ops.maximum(ops.cast(ops.sum(weight) * width, values.dtype), 1.0)


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
        self._layers_taking_part: list[tuple[Any, tuple[Any, ...]]] = []
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
        """The recurrent layers whose outputs are spikes, one for every call of them."""
        return [call.layer for call in self.recurrent_calls if is_spiking(call.layer)]

    @property
    def spiking_names(self) -> list[str]:
        """A name for each of the `spiking_layers`, unique in the model."""
        spiking = [call for call in self.recurrent_calls if is_spiking(call.layer)]
        return [call.layer.name + self.suffix(call) for call in spiking]

    @property
    def variables_taking_part(self) -> list[tuple[Any, int | None]]:
        """Variables that shape a trained transition, each with its gate width.

        They are trainable, but for those of a cell's `variables_of_gradient`, on which the
        gradient depends and the outputs do not. None is of a layer that is frozen, by itself or
        with a layer or model that it is part of.

        The gate width is the size of the cell's state for the weights of a cell (a matrix with a
        multiple of that many columns holds one block a gate) and None elsewhere.
        """
        taking_part: dict[int, tuple[Any, int | None]] = {}
        for layer, owners in self._layers_taking_part:
            if not all(getattr(owner, "trainable", True) for owner in (*owners, layer)):
                continue
            width = state_width(layer) if hasattr(layer, "state_size") else None
            frozen = frozen_variables(layer)
            of_gradient = getattr(layer, "variables_of_gradient", [])
            for variable in (*layer.trainable_variables, *of_gradient):
                if id(variable) not in frozen:
                    taking_part.setdefault(id(variable), (variable, width))
        return list(taking_part.values())

    def steps(self, inputs: Any) -> int:
        """The number of time steps T of the first recurrent layer; 0 for feed-forward models."""
        return self.length(self.recurrent_calls[0], inputs) if self.is_recurrent else 0

    def length(self, call: Call, inputs: Any) -> int:
        """The number of time steps of a recurrent call on such inputs."""
        sequence = call.first_input
        if sequence.shape[1] is not None:
            return int(sequence.shape[1])
        leaves = in_order(inputs, input_structure(self.model))
        given = {
            ref: _with_sizes(ref.shape, tuple(leaf.shape))
            for ref, leaf in zip(self.graph.inputs, leaves, strict=True)
        }
        stage, starts = self.graph.between((), sequence)
        known = {ref: given[ref] for ref in starts}
        if any(None in shape[1:] for shape in known.values()):
            raise ValueError(
                f"The number of time steps of layer {call.layer.name!r} is not known when the "
                "inputs are traced. Give keras.Input the number of steps."
            )
        return self.graph.shapes(stage, known)[sequence][1] or 0

    def suffix(self, call: Call) -> str:
        """What tells the calls of a layer, or of layers of one name, apart: "", "[2]", ..."""
        alike = [other for other in self.graph.calls if other.layer.name == call.layer.name]
        count = alike.index(call) + 1
        return "" if count == 1 else f"[{count}]"

    def add(self, transition: Transition) -> None:
        """Adds a transition, under a name that no other has."""
        taken = {row.name for row in self.transitions}
        name, count = transition.name, 2
        while name in taken:
            name, count = f"{transition.name}[{count}]", count + 1
        self.transitions.append(replace(transition, name=name))

    def take_part(self, layer: Any, *owners: Any) -> None:
        """Has the variables of `layer`, which is part of `owners`, shape a trained transition."""
        self._layers_taking_part.append((layer, owners))

    def sample(self, inputs: Any, position: Tensor) -> Points:
        """Runs the model once, without gradient, and stops at one point of every sequence.

        Args:
            inputs: a batch of the model's inputs, as the model takes it, or flat.
            position: `(batch,)` floats in [0, 1): where in each sequence, from its first to its
                last valid step.

        Returns:
            `Points`, on which every transition can be linearised.
        """

        def run() -> tuple[list[Tensor], dict[str, Tensor], list[dict[str, Any]]]:
            found: dict[Ref, Tensor | None] = {}
            values, records = self._forward(inputs, self._calls_to_run, masks=found)
            masks = {str(k): found[ref] for k, ref in enumerate(self._kept)}
            return [values[ref] for ref in self._kept], _given(masks), list(map(_given, records))

        kept, masks, records = backend.no_gradient(run)
        records = [{"mask": None, "rate": None, **record} for record in records]
        return Points(
            dict(zip(self._kept, kept, strict=True)),
            {ref: masks[str(k)] for k, ref in enumerate(self._kept) if str(k) in masks},
            dict(zip(self.recurrent_calls, records, strict=True)),
            position,
        )

    def outputs(self, inputs: Any) -> Any:
        """The outputs of the model, in inference, by the forward pass that finds its points.

        Args:
            inputs: a batch of the model's inputs, as the model takes it, or flat.

        Returns:
            What `model(inputs, training=False)` returns.
        """
        values, _ = self._forward(inputs, self.graph.calls)
        found = [values[ref] for ref in self.graph.outputs]
        if isinstance(self.model, keras.Sequential):
            return found[0]
        return tree.pack_sequence_as(self.model.output, found)

    def _forward(
        self,
        inputs: Any,
        calls: Sequence[Call],
        perturbation: list[Tensor] | None = None,
        masks: dict[Ref, Tensor | None] | None = None,
    ) -> tuple[dict[Ref, Tensor], list[dict[str, Any]]]:
        """The tensors and the records of recurrent calls.

        The masks of the tensors that are kept are put into `masks`.
        """

        def read_masks(made: Iterable[Ref]) -> None:
            # At once: a layer may take the mask off its inputs, as MultiHeadAttention does.
            if masks is not None:
                masks.update((ref, mask_of(values[ref])) for ref in made if ref in self._kept)

        leaves = in_order(inputs, input_structure(self.model))
        entries = zip(self.graph.inputs, self.graph.entries, leaves, strict=True)
        values = {ref: entry(leaf) for ref, entry, leaf in entries}
        read_masks(values)
        remaining, records = list(perturbation or []), []
        for call in calls:
            if call in self._recorders:
                noise = []
                if perturbation is not None:
                    for cell in directions_of(call.layer)[0].cells:
                        noise.extend(unflatten_states(remaining.pop(0), state_shapes(cell)))
                outputs, record = self._record(call, values, noise)
                records.append(record)
            else:
                outputs = call.run(values)
            values.update(zip(call.outputs, tree.flatten(outputs), strict=True))
            read_masks(call.outputs)
        return values, records

    def _record(self, call: Call, values: dict[Ref, Tensor], noise: list[Tensor]) -> Any:
        options = {k: v for k, v in call.by_name.items() if k != "training" and v is not None}
        options = filled_in(options, values)
        if noise:
            options["perturbation"] = noise
        first = call.first_argument
        return self._recorders[call](filled_in(first, values), **options)

    def spikes(self, points: Points) -> list[Tensor]:
        """Spikes of every spiking layer at the sampled step, `(points, units)` each.

        They are the outputs of that one step, differentiable by the weights, as radii are.
        """
        return [
            _output_at_step(points, call)(points.inputs(call))
            for call in self.recurrent_calls
            if is_spiking(call.layer)
        ]

    def forward_directions(self, inputs: Any) -> list[Direction]:
        """The pass of every recurrent layer, first to last, over one grid of steps and layers.

        Args:
            inputs: a batch of the model's inputs, for its number of steps.

        Raises:
            ValueError: the model is feed-forward, a recurrent layer runs backwards, or two differ
                in their number of steps.
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
        lengths = [self.length(call, inputs) for call in self.recurrent_calls]
        for call, length in zip(self.recurrent_calls, lengths, strict=True):
            if length != lengths[0]:
                raise ValueError(
                    f"Recurrent layer {call.layer.name!r} takes {length} steps, and "
                    f"{self.recurrent_calls[0].layer.name!r} takes {lengths[0]}. The grid of time "
                    "and depth needs layers of equally many steps; `measure` does not."
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
        values, _ = self._forward(inputs, self._calls_to_run, perturbation)
        return values[self.recurrent_calls[-1].outputs[0]]

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
                _refuse_unknown_arguments(call)
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


def _refuse_unknown_arguments(call: Call) -> None:
    unknown = set(call.by_name) - {"initial_state", "mask", "training"}
    if unknown:
        raise ValueError(
            f"Recurrent layer {call.layer.name!r} is called with {sorted(unknown)}. Only its input "
            "sequence, initial_state, mask and training are supported."
        )


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _with_sizes(declared: tuple, given: tuple) -> tuple:
    """A declared shape with the sizes of what was given, of which Keras may change the rank."""
    return tuple(
        given[axis] if size is None and axis < len(given) else size
        for axis, size in enumerate(declared)
    )


class _RecurrentTransitions:
    """Adds the transitions of the recurrent layers of a model to its map."""

    def __init__(self, transition_map: TransitionMap):
        self.map = transition_map
        self.graph: Graph = transition_map.graph
        calls = transition_map.recurrent_calls
        self.sequences = [call.outputs[0] for call in calls]
        self.outputs = [ref for call in calls for ref in call.outputs]

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
        shapes, moved = state_shapes(cell), differentiable_states(cell)
        label = direction.name if len(direction.cells) == 1 else f"{direction.name}.{cell.name}"

        def linearize(points: Points) -> tuple[Function, Tensor]:
            inputs, states = _at_cell(points, call, direction_index, cell_index)

            def next_state(flat: Tensor) -> Tensor:
                before = list(states)
                parts = unflatten_states(flat, [shapes[k] for k in moved])
                for k, part in zip(moved, parts, strict=True):
                    before[k] = ops.cast(part, states[k].dtype)
                _, new_states = step(cell, inputs, before)
                return flatten_states([new_states[k] for k in moved])

            return next_state, flatten_states([states[k] for k in moved])

        sizes = "+".join(str(math.prod(shapes[k])) for k in moved)
        name, weight = f"{label}.time{self.map.suffix(call)}", self._weight(call)
        self.map.add(Transition(name, "time", layer, f"state {sizes}", linearize, weight))
        self.map.take_part(cell, *call.owners, call.layer, direction.layer, direction.layer.cell)

    def _weight(self, call: Call) -> Callable[[Points], Tensor | None]:
        return lambda points: points.weight(call)

    def _add_depth_inside_stack(self, call: Call, cell_index: int, layer: int) -> None:
        (direction,) = directions_of(call.layer)
        cell = direction.cells[cell_index]

        def linearize(points: Points) -> tuple[Function, Tensor]:
            inputs, states = _at_cell(points, call, 0, cell_index)
            return lambda x: step(cell, x, states)[0], inputs

        name = f"{direction.name}.{cell.name}.depth{self.map.suffix(call)}"
        self.map.add(Transition(name, "depth", layer, "output", linearize, self._weight(call)))

    def _add_depth_from_below(self, call: Call, layer: int) -> None:
        input_ref = call.first_input
        stage, starts = self.graph.between(self.outputs, input_ref)
        below = [ref for ref in starts if ref in self.sequences]
        if not below:
            self._add_input(call, layer)
            return
        for source in below:
            lower = self.graph.producer(source)
            assert lower is not None
            mapped = self._is_resampled(lower, call, stage)
            name = f"{call.layer.name}.depth{self.map.suffix(call)}"
            if len(below) > 1:
                name = f"{name}[{lower.layer.name}{self.map.suffix(lower)}]"
            linearize = self._through_stage(call, source, stage, starts)
            row = Transition(name, "depth", layer, "output", linearize, self._weight(call))
            if mapped:
                through = self._through_resampling(call, source, stage, starts)
                row = replace(row, linearize=through.linearize, weight=through.weight)
            self.map.add(row)
        self.map.keep(starts)
        for inner in stage:
            if isinstance(inner.layer, keras.Layer):
                self.map.take_part(inner.layer, *inner.owners)

    def _add_input(self, call: Call, layer: int) -> None:
        def linearize(points: Points) -> tuple[Function, Tensor]:
            return _output_at_step(points, call), points.inputs(call)

        name = f"{call.layer.name}.input{self.map.suffix(call)}"
        self.map.add(Transition(name, "input", layer, "output", linearize, self._weight(call)))

    def _is_resampled(self, lower: Call, call: Call, stage: tuple[Call, ...]) -> bool:
        """Whether the steps of two recurrent layers are matched through layers that resample.

        Raises:
            ValueError: the stage between them changes the number of steps in a way that leaves no
                step below to hold against one above.
        """
        layers_between = [inner for inner in stage if not isinstance(inner.layer, Entry)]
        between = ", ".join(repr(inner.layer.name) for inner in layers_between) or "nothing"
        if not lower.layer.return_sequences:
            raise ValueError(
                f"Recurrent layer {call.layer.name!r} reads only the last output of "
                f"{lower.layer.name!r} (return_sequences=False, then {between}): there is no "
                "depth transition at equal time steps. Set return_sequences=True below."
            )
        source = lower.outputs[0]
        shapes = {ref: ref.shape for inner in stage for ref in (*inner.inputs, *inner.outputs)}
        if any(None in shape[1:2] for shape in shapes.values()):
            calls, inputs = self.graph.between((), call.first_input)
            shapes = self.graph.shapes(calls, {ref: ref.shape for ref in inputs})
        on_path = [inner for inner in stage if self._leads_to(source, inner)]
        changing = [
            inner
            for inner in on_path
            if any(
                shapes[ref][1:2] != shapes[inner.outputs[0]][1:2]
                for ref in inner.inputs
                if self._comes_from(source, ref)
            )
        ]
        if not changing:
            return False
        unknown = [inner for inner in changing if not can_map_steps(inner.layer)]
        steps = shapes[source][1], shapes[call.first_input][1]
        if unknown and steps[0] == steps[1]:
            # Step t above is held against step t below, whatever shapes came in between.
            return False
        if unknown:
            raise ValueError(
                f"Between {lower.layer.name!r} and {call.layer.name!r}, {between} changes the "
                f"number of time steps from {steps[0]} to {steps[1]}, and of "
                f"{unknown[0].layer.name!r} ({type(unknown[0].layer).__name__}) it is not known "
                "which step below feeds which step above: there is no depth transition at equal "
                "time steps. Use stages that keep the steps, or pooling, strided convolution, "
                "upsampling, cropping or padding."
            )
        return True

    def _comes_from(self, source: Ref, ref: Ref) -> bool:
        """Whether `source` is `ref`, or leads to it without a recurrent layer in between."""
        return source in self.graph.between(self.outputs, ref)[1]

    def _leads_to(self, source: Ref, call: Call) -> bool:
        return any(self._comes_from(source, ref) for ref in call.inputs)

    def _through_resampling(
        self, call: Call, source: Ref, stage: tuple[Call, ...], starts: tuple[Ref, ...]
    ) -> "_Resampling":
        routes = {
            inner: [ref for ref in inner.inputs if self._comes_from(source, ref)] for inner in stage
        }
        return _Resampling(self.graph, call, source, stage, starts, routes)

    def _through_stage(
        self, call: Call, source: Ref, stage: tuple[Call, ...], starts: tuple[Ref, ...]
    ) -> Callable[[Points], tuple[Function, Tensor]]:
        graph, target = self.graph, call.first_input
        steps = source.shape[1]
        per_step = all(acts_per_step(inner.layer) for inner in stage) and all(
            len(ref.shape) >= 2 and ref.shape[1] == steps for ref in starts
        )

        def linearize(points: Points) -> tuple[Function, Tensor]:
            index = points.index(call)
            output = _output_at_step(points, call)
            x = take_step(points.values[source], index)
            others = [ref for ref in starts if ref is not source]

            def at_step(value: Tensor) -> Tensor:
                return ops.expand_dims(take_step(value, index), 1)

            def with_its_mask(ref: Ref, value: Tensor, slice_: Function) -> Tensor:
                mask = points.masks.get(ref)
                return with_mask(value, None if mask is None else slice_(mask))

            def one_step(y: Tensor) -> Tensor:
                values = {
                    ref: with_its_mask(ref, at_step(points.values[ref]), at_step) for ref in others
                }
                values[source] = with_its_mask(source, ops.expand_dims(y, 1), at_step)
                return output(ops.squeeze(graph.run(stage, values)[target], axis=1))

            def whole_sequence(y: Tensor) -> Tensor:
                values = {ref: points.masked(ref) for ref in others}
                values[source] = with_its_mask(
                    source, _with_step(points.values[source], index, y), lambda mask: mask
                )
                return output(take_step(graph.run(stage, values)[target], index))

            return (one_step if per_step else whole_sequence), x

        return linearize


@dataclass(frozen=True, eq=False)
class _Resampling:
    """A depth transition through a stage that changes the number of steps.

    Attributes:
        graph: of the model.
        call: of the recurrent layer above.
        source: output of the recurrent layer below.
        stage: the calls in between.
        starts: the tensors that the stage starts from.
        routes: for each of these calls those of its inputs that the source leads to.
    """

    graph: Graph
    call: Call
    source: Ref
    stage: tuple[Call, ...]
    starts: tuple[Ref, ...]
    routes: dict[Call, list[Ref]]

    def linearize(self, points: Points) -> tuple[Function, Tensor]:
        above = points.index(self.call)
        output = _output_at_step(points, self.call)
        sequence, mask = points.values[self.source], points.masks.get(self.source)
        below, _ = self._step_below(points)

        def perturbed(y: Tensor) -> Tensor:
            values = {ref: points.masked(ref) for ref in self.starts if ref is not self.source}
            values[self.source] = with_mask(_with_step(sequence, below, y), mask)
            target = self.graph.run(self.stage, values)[self.call.first_input]
            return output(take_step(target, above))

        return perturbed, take_step(sequence, below)

    def weight(self, points: Points) -> Tensor | None:
        fed = ops.cast(self._step_below(points)[1], "float32")
        weight = points.weight(self.call)
        return fed if weight is None else fed * weight

    def _step_below(self, points: Points) -> tuple[Tensor, Tensor]:
        """The last step of the source that feeds the step above, and whether one does."""
        values = {ref: points.masked(ref) for ref in self.starts}
        values = backend.no_gradient(lambda: list(self.graph.run(self.stage, values).values()))
        refs = [*self.starts, *(ref for inner in self.stage for ref in inner.outputs)]
        lengths = {
            ref: ops.shape(value)[1]
            for ref, value in zip(refs, values, strict=True)
            if len(value.shape) > 1
        }

        def back(ref: Ref, wanted: Tensor) -> Tensor:
            if ref is self.source:
                return wanted
            inner = self.graph.producer(ref)
            assert inner is not None
            found = []
            for before in self.routes[inner]:
                here = wanted
                if can_map_steps(inner.layer):
                    here = feeding(inner.layer, wanted, lengths[before])
                found.append(back(before, here))
            return functools.reduce(ops.logical_or, found)

        target = self.call.first_input
        steps = ops.arange(lengths[target], dtype="int32")
        feeds = back(target, steps == points.index(self.call)[:, None])
        steps = ops.arange(lengths[self.source], dtype="int32")
        return ops.max(ops.where(feeds, steps, 0), axis=1), ops.any(feeds, axis=1)


def _with_step(sequence: Tensor, index: Tensor, y: Tensor) -> Tensor:
    """A sequence whose step `index` is `y`, row by row."""
    here = ops.arange(ops.shape(sequence)[1], dtype="int32") == index[:, None]
    here = ops.cast(here[..., None], sequence.dtype)
    return sequence * (1 - here) + ops.expand_dims(y, 1) * here


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
        read = [self._origin(call.first_input) for call in self.weighted]
        # A tensor that several layers read counts as the input of the first of them.
        layer_of = {ref: read.index(ref) for ref in read}
        targets = [*read[1:], *(self._logits(ref) for ref in self.graph.outputs)]
        for target in dict.fromkeys(targets):
            if self.graph.producer(target) is None:
                # No layer leads to an input of the model.
                continue
            sources = [ref for ref in layer_of if ref is not target]
            stage, starts = self.graph.between(sources, target)
            for source in (ref for ref in starts if ref in layer_of):
                self._add_stage(source, target, stage, starts, layer_of[source])
        self.map.transitions.sort(key=lambda row: row.layer)
        return len(self.weighted)

    def _logits(self, ref: Ref) -> Ref:
        # Cross-entropy hands its gradient to the logits, so a last softmax is not on its path.
        call = self.graph.producer(ref)
        while call is not None and (
            isinstance(call.layer, Entry)
            or (is_probability(call.layer) and not is_weighted(call.layer))
        ):
            ref = call.first_input
            call = self.graph.producer(ref)
        return ref

    def _origin(self, ref: Ref) -> Ref:
        """The tensor that enters a nested model as `ref`; `ref` itself if it is none of those."""
        call = self.graph.producer(ref)
        while call is not None and isinstance(call.layer, Entry):
            ref = call.first_input
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
            shape = (-1, *x.shape[1:])

            def next_input(flat: Tensor) -> Tensor:
                values = {ref: points.masked(ref) for ref in starts if ref is not source}
                values[source] = with_mask(ops.reshape(flat, shape), points.masks.get(source))
                if drop_activation:
                    with without_activation(last.layer):
                        values = graph.run(stage, values)
                else:
                    values = graph.run(stage, values)
                return flatten_features(values[target])

            return next_input, flatten_features(x)

        kind = "input" if graph.producer(source) is None or index == 0 else "depth"
        siblings = [row for row in self.map.transitions if row.layer == index]
        name = f"{weighted.layer.name}.{kind}{self.map.suffix(weighted)}"
        name += f"[{len(siblings)}]" if siblings else ""
        self.map.add(Transition(name, kind, index, "output", linearize))
        self.map.keep(starts)
        if kind == "depth":
            for inner in stage:
                if isinstance(inner.layer, keras.Layer):
                    self.map.take_part(inner.layer, *inner.owners)
