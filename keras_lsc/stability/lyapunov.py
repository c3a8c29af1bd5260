"""The leading Lyapunov exponents of a model's recurrent layers, along real sequences.

A local radius says what one step does to the most stretched direction of that step. What many
steps do is said by the singular values of the product of their Jacobians. QR of the products, step
after step, keeps their directions apart (Benettin et al. 1980). The product is followed from the
last step to the first with transposed Jacobians: it has the same singular values, and a vector is
multiplied by a transposed Jacobian in one backward pass, of whatever a cell is made.

The state of stacked layers has a block triangular Jacobian, as a layer reads those below and none
above. Its exponents are those of the layers, all together.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.stability.graph import Call
from keras_lsc.stability.probe import ModelProbe
from keras_lsc.stability.radius import in_precision
from keras_lsc.stability.recorder import (
    Direction,
    differentiable_states,
    directions_of,
    state_shapes,
)
from keras_lsc.stability.tables import html_table, text_table
from keras_lsc.stability.transitions import Transitions
from keras_lsc.stability.transitions.any_model import draw_and_find
from keras_lsc.stability.transitions.points import at_cell, next_state

Tensor = Any
Array = np.ndarray

# Parts that a sequence is cut into for the standard error.
_BLOCKS = 4
# What is written for a stretch that is zero, and which share of the largest one is rounding.
_LEAST = 1e-30
_ROUNDING = 4 * float(np.finfo("float32").eps)
LYAPUNOV_HEADER = ("layer", "state", "exponents", "standard errors")


@dataclass(frozen=True)
class LyapunovExponents:
    """The leading Lyapunov exponents of the recurrent layers of a model, per step.

    Attributes:
        layers: names of the layers (and directions, and stacked cells), bottom to top.
        sizes: of their states.
        exponents: of each layer, largest first; -inf where a direction is lost in one step.
        errors: standard errors of them.
        sequences: number of sequences.
        steps: mean number of steps of a sequence that count.
        unseen: what could not be followed in a model that was watched, a sentence each.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    exponents: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float, ...], ...]
    sequences: int
    steps: float
    unseen: tuple[str, ...] = ()

    @property
    def stack(self) -> np.ndarray:
        """The leading exponents of the state of all layers together, largest first."""
        count = max(len(of_layer) for of_layer in self.exponents)
        return np.sort(np.concatenate([np.asarray(e) for e in self.exponents]))[::-1][:count]

    def to_dict(self) -> dict[str, Any]:
        """Returns the exponents as a dictionary of JSON types; None stands for -inf."""
        return {
            "layers": list(self.layers),
            "sizes": list(self.sizes),
            "exponents": [[_finite(value) for value in of_layer] for of_layer in self.exponents],
            "errors": [[_finite(value) for value in of_layer] for of_layer in self.errors],
            "sequences": self.sequences,
            "steps": self.steps,
            **({"unseen": list(self.unseen)} if self.unseen else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LyapunovExponents":
        """Returns the exponents of which `values` is the dictionary, as `to_dict` gives it."""

        def numbers(name: str, lost: float) -> tuple[tuple[float, ...], ...]:
            rows = values[name]
            return tuple(tuple(lost if v is None else float(v) for v in row) for row in rows)

        return cls(
            tuple(values["layers"]),
            tuple(values["sizes"]),
            numbers("exponents", -math.inf),
            numbers("errors", math.nan),
            values["sequences"],
            values["steps"],
            tuple(values.get("unseen", ())),
        )

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table as texts, in the order of `LYAPUNOV_HEADER`."""
        return [
            (name, str(size), _numbers(values, "+.4f"), _numbers(errors, ".4f"))
            for name, size, values, errors in zip(
                self.layers, self.sizes, self.exponents, self.errors, strict=True
            )
        ]

    @property
    def notes(self) -> list[str]:
        """What is to be said below the table, a sentence each."""
        largest = float(self.stack[0])
        if largest > 0:
            meaning = "two near states part: backward, gradients explode"
        elif math.isfinite(largest) and largest < 0:
            meaning = f"a state is forgotten by half in {math.log(2) / -largest:.3g} steps"
        else:
            meaning = "distances stay" if largest == 0 else "a state is forgotten in one step"
        return [
            f"per step, mean over {self.sequences} sequences of {self.steps:.4g} steps",
            f"largest exponent {largest:+.4f}: {meaning}",
            *(f"not seen: {what}" for what in self.unseen),
        ]

    def __str__(self) -> str:
        return "\n".join([text_table(LYAPUNOV_HEADER, self.rows, 1), *self.notes])

    def _repr_html_(self) -> str:
        notes = "<br>".join(html.escape(note) for note in self.notes)
        return f"{html_table('Lyapunov exponents', LYAPUNOV_HEADER, self.rows, 1)}<p>{notes}</p>"


def lyapunov(
    model: keras.Model,
    x: Any,
    k: int = 4,
    *,
    samples: int = 16,
    transient: int | None = None,
    seed: int = 0,
) -> LyapunovExponents:
    """Measures the leading Lyapunov exponents of every recurrent layer, along real sequences.

    The mean over steps of the logarithms by which the time transitions stretch k directions that
    are kept apart. A positive one is chaos, and gradients that explode; -1/s forgets in s steps.
    Steps that are masked do not count, sequences that are padding from end to end neither.

    Args:
        model: a built `keras.Model` with recurrent layers, of any kind, as of `measure`.
        x: its inputs, as `measure` takes them; long sequences give closer numbers.
        k: number of exponents of a layer; all of them where its state is smaller.
        samples: number of sequences.
        transient: number of steps at both ends of a sequence that do not count: at the beginning
            states, and at the end directions, are not yet where they stay. A tenth without it.
        seed: Integer, seed of the draw of the sequences and of the first directions.

    Returns:
        `LyapunovExponents`; print it for a table.

    Raises:
        TypeError: `model` is no Keras model, or x is not numeric.
        ValueError: the model has no recurrent layer that is seen, or an unsupported part, its
            weights are not finite, no step is left to count, or another argument is out of range.

    Source: Benettin et al. 1980; of recurrent networks Engelken et al., arXiv 2006.02427.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((50, 3)), keras.layers.GRU(16)])
        >>> found = keras_lsc.lyapunov(model, np.random.normal(size=(16, 50, 3)), k=2)
        >>> len(found.exponents[0]), found.exponents[0][0] > found.exponents[0][1]
        (2, True)
    """
    k = arguments.positive_integer("k", k)
    samples = arguments.positive_integer("samples", samples)
    seed = arguments.integer("seed", seed, at_least=0)
    if transient is not None:
        transient = arguments.integer("transient", transient, at_least=0)
    found, rows, _ = draw_and_find(model, x, samples, seed)
    probe = ExponentProbe(found, k)
    if not probe.cells:
        why = "; ".join(probe.unseen) or "it is feed-forward, or no recurrent layer of it runs"
        raise ValueError(f"Model {model.name!r} has no time in which distances could grow: {why}.")
    return exponents_of(probe, rows, transient, seed)


def exponents_of(
    probe: "ExponentProbe", rows: list[Array], transient: int | None, seed: int
) -> LyapunovExponents:
    """The exponents that a probe, compiled once for any weights, finds on some sequences.

    Args:
        probe: of the model.
        rows: one array an input, flat.
        transient: as of `lyapunov`.
        seed: of the first directions.
    """
    generator = np.random.default_rng([seed, 6])
    found = probe.predict_on_batch([*rows, *probe.draw(len(rows[0]), generator)])
    exponents, errors, counted = [], [], []
    for part in found:
        stretches, valid = (np.asarray(part[of], "float64") for of in ("stretches", "valid"))
        weights = _weights(valid, transient)
        exponents.append(_means(stretches, weights))
        errors.append(_errors(stretches, weights > 0))
        counted.append(float((weights > 0).sum(axis=1).mean()))
    return LyapunovExponents(
        tuple(cell.name for cell in probe.cells),
        tuple(size for size, _ in probe.shapes),
        tuple(tuple(sorted(values.tolist(), reverse=True)) for values in exponents),
        tuple(tuple(values.tolist()) for values in errors),
        len(rows[0]),
        float(np.mean(counted)),
        probe.unseen,
    )


@dataclass(frozen=True)
class _Cell:
    """A cell that runs along time: of a call, one of its directions, and which of its cells."""

    call: Call
    direction: int
    index: int
    name: str

    @property
    def owner(self) -> Direction:
        return directions_of(self.call.layer)[self.direction]

    @property
    def cell(self) -> Any:
        return self.owner.cells[self.index]


class ExponentProbe(ModelProbe):
    """A model whose output are logarithms of stretches in another.

    Args:
        transition_map: of the model to look at.
        k: number of directions of a state that are followed.

    Attributes:
        cells: what runs along time, a row each of what is returned.
        shapes: size of the state of each, and number of its directions.
        unseen: what could not be followed, a sentence each.
    """

    def __init__(self, transition_map: Transitions, k: int):
        super().__init__(transition_map.model, "exponent_probe", dtype="float32")
        self._map = transition_map
        self.cells, not_followed = _cells(transition_map)
        self.unseen = (*not_followed, *transition_map.unseen)
        self.shapes = [(size, min(size, k)) for size in map(_size, self.cells)]

    def draw(self, rows: int, generator: np.random.Generator) -> list[Array]:
        """Draws the first directions, for so many sequences, `(rows, size, k)` of every cell."""
        return [_orthonormal(rows, *shape, generator) for shape in self.shapes]

    def call(self, inputs: list[Tensor]) -> list[dict[str, Tensor]]:
        """Returns of every cell "stretches", `(rows, steps, k)`, and "valid", `(rows, steps)`."""
        first = len(inputs) - len(self.cells)
        x, directions = inputs[:first], inputs[first:]
        points = self._map.sample(x, ops.zeros((ops.shape(x[0])[0],), dtype="float32"))
        found = []
        for cell, start in zip(self.cells, directions, strict=True):
            sequence, states = _along_time(cell, points.records[cell.call])
            valid = points.valid_steps(cell.call)
            if cell.owner.go_backwards:
                valid = ops.flip(valid, axis=1)
            stretches = _stretches(cell.cell, sequence, states, valid == 1, start)
            found.append({"stretches": stretches, "valid": valid})
        return found


def _cells(transition_map: Transitions) -> tuple[list[_Cell], list[str]]:
    """The cells whose states follow one another, and why those of others do not."""
    found, not_followed = [], []
    for call in transition_map.recurrent_calls:
        why = transition_map.not_followed(call)
        if why is not None:
            not_followed.append(why)
            continue
        for number, direction in enumerate(directions_of(call.layer)):
            for index, cell in enumerate(direction.cells):
                name = direction.name_of(cell) + transition_map.graph.suffix(call)
                found.append(_Cell(call, number, index, name))
    return found, not_followed


def _size(cell: _Cell) -> int:
    shapes = state_shapes(cell.cell)
    return sum(math.prod(shapes[k]) for k in differentiable_states(cell.cell))


def _along_time(cell: _Cell, record: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """What a cell read at every step, and its states before it, in the order that it took them."""
    sequence = record["inputs"]
    if cell.owner.go_backwards:
        sequence = ops.flip(sequence, axis=1)
    states = record["states"][cell.direction]
    steps = ops.shape(sequence)[1]
    # All steps of all rows at once.
    merged = [ops.reshape(x, (-1, *x.shape[2:])) for x in (sequence, *states)]
    inputs, before = at_cell(cell.owner.cells, cell.index, merged[0], merged[1:])
    sequence, *states = (ops.reshape(x, (-1, steps, *x.shape[1:])) for x in (inputs, *before))
    return sequence, states


def _stretches(
    cell: Any, sequence: Tensor, states: list[Tensor], valid: Tensor, start: Tensor
) -> Tensor:
    """Logarithms by which every step stretches k directions, `(rows, steps, k)`.

    Args:
        cell: one step.
        sequence: `(rows, steps, features)`.
        states: before every step, each `(rows, steps, ...)`.
        valid: `(rows, steps)` booleans; other steps leave everything as it is.
        start: the first directions, orthonormal, `(rows, size, k)`.
    """
    count = start.shape[2]

    def repeated(x: Tensor) -> Tensor:
        return ops.repeat(x, count, axis=0)

    def pulled_back(x: Tensor, before: list[Tensor], directions: Tensor) -> Tensor:
        function, state = next_state(cell, repeated(x), [repeated(part) for part in before])
        value, pullback = backend.vjp(*in_precision(function, state))
        # A row a direction.
        rows = ops.reshape(ops.transpose(directions, (0, 2, 1)), ops.shape(value))
        pulled = pullback(ops.cast(rows, value.dtype))
        pulled = ops.reshape(ops.cast(pulled, directions.dtype), (-1, count, start.shape[1]))
        return ops.transpose(pulled, (0, 2, 1))

    def advance(carry: Tensor, at: list[Any]) -> tuple[Tensor, Tensor]:
        x, keep, *before = at
        directions = carry[:, :-1]
        pulled = pulled_back(x, before, directions)
        q, r = ops.qr(pulled)
        stretches = ops.abs(ops.diagonal(r, axis1=1, axis2=2))
        # Below that it is rounding; QR goes on with any direction orthogonal to the others.
        is_lost = stretches <= _ROUNDING * ops.max(stretches, axis=-1, keepdims=True)
        logarithms = ops.log(ops.where(is_lost, _LEAST, ops.maximum(stretches, _LEAST)))
        keep = ops.reshape(keep, (-1, 1, 1))
        logarithms = ops.expand_dims(logarithms, 1)
        carry = ops.concatenate(
            [
                ops.where(keep, q, directions),
                ops.where(keep, logarithms, ops.zeros_like(logarithms)),
            ],
            axis=1,
        )
        return carry, carry

    steps = [ops.flip(ops.swapaxes(part, 0, 1), axis=0) for part in (sequence, valid, *states)]
    # Keras' scan on TensorFlow emits what it carries: the logarithms are one more row of it.
    first = ops.concatenate([start, ops.zeros_like(start[:, :1])], axis=1)
    _, found = ops.scan(advance, first, steps)
    return ops.swapaxes(ops.flip(found[:, :, -1], axis=0), 0, 1)


def _orthonormal(rows: int, size: int, k: int, generator: np.random.Generator) -> Array:
    return np.linalg.qr(generator.standard_normal((rows, size, k)))[0].astype("float32")


def _weights(valid: Array, transient: int | None) -> Array:
    """How much every step counts, `(rows, steps)`: smoothly from none to all and back.

    What turns as it is stretched, as by a rotation, is averaged far faster by weights that begin
    and end smoothly than by equal ones (Das et al. 2017).
    """
    order = np.cumsum(valid > 0, axis=1)
    count = order[:, -1:]
    skipped = count // 10 if transient is None else np.full_like(count, transient)
    inside = (valid > 0) & (order > skipped) & (order <= count - skipped)
    left = np.maximum(count - 2 * skipped, 1)
    place = np.clip((order - skipped - 0.5) / left, 1e-3, 1 - 1e-3)
    weights = np.where(inside, np.exp(-1.0 / (place * (1 - place))), 0.0)
    if not inside.any():
        raise ValueError(
            f"No step is left to count: sequences have {int(count.max())} valid steps at most, and "
            f"{int(skipped.max())} at both ends are left out. Give longer ones, or a smaller "
            "transient."
        )
    return weights


def _means(stretches: Array, weights: Array) -> Array:
    """Weighted means over steps and sequences, `(k,)`; -inf where a direction was lost."""
    values = np.einsum("rt,rtk->k", weights, stretches) / weights.sum()
    lost = (stretches <= math.log(_LEAST) * 0.99) & (weights > 0)[..., None]
    return np.where(lost.any(axis=(0, 1)), -np.inf, values)


def _errors(stretches: Array, inside: Array) -> Array:
    """Standard errors, `(k,)`, from the means of parts of the sequences."""
    parts = []
    for values, counts in zip(stretches, inside, strict=True):
        for block in np.array_split(values[counts], _BLOCKS):
            if len(block):
                parts.append(block.mean(axis=0))
    if len(parts) < 2:
        return np.full(stretches.shape[-1], np.nan)
    return np.std(parts, axis=0, ddof=1) / math.sqrt(len(parts))


def _numbers(values: Sequence[float], form: str) -> str:
    return " ".join(f"{value:{form}}" for value in values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
