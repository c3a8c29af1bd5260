"""Runs a method as `stabilize` runs all of them: on some sequences, and looked at on others."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc.methods.method import Method
from keras_lsc.pretrainer import State
from keras_lsc.stability.data import draw_rows, hold_out, is_batched, rows_to_draw
from keras_lsc.stability.energies import (
    check_compiled,
    check_model,
    draw_with_targets,
    gradient_energies,
)
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.graph import structure_of
from keras_lsc.stability.measure import measure, transitions_or_why
from keras_lsc.stability.report import StabilityReport


def start_by(
    method: Method,
    model: keras.Model,
    x: Any,
    y: Any,
    samples: int,
    seed: int,
    verbose: str | int,
) -> StabilityReport:
    """Gives a model the start of a method, in place; see `keras_lsc.stabilize`.

    Args:
        method: with its options.
        model: a built model.
        x: its inputs.
        y: targets, where the method needs them.
        samples: points of the report.
        seed: of what is drawn.
        verbose: as of `stabilize`.

    Returns:
        The report of sequences that the method has not seen.
    """
    _check_targets(method, model, x, y)
    check_model(model)
    structure = structure_of(model, x)
    count = rows_to_draw(structure)
    if method.needs_labels:
        rows, structure = draw_with_targets(model, x, y, count, seed)
    else:
        rows = draw_rows(x, count, seed, structure)
    training, held_out = hold_out(rows)
    inputs = len(tree.flatten(structure))
    targets = training[inputs] if method.needs_labels else None
    before = State(model.variables)
    try:
        packed = tree.pack_sequence_as(structure, training[:inputs])
        method.apply(model, packed, targets, seed, verbose)
        _refuse_non_finite(method, model)
        return _report(model, held_out[:inputs], structure, samples, seed)
    except BaseException:
        before.restore()
        raise


def _check_targets(method: Method, model: keras.Model, x: Any, y: Any) -> None:
    if not method.needs_labels:
        if y is not None:
            raise ValueError(
                f"y is given, but method={method.name!r} uses no labels. Leave it out."
            )
        return
    if y is None:
        given = ", of which a dataset as x has none that are read" if is_batched(x) else ""
        raise ValueError(
            f"method={method.name!r} needs labels{given}. Give them: stabilize(model, x, y=y, "
            f"method={method.name!r}), both as arrays."
        )
    check_compiled(model, y)


def _refuse_non_finite(method: Method, model: keras.Model) -> None:
    try:
        refuse_non_finite_weights(model)
    except ValueError as error:
        raise FloatingPointError(
            f"method={method.name!r} made weights that are not finite: {error}"
        ) from error


def _report(
    model: keras.Model, rows: list[np.ndarray], structure: Any, samples: int, seed: int
) -> StabilityReport:
    """Radii, gains and energies; of a model without transitions why it has none, and energies."""
    packed = tree.pack_sequence_as(structure, rows)
    found, why = transitions_or_why(model, rows, structure)
    if found is not None:
        return measure(model, packed, samples, seed)
    report = StabilityReport.without_radii(model.name, why, seed, samples)
    return replace(report, gradient=gradient_energies(model, packed, seed=seed))
