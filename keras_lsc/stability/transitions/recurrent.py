"""Finds the transitions of the recurrent layers of a model, in time and in depth."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from keras import ops

from keras_lsc.stability.graph import Call, Graph, Ref
from keras_lsc.stability.layers import acts_per_step, is_recurrent
from keras_lsc.stability.masks import with_mask
from keras_lsc.stability.recorder import (
    differentiable_states,
    directions_of,
    state_shapes,
    step,
)
from keras_lsc.stability.transitions.found import Found, joined, layers_of
from keras_lsc.stability.transitions.points import (
    Function,
    Points,
    Tensor,
    Transition,
    at_cell,
    next_state,
    output_at_step,
    take_step,
    with_step,
)
from keras_lsc.stability.transitions.resampling import Resampling, is_resampled

Linearize = Callable[[Points], tuple[Function, Tensor]]


def find_recurrent(graph: Graph) -> Found:
    """Returns the transitions of every recurrent layer: in time, and from the layers below.

    Args:
        graph: Of a model with recurrent layers.

    Raises:
        ValueError: A layer has no depth transition at equal time steps from the one below; the
            message says why.
    """
    calls = [call for call in graph.calls if is_recurrent(call.layer)]
    outputs = [ref for call in calls for ref in call.outputs]
    parts: list[Found] = []
    layer = 0
    for call in calls:
        for cell_index in range(len(directions_of(call.layer)[0].cells)):
            parts.append(_in_time(graph, call, cell_index, layer))
            if cell_index == 0:
                parts.append(_in_depth(graph, call, outputs, layer))
            else:
                parts.append(Found((_inside_stack(graph, call, cell_index, layer),)))
            layer += 1
    return joined(parts, layer)


def find_in_time(graph: Graph) -> Found:
    """Returns the transitions of recurrent layers of which it is not known what lies between.

    Args:
        graph: Of recurrent calls alone.
    """
    cells = [
        (call, index)
        for call in graph.calls
        for index in range(len(directions_of(call.layer)[0].cells))
    ]
    parts = [_in_time(graph, *cell, layer) for layer, cell in enumerate(cells)]
    return joined(parts, len(cells))


def _in_time(graph: Graph, call: Call, cell_index: int, layer: int) -> Found:
    """The time transitions of one cell, one a direction."""
    rows: list[Transition] = []
    taking_part: list[tuple[Any, tuple[Any, ...], int]] = []
    for index, direction in enumerate(directions_of(call.layer)):
        cell = direction.cells[cell_index]
        shapes = state_shapes(cell)
        sizes = "+".join(str(math.prod(shapes[k])) for k in differentiable_states(cell))
        rows.append(
            Transition(
                f"{direction.name_of(cell)}.time{graph.suffix(call)}",
                "time",
                layer,
                f"state {sizes}",
                _through_step(call, index, cell_index),
                _weight(call),
            )
        )
        owners = (*call.owners, call.layer, direction.layer, direction.layer.cell)
        taking_part.append((cell, owners, layer))
    return Found(tuple(rows), taking_part=tuple(taking_part))


def _through_step(call: Call, direction_index: int, cell_index: int) -> Linearize:
    """The new state of a cell as a function of its old one."""
    cell = directions_of(call.layer)[direction_index].cells[cell_index]
    return lambda points: next_state(cell, *_at_cell(points, call, direction_index, cell_index))


def _inside_stack(graph: Graph, call: Call, cell_index: int, layer: int) -> Transition:
    """The depth transition from one of stacked cells to the next."""
    (direction,) = directions_of(call.layer)
    cell = direction.cells[cell_index]

    def linearize(points: Points) -> tuple[Function, Tensor]:
        inputs, states = _at_cell(points, call, 0, cell_index)
        return lambda x: step(cell, x, states)[0], inputs

    name = f"{direction.name_of(cell)}.depth{graph.suffix(call)}"
    return Transition(name, "depth", layer, "output", linearize, _weight(call))


def _in_depth(graph: Graph, call: Call, outputs: list[Ref], layer: int) -> Found:
    """The depth transitions from the recurrent layers below, or the input transition."""
    stage, starts = graph.between(outputs, call.first_input)
    rows = tuple(_from_below(graph, call, outputs, (stage, starts), layer))
    if not rows:
        return Found((_from_input(graph, call, layer),))
    return Found(rows, starts, layers_of(stage, layer))


def _from_below(
    graph: Graph,
    call: Call,
    outputs: list[Ref],
    between: tuple[tuple[Call, ...], tuple[Ref, ...]],
    layer: int,
) -> Iterator[Transition]:
    stage, starts = between
    # The last states, which a layer may return beside its sequence, have no step to hold against.
    below = [
        lower
        for ref in starts
        if (lower := graph.producer(ref)) is not None and lower.outputs[0] is ref
    ]
    for lower in below:
        name = f"{call.layer.name}.depth{graph.suffix(call)}"
        if len(below) > 1:
            name = f"{name}[{lower.layer.name}{graph.suffix(lower)}]"
        linearize, weight = _through_stage(call, lower.outputs[0], graph, stage, starts), None
        if is_resampled(graph, lower, call, outputs):
            resampling = Resampling(graph, call, lower.outputs[0], outputs)
            linearize, weight = resampling.linearize, resampling.weight
        yield Transition(name, "depth", layer, "output", linearize, weight or _weight(call))


def _from_input(graph: Graph, call: Call, layer: int) -> Transition:
    def linearize(points: Points) -> tuple[Function, Tensor]:
        return output_at_step(points, call), points.inputs(call)

    name = f"{call.layer.name}.input{graph.suffix(call)}"
    return Transition(name, "input", layer, "output", linearize, _weight(call))


def _weight(call: Call) -> Callable[[Points], Tensor | None]:
    return lambda points: points.weight(call)


def _through_stage(
    call: Call, source: Ref, graph: Graph, stage: tuple[Call, ...], starts: tuple[Ref, ...]
) -> Linearize:
    """The output of a recurrent layer as a function of the same step of the one below."""
    target = call.first_input
    steps = source.shape[1]
    per_step = all(acts_per_step(inner.layer) for inner in stage) and all(
        len(ref.shape) >= 2 and ref.shape[1] == steps for ref in starts
    )

    def linearize(points: Points) -> tuple[Function, Tensor]:
        index = points.index(call)
        output = output_at_step(points, call)
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
                source, with_step(points.values[source], index, y), lambda mask: mask
            )
            return output(take_step(graph.run(stage, values)[target], index))

        return (one_step if per_step else whole_sequence), x

    return linearize


def _at_cell(
    points: Points, call: Call, direction_index: int, cell_index: int
) -> tuple[Tensor, list[Tensor]]:
    """The input and the states of one cell of a recurrent call at the sampled step."""
    cells = directions_of(call.layer)[direction_index].cells
    return at_cell(cells, cell_index, points.inputs(call), points.states(call, direction_index))
