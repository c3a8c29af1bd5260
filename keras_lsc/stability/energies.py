"""The energy of a model's gradient at every layer, from one backward pass."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import arguments, backend
from keras_lsc.stability.data import draw_rows
from keras_lsc.stability.differences import DifferenceProbe
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.graph import structure_of
from keras_lsc.stability.layers import call_in_inference
from keras_lsc.stability.report import GradientEnergies
from keras_lsc.stability.taps import ROWS, Run, Taps, TapsProbe, flat

Tensor = Any
Array = np.ndarray


def gradient_energies(
    model: keras.Model, x: Any, y: Any = None, *, samples: int = ROWS, seed: int = 0
) -> GradientEnergies:
    """Measures how much of a gradient arrives at every layer of a model, by one backward pass.

    The gradient is taken by what each layer gives out. With `y` it is that of the loss that the
    model is compiled with, of every sequence by itself; else that of a random functional, white
    noise times the outputs of the model. Its twin goes forward: a small random difference of what
    the first layer gives out, by what every layer gives out. Nothing of the model is changed.

    Args:
        model: a built `keras.Model` of any kind: Sequential, functional, or with a `call` of its
            own. What runs once a step, such as a cell, counts with the layer around it.
        x: its inputs, as `measure` takes them; arrays or a nest of arrays for a model with a `call`
            of its own.
        y: targets of the loss, one array `(rows, ...)`.
        samples: number of sequences.
        seed: Integer, seed of the draw of the sequences and of the functional.

    Returns:
        `GradientEnergies` of every layer whose outputs are floats, in the order of their calls;
        print it for a table.

    Raises:
        TypeError: the model is no `keras.Model`, or x is not numeric.
        ValueError: the model is not built, or not compiled though `y` is given; it has no layers
            to look at; its weights are not finite; x does not fit; a number of no use.

    Source: this project, `docs/method/levelling.md`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> found = keras_lsc.gradient_energies(model, np.random.normal(size=(64, 20, 3)))
        >>> found.energy.shape, float(found.energy[-1])
        ((2,), 1.0)
    """
    samples = arguments.positive_integer("samples", samples)
    seed = arguments.integer("seed", seed, at_least=0)
    check_model(model)
    check_compiled(model, y)
    generator = np.random.default_rng([seed, 5])
    drawn = draw_tapped(model, x, y, samples, seed, generator)
    probe = EnergyProbe(model, drawn.taps, drawn.structure, drawn.functional)
    found = probe.measure(drawn.rows, drawn.others)
    differences = DifferenceProbe(model, drawn.taps, drawn.structure, (0,))
    return replace(found, forward=differences.measure(drawn.rows, generator))


def check_compiled(model: keras.Model, y: Any) -> None:
    """Raises ValueError if targets are given of a model without a loss."""
    if y is not None and not getattr(model, "compiled", False):
        raise ValueError(
            f"y is given, but model {model.name!r} is not compiled. Call model.compile(loss=...) "
            "first, or leave y out."
        )


def check_model(model: Any) -> None:
    """Raises TypeError or ValueError unless `model` is a built Keras model of finite weights."""
    check_built(model)
    refuse_non_finite_weights(model)


def check_built(model: Any) -> None:
    """Raises TypeError or ValueError unless `model` is a built model for any size of batch."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built: its layers have no weights yet. Call it on data "
            "first, or begin it with keras.Input(shape)."
        )
    if has_fixed_batch(model):
        raise ValueError(
            f"Model {model.name!r} takes batches of one size only, and its "
            "gradient is measured on others. Build it without a batch size, with stateful=False."
        )


def has_fixed_batch(model: keras.Model) -> bool:
    """Whether a model takes batches of one size only."""
    inputs = getattr(model, "inputs", None) or []
    return any(tensor.shape[0] is not None for tensor in inputs)


def draw(model: keras.Model, x: Any, samples: int, seed: int) -> tuple[list[Array], Any]:
    """Draws sequences of a model's inputs.

    Returns:
        One array an input, and a nest of the inputs that `tree.pack_sequence_as` packs them in.
    """
    structure = structure_of(model, x)
    return draw_rows(x, samples, seed, structure), structure


def first_of(rows: list[Array], structure: Any) -> Any:
    """The first two of some sequences, as the model takes them."""
    return tree.pack_sequence_as(structure, [array[:2] for array in rows])


def draw_with_targets(
    model: keras.Model, x: Any, y: Any, samples: int, seed: int
) -> tuple[list[Array], Any]:
    """The same, with the targets as one more array."""
    structure = structure_of(model, x)
    targets = np.asarray(y)
    like = keras.KerasTensor(
        (None, *targets.shape[1:]), keras.backend.standardize_dtype(targets.dtype)
    )
    given = x if isinstance(x, list | tuple) and len(tree.flatten(structure)) > 1 else [x]
    flat = [*tree.flatten(given), targets]
    rows = draw_rows(flat, samples, seed, [*tree.flatten(structure), like])
    _check_loss(model, first_of(rows[:-1], structure), rows[-1][:2])
    return rows, structure


def _check_loss(model: keras.Model, given: Any, targets: Array) -> None:
    """Raises ValueError if the loss of a model cannot be computed of targets."""
    given = tree.map_structure(ops.convert_to_tensor, given)
    with keras.StatelessScope():
        outputs = call_in_inference(model, given)
        try:
            model.compute_loss(given, ops.convert_to_tensor(targets), outputs, training=False)
        # Every backend, and every loss, has errors of its own.
        except Exception as error:
            shapes = [tuple(output.shape[1:]) for output in tree.flatten(outputs)]
            raise ValueError(
                f"y has rows of shape {targets.shape[1:]} and dtype {targets.dtype}, which the "
                f"loss of model {model.name!r} cannot compare with its outputs, of shape "
                f"{', '.join(map(str, shapes))}: {str(error).splitlines()[0]}"
            ) from error


class RandomFunctional:
    """White noise, another one for every sequence, times what is read.

    Args:
        taps: the layer calls of a model.
        read: index of the calls whose first argument is read, the heads; without any the outputs of
            the model are.
    """

    def __init__(self, taps: Taps, read: Sequence[int] = ()):
        self._read = tuple(read)
        self._shapes = [taps.calls[k].input_shape for k in self._read] or taps.output_shapes

    def draw(self, count: int, generator: np.random.Generator) -> list[Array]:
        """Draws what a call of it needs, for so many sequences."""
        drawn = [generator.standard_normal((count, *shape)) for shape in self._shapes]
        return [noise.astype("float32") for noise in drawn]

    def __call__(self, given: Any, ran: Run, noise: list[Tensor]) -> Tensor:
        """Returns one number a sequence, `(rows, 1)`."""
        del given
        read = [ran.arguments[k] for k in self._read] or tree.flatten(ran.result)
        products = [
            ops.sum(flat(ops.cast(what, "float32") * factor), axis=-1, keepdims=True)
            for what, factor in zip(read, noise, strict=True)
        ]
        return sum(products[1:], products[0])


class LossFunctional:
    """The loss that a model is compiled with, of every sequence by itself.

    Args:
        model: compiled.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    def __call__(self, given: Any, ran: Run, targets: list[Tensor]) -> Tensor:
        """Returns a number whose derivative by what a sequence went through is that of its loss."""
        (y,) = targets
        loss = self._model.compute_loss(x=given, y=y, y_pred=ran.result, training=False)
        # The loss is a mean over the rows.
        rows = ops.cast(ops.shape(y)[0], loss.dtype)
        return ops.cast(ops.reshape(loss * rows, (1, 1)), "float32")


Functional = RandomFunctional | LossFunctional


class Drawn(NamedTuple):
    """Sequences of a model, and the functional whose gradient is taken on them.

    Attributes:
        rows: one array an input, flat.
        structure: a nest of the inputs that the model takes.
        taps: the calls of its layers.
        functional: the loss where there are targets, else a random one.
        others: what the functional needs: the targets, or noise.
    """

    rows: list[Array]
    structure: Any
    taps: Taps
    functional: Functional
    others: list[Array]


def draw_tapped(
    model: keras.Model, x: Any, y: Any, samples: int, seed: int, generator: np.random.Generator
) -> Drawn:
    """Draws sequences, and looks at the calls that a model makes on them.

    Args:
        model: built, and with targets compiled.
        x: its inputs.
        y: targets, or None.
        samples: number of sequences.
        seed: of the draw of the sequences.
        generator: of a random functional.
    """
    if y is None:
        rows, structure = draw(model, x, samples, seed)
    else:
        (*rows, targets), structure = draw_with_targets(model, x, y, samples, seed)
    taps = Taps(model, first_of(rows, structure))
    if not taps.calls:
        raise ValueError(f"Model {model.name!r} calls no layer whose output is a float tensor.")
    if y is not None:
        return Drawn(rows, structure, taps, LossFunctional(model), [targets])
    functional = RandomFunctional(taps)
    return Drawn(rows, structure, taps, functional, functional.draw(len(rows[0]), generator))


class GradientProbe(TapsProbe):
    """A model that looks at the gradient of a functional of another one.

    Args:
        model: the model to look at.
        taps: its layer calls.
        structure: a nest of the inputs that the model takes.
        functional: whose gradient is taken.
    """

    def __init__(self, model: keras.Model, taps: Taps, structure: Any, functional: Functional):
        super().__init__(model, taps, structure, "gradient")
        self._functional = functional


class EnergyProbe(GradientProbe):
    """A model whose output are gradient energies of another, so `predict` compiles and runs it."""

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns energies and those of early steps, `(rows, calls)`.

        The inputs are those of the model and what the functional needs.
        """
        given, others = self.parted(inputs)
        energies, early = [], []
        (gradients,), _ = squared_gradients(
            self, given, [lambda ran: self._functional(given, ran, others)]
        )
        for by_step, call in zip(gradients, self.taps.calls, strict=True):
            energies.append(ops.sum(by_step, axis=-1))
            quarter = ops.sum(by_step[:, : max(1, by_step.shape[1] // 4)], axis=-1)
            early.append(quarter if len(call.shape) == 2 else ops.full_like(quarter, np.nan))
        return ops.stack(energies, axis=-1), ops.stack(early, axis=-1)

    def measure(self, rows: list[Array], others: list[Array]) -> GradientEnergies:
        """Measures on some sequences.

        Args:
            rows: one array an input, flat.
            others: what the functional needs.
        """
        energy, early = (part.mean(axis=0) for part in self.by_batches([*rows, *others]))
        reach = np.divide(early, energy, out=np.full_like(early, np.nan), where=energy > 0)
        reaches = tuple(None if np.isnan(share) else share for share in reach.tolist())
        return GradientEnergies(
            tuple(call.name for call in self.taps.calls),
            tuple(energy.tolist()),
            reaches,
            len(rows[0]),
        )


def squared_gradients(
    probe: TapsProbe,
    given: Any,
    functionals: Sequence[Callable[[Run], Tensor]],
    inputs: Sequence[int] = (),
    look: Callable[[Run], Any] | None = None,
) -> tuple[list[list[Tensor]], Any]:
    """The squared gradients by what every call gives out, step by step, of one forward pass.

    Args:
        probe: whose taps are used.
        given: a batch of inputs, as the model takes them.
        functionals: of what the model does, to a number a sequence, `(rows, 1)`, or their sum.
        inputs: index of the inputs by which they are taken as well, which have to be floats.
        look: of what the model does, to a nest of tensors.

    Returns:
        Of every functional a list: of every call, then of every one of these inputs,
        `(rows, steps)`, summed over what one step has; of what has no axis of steps `(rows, 1)`.
        And what `look` saw.
    """
    flat_inputs = tree.flatten(given)
    shapes = [call.shape for call in probe.taps.calls]
    shapes += [tuple(flat_inputs[k].shape[1:]) for k in inputs]
    rows = ops.shape(flat_inputs[0])[0]

    def values_of(added: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        parts = _unflattened(added, shapes)
        moved = list(flat_inputs)
        for k, part in zip(inputs, parts[len(probe.taps.calls) :], strict=True):
            moved[k] = moved[k] + ops.cast(part, moved[k].dtype)
        with probe.taps.untouched():
            packed = tree.pack_sequence_as(given, moved)
            ran = probe.taps.run(packed, parts[: len(probe.taps.calls)])
            values = tuple(functional(ran) for functional in functionals)
            return values, () if look is None else look(ran)

    size = sum(math.prod(shape) for shape in shapes)
    values, pullbacks, seen = backend.pullbacks(values_of, ops.zeros((rows, size), dtype="float32"))

    def by_step(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
        steps = shape[0] if shape else 1
        return ops.sum(ops.square(ops.reshape(gradient, (rows, steps, -1))), axis=-1)

    found = [
        [
            by_step(part, shape)
            for part, shape in zip(
                _unflattened(pullback(ops.ones_like(value)), shapes), shapes, strict=True
            )
        ]
        for value, pullback in zip(values, pullbacks, strict=True)
    ]
    return found, seen


def _unflattened(added: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    starts = [0, *ends[:-1]]
    rows = ops.shape(added)[0]
    return [
        ops.reshape(added[:, int(start) : int(end)], (rows, *shape))
        for start, end, shape in zip(starts, ends, shapes, strict=True)
    ]
