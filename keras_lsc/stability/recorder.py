"""Runs a recurrent layer over a sequence and keeps the state before every step."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from keras_lsc.stability.layers import call_in_inference

Tensor = Any


@dataclass(frozen=True)
class Direction:
    """One pass of a cell along time: a recurrent layer, or one of a Bidirectional's two."""

    layer: Any
    name: str

    @property
    def go_backwards(self) -> bool:
        return bool(getattr(self.layer, "go_backwards", False))

    @property
    def cells(self) -> list[Any]:
        """The cells of one step, first to last: several for `StackedRNNCells`."""
        cell = self.layer.cell
        return list(cell.cells) if isinstance(cell, keras.layers.StackedRNNCells) else [cell]


def directions_of(layer: Any) -> list[Direction]:
    """Returns the passes of a recurrent layer: one, or two for `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [
            Direction(layer.forward_layer, f"{layer.name}.forward"),
            Direction(layer.backward_layer, f"{layer.name}.backward"),
        ]
    return [Direction(layer, layer.name)]


def merge_directions(layer: Any, outputs: list[Tensor]) -> Tensor:
    """Joins the outputs of a recurrent layer's passes at the same time step(s)."""
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    if layer.merge_mode == "concat":
        return ops.concatenate([forward, backward], axis=-1)
    if layer.merge_mode == "mul":
        return forward * backward
    return (forward + backward) * (0.5 if layer.merge_mode == "ave" else 1.0)


def step(cell: Any, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One step of `cell` in inference; `states` and the new states are flat lists."""
    packed = tree.pack_sequence_as(_state_structure(cell), states)
    output, new_states = call_in_inference(cell, inputs, packed)
    return output, tree.flatten(new_states)


def state_shapes(cell: Any) -> list[tuple[int, ...]]:
    """The shape of every state tensor of `cell`, without the batch axis."""
    sizes = cell.state_size
    if isinstance(cell, keras.layers.StackedRNNCells):
        return [shape for inner in cell.cells for shape in state_shapes(inner)]
    # A lone tuple of several integers is, in Keras, a list of state sizes as well.
    sizes = sizes if isinstance(sizes, list | tuple) else [sizes]
    return [tuple(size) if isinstance(size, list | tuple) else (int(size),) for size in sizes]


def _state_structure(cell: Any) -> Any:
    if isinstance(cell, keras.layers.StackedRNNCells):
        return [_state_structure(inner) for inner in cell.cells]
    return [0] * len(state_shapes(cell))


def output_size(cell: Any) -> int:
    """The number of features that `cell` emits a step, as Keras' RNN layer infers it."""
    size = getattr(cell, "output_size", None)
    return int(size) if size is not None else state_shapes(cell)[0][-1]


class _RecordingCell(keras.layers.Layer):
    """A cell that emits, at every step, its output and the states it started from.

    For masked sequences the emission is also the cell's first state: that is what Keras repeats
    at a masked step.
    """

    def __init__(self, cell: Any, masked: bool):
        super().__init__(dtype=cell.dtype_policy, name=f"recorded_{cell.name}")
        self.cell = cell
        self.masked = masked
        self.output_size = output_size(cell) + sum(map(math.prod, state_shapes(cell)))
        self.state_size = [self.output_size, cell.state_size] if masked else cell.state_size
        self.built = True

    def initial_state(self, batch_size: Any, start: Any = None) -> Any:
        """The states before the first step: `start`, those of the cell, or zeros."""
        if start is None and hasattr(self.cell, "get_initial_state"):
            start = self.cell.get_initial_state(batch_size)
        if start is None:
            start = [
                ops.zeros((batch_size, *shape), dtype=self.compute_dtype)
                for shape in state_shapes(self.cell)
            ]
        start = list(start) if isinstance(start, list | tuple) else [start]
        if not self.masked:
            return start
        return [ops.zeros((batch_size, self.output_size), dtype=self.compute_dtype), start]

    def call(self, inputs: Tensor, states: Any) -> tuple[Tensor, Any]:
        before = states[1] if self.masked else states
        output, after = call_in_inference(self.cell, inputs, before)
        after = list(after) if isinstance(after, list | tuple) else [after]
        flat = [
            ops.cast(ops.reshape(part, (ops.shape(part)[0], -1)), self.compute_dtype)
            for part in (output, *tree.flatten(before))
        ]
        emission = ops.concatenate(flat, axis=-1)
        return emission, [emission, after] if self.masked else after


class Recorder(keras.layers.Layer):
    """Stands in for a recurrent layer's call and returns, beside its outputs, its states.

    It is a layer so that Keras hands it the mask of its input as it would hand it to the layer.
    """

    def __init__(self, layer: Any):
        super().__init__(dtype=layer.dtype_policy, name=f"recorder_{layer.name}")
        self.supports_masking = True
        self._recorded = layer
        self._directions = directions_of(layer)
        self._passes = {
            masked: [self._pass(direction, masked) for direction in self._directions]
            for masked in (False, True)
        }
        self.built = True

    def _pass(self, direction: Direction, masked: bool) -> keras.layers.RNN:
        recording = keras.layers.RNN(
            _RecordingCell(direction.layer.cell, masked),
            return_sequences=True,
            return_state=True,
            go_backwards=direction.go_backwards,
            dtype=self.dtype_policy,
            name=f"recording_{direction.layer.name}",
        )
        recording.built = True
        return recording

    def compute_mask(self, _inputs: Any, mask: Any) -> Any:
        return mask if self._recorded.return_sequences else None

    def call(
        self, sequences: Tensor, initial_state: Any = None, mask: Tensor | None = None
    ) -> dict[str, Any]:
        """Returns a dict of "outputs" (those of the layer), "inputs", "states" and "mask".

        "states" holds for every direction the flat list of its states before each of its steps,
        `(batch, steps, *state)`, in the order in which that direction takes the steps.
        """
        starts = _split_evenly(initial_state, len(self._directions))
        outputs, final_states, recorded_states = [], [], []
        passes = self._passes[mask is not None]
        for direction, recording, start in zip(self._directions, passes, starts, strict=True):
            state = recording.cell.initial_state(ops.shape(sequences)[0], start)
            recorded, *final = recording(sequences, initial_state=state, mask=mask)
            output, states = _split(direction.layer.cell, recorded)
            outputs.append(self._output(direction, output, mask))
            recorded_states.append(states)
            final_states.extend(final[1] if mask is not None else final)
        merged = merge_directions(self._recorded, outputs)
        if self._recorded.return_state:
            merged = (merged, *final_states)
        return {"outputs": merged, "inputs": sequences, "states": recorded_states, "mask": mask}

    def _output(self, direction: Direction, steps: Tensor, mask: Tensor | None) -> Tensor:
        if not direction.layer.return_sequences:
            return steps[:, -1]
        if mask is not None and getattr(direction.layer, "zero_output_for_mask", False):
            valid = ops.flip(mask, axis=1) if direction.go_backwards else mask
            steps = ops.where(ops.expand_dims(valid, -1), steps, 0.0)
        # Bidirectional turns the backward pass round, a lone go_backwards layer does not.
        turned = len(self._directions) == 2 and direction is self._directions[1]
        return ops.flip(steps, axis=1) if turned else steps


def _split_evenly(states: Any, parts: int) -> list[Any]:
    if states is None or parts == 1:
        return [states] * parts
    half = len(states) // parts
    return [states[:half], states[half:]]


def _split(cell: Any, recorded: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Separates what a recording cell emitted into the outputs and the states before."""
    shapes = state_shapes(cell)
    sizes = [math.prod(shape) for shape in shapes]
    first = recorded.shape[-1] - sum(sizes)
    boundaries = [first + sum(sizes[:k]) for k in range(len(sizes))]
    output, *states = ops.split(recorded, boundaries, axis=-1)
    leading = ops.shape(recorded)[:2]
    return output, [
        ops.reshape(state, (*leading, *shape)) for state, shape in zip(states, shapes, strict=True)
    ]
