"""The scales at which every radius has its target, by Broyden's method instead of gradients.

A network has a handful of scales, and its mean radii are smooth functions of them. A measurement
for every kind of number (one number of each layer is tried at once) tells how radii answer, and a
few steps bring them there: no gradient is compiled, and no noise of single updates has to average
out.
"""

import math
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
# Isotropy, as a logarithm, may drift by so much for nothing, and by so much more at the end. That
# counts less with every step, down to a share at which it moves no radius out of its tolerance.
_FREE_DRIFT, _ACCEPTED_DRIFT, _FADE, _FADED = 0.1, 0.06, 0.7, 0.2
_RATE_COST = 0.5
# Steps at most.
_STEPS = 25
# Steps in a row that do not help, after which derivatives are measured again, and how often until
# it is left. Up to so many numbers are tried one by one then.
_PATIENCE, _LOOKS, _FEW = 2, 1, 48
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
        isotropy: what isotropy is held at, as an earlier solver's attribute says; None for what it
            is at first.

    Attributes:
        isotropy: `(transitions with a target,)` the logarithm of that which is held.
        measurements: number of measurements made.
        standard_error: the largest of a mean radius, in the last measurement.
        is_isotropic: whether every transition is about as isotropic as it was at first.
        is_over: whether radii are not finite, or the last word was to end.
    """

    def __init__(
        self,
        probe: Probe,
        scales: Scales,
        wanted: dict[str, float],
        rows: list[np.ndarray],
        seed: int,
        on_measurement: Callable[[StabilityReport], bool],
        isotropy: np.ndarray | None = None,
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
        self.isotropy = isotropy
        self._solver: Broyden | None = None
        self._numbers = np.zeros(len(scales.layers))
        self._fading = 1.0
        self.standard_error = 0.0
        self.is_isotropic = True
        self.measurements = 0
        self.is_over = False

    def solve(self, points: int, tolerance: float, most: int) -> float:
        """Goes on until radii are near their targets, and leaves the model at the nearest.

        Args:
            points: number of points to measure at.
            tolerance: largest |mean radius - target| to end at.
            most: number of measurements at most.

        Returns:
            The largest |mean radius - target| that is left, at these points; NaN where a radius is
            not finite.
        """
        residuals, deviation = self._at(self._numbers, points)
        if not np.isfinite(residuals).all():
            self.is_over = True
            return np.nan
        if self._solver is not None:
            # With the first damping.
            self._solver = Broyden(self._solver.jacobian, _LONGEST)
        failures, looks = 0, 0
        for _ in range(_STEPS):
            self.is_isotropic = self._is_isotropic(residuals)
            is_there = deviation <= tolerance and self.is_isotropic
            if is_there or self.is_over or self.measurements >= most:
                break
            if self._solver is None:
                one_by_one = looks > 0 and len(self._numbers) <= _FEW
                groups = self._scales.together
                if one_by_one:
                    groups = [[number] for number in range(len(self._numbers))]
                if self.measurements + len(groups) >= most:
                    break
                derivatives = self._derivatives(residuals, points, groups, one_by_one)
                self._solver = Broyden(derivatives, _LONGEST)
            weights = self._weights()
            step = self._solver.step(residuals, weights)
            after, deviation_after = self._at(self._numbers + step, points)
            before = np.linalg.norm(weights * residuals)
            helped = bool(np.linalg.norm(weights * after) < before)
            self._solver.learn(step, after - residuals, helped)
            self._fading = max(_FADED, self._fading * _FADE)
            if helped:
                self._numbers = self._numbers + step
                residuals, deviation, failures = after, deviation_after, 0
                continue
            failures += 1
            if failures == _PATIENCE:
                if looks == _LOOKS:
                    break
                failures, looks, self._solver = 0, looks + 1, None
        self._scales.put(self._numbers)
        return deviation

    def _at(self, numbers: np.ndarray, points: int) -> tuple[np.ndarray, float]:
        """The residuals at some numbers, and the largest deviation of a radius."""
        self._scales.put(numbers)
        report = self._probe.report(self._rows, points, self._seed)
        self.measurements += 1
        self.is_over |= not self._on_measurement(report)
        rows = [report.transitions[k] for k in self._columns]
        self.standard_error = max(row.radius_std for row in rows) / math.sqrt(points)
        radii = np.array([row.radius for row in rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            isotropy = np.log(np.array([row.gain for row in rows]) / radii)
        isotropy = np.where(radii > 0, isotropy, 0.0)
        if self.isotropy is None:
            self.isotropy = isotropy
        drift = isotropy - self.isotropy
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

    def _is_isotropic(self, residuals: np.ndarray) -> bool:
        radii, isotropies, _ = self._sizes
        drifts = np.abs(residuals[radii : radii + isotropies])
        return bool(drifts.max() <= _ACCEPTED_DRIFT)

    def _weights(self) -> np.ndarray:
        """What the residuals count."""
        counts = (1.0, self._fading, _RATE_COST)
        return np.repeat(counts, self._sizes)

    def _derivatives(
        self, residuals: np.ndarray, points: int, groups: list[list[int]], one_by_one: bool
    ) -> np.ndarray:
        """The Jacobian `(residuals, numbers)` by differences.

        Where numbers are not tried one by one, a number is held to be without effect on other
        layers; steps will tell.
        """
        jacobian = np.zeros((len(residuals), len(self._numbers)))
        for together in groups:
            numbers = self._numbers.copy()
            numbers[together] += _TRIAL
            change = self._at(numbers, points)[0] - residuals
            change = np.where(np.isfinite(change), change, 0.0) / _TRIAL
            for number in together:
                own = one_by_one | (self._layers == self._scales.layers[number])
                jacobian[own, number] = change[own]
        return jacobian
