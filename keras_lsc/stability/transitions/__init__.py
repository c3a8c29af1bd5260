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
every mean. A feed-forward model has depth transitions only, one per weighted layer with what
follows it up to the next weighted layer.
"""

from typing import Any

import keras

from keras_lsc.stability.data import in_order, input_structure
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.graph import Call, flatten
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.recorder import Direction, directions_of, is_spiking, state_width
from keras_lsc.stability.transitions.base import Transitions
from keras_lsc.stability.transitions.feed_forward import find_feed_forward
from keras_lsc.stability.transitions.forward import ForwardPass
from keras_lsc.stability.transitions.found import TakingPart
from keras_lsc.stability.transitions.points import (
    Points,
    Tensor,
    Transition,
    mean_over_points,
    output_at_step,
)
from keras_lsc.stability.transitions.recurrent import find_recurrent
from keras_lsc.stability.transitions.supported import validate

__all__ = ["Points", "Transition", "TransitionMap", "Transitions", "mean_over_points"]


class TransitionMap(Transitions):
    """All transitions of a model with a graph, and the forward pass that collects what they need.

    Args:
        model: A built Sequential or functional `keras.Model` with at least one recurrent or
            weighted layer.

    Raises:
        TypeError: `model` is not a Sequential or functional Keras model.
        ValueError: The model has no such layer, or a part that is not supported; the message
            names it.
    """

    def __init__(self, model: keras.Model):
        graph = flatten(model)
        validate(graph)
        calls = [call for call in graph.calls if is_recurrent(call.layer)]
        self._found = (find_recurrent if calls else find_feed_forward)(graph)
        super().__init__(model, graph, calls, self._found)
        forward = ForwardPass(model, graph, self._found.kept)
        self.sample = forward.sample
        self.outputs = forward.outputs
        self.perturbed_output = forward.perturbed_output

    @property
    def variables_taking_part(self) -> list[TakingPart]:
        """Variables that shape a trained transition, each with its gate width.

        They are trainable, but for those of a cell's `variables_of_gradient`, on which the
        gradient depends and the outputs do not. None is of a layer that is frozen, by itself or
        with a layer or model that it is part of.

        The gate width is the size of the cell's state for the weights of a cell (a matrix with a
        multiple of that many columns holds one block a gate) and None elsewhere.
        """
        taking_part: dict[int, TakingPart] = {}
        for layer, owners, index in self._found.taking_part:
            if not all(getattr(owner, "trainable", True) for owner in (*owners, layer)):
                continue
            width = state_width(layer) if hasattr(layer, "state_size") else None
            frozen = frozen_variables(layer)
            of_gradient = getattr(layer, "variables_of_gradient", [])
            for variable in (*layer.trainable_variables, *of_gradient):
                if id(variable) not in frozen:
                    taking_part.setdefault(id(variable), TakingPart(variable, width, index))
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

    def spikes(self, points: Points) -> list[Tensor]:
        """Spikes of every spiking layer at the sampled step, `(points, units)` each.

        They are the outputs of that one step, differentiable by the weights, as radii are.
        """
        return [
            output_at_step(points, call)(points.inputs(call))
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


def _with_sizes(declared: tuple, given: tuple) -> tuple:
    """A declared shape with the sizes of what was given, of which Keras may change the rank."""
    return tuple(
        given[axis] if size is None and axis < len(given) else size
        for axis, size in enumerate(declared)
    )
