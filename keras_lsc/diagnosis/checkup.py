"""What a forward and two backward passes tell of a network: activity, gradient, memory."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lsc.diagnosis import thresholds
from keras_lsc.stability.energies import Functional, GradientProbe, squared_gradients
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.levers import read_through
from keras_lsc.stability.recorder import is_spiking
from keras_lsc.stability.taps import Run, Tap, Taps, flat

Tensor = Any
Array = np.ndarray

_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
)
_BOUNDS = {
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
}


@dataclass(frozen=True)
class LayerCheckup:
    """One call of a layer.

    Attributes:
        name: of the call.
        is_stage: whether it is recurrent or reads others through weights, and is not the head.
        is_head: whether it is the last call.
        has_units: whether its outputs are units of its own, by weights or an activation, and not
            those of its input in another form.
        is_spiking: whether its outputs are spikes.
        rms: root mean square of its outputs.
        constant: share of its units that give out the same at every step of every sequence.
        saturated: share of its outputs that are at the bounds of its activation; None where that
            has none.
        gates: share of the values of its gates that are; None where it has no gates.
        energy: of the gradient, summed over steps and units, mean over the sequences.
    """

    name: str
    is_stage: bool
    is_head: bool
    has_units: bool
    is_spiking: bool
    rms: float
    constant: float
    saturated: float | None
    gates: float | None
    energy: float


@dataclass(frozen=True)
class Checkup:
    """What was found.

    Attributes:
        layers: Tuple of `LayerCheckup`, in the order of their calls.
        padding: share of the steps that are masked; None where nothing has a mask.
        early: median share of the gradient that comes from the first quarter of the steps that are
            not masked, by what enters the network; None where it has no steps.
        growth: of the energy from the last quarter to the first, in one layer, by the medians of
            their ratio below and above it, and the largest of any layer.
        memory: number of last steps that hold 99 % of the gradient of the last output.
        steps: mean number of steps that are not masked.
        sequences: number of sequences.
    """

    layers: tuple[LayerCheckup, ...]
    padding: float | None
    early: float | None
    growth: float | None
    memory: float | None
    steps: float | None
    sequences: int

    @property
    def stages(self) -> list[LayerCheckup]:
        """The layers that the gradient is followed through."""
        return [layer for layer in self.layers if layer.is_stage]


class CheckupProbe(GradientProbe):
    """A model whose output is what there is to know of another, so `predict` compiles it."""

    def __init__(self, model: keras.Model, taps: Taps, structure: Any, functional: Functional):
        super().__init__(model, taps, structure, functional)
        # Steps are those of the first input of floats, or of what the first layer makes of numbers.
        self._inputs = [
            k
            for k, leaf in enumerate(tree.flatten(structure))
            if len(leaf.shape) == 3 and keras.backend.is_float_dtype(leaf.dtype)
        ][:1]
        self._with_steps = [k for k, call in enumerate(taps.calls) if len(call.shape) == 2]
        self._stream = len(taps.calls) if self._inputs else next(iter(self._with_steps), None)
        self._stages = stages_of(taps)

    def call(self, inputs: list[Tensor]) -> dict[str, Any]:
        """Returns numbers a sequence, `(rows, ...)`, of the model's inputs and the functional's."""
        given, others = self.parted(inputs)
        functionals: list[Callable[[Run], Tensor]] = [
            lambda ran: self._functional(given, ran, others)
        ]
        if self._stream is not None:
            functionals.append(_last_output)
        (gradients, *of_last), (activities, masks) = squared_gradients(
            self, given, functionals, self._inputs, self._look
        )
        energies = gradients[: len(self.taps.calls)]
        found: dict[str, Any] = {
            "activities": activities,
            "energies": ops.stack([ops.sum(part, axis=-1) for part in energies], axis=-1),
        }
        if self._stream is not None:
            steps = gradients[self._stream]
            above = [k for k in self._stages if k in self._with_steps and k != self._stream]
            found["profiles"] = [steps, *(gradients[k] for k in above)]
            found["last"] = of_last[0][self._stream]
            found["valid"] = [
                ops.cast(mask, "float32") for mask in masks if mask.shape[1:] == steps.shape[1:]
            ]
        return found

    def _look(self, ran: Run) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """The activity of every call, and the mask of the first that is told of padding."""
        activities = [
            self._activity(call, argument, ops.cast(output, "float32"))
            for call, argument, output in zip(
                self.taps.calls, ran.arguments, ran.outputs, strict=True
            )
        ]
        return activities, [mask for mask in ran.masks if mask is not None][:1]

    def _activity(self, call: Tap, argument: Tensor, output: Tensor) -> dict[str, Tensor]:
        units = call.shape[-1] if call.shape else 1
        by_unit = ops.reshape(output, (ops.shape(output)[0], -1, units))
        result = {
            "low": ops.min(by_unit, axis=1),
            "high": ops.max(by_unit, axis=1),
            "square": ops.mean(ops.square(flat(output)), axis=-1),
        }
        bounds = bounds_of(call.layer)
        if bounds is not None:
            low, high = bounds
            middle, half = (low + high) / 2, (high - low) / 2
            is_outside = ops.abs(output - middle) > thresholds.SATURATED_AT * half
            result["saturated"] = ops.mean(flat(ops.cast(is_outside, "float32")), axis=-1)
        gates = gate_inputs(call.layer, argument, output)
        if gates is not None:
            is_outside = ops.abs(ops.sigmoid(gates) - 0.5) > 0.5 * thresholds.SATURATED_AT
            result["gates"] = ops.mean(flat(ops.cast(is_outside, "float32")), axis=-1)
        return result

    def look(self, rows: list[Array], others: list[Array]) -> Checkup:
        """Looks at the model on some sequences.

        Args:
            rows: one array an input, flat.
            others: what the functional needs.
        """
        found = self.by_batches([*rows, *others])
        energies = found["energies"].mean(axis=0)
        layers = []
        for k, (call, activity) in enumerate(
            zip(self.taps.calls, found["activities"], strict=True)
        ):
            low, high = activity["low"].min(axis=0), activity["high"].max(axis=0)
            is_constant = high - low <= np.finfo("float32").eps * np.maximum(abs(low), abs(high))
            saturated, gates = activity.get("saturated"), activity.get("gates")
            layers.append(
                LayerCheckup(
                    call.name,
                    is_stage=k in self._stages,
                    is_head=k == len(self.taps.calls) - 1,
                    has_units=has_units(call.layer),
                    is_spiking=is_recurrent(call.layer) and is_spiking(call.layer),
                    rms=float(np.sqrt(activity["square"].mean())),
                    constant=float(is_constant.mean()),
                    saturated=None if saturated is None else float(saturated.mean()),
                    gates=None if gates is None else float(gates.mean()),
                    energy=float(energies[k]),
                )
            )
        if self._stream is None:
            return Checkup(tuple(layers), None, None, None, None, None, len(rows[0]))
        masks = found["valid"]
        valid = masks[0] > 0 if masks else np.ones(found["last"].shape, bool)
        profiles = [part for part in found["profiles"] if part.shape == valid.shape]
        early = _early(profiles[0], valid)
        # What a layer above forgets, one below does not make grow.
        growths = [*(max(_growth(profile, valid), 1.0) for profile in profiles), 1.0]
        return Checkup(
            tuple(layers),
            padding=1.0 - float(valid.mean()) if masks else None,
            early=early,
            growth=max(below / above for below, above in itertools.pairwise(growths)),
            memory=_memory(found["last"], valid),
            steps=float(valid.sum(axis=1).mean()),
            sequences=len(rows[0]),
        )


def stages_of(taps: Taps) -> list[int]:
    """Index of the calls that the gradient is followed through: the head is none."""
    found = [
        k
        for k, call in enumerate(taps.calls)
        if is_recurrent(call.layer) or read_through(call.layer)
    ]
    if len(found) > 1 and not is_recurrent(taps.calls[found[-1]].layer):
        found.pop()
    return found


def has_units(layer: keras.Layer) -> bool:
    """Whether what a layer gives out are units that could be dead."""
    return is_recurrent(layer) or bool(read_through(layer)) or isinstance(layer, _ACTIVATIONS)


def bounds_of(layer: keras.Layer) -> tuple[float, float] | None:
    """Between what the outputs of a layer lie, by its activation; None where that has no bounds."""
    inner = getattr(layer, "forward_layer", layer)
    inner = getattr(inner, "cell", inner)
    cells = getattr(inner, "cells", None)
    activation = getattr(cells[-1] if cells else inner, "activation", None)
    return _BOUNDS.get(getattr(activation, "__name__", ""))


def gate_inputs(layer: keras.Layer, x: Tensor, outputs: Tensor) -> Tensor | None:
    """What the gates of an LSTM or a GRU read at every step, before their sigmoid.

    Args:
        layer: a layer; of others the result is None.
        x: `(rows, steps, features)`, what it reads.
        outputs: What it gives out: the states after every step, or the last, which then stands for
            all.
    """
    cell = getattr(layer, "cell", None)
    # Of the blocks of its kernels those of gates; the other is the candidate.
    if isinstance(cell, keras.layers.LSTMCell):
        blocks, gates = 4, [0, 1, 3]
    elif isinstance(cell, keras.layers.GRUCell):
        blocks, gates = 3, [0, 1]
    else:
        return None
    if len(outputs.shape) == 2:
        before = ops.expand_dims(outputs, 1)
    else:
        before = ops.concatenate([ops.zeros_like(outputs[:, :1]), outputs[:, :-1]], axis=1)
    kernel, recurrent = (ops.cast(w, "float32") for w in (cell.kernel, cell.recurrent_kernel))
    total = ops.matmul(ops.cast(x, "float32"), kernel) + ops.matmul(before, recurrent)
    if cell.bias is not None:
        total = total + ops.sum(
            ops.reshape(ops.cast(cell.bias, "float32"), (-1, total.shape[-1])), 0
        )
    parts = ops.split(total, blocks, axis=-1)
    return ops.concatenate([parts[k] for k in gates], axis=-1)


def _last_output(ran: Run) -> Tensor:
    """A sum of what the model gives out last, every number of it with another weight."""
    total = None
    for output in tree.flatten(ran.result):
        last = output[:, -1] if len(output.shape) == 3 else output
        last = flat(ops.cast(last, "float32"))
        # Sums of equal weights are constant behind a softmax.
        weights = np.random.default_rng(last.shape[-1]).standard_normal((1, last.shape[-1]))
        weights = ops.convert_to_tensor(weights, dtype="float32")
        part = ops.sum(last * weights, axis=-1, keepdims=True)
        total = part if total is None else total + part
    return total


def _quarters(valid: Array) -> tuple[Array, Array]:
    """Which steps are in the first and in the last quarter of the valid ones of their sequence."""
    order = np.cumsum(valid, axis=1)
    count = order[:, -1:]
    quarter = np.maximum(count // 4, 1)
    return valid & (order <= quarter), valid & (order > count - quarter)


def _early(profile: Array, valid: Array) -> float:
    """The median share of the energy that comes from the first quarter."""
    first, _ = _quarters(valid)
    total = (profile * valid).sum(axis=1)
    kept = total > 0
    return (
        float(np.median((profile * first).sum(axis=1)[kept] / total[kept])) if kept.any() else 0.0
    )


def _growth(profile: Array, valid: Array) -> float:
    """The median of the energy from the first quarter over that from the last."""
    first, last = _quarters(valid)
    # What is below rounding, of all of it, cannot be told from 0.
    least = np.finfo("float32").eps ** 2 * (profile * valid).sum(axis=1)
    kept = least > 0
    early, late = ((profile * part).sum(axis=1)[kept] for part in (first, last))
    ratios = np.maximum(early, least[kept]) / np.maximum(late, least[kept])
    return float(np.median(ratios)) if kept.any() else 1.0


def _memory(profile: Array, valid: Array) -> float:
    """The median number of last valid steps that hold most of the gradient."""
    needed: list[int] = []
    for values, heeded in zip(profile, valid, strict=True):
        backward: Sequence[float] = values[heeded][::-1]
        total = float(np.sum(backward))
        if total > 0:
            shares = np.cumsum(backward) / total
            needed.append(int(np.searchsorted(shares, thresholds.MEMORY_SHARE) + 1))
    return float(np.median(needed)) if needed else 0.0
