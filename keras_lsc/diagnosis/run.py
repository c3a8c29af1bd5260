"""Looks for what is wrong with a network."""

from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc import arguments, backend
from keras_lsc.diagnosis.checkup import CheckupProbe
from keras_lsc.diagnosis.findings import in_order
from keras_lsc.diagnosis.judging import of_activity, of_data, of_gradient, of_signal, of_trial
from keras_lsc.diagnosis.non_finite import bad_input, bad_weight, overflow
from keras_lsc.diagnosis.page import Diagnosis
from keras_lsc.diagnosis.trial import try_rates
from keras_lsc.stability.differences import DifferenceProbe
from keras_lsc.stability.energies import check_built, check_compiled, draw_tapped
from keras_lsc.stability.measure import measure
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.taps import ROWS

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
    check_compiled(model, y)
    found = bad_input(_arrays(x) + _arrays(y)) or bad_weight(model)
    if found is not None:
        return Diagnosis(model.name, (found,))
    generator = np.random.default_rng([seed, 7])
    rows, structure, taps, functional, others = draw_tapped(model, x, y, samples, seed, generator)
    found = overflow(taps, rows, structure)
    if found is not None:
        return Diagnosis(model.name, (found,))
    checkup = CheckupProbe(model, taps, structure, functional).look(rows, others)
    forward = DifferenceProbe(model, taps, structure, (0,)).measure(rows, generator)
    findings = [
        *of_data(rows, checkup),
        *of_activity(checkup, forward),
        *of_gradient(checkup),
        *of_signal(checkup, forward),
    ]
    unseen = []
    trial = None
    if y is not None and getattr(model, "optimizer", None) is not None:
        trial = try_rates(model, structure, rows, others[0])
        findings.extend(of_trial(trial))
    else:
        unseen.append("the learning rate; give y, and compile the model with an optimizer")
    report = None
    if radii:
        report, why = _radii(model, x, seed)
        unseen.extend(why)
    return Diagnosis(model.name, in_order(findings), checkup, forward, trial, report, tuple(unseen))


def _arrays(x: Any) -> list[Array]:
    """The arrays of a nest; of a dataset of batches, which is checked as it is drawn, none."""
    return [leaf for leaf in tree.flatten(x) if isinstance(leaf, np.ndarray)]


def _radii(model: keras.Model, x: Any, seed: int) -> tuple[StabilityReport | None, list[str]]:
    try:
        report = measure(model, x, seed=seed, gradient=False)
    except (TypeError, ValueError) as error:
        return None, [f"radii; {error}"]
    return report, list(report.unseen)
