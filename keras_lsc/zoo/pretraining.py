"""What a recipe asks of a network: how it is brought there, and how far off it is."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import keras
import numpy as np

from keras_lsc.levelling import NotLevelledError
from keras_lsc.pretraining import NotStabilizedError
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.stability.stages import Stages, has_stages
from keras_lsc.stability.taps import ROWS
from keras_lsc.stabilization import stabilize
from keras_lsc.zoo.recipes import Recipe

# What a network that does not get there raises.
NOT_REACHED = (NotStabilizedError, NotLevelledError)
# Sequences on which energies are measured: where they are what is asked for, the mean of a few
# says little.
_SEQUENCES = {"lsc": ROWS, "level": 8 * ROWS}


def pretrain(
    model: keras.Model,
    x: np.ndarray,
    recipe: Recipe,
    tolerance: float,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: str | int = "auto",
) -> StabilityReport:
    """Brings a network to what its recipe asks for; see `keras_lsc.stabilize`.

    Args:
        model: Network of the recipe.
        x: Sequences `(rows, ...)`.
        recipe: Recipe of the network.
        tolerance: How far it may be off.
        seed: Seed of what is drawn.
        callbacks: Of the updates; levelling makes none.
        verbose: As of `stabilize`.

    Returns:
        The report of held-out sequences.

    Raises:
        NotStabilizedError, NotLevelledError: It did not get there.
    """
    if recipe.target is None:
        return stabilize(
            model,
            x,
            method="level",
            growth=recipe.growth,
            tolerance=tolerance,
            seed=seed,
            verbose=verbose,
        )
    return stabilize(
        model,
        x,
        recipe.target,
        tolerance=tolerance,
        mode=recipe.mode,  # type: ignore[arg-type]
        max_updates=recipe.max_updates,
        batch_size=recipe.batch_size,
        seed=seed,
        learning_rate=recipe.learning_rate,
        callbacks=callbacks,
        verbose=verbose,
    )


def deviation(report: StabilityReport, recipe: Recipe) -> float:
    """Returns how far a network is off: radii from their target, or energies from each other.

    Args:
        report: What was measured of it.
        recipe: Its recipe.

    Returns:
        Largest |mean radius - target|; of method "level" the largest relative distance of an
        energy, with the growth taken out, from the middle of all.

    Raises:
        ValueError: The report has no transition with a target, or no energies.
    """
    if recipe.target is not None:
        return report.max_deviation(recipe.target)
    if report.gradient is None:
        raise ValueError("there are no energies of the gradient, which levelling goes by")
    energies = np.asarray(report.gradient.energies)
    wanted = recipe.growth ** np.arange(len(energies))[::-1]
    ratios = energies / wanted
    return math.sqrt(ratios.max() / ratios.min()) - 1.0 if ratios.min() > 0 else math.nan


class Gauge:
    """Measures a network of a recipe, before and after it is moved, with what is compiled once.

    Sequences, points and the functional are drawn by NumPy, the same on every backend.

    Args:
        model: Network of the recipe.
        x: Sequences `(rows, ...)`.
        recipe: Recipe of the network.
        seed: Seed of what is drawn.
    """

    def __init__(self, model: keras.Model, x: np.ndarray, recipe: Recipe, seed: int):
        self._model = model
        self._x = x
        self._seed = seed
        self._sequences = _SEQUENCES[recipe.method]
        self._probe = Probe(model)

    def _drawn(self, count: int) -> list[np.ndarray]:
        return draw_rows(self._x, count, self._seed, input_structure(self._model))

    @cached_property
    def _stages(self) -> Stages:
        return Stages(self._model, self._drawn(self._sequences), input_structure(self._model))

    def radii(self, samples: int) -> StabilityReport:
        """Returns the report of the radii at so many points."""
        return self._probe.report(self._drawn(samples), samples, self._seed)

    def with_energies(self, report: StabilityReport) -> StabilityReport:
        """Returns the report with the energies of the gradient, where layers pass one."""
        if not has_stages(self._model):
            return report
        rows, generator = self._drawn(self._sequences), np.random.default_rng(self._seed)
        return replace(report, gradient=self._stages.measure(rows, generator))


def energies(model: keras.Model, x: np.ndarray, sequences: int, seed: int) -> GradientEnergies:
    """Measures the energies of the gradient as `Gauge` does, on other sequences or as many.

    Args:
        model: A network of the zoo.
        x: Sequences `(rows, ...)`.
        sequences: How many of them, at most.
        seed: Seed of what is drawn.
    """
    rows = draw_rows(x, sequences, seed, input_structure(model))
    return Stages(model, rows, input_structure(model)).measure(rows, np.random.default_rng(seed))
