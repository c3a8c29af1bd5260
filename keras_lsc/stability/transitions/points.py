"""What is linearised, and where: a transition, and the points at which a forward pass stopped."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras import ops

from keras_lsc.stability.graph import Call, Ref
from keras_lsc.stability.masks import with_mask
from keras_lsc.stability.recorder import (
    differentiable_states,
    directions_of,
    merge_directions,
    state_shapes,
    step,
)

Tensor = Any
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Transition:
    """One local transition: what is differentiated by what.

    Attributes:
        name: unique in the model, `layer.kind`.
        kind: "time", "depth" or "input" (the depth transition of a first layer).
        layer: index of its layer among the recurrent (or weighted) layers, from 0.
        state: What is differentiated, such as "state 64+64" or "output 64".
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
        mask = self.valid_steps(call)
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
        return ops.cast(ops.any(self.valid_steps(call) == 1, axis=1), "float32")

    def valid_steps(self, call: Call) -> Tensor:
        """1 where a step of a recurrent call counts, else 0, `(points, steps)` integers."""
        record = self.records[call]
        shape = ops.shape(record["inputs"])[:2]
        if record["mask"] is None:
            return ops.ones(shape, "int32")
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


def next_state(cell: Any, inputs: Tensor, states: list[Tensor]) -> tuple[Function, Tensor]:
    """The new state of a cell as a function of its old one, and the old one.

    Args:
        cell: one step.
        inputs: that it reads, `(points, features)`.
        states: all its states before, each `(points, ...)`.

    Returns:
        The function, and at what it is linearised: of the states that a derivative passes, flat.
    """
    shapes, moved = state_shapes(cell), differentiable_states(cell)

    def function(flat: Tensor) -> Tensor:
        before = list(states)
        parts = unflatten_states(flat, [shapes[k] for k in moved])
        for k, part in zip(moved, parts, strict=True):
            before[k] = ops.cast(part, states[k].dtype)
        _, new_states = step(cell, inputs, before)
        return flatten_states([new_states[k] for k in moved])

    return function, flatten_states([states[k] for k in moved])


def at_cell(
    cells: list[Any], index: int, inputs: Tensor, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """What one of stacked cells reads in a step, and its states.

    Args:
        cells: of one step, first to last.
        index: of the cell among them.
        inputs: that the first one reads, `(points, features)`.
        states: of all cells before the step, flat, each `(points, ...)`.
    """
    for cell in cells[:index]:
        count = len(state_shapes(cell))
        inputs = ops.stop_gradient(step(cell, inputs, states[:count])[0])
        states = states[count:]
    return inputs, states[: len(state_shapes(cells[index]))]


def take_step(sequence: Tensor, index: Tensor) -> Tensor:
    """Returns row b's step `index[b]` of a `(batch, steps, ...)` tensor."""
    index = ops.reshape(index, (-1, *(1,) * (len(sequence.shape) - 1)))
    return ops.squeeze(ops.take_along_axis(sequence, index, axis=1), axis=1)


def with_step(sequence: Tensor, index: Tensor, y: Tensor) -> Tensor:
    """A sequence whose step `index` is `y`, row by row."""
    here = ops.arange(ops.shape(sequence)[1], dtype="int32") == index[:, None]
    here = ops.cast(here[..., None], sequence.dtype)
    return sequence * (1 - here) + ops.expand_dims(y, 1) * here


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


def output_at_step(points: Points, call: Call) -> Function:
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
