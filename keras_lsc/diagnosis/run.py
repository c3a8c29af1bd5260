"""Looks for what is wrong with a network."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc import arguments, backend
from keras_lsc.diagnosis import thresholds
from keras_lsc.diagnosis.checkup import Checkup, CheckupProbe
from keras_lsc.diagnosis.findings import Finding, in_order
from keras_lsc.diagnosis.non_finite import bad_input, bad_weight, overflow
from keras_lsc.diagnosis.page import Diagnosis
from keras_lsc.diagnosis.trial import RateTrial, try_rates
from keras_lsc.stability.differences import DifferenceProbe
from keras_lsc.stability.energies import (
    Functional,
    LossFunctional,
    RandomFunctional,
    check_built,
    draw,
    draw_with_targets,
    first_of,
)
from keras_lsc.stability.measure import measure
from keras_lsc.stability.report import SATURATED_RATE, SILENT_RATE, StabilityReport
from keras_lsc.stability.taps import ROWS, Taps

Array = np.ndarray


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    samples: int = ROWS,
    seed: int = 0,
    radii: bool = True,
) -> Diagnosis:
    """Says what is wrong with a network, from which layer on, and what to do about it.

    Looked for, causes first: NaN and infinities and what made them; data without information;
    padding; dead, silent and saturated units; gradients that explode or vanish, in time and depth;
    signals that do, forward; a learning rate that training steps do not hold. The model is left as
    it was.

    Args:
        model: a built `keras.Model` of any kind, with or without recurrence.
        x: its inputs `(rows, steps, ...)`, as `measure` takes them.
        y: targets `(rows, ...)`, one array; with them the gradient is that of the loss that the
            model is compiled with, and its learning rate is tried.
        samples: number of sequences that are looked at.
        seed: Integer, seed of the draw of the sequences and of random functionals.
        radii: whether to measure the radii as well, where the model has transitions.

    Returns:
        A `Diagnosis`; print it for a page, its first line is the verdict.

    Raises:
        TypeError: `model` is not a `keras.Model`, or x is not numeric.
        ValueError: the model is not built, or not compiled though `y` is given; it takes batches of
            one size only; x does not fit; a number of no use.

    Source: this project, `docs/guides/diagnosis.md`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> stack = [keras.layers.SimpleRNN(8, return_sequences=True) for _ in range(2)]
        >>> model = keras.Sequential([keras.Input((20, 3)), *stack, keras.layers.Dense(2)])
        >>> x = np.random.default_rng(0).normal(size=(64, 20, 3)).astype("float32")
        >>> keras_lsc.diagnose(model, x, radii=False).is_healthy
        True
    """
    with backend.aside_from_random_draws():
        return _diagnosed(model, x, y, samples, seed, radii)


def _diagnosed(
    model: keras.Model, x: Any, y: Any, samples: int, seed: int, radii: bool
) -> Diagnosis:
    samples = arguments.positive_integer("samples", samples)
    seed = arguments.integer("seed", seed, at_least=0)
    arguments.flag("radii", radii)
    check_built(model)
    if y is not None and not getattr(model, "compiled", False):
        raise ValueError(
            f"y is given, but model {model.name!r} is not compiled. Call model.compile(loss=...) "
            "first, or leave y out."
        )
    found = bad_input(_arrays(x) + _arrays(y)) or bad_weight(model)
    if found is not None:
        return Diagnosis(model.name, (found,))
    targets: list[Array] = []
    if y is None:
        rows, structure = draw(model, x, samples, seed)
    else:
        (*rows, aims), structure = draw_with_targets(model, x, y, samples, seed)
        targets = [aims]
    taps = Taps(model, first_of(rows, structure))
    if not taps.calls:
        raise ValueError(f"Model {model.name!r} calls no layer whose output is a float tensor.")
    found = overflow(model, taps, rows, structure)
    if found is not None:
        return Diagnosis(model.name, (found,))
    generator = np.random.default_rng([seed, 7])
    functional: Functional
    if targets:
        functional, others = LossFunctional(model), targets
    else:
        functional = RandomFunctional(taps)
        others = functional.draw(len(rows[0]), generator)
    checkup = CheckupProbe(model, taps, structure, functional).look(rows, others)
    forward = DifferenceProbe(model, taps, structure, (0,)).measure(rows, generator)
    findings = [
        *_of_data(rows, checkup),
        *of_activity(checkup, forward),
        *of_gradient(checkup),
        *_of_signal(checkup, forward),
    ]
    unseen = []
    trial = None
    if targets and getattr(model, "optimizer", None) is not None:
        trial = try_rates(model, structure, rows, targets[0])
        findings.extend(_of_trial(trial))
    else:
        unseen.append("the learning rate; give y, and compile the model with an optimizer")
    report = None
    if radii:
        report, why = _radii(model, x, seed)
        unseen.extend(why)
    return Diagnosis(model.name, in_order(findings), checkup, forward, trial, report, tuple(unseen))


def _arrays(x: Any) -> list[Array]:
    """The arrays of a nest; of a dataset of batches, which is checked as it is drawn, none."""
    return [np.asarray(leaf) for leaf in tree.flatten(x) if isinstance(leaf, np.ndarray)]


def _radii(model: keras.Model, x: Any, seed: int) -> tuple[StabilityReport | None, list[str]]:
    try:
        return measure(model, x, seed=seed, gradient=False), []
    except (TypeError, ValueError) as error:
        return None, [f"radii; {error}"]


def _of_data(rows: list[Array], checkup: Checkup) -> Iterator[Finding]:
    spread = max(float(np.ptp(array.astype("float64"), axis=0).max()) for array in rows)
    if spread == 0 and len(rows[0]) > 1:
        yield Finding("constant_input", None, f"All {len(rows[0])} sequences are the same.")
    elif checkup.padding is not None and checkup.padding > thresholds.PADDED_SHARE:
        yield Finding("padding", None, f"{checkup.padding:.0%} of the steps are masked.")
    elif checkup.padding is None:
        share = max((_padding(array) for array in rows if array.ndim == 3), default=0.0)
        if share > thresholds.UNMASKED_SHARE:
            what = f"{share:.0%} of the steps repeat the first or last one to the end, unmasked."
            yield Finding("unmasked_padding", None, what)


def _padding(array: Array) -> float:
    """Share of the steps, at one end of a sequence, that are all the same."""
    shares = []
    for side in (array, array[:, ::-1]):
        is_end = np.all(side == side[:, :1], axis=tuple(range(2, side.ndim)))
        shares.append(np.minimum.accumulate(is_end, axis=1).sum(axis=1) - 1)
    return float(np.mean(np.maximum(*shares)) / array.shape[1])


def of_activity(checkup: Checkup, forward: tuple[float, ...] | None = None) -> Iterator[Finding]:
    """What is wrong with what layers give out: the first that is dead, silent or saturated.

    Args:
        checkup: what was measured.
        forward: energy of a small difference at every layer, where it was measured: a layer that
            no difference reaches is not dead itself.
    """
    told = (math.nan, *(forward or (math.nan,) * len(checkup.layers)))
    for layer, below in zip(checkup.layers, told, strict=False):
        if layer.is_spiking:
            rate = layer.rms**2
            if rate < SILENT_RATE:
                what = f"Neurons of {layer.name!r} fire in {rate:.2g} of the steps."
                yield Finding("silent_spikes", layer.name, what)
                return
            if rate > SATURATED_RATE:
                what = f"Neurons of {layer.name!r} fire in {rate:.0%} of the steps."
                yield Finding("saturated_spikes", layer.name, what)
                return
        elif layer.constant >= thresholds.DEAD_SHARE and not below < 1 / thresholds.FORWARD_RATIO:
            what = f"{layer.constant:.0%} of the units of {layer.name!r} give out the same always."
            yield Finding("dead_units", layer.name, what)
            return
        elif layer.is_head:  # which may be sure of what it says
            return
        elif (layer.saturated or 0) > thresholds.SATURATED_SHARE:
            what = f"{layer.saturated:.0%} of the outputs of {layer.name!r} are at the bounds."
            yield Finding("saturated", layer.name, what)
            return
        elif (layer.gates or 0) > thresholds.SATURATED_GATES:
            what = f"{layer.gates:.0%} of the values of gates of {layer.name!r} are at the bounds."
            yield Finding("saturated_gates", layer.name, what)
            return


def of_gradient(checkup: Checkup) -> Iterator[Finding]:
    """What is wrong with the gradient, in time and in depth."""
    yield from _in_time(checkup)
    stages = [layer for layer in checkup.layers if layer.is_stage]
    if len(stages) < 2:
        return
    *below, top = stages
    sizes = [math.sqrt(layer.energy / top.energy) if top.energy > 0 else 0.0 for layer in below]
    limit = math.sqrt(thresholds.DEPTH_RATIO)
    large = [k for k, size in enumerate(sizes) if size > limit]
    small = [k for k, size in enumerate(sizes) if size < 1 / limit]
    if large:
        name = below[large[-1]].name
        what = f"is up to {max(sizes):.2g} times that at {top.name!r}."
        yield Finding("exploding_in_depth", name, f"The gradient at {name!r} and below {what}")
    elif small:
        name = below[small[-1]].name
        what = f"is down to {min(sizes):.2g} times that at {top.name!r}."
        yield Finding("vanishing_in_depth", name, f"The gradient at {name!r} and below {what}")


def _in_time(checkup: Checkup) -> Iterator[Finding]:
    if checkup.early is None or checkup.growth is None:
        return
    if checkup.growth > thresholds.TIME_GROWTH:
        what = (
            f"Through one layer, the gradient grows {math.sqrt(checkup.growth):.2g} times from the "
            f"last quarter of {checkup.steps:.0f} steps to the first."
        )
        yield Finding("exploding_in_time", None, what)
    elif checkup.early < thresholds.FORGOTTEN_SHARE:
        what = (
            f"The first quarter of {checkup.steps:.0f} steps has {math.sqrt(checkup.early):.1g} of "
            f"the gradient; the last {checkup.memory:.0f} step(s) hold 99 % of its energy."
        )
        yield Finding("vanishing_in_time", None, what)


def _of_signal(checkup: Checkup, forward: tuple[float, ...]) -> Iterator[Finding]:
    for layer, energy in zip(checkup.layers, forward, strict=True):
        if not layer.is_stage or math.isnan(energy):
            continue
        if energy > thresholds.FORWARD_RATIO:
            what = (
                f"A small difference is {math.sqrt(energy):.2g} times as large at {layer.name!r}."
            )
            yield Finding("exploding_forward", layer.name, what)
            return
        if energy < 1 / thresholds.FORWARD_RATIO:
            what = f"Of a small difference {math.sqrt(energy):.2g} is left at {layer.name!r}."
            yield Finding("vanishing_forward", layer.name, what)
            return


def _of_trial(trial: RateTrial) -> Iterator[Finding]:
    if trial.rate_fails:
        held = "none that was tried does" if trial.holds is None else f"{trial.holds:.2g} holds"
        what = (
            f"In {thresholds.TRIAL_STEPS} steps at a learning rate of {trial.rate:.3g} the loss "
            f"grows; {held}."
        )
        yield Finding("learning_rate", None, what)
