"""Levelled starts: one scale a layer, until the gradient has the same energy at every layer.

One backward pass measures the energy of the gradient at all layers (`stability.energies`). How much
of it passes through a layer to the one below is decided by the size of the weights through which
it reads that one, so every pass corrects every scale. Recurrent weights, biases and time constants
stay as they are, and with them the dynamics in time.

Two kinds of layers want more. Spiking ones are scaled by the height of their surrogate gradient,
which changes nothing that they do, once they fire. Where an activation is flat, as the sigmoid is,
a scale that makes up for it saturates the cells: they are pre-trained first, and what they read on
average keeps its part in what they compute.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_lsc.pretrainer import State
from keras_lsc.progress import Progress
from keras_lsc.stability.data import draw_rows, hold_out, rows_to_draw
from keras_lsc.stability.energies import check_model
from keras_lsc.stability.firing_rates import init_firing_rates, spiking_layers
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.graph import is_graph_model, structure_of
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.levers import (
    bias_beside,
    has_flat_activation,
    heights_of_gradient,
    read_through,
)
from keras_lsc.stability.measure import Probe, transitions_or_why
from keras_lsc.stability.placing import place
from keras_lsc.stability.recorder import is_spiking
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.stability.stages import Stages
from keras_lsc.stability.taps import ROWS
from keras_lsc.stability.transitions import TransitionMap

Array = np.ndarray

# Passes after which levelling gives up, and sequences of the last look.
_PASSES = 25
_CHECKED = 512
# Of these the means are held.
_SEQUENCES_OF_MEANS = 128
# Of spiking layers a few sequences have most of the energy; where there are no steps, fewer parts
# of it are averaged.
_ROWS_OF_NOISE = 4 * ROWS
# While a ratio is further from its target than this, as a logarithm, a pass takes so much of the
# step to it, of at most that length. Then what is left is mostly noise: passes have more sequences
# and are averaged, from so many on, and at the latest after so many far ones.
_NEAR = 0.3
_DAMPING = 0.7
_LARGEST_STEP = 0.7
_LINEAR, _RESPONSES = 2.0, (0.4, 2.0)
# A height went too far where the ratio is off by more than this on the other side; by what factor
# its steps may be longer again with every pass.
_PAST, _LONGER = 0.1, 1.2
# Steps whose effect cannot be told from noise.
_FAINT = 0.005
_LEAST = 0.3
_MORE = 4
_AVERAGED = 3
_WINDOW = 4
_MOST_FAR = 12
# What is left after the last pass is noise for the most part: so many tolerances are accepted.
_AT_LAST = 2.0
# And this many of sequences that it was not levelled on.
_HELD_OUT = 3.0


class NotLevelledError(RuntimeError):
    """Levelling ended with a layer outside the tolerance; the model was left as it was.

    Attributes:
        energies: `GradientEnergies` of the last pass.
    """

    def __init__(self, message: str, energies: GradientEnergies):
        super().__init__(message)
        self.energies = energies


def level(
    model: keras.Model,
    x: Any,
    growth: float,
    tolerance: float,
    samples: int | None,
    seed: int,
    verbose: str | int,
    pretrain: Callable[[], Any] | None = None,
) -> StabilityReport:
    """Levels a model in place; see `keras_lsc.stabilize`.

    Args:
        model: a built `keras.Model`.
        x: its inputs.
        growth: E_l / E_(l+1) that is wanted.
        tolerance: largest relative distance of an energy from the one that is wanted.
        samples: points at which radii are measured, where the model has radii; None for no radii.
        seed: of what is drawn.
        verbose: as of `stabilize`.
        pretrain: pre-trains the model, where its activations are flat; None for never.

    Returns:
        The report of sequences that it was not levelled on.
    """
    check_model(model)
    structure, training, held_out = _drawn(model, x, seed)
    before = State(model.variables)
    progress = Progress(model.name, _PASSES, verbose)
    try:
        _have_fire(model, training)
        leveller = Leveller(model, training, structure, growth, seed)
        if pretrain is not None and leveller.is_flat():
            pretrain()
            leveller.holds_means = True
        passes = leveller.level(_PASSES, tolerance, progress.on_pass)
        report = _report(model, held_out, structure, samples, seed)
        few = [array[:_CHECKED] for array in held_out]
        gradient = leveller.checked(few, passes, tolerance)
        report = replace(report, gradient=gradient, not_levelled=tuple(leveller.fixed))
        progress.end_of_passes(gradient.spread)
    except BaseException:
        before.restore()
        progress.leave()
        raise
    return report


def _report(
    model: keras.Model, rows: list[Array], structure: Any, samples: int | None, seed: int
) -> StabilityReport:
    """The radii of a model, or why there are none."""
    if samples is None:
        why = "levelling does not go by them; keras_lsc.measure(model, x) has them, or samples=64"
    else:
        found, why = transitions_or_why(model, rows, structure)
        if found is not None:
            return Probe(model, transition_map=found).report(rows, samples, seed)
    return StabilityReport.without_radii(model.name, why, seed, samples or 0)


def leveller_of(model: keras.Model, x: Any, seed: int) -> "Leveller":
    """What would level a model, which so far has changed nothing.

    Args:
        model: a built `keras.Model`.
        x: its inputs.
        seed: of what is drawn.
    """
    structure, training, _ = _drawn(model, x, seed)
    return Leveller(model, training, structure, 1.0, seed)


def _drawn(model: keras.Model, x: Any, seed: int) -> tuple[Any, list[Array], list[Array]]:
    """A nest of the inputs that a model takes, sequences of them, and others to look at last."""
    structure = structure_of(model, x)
    return structure, *hold_out(draw_rows(x, rows_to_draw(structure), seed, structure))


def _have_fire(model: keras.Model, rows: list[Array]) -> None:
    """Gives silent spiking layers a firing rate, of models whose transitions are found."""
    if is_graph_model(model) and spiking_layers(model):
        init_firing_rates(TransitionMap(model), rows)


class Leveller:
    """Scales a model's layers until the gradient has the energies that are wanted.

    Args:
        model: a built model.
        rows: sequences, one array an input, flat.
        structure: a nest of the inputs that the model takes.
        growth: E_l / E_(l+1) that is wanted.
        seed: of the order of the sequences and of the functionals.

    Attributes:
        fixed: names of the layers whose scale may not move, though they read others.
        holds_means: whether biases make up for what a scale does to the mean of what a layer reads.

    Raises:
        ValueError: the model has no two layers to level, or all that would do it are frozen.
    """

    def __init__(
        self, model: keras.Model, rows: list[Array], structure: Any, growth: float, seed: int
    ):
        self._model = model
        self._rows = rows
        self._growth = growth
        self._generator = np.random.default_rng([seed, 4])
        self._order = np.zeros(0, int)
        self.holds_means = False
        self._stages = Stages(model, rows, structure)
        calls, below = self._stages.calls, self._stages.below
        recurrent = [call.layer for call in calls if is_recurrent(call.layer)]
        is_noisy = not recurrent or any(is_spiking(layer) for layer in recurrent)
        self._count = _ROWS_OF_NOISE if is_noisy else ROWS
        frozen = frozen_variables(model)
        self._readers: list[_Reader] = []
        self.fixed: list[str] = []

        def free(some: Sequence[Any]) -> list[Any]:
            return [weight for weight in some if weight is not None and id(weight) not in frozen]

        for k, call in enumerate(calls):
            reads = tuple(sorted(below[k]))
            heights, weights = free(heights_of_gradient(call.layer)), free(read_through(call.layer))
            if reads and heights:
                self._readers.append(_Reader(k, reads, heights, [], []))
            elif reads and weights:
                biases = free([bias_beside(call.layer)])
                self._readers.append(_Reader(k, reads, [], weights, biases))
            elif reads:
                self.fixed.append(call.name)
        self._ranks = _ranks(below)
        if not self._readers:
            reason = (
                f"what would do it is frozen, or no weight that is known: {', '.join(self.fixed)}"
                if self.fixed
                else "no layer with weights reads another one, beside its head"
            )
            raise ValueError(f"Model {model.name!r} cannot be levelled: {reason}.")

    def look(self) -> GradientEnergies:
        """The energies as they are, on as many sequences as a late pass has."""
        return self._pass(_MORE)

    def is_flat(self) -> bool:
        """Whether most of the layers that would be scaled have a flat activation."""
        layers = [self._stages.calls[reader.call].layer for reader in self._readers]
        return float(np.mean([has_flat_activation(layer) for layer in layers])) > 0.5

    def level(self, passes: int, tolerance: float, tell: Callable[[int, float], None]) -> int:
        """Moves the scales until every layer has the energy that is wanted of it.

        Args:
            passes: largest number of passes.
            tolerance: largest relative distance of an energy from the one that is wanted; twice
                that is accepted after the last pass.
            tell: told of every pass, with the largest factor by which an energy is off.

        Returns:
            The number of passes.

        Raises:
            NotLevelledError: that was not reached.
            FloatingPointError: gradients are not finite.
        """
        near: list[Array] = []
        response, steps, former = _LINEAR, np.zeros(len(self._readers)), None
        limits = np.full(len(self._readers), _LARGEST_STEP)
        mean = np.zeros(len(self._stages.calls))
        for number in range(1, passes + 1):
            found = self._pass(_MORE if near else 1)
            levels = self._levels(found)
            deviations = np.array([self._deviation(levels, reader) for reader in self._readers])
            is_near = np.abs(deviations).max() < _NEAR or number > _MOST_FAR
            near = [*near, levels] if near or is_near else []
            if len(near) >= _AVERAGED:
                mean = np.mean(near[-_WINDOW:], axis=0)
                accepted = tolerance if number < passes else _AT_LAST * tolerance
                if self._farthest(mean)[1] <= math.log1p(accepted):
                    return number
            tell(number, math.exp(self._farthest(levels)[1]))
            response = _response(response, deviations, former, steps)
            damping = max(1.0 / len(near), _LEAST) if near else _DAMPING
            limits = self._limits(limits, deviations, former)
            steps = np.clip(-damping / response * deviations, -limits, limits)
            former = deviations
            self._move(steps)
        raise NotLevelledError(self._explain(mean, passes, tolerance), found)

    def checked(self, rows: list[Array], passes: int, tolerance: float) -> GradientEnergies:
        """The energies on sequences that were not levelled on, after so many passes.

        Raises:
            NotLevelledError: one is off by more than these sequences may differ by from others.
        """
        found = self._stages.measure(rows, self._generator, forward=True)
        levels = self._levels(found)
        if self._farthest(levels)[1] > math.log1p(_HELD_OUT * tolerance):
            raise NotLevelledError(
                self._explain(levels, passes, tolerance, "held-out sequences"), found
            )
        return found

    def _pass(self, times: int) -> GradientEnergies:
        count = min(times * self._count, len(self._rows[0]))
        if len(self._order) < count:
            self._order = self._generator.permutation(len(self._rows[0]))
        chosen, self._order = self._order[:count], self._order[count:]
        return self._stages.measure([array[chosen] for array in self._rows], self._generator)

    def _levels(self, found: GradientEnergies) -> Array:
        """Logarithms of the energies, with the growth that is wanted taken out, `(calls,)`."""
        energies = np.asarray(found.energies)
        bad = [
            name
            for name, energy in zip(found.layers, energies, strict=True)
            if not 0 < energy < math.inf
        ]
        if bad:
            raise FloatingPointError(
                f"The gradient at {len(bad)} layer(s) of {self._model.name!r}, {bad[0]!r} first, "
                "is zero or not finite: units are dead or saturated, or states overflow, and no "
                "scale can be read off it. Begin with weights of another size."
            )
        return np.log(energies) - self._ranks * math.log(self._growth)

    @staticmethod
    def _deviation(levels: Array, reader: "_Reader") -> float:
        return float(np.mean([levels[k] for k in reader.reads]) - levels[reader.call])

    def _farthest(self, levels: Array) -> tuple[int, float]:
        """The call that is farthest from the others, and how far its level is from their middle.

        Of several calls that one layer reads, its scale can level the mean alone.
        """
        worst, distance = 0, 0.0
        for group in _chains(len(levels), self._readers):
            middle = (max(levels[k] for k in group) + min(levels[k] for k in group)) / 2
            for k in group:
                if abs(levels[k] - middle) > distance:
                    worst, distance = k, abs(float(levels[k] - middle))
        for reader in self._readers:
            deviation = abs(self._deviation(levels, reader)) / 2
            if len(reader.reads) > 1 and deviation > distance:
                worst, distance = reader.call, deviation
        return worst, distance

    def _limits(self, known: Array, now: Array, before: Array | None) -> Array:
        """The longest steps: of heights half as long where the last went too far.

        Where the gradient of a spiking layer begins to grow along its steps, its energy changes by
        orders of magnitude with a little more height.
        """
        if before is None:
            return known
        has_heights = np.array([bool(reader.heights) for reader in self._readers])
        is_past = has_heights & (now * before < 0) & (np.abs(now) > _PAST)
        return np.where(is_past, known / 2, np.minimum(_LONGER * known, _LARGEST_STEP))

    def _move(self, log_scales: Array) -> None:
        moved: dict[int, tuple[Any, _Reader, list[float]]] = {}
        for reader, step in zip(self._readers, log_scales, strict=True):
            for weight in (*reader.heights, *reader.weights):
                # A layer that is called again moves once.
                _, _, steps = moved.setdefault(id(weight), (weight, reader, []))
                steps.append(float(step))
        few = [array[:_SEQUENCES_OF_MEANS] for array in self._rows]
        means = self._stages.mean_inputs(few) if self.holds_means else None
        for weight, reader, steps in moved.values():
            step, former = float(np.mean(steps)), _values_of(weight)
            place(weight, former + step if reader.heights else former * np.exp(step))
            if means is not None and reader.biases:
                change = _values_of(weight) - former
                _hold(reader.biases[0], means[reader.call] @ change)

    def _explain(
        self, levels: Array, passes: int, tolerance: float, where: str = "the last passes"
    ) -> str:
        worst, distance = self._farthest(levels)
        lines = [
            f"{self._model.name!r} is not within {tolerance:.0%} of a level gradient after "
            f"{passes} passes: on {where} the energy at {self._stages.calls[worst].name!r} is off "
            f"by a factor of {math.exp(distance):.2f}, the farthest of {len(levels)} layers."
        ]
        held = sorted(
            {w.path for r in self._readers for w in r.weights if w.constraint is not None}
        )
        if held:
            lines.append(f"Constraints hold and may forbid it: {', '.join(held)}.")
        lines.append(
            "Where a scale also changes how far a cell saturates, or whether it fires, one scale a "
            'layer may not do: pre-train with method="lsc", which moves recurrent weights and '
            "biases too, or allow a larger tolerance. The model has its former weights; the "
            "energies are on this error."
        )
        return " ".join(lines)


class _Reader(NamedTuple):
    """A call that reads others, and what scales the gradient that it passes on to them.

    Attributes:
        call: its index.
        reads: those of the others.
        heights: logarithms of the heights of its surrogate gradient.
        weights: through which it reads them, where it has no heights.
        biases: one, that is added to what it reads, or none.
    """

    call: int
    reads: tuple[int, ...]
    heights: list[Any]
    weights: list[Any]
    biases: list[Any]


def _values_of(weight: Any) -> Array:
    """A copy: what a backend shows of a weight may change with it."""
    return np.array(ops.convert_to_numpy(weight.value))


def _hold(bias: Any, shift: Array) -> None:
    """Takes from a bias what is added elsewhere; of two rows, as of a GRU, from the first."""
    value = _values_of(bias)
    value.reshape(-1, value.shape[-1])[0] -= shift
    place(bias, value)


def _response(known: float, now: Array, before: Array | None, steps: Array) -> float:
    """By how much a ratio of energies, as a logarithm, changes with log s: 2 in a linear layer.

    Of layers that saturate it is less: what a scale adds to the weights it takes from the slope.
    """
    if before is None or np.sqrt(np.mean(np.square(steps))) < _FAINT:
        return known
    seen = float((now - before) @ steps / (steps @ steps))
    return float(np.clip((known + seen) / 2, *_RESPONSES))


def _ranks(below: Sequence[set[int]]) -> Array:
    """How many calls lie above each, on the longest way."""
    ranks = np.zeros(len(below))
    for k in reversed(range(len(below))):
        for read in below[k]:
            ranks[read] = max(ranks[read], ranks[k] + 1)
    return ranks


def _chains(count: int, readers: Sequence[_Reader]) -> list[list[int]]:
    """The calls that scales can level with each other, each read by itself."""
    group = {k: {k} for k in range(count)}
    for reader in readers:
        if len(reader.reads) == 1:
            merged = group[reader.reads[0]] | group[reader.call]
            for member in merged:
                group[member] = merged
    return [sorted(members) for members in {id(g): g for g in group.values()}.values()]
