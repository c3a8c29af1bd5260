"""Runs a recurrent layer over a sequence and keeps the state before every step."""

import functools
import inspect
import math
import weakref
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from keras_lsc.stability.layers import call_in_inference, inference_call

Tensor = Any


@dataclass(frozen=True)
class Direction:
    """One pass of a cell along time: a recurrent layer, or one of a Bidirectional's two."""

    layer: Any
    name: str

    @property
    def go_backwards(self) -> bool:
        """Whether it takes the steps from last to first."""
        return bool(getattr(self.layer, "go_backwards", False))

    @property
    def cells(self) -> list[Any]:
        """The cells of one step, first to last: several for `StackedRNNCells`."""
        cell = self.layer.cell
        return list(cell.cells) if isinstance(cell, keras.layers.StackedRNNCells) else [cell]

    def name_of(self, cell: Any) -> str:
        """Its name, and that of the cell where it has several."""
        return self.name if len(self.cells) == 1 else f"{self.name}.{cell.name}"


def directions_of(layer: Any) -> list[Direction]:
    """Returns the passes of a recurrent layer: one, or two for `Bidirectional`."""
    if isinstance(layer, keras.layers.Bidirectional):
        return [
            Direction(layer.forward_layer, f"{layer.name}.forward"),
            Direction(layer.backward_layer, f"{layer.name}.backward"),
        ]
    return [Direction(layer, layer.name)]


def is_spiking(layer: Any) -> bool:
    """Whether the outputs of a recurrent layer are spikes: its cell says so by `is_spiking`."""
    return all(getattr(d.cells[-1], "is_spiking", False) for d in directions_of(layer))


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
    packed = tree.pack_sequence_as(_layout(cell).structure, states)
    output, new_states = call_in_inference(cell, inputs, packed)
    return output, tree.flatten(new_states)


def state_shapes(cell: Any) -> list[tuple[int, ...]]:
    """The shape of every state tensor of `cell`, flat, without the batch axis."""
    return list(_layout(cell).shapes)


def differentiable_states(cell: Any) -> list[int]:
    """Indices of the flat states of `cell` through which a derivative can pass.

    A cell names the others, such as counters, by their indices in `states_without_gradient`.

    Raises:
        ValueError: it names all of them, or one that it does not have.
    """
    count = len(state_shapes(cell))
    without = getattr(cell, "states_without_gradient", ())
    if not set(without) < set(range(count)):
        raise ValueError(
            f"states_without_gradient of cell {cell.name!r} is {list(without)}; expected indices "
            f"of some, but not all, of its {count} state tensors."
        )
    return [index for index in range(count) if index not in without]


def state_width(cell: Any) -> int:
    """Number of entries of the first state of `cell`, which is the width of a gate block."""
    return math.prod(state_shapes(cell)[0][-1:])


@dataclass(frozen=True)
class _Layout:
    """The nest in which a cell takes its states, and the shapes of its leaves."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]


# A cell is asked for its states, which makes tensors, and is asked at every step.
_layouts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _layout(cell: Any) -> _Layout:
    if cell not in _layouts:
        _layouts[cell] = _find_layout(cell)
    return _layouts[cell]


def _find_layout(cell: Any) -> _Layout:
    if isinstance(cell, keras.layers.StackedRNNCells):
        inner = [_layout(part) for part in cell.cells]
        shapes = tuple(shape for layout in inner for shape in layout.shapes)
        return _Layout([layout.structure for layout in inner], shapes)
    start = _initial_state(cell, 1)
    shapes = tuple(tuple(state.shape[1:]) for state in tree.flatten(start))
    return _Layout(tree.map_structure(lambda _: 0, start), shapes)


def run_cell(
    direction: Direction,
    sequences: Tensor,
    start: Any,
    mask: Tensor | None,
    perturbation: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Runs a cell along `sequences`, `(batch, steps, features)`, in the direction's order.

    Args:
        direction: the pass to take.
        sequences: `(batch, steps, features)`.
        start: the states before the first step; None for those of the cell.
        mask: `(batch, steps)` booleans, or None.
        perturbation: What is added to every new state, one `(batch, steps, *state)` a state.

    Returns:
        Its outputs and the flat list of its states before every step, all
        `(batch, steps, ...)`, and the flat list of its last states.
    """
    cell = direction.layer.cell
    structure = _layout(cell).structure
    # Without automatic casts to make, `call` is the whole of a cell, at half the cost in torch.
    dtypes = {cell.compute_dtype, cell.variable_dtype, direction.layer.compute_dtype}
    is_plain = len(dtypes) == 1
    call = inference_call(cell) if is_plain else functools.partial(call_in_inference, cell)

    def run_step(x: Tensor, before: list[Tensor], noise: list[Tensor]) -> list[Tensor]:
        if noise:
            return _perturbed_step(direction, x, before, noise)
        output, after = call(x, tree.pack_sequence_as(structure, before))
        return [output, *tree.flatten(after)]

    def advance(carry: list[Tensor], at: list[Any]) -> tuple[list[Tensor], list[Tensor]]:
        x, keep, noise = at
        after = run_step(x, carry[1:], noise)
        if mask is not None:
            # A masked step repeats the output before it and leaves the states as they are.
            after = [
                ops.where(ops.reshape(keep, (-1, *(1,) * (len(new.shape) - 1))), new, old)
                for new, old in zip(after, carry, strict=True)
            ]
        return after, [after[0], *carry[1:]]

    if start is None:
        start = _initial_state(cell, ops.shape(sequences)[0])
    given = tree.flatten(start)
    states = [ops.cast(state, cell.compute_dtype) for state in given]
    steps = [sequences, sequences[..., 0] if mask is None else mask, list(perturbation or [])]
    if direction.go_backwards:
        steps = tree.map_structure(lambda part: ops.flip(part, axis=1), steps)
    steps = tree.map_structure(lambda part: ops.swapaxes(part, 0, 1), steps)
    # What a step emits has the shapes and dtypes of what it carries: Keras' scan on TensorFlow
    # needs that. A cell may hold its states in another dtype than it computes in.
    first, *after = run_step(steps[0][0], states, [])
    states = [ops.cast(state, ops.dtype(new)) for state, new in zip(given, after, strict=True)]
    last, emitted = ops.scan(advance, [ops.zeros_like(first), *states], steps)
    outputs, *before = [ops.swapaxes(part, 0, 1) for part in emitted]
    return outputs, before, list(last)[1:]


def _perturbed_step(
    direction: Direction, x: Tensor, before: list[Tensor], noise: list[Tensor]
) -> list[Tensor]:
    """One step of all cells in which `noise` is added to every new state.

    Where a cell emits one of its states, as most do, it emits the perturbed one.
    """
    before, noise, after = list(before), list(noise), []
    for cell in direction.cells:
        count = len(state_shapes(cell))
        x, new_states = step(cell, x, before[:count])
        perturbed = [
            new + ops.cast(extra, new.dtype) for new, extra in zip(new_states, noise, strict=False)
        ]
        emitted = [k for k, new in enumerate(new_states) if new is x]
        x = perturbed[emitted[0]] if emitted else x
        after.extend(perturbed)
        before, noise = before[count:], noise[count:]
    return [x, *after]


def _initial_state(cell: Any, batch_size: Any) -> list[Any]:
    if hasattr(cell, "get_initial_state"):
        start = cell.get_initial_state(batch_size=batch_size)
        return list(start) if tree.is_nested(start) else [start]
    sizes = cell.state_size if isinstance(cell.state_size, list | tuple) else [cell.state_size]
    return [ops.zeros((batch_size, size), dtype=cell.compute_dtype) for size in sizes]


class Recorder(keras.layers.Layer):
    """Stands in for a recurrent layer's call and returns, beside its outputs, its states.

    It is a layer so that Keras hands it the mask of its input as it would hand it to the layer,
    casts as the layer's policy says, and gives the outputs the masks that the layer gives them.
    """

    def __init__(self, layer: Any):
        super().__init__(
            dtype=layer.dtype_policy, autocast=layer.autocast, name=f"recorder_{layer.name}"
        )
        self.supports_masking = layer.supports_masking
        self.built = True
        self._recorded = layer
        self._directions = directions_of(layer)
        self._takes_mask = "mask" in inspect.signature(layer.call).parameters

    def compute_mask(self, inputs: Any, mask: Any) -> Any:
        """Returns the masks that the layer gives its outputs."""
        # Those of the record have none: Keras goes by the order of the outputs.
        return self._recorded.compute_mask(inputs, mask)

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        perturbation: list[Tensor] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Returns the outputs of the layer and a record: "inputs", "states", "mask" and "rate".

        `perturbation` is added to the states of a layer with one direction. "states" holds for
        every direction the flat list of its states before each of its steps,
        `(batch, steps, *state)`, in the order in which that direction takes the steps. "rate" is
        the mean output over the valid steps, `(batch,)`, of a layer whose outputs are spikes, and
        None of any other.
        """
        mask = _mask_of_steps(mask) if self._takes_mask else None
        starts = _split_evenly(initial_state, len(self._directions))
        outputs, recorded_states, rates = [], [], []
        final_states: list[Tensor] = []
        for direction, start in zip(self._directions, starts, strict=True):
            output, before, last = run_cell(direction, sequences, start, mask, perturbation)
            outputs.append(self._output(direction, output, mask))
            if is_spiking(self._recorded):
                rates.append(_mean_over_steps(output, mask, direction))
            recorded_states.append(before)
            dtype = direction.layer.compute_dtype
            final_states.extend(ops.cast(state, dtype) for state in last)
        merged = merge_directions(self._recorded, outputs)
        if self._recorded.return_state:
            merged = (merged, *final_states)
        record = {
            "inputs": sequences,
            "states": recorded_states,
            "mask": mask,
            "rate": sum(rates) / len(rates) if rates else None,
        }
        return merged, record

    def _output(self, direction: Direction, steps: Tensor, mask: Tensor | None) -> Tensor:
        steps = ops.cast(steps, direction.layer.compute_dtype)
        if not direction.layer.return_sequences:
            return steps[:, -1]
        if mask is not None and getattr(direction.layer, "zero_output_for_mask", False):
            valid = ops.flip(mask, axis=1) if direction.go_backwards else mask
            steps = ops.where(ops.expand_dims(valid, -1), steps, 0.0)
        # Bidirectional turns the backward pass round, a lone go_backwards layer does not.
        turned = len(self._directions) == 2 and direction is self._directions[1]
        return ops.flip(steps, axis=1) if turned else steps


def _mask_of_steps(mask: Any) -> Tensor | None:
    """The one mask of a recurrent layer as booleans `(batch, steps)`."""
    mask = tree.flatten(mask)[0]
    if mask is None:
        return None
    mask = ops.cast(mask, "bool")
    return ops.any(mask, axis=-1) if len(mask.shape) == 3 else mask


def _mean_over_steps(output: Tensor, mask: Tensor | None, direction: Direction) -> Tensor:
    per_step = ops.mean(ops.cast(output, "float32"), axis=tuple(range(2, len(output.shape))))
    if mask is None:
        return ops.mean(per_step, axis=1)
    valid = ops.flip(mask, axis=1) if direction.go_backwards else mask
    valid = ops.cast(ops.broadcast_to(valid, ops.shape(per_step)), "float32")
    return ops.sum(per_step * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1.0)


def _split_evenly(states: Any, parts: int) -> list[Any]:
    if states is None or parts == 1:
        return [states] * parts
    half = len(states) // parts
    return [states[:half], states[half:]]
