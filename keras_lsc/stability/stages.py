"""The layers of a model that the gradient passes one after the other, and its energy at each."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.differences import DifferenceProbe
from keras_lsc.stability.energies import EnergyProbe, RandomFunctional, first_of, has_fixed_batch
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.levers import read_through
from keras_lsc.stability.report import GradientEnergies
from keras_lsc.stability.taps import Tap, Taps, TapsProbe, leaves

Array = np.ndarray
Tensor = Any

# Sequences with which it is tried which layer reads which, and what counts as no difference.
_TRIED = 2
_ROUNDING = 1e-5


class Stages:
    """The calls of layers that read others through weights, but for the heads on top.

    A head is what no other layer reads and is not recurrent; the gradient is that of a random
    functional of what the heads read or, without one, of the outputs.

    Args:
        model: a built model of any kind.
        rows: sequences, one array an input, flat.
        structure: a nest of the inputs that the model takes.

    Attributes:
        calls: one `Tap` a stage, in the order of their calls.
        below: of every stage, by index, those that it reads with none between.

    Raises:
        ValueError: the model has no such layer; see `has_stages`.
    """

    def __init__(self, model: keras.Model, rows: list[Array], structure: Any):
        taps = Taps(model, first_of(rows, structure), _is_stage)
        below = _below(model, taps, rows, structure)
        read: set[int] = set().union(*below)
        heads = [
            k
            for k, call in enumerate(taps.calls)
            if k not in read and below[k] and not is_recurrent(call.layer)
        ]
        kept = [k for k in range(len(taps.calls)) if k not in heads]
        if not kept:
            raise ValueError(
                f"Model {model.name!r} has no layer that reads others through weights, beside its "
                "head: there is no gradient to follow from layer to layer."
            )
        self.calls: list[Tap] = [taps.calls[k] for k in kept]
        self.below = [{kept.index(j) for j in below[k]} for k in kept]
        self._kept = kept
        self._functional = RandomFunctional(taps, heads)
        self._probe = EnergyProbe(model, taps, structure, self._functional)
        first = [kept[k] for k in range(len(kept)) if not self.below[k]]
        self._differences = DifferenceProbe(model, taps, structure, first)
        self._means = _MeanProbe(model, taps, structure)

    def measure(
        self, rows: list[Array], generator: np.random.Generator, forward: bool = False
    ) -> GradientEnergies:
        """The energy at every stage, on some sequences and with a functional drawn anew.

        Args:
            rows: one array an input, flat.
            generator: of the functional, and of differences.
            forward: whether to measure differences as well.
        """
        found = self._probe.measure(rows, self._functional.draw(len(rows[0]), generator))
        differences = self._differences.measure(rows, generator) if forward else None
        return GradientEnergies(
            tuple(found.layers[k] for k in self._kept),
            tuple(found.energies[k] for k in self._kept),
            tuple(found.reaches[k] for k in self._kept),
            found.sequences,
            None if differences is None else tuple(differences[k] for k in self._kept),
        )

    def mean_inputs(self, rows: list[Array]) -> list[Array]:
        """What every stage reads on average, `(features,)`, over sequences, steps and places."""
        found = self._means.by_batches(rows)
        return [found[k].mean(axis=0) for k in self._kept]


class _MeanProbe(TapsProbe):
    """A model whose outputs are the means of what the calls of another one read."""

    def __init__(self, model: keras.Model, taps: Taps, structure: Any):
        super().__init__(model, taps, structure, "mean")

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        """Returns `(rows, features)` of every call."""
        given, _ = self.parted(inputs)
        with self.taps.untouched():
            read = self.taps.run(given, self.taps.nothing(ops.shape(inputs[0])[0])).arguments
        return [
            ops.mean(ops.cast(what, "float32"), axis=tuple(range(1, what.ndim - 1)))
            if what.ndim > 2
            else ops.cast(what, "float32")
            for what in read
        ]


def has_stages(model: keras.Model) -> bool:
    """Whether a model has layers, beside a head, that the gradient passes.

    Not one whose batch size is fixed, as of stateful layers: a gradient is measured on other ones.
    """
    if has_fixed_batch(model):
        return False
    stages = [layer for layer in leaves(model) if _is_stage(layer)]
    return len(stages) > 1 or any(is_recurrent(layer) for layer in stages)


def _is_stage(layer: keras.Layer) -> bool:
    return is_recurrent(layer) or bool(read_through(layer))


def _below(model: keras.Model, taps: Taps, rows: list[Array], structure: Any) -> list[set[int]]:
    """Of every call, the calls that it reads with none between.

    Found by trial, as a model with a `call` of its own has no graph: copies of the same
    sequences run side by side, and in copy k something is added to the output of call k.
    """
    calls = taps.calls
    own = {id(layer) for layer in model.layers} if isinstance(model, keras.Sequential) else set()
    is_called_once = len({id(call.layer) for call in calls}) == len(calls)
    if is_called_once and all(id(call.layer) in own for call in calls):  # a chain
        return [{k - 1} if k else set() for k in range(len(calls))]
    copies = len(calls) + 1
    few = min(_TRIED, len(rows[0]))
    inputs = tree.pack_sequence_as(
        structure, [np.tile(array[:few], (copies,) + (1,) * (array.ndim - 1)) for array in rows]
    )
    generator = np.random.default_rng(0)
    added = []
    for k, call in enumerate(calls):
        noise = np.zeros((copies, few, *call.shape), "float32")
        noise[k] = generator.standard_normal(noise[k].shape)
        added.append(noise.reshape(-1, *call.shape))

    def outputs(inputs: Any, added: list[Tensor]) -> list[Tensor]:
        with taps.untouched():
            return taps.run(inputs, added).outputs

    found = backend.compiled(outputs)(
        tree.map_structure(ops.convert_to_tensor, inputs), [ops.convert_to_tensor(x) for x in added]
    )
    above: list[set[int]] = []
    for j, output in enumerate(found):
        values = ops.convert_to_numpy(output).astype("float64").reshape(copies, -1)
        apart = np.abs(values[:-1] - values[-1]).max(axis=-1)
        # What rows that are the same differ by is rounding.
        above.append({k for k in range(j) if apart[k] > _ROUNDING * np.abs(values[-1]).max()})
    return _direct(above)


def _direct(reached_from: list[set[int]]) -> list[set[int]]:
    """Of every call, those that reach it, and no other call that reaches it."""
    for reached in reached_from:
        for k in sorted(reached):
            reached |= reached_from[k]
    return [
        {k for k in reached if not any(k in reached_from[other] for other in reached)}
        for reached in reached_from
    ]
