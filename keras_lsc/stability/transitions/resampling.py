"""Depth transitions through stages that change the number of steps: pooling, strides, padding."""

import functools
from dataclasses import dataclass

from keras import ops

from keras_lsc import backend
from keras_lsc.stability.graph import Call, Entry, Graph, Ref
from keras_lsc.stability.layers import can_map_steps, feeding
from keras_lsc.stability.masks import with_mask
from keras_lsc.stability.transitions.points import (
    Function,
    Points,
    Tensor,
    output_at_step,
    take_step,
    with_step,
)


def is_resampled(graph: Graph, lower: Call, call: Call, outputs: list[Ref]) -> bool:
    """Whether the steps of two recurrent layers are matched through layers that resample.

    Args:
        graph: Of the model.
        lower: Call of the recurrent layer below.
        call: Call of the recurrent layer above.
        outputs: Of all recurrent layers.

    Raises:
        ValueError: The stage between them changes the number of steps in a way that leaves no
            step below to hold against one above.
    """
    stage, _ = graph.between(outputs, call.first_input)
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
        calls, inputs = graph.between((), call.first_input)
        shapes = graph.shapes(calls, {ref: ref.shape for ref in inputs})
    changing = [
        inner
        for inner in stage
        if any(
            shapes[ref][1:2] != shapes[inner.outputs[0]][1:2]
            for ref in inner.inputs
            if _comes_from(graph, source, ref, outputs)
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


def _comes_from(graph: Graph, source: Ref, ref: Ref, outputs: list[Ref]) -> bool:
    """Whether `source` is `ref`, or leads to it without a recurrent layer in between."""
    return source in graph.between(outputs, ref)[1]


@dataclass(frozen=True, eq=False)
class Resampling:
    """A depth transition through a stage that changes the number of steps.

    Attributes:
        graph: Of the model.
        call: Call of the recurrent layer above.
        source: Output of the recurrent layer below.
        outputs: Of all recurrent layers, where the stage in between starts.
    """

    graph: Graph
    call: Call
    source: Ref
    outputs: list[Ref]

    @functools.cached_property
    def _stage(self) -> tuple[tuple[Call, ...], tuple[Ref, ...]]:
        return self.graph.between(self.outputs, self.call.first_input)

    @functools.cached_property
    def _routes(self) -> dict[Call, list[Ref]]:
        """For each call in between those of its inputs that the source leads to."""
        return {
            inner: [
                ref
                for ref in inner.inputs
                if _comes_from(self.graph, self.source, ref, self.outputs)
            ]
            for inner in self._stage[0]
        }

    def linearize(self, points: Points) -> tuple[Function, Tensor]:
        """The output of the layer above as a function of the last step below that feeds it."""
        stage, starts = self._stage
        above = points.index(self.call)
        output = output_at_step(points, self.call)
        sequence, mask = points.values[self.source], points.masks.get(self.source)
        below, _ = self._step_below(points)

        def perturbed(y: Tensor) -> Tensor:
            values = {ref: points.masked(ref) for ref in starts if ref is not self.source}
            values[self.source] = with_mask(with_step(sequence, below, y), mask)
            target = self.graph.run(stage, values)[self.call.first_input]
            return output(take_step(target, above))

        return perturbed, take_step(sequence, below)

    def weight(self, points: Points) -> Tensor | None:
        """1 where a valid step above is fed by a step below, else 0, `(points,)`."""
        fed = ops.cast(self._step_below(points)[1], "float32")
        weight = points.weight(self.call)
        return fed if weight is None else fed * weight

    def _step_below(self, points: Points) -> tuple[Tensor, Tensor]:
        """The last step of the source that feeds the step above, and whether one does."""
        stage, starts = self._stage
        values = {ref: points.masked(ref) for ref in starts}
        values = backend.no_gradient(lambda: list(self.graph.run(stage, values).values()))
        refs = [*starts, *(ref for inner in stage for ref in inner.outputs)]
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
            for before in self._routes[inner]:
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
