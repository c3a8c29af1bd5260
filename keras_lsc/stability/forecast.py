"""How many iterations of Newton's method the layers of a model are to be expected to take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_lsc.layers.parallel import SolverCounts, predicted_iterations
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.recorder import directions_of
from keras_lsc.stability.taps import leaves

# Of an exponent, far from where it has a say: e^-30 of a state is left after one step.
_LEAST = -30.0


@dataclass(frozen=True)
class NewtonForecast:
    """What is to be expected of a layer that is solved by Newton's method.

    Attributes:
        layer: its name.
        exponent: largest Lyapunov exponent per step; the logarithm of the mean radius in time, a
            guess from above, where exponents were not measured.
        is_measured: whether the exponent was.
        steps: of a sequence.
        iterations: as `keras_lsc.layers.parallel.predicted_iterations` has it.
    """

    layer: str
    exponent: float
    is_measured: bool
    steps: int
    iterations: int

    @property
    def note(self) -> str:
        """A sentence of it."""
        what = "exponent" if self.is_measured else "log of the radius"
        return (
            f"{self.layer} by Newton's method: {what} {self.exponent:+.3f}, about "
            f"{self.iterations} iterations for {self.steps} steps"
        )


def forecasts(
    model: keras.Model, steps: int, measured: dict[str, float], radii: dict[str, float]
) -> tuple[NewtonForecast, ...]:
    """What is to be expected of the layers that Newton's method may solve.

    Args:
        model: a built model.
        steps: of a sequence.
        measured: leading exponents by the name of the layer.
        radii: mean spectral radii in time by the name of the layer.
    """
    found = []
    for name, layer in solved_layers(model):
        known = name in measured
        if not layer.is_solved_at_once or steps < 1 or not (known or name in radii):
            continue
        exponent = measured[name] if known else math.log(max(radii[name], math.exp(_LEAST)))
        exponent = max(exponent, _LEAST)
        iterations = predicted_iterations(exponent, steps)
        found.append(NewtonForecast(name, exponent, known, steps, iterations))
    return tuple(found)


def solver_counts(model: keras.Model) -> dict[str, SolverCounts]:
    """What Newton's method has done while the layers of a model were trained, by their names."""
    return {name: layer.solver_counts for name, layer in solved_layers(model)}


def solved_layers(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """The layers that can be solved by Newton's method, with their names."""
    for layer in leaves(model):
        for direction in directions_of(layer) if is_recurrent(layer) else ():
            if hasattr(direction.layer, "solver_counts"):
                yield direction.name, direction.layer
