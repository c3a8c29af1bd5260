"""The scales at which every radius has its target, by Broyden's method instead of gradients.

A network has a handful of scales, and its mean radii are smooth functions of them. A measurement
for every kind of number (one number of each layer is tried at once) tells how radii answer, and a
few steps bring them there: no gradient is compiled, and no noise of single updates has to average
out.
"""

from collections.abc import Callable

import numpy as np

from keras_lsc.stability.broyden import Broyden
from keras_lsc.stability.firing_rates import RATES
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.recorder import is_spiking
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.scales import Scales

# By how much a number, for most a logarithm, is changed to see what that does, and at most in a
# step.
_TRIAL, _LONGEST = 0.1, 0.7
# Isotropy may drift by so much for nothing, as a logarithm. What more of that counts, and firing
# rates that are out of range, fades with every step: in the end it is the radii that have to be
# right.
_FREE_DRIFT, _RATE_COST, _FADE = 0.1, 0.5, 0.7
# Steps in a row that do not help, after which derivatives are measured again, or it is left.
_PATIENCE = 4
# What a smaller radius is taken for, as a share of its target: logarithms are bounded.
_LEAST = 1e-6


class ScaleSolver:
    """Brings the mean radii of a model to their targets by its scales, in place.

    Args:
        probe: of the model; it measures.
        scales: what may be moved.
        wanted: the target of every kind of transition that has one.
        rows: sequences to measure on, one array an input.
        seed: of the choice of sequences and points.
        on_measurement: is given the report of every measurement; False from it ends all.

    Attributes:
        measurements: number of measurements made.
        is_over: whether there is nothing more to gain, or the last word was to end.
    """

    def __init__(
        self,
        probe: Probe,
        scales: Scales,
        wanted: dict[str, float],
        rows: list[np.ndarray],
        seed: int,
        on_measurement: Callable[[StabilityReport], bool],
    ):
        found = probe.transition_map
        self._probe, self._scales, self._rows, self._seed = probe, scales, rows, seed
        self._on_measurement = on_measurement
        self._columns = [k for k, row in enumerate(found.transitions) if row.kind in wanted]
        rows_of = [found.transitions[k] for k in self._columns]
        self._wanted = np.array([wanted[row.kind] for row in rows_of])
        layers = [row.layer for row in rows_of]
        spiking = [k for k, call in enumerate(found.recurrent_calls) if is_spiking(call.layer)]
        # Of radii, isotropies and firing rates.
        self._sizes = (len(layers), len(layers), len(spiking))
        self._layers = np.array([*layers, *layers, *spiking], int)
        self._first_isotropy: np.ndarray | None = None
        self._solver: Broyden | None = None
        self._numbers = np.zeros(len(scales.layers))
        self._fading = 1.0
        self.measurements = 0
        self.is_over = False

    def solve(self, points: int, tolerance: float, most: int) -> float:
        """Goes on until radii are near their targets, and leaves the model at the nearest.

        Args:
            points: number of points to measure at.
            tolerance: largest |mean radius - target| to end at.
            most: number of measurements at most, of all calls together.

        Returns:
            The largest |mean radius - target| that is left, at these points; NaN where a radius is
            not finite.
        """
        residuals, deviation = self._at(self._numbers, points)
        if self._solver is None and not np.isfinite(residuals).all():
            self.is_over = True
            return np.nan
        failures, has_measured_again = 0, False
        while deviation > tolerance and self.measurements < most and not self.is_over:
            if self._solver is None:
                self._solver = Broyden(self._derivatives(residuals, points), _LONGEST)
            weights = self._weights()
            step = self._solver.step(residuals, weights)
            after, deviation_after = self._at(self._numbers + step, points)
            before = np.linalg.norm(weights * residuals)
            helped = bool(np.linalg.norm(weights * after) < before)
            self._solver.learn(step, after - residuals, helped)
            self._fading *= _FADE
            if helped:
                self._numbers = self._numbers + step
                residuals, deviation, failures = after, deviation_after, 0
                continue
            failures += 1
            if failures == _PATIENCE:
                self.is_over, self._solver = has_measured_again, None
                failures, has_measured_again = 0, True
        self._scales.put(self._numbers)
        return deviation

    def _at(self, numbers: np.ndarray, points: int) -> tuple[np.ndarray, float]:
        """The residuals at some numbers, and the largest deviation of a radius."""
        self._scales.put(numbers)
        report = self._probe.report(self._rows, points, self._seed)
        self.measurements += 1
        self.is_over |= not self._on_measurement(report)
        rows = [report.transitions[k] for k in self._columns]
        radii = np.array([row.radius for row in rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            isotropy = np.log(np.array([row.gain for row in rows]) / radii)
        isotropy = np.where(radii > 0, isotropy, 0.0)
        if self._first_isotropy is None:
            self._first_isotropy = isotropy
        drift = isotropy - self._first_isotropy
        excess = np.sign(drift) * np.maximum(np.abs(drift) - _FREE_DRIFT, 0.0)
        if self._probe.radius != "spectral":
            excess = np.zeros_like(drift)
        rates = np.array(list(report.firing_rates.values()))
        low, high = RATES
        missing = np.maximum(rates / low - 1.0, -1.0).clip(max=0.0)
        surplus = ((rates - high) / (1.0 - high)).clip(min=0.0)
        off = np.log(np.maximum(radii / self._wanted, _LEAST))
        return (
            np.concatenate([off, excess, missing + surplus]),
            float(np.max(np.abs(radii - self._wanted))),
        )

    def _weights(self) -> np.ndarray:
        """What the residuals count."""
        counts = (1.0, self._fading, _RATE_COST * self._fading)
        return np.repeat(counts, self._sizes)

    def _derivatives(self, residuals: np.ndarray, points: int) -> np.ndarray:
        """The Jacobian `(residuals, numbers)` by differences.

        A number is held to be without effect on other layers; steps will tell.
        """
        jacobian = np.zeros((len(residuals), len(self._numbers)))
        for together in self._scales.together:
            numbers = self._numbers.copy()
            numbers[together] += _TRIAL
            change = self._at(numbers, points)[0] - residuals
            change = np.where(np.isfinite(change), change, 0.0) / _TRIAL
            for number in together:
                own = self._layers == self._scales.layers[number]
                jacobian[own, number] = change[own]
        return jacobian
