"""Pre-training to target radii, checked on held-out sequences: the method "lsc" of `stabilize`."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lsc.callbacks import StopWhenStable
from keras_lsc.pretrainer import LSCPretrainer, State
from keras_lsc.progress import Progress
from keras_lsc.solving import ScaleSolver
from keras_lsc.stability.accuracy import CHECK
from keras_lsc.stability.data import draw_rows, hold_out, input_structure, rows_to_draw
from keras_lsc.stability.firing_rates import init_firing_rates
from keras_lsc.stability.measure import Probe, at_enough_points
from keras_lsc.stability.report import SILENT_RATE, StabilityReport, TransitionStatistics
from keras_lsc.stability.scales import Scales
from keras_lsc.stability.targets import resolve

_MOST_SAMPLES = 2048
# Points that scales are solved for at first, and rounds at most, each at so many that the standard
# error is this share of the tolerance.
_FIRST_POINTS, _ROUNDS, _SHARE = 64, 4, 0.25
# After so many updates the held-out sequences are looked at.
_ROUND = 80
# Share of the updates in which the steps halve. Free weights bring down one eigenvalue after the
# other, which takes more updates at full length.
_HALVING = {"scales": 0.15, "weights": 0.4}


class NotStabilizedError(RuntimeError):
    """Pre-training ended with a transition outside the tolerance; the model was left as it was.

    Attributes:
        report: the `StabilityReport` of the held-out sequences at the end of pre-training.
    """

    def __init__(self, message: str, report: StabilityReport):
        super().__init__(message)
        self.report = report


def pretrain(
    pretrainer: LSCPretrainer,
    x: Any,
    tolerance: float,
    max_updates: int,
    batch_size: int,
    samples: int,
    optimizer: Any,
    learning_rate: float | None,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: str | int,
) -> StabilityReport:
    """`stabilize` by pre-training. Arguments and errors are told about there.

    Args:
        pretrainer: Pretrainer of the model, not compiled.
        x: Inputs of the model.
        tolerance: Largest deviation of a mean radius to accept.
        max_updates: Number of updates at most.
        batch_size: Sequences in an update.
        samples: Fewest points of the held-out measurement.
        optimizer: Optimiser or its name; None to solve for the scales first, where there are any.
        learning_rate: Learning rate, or None.
        callbacks: Of the updates.
        verbose: As of `stabilize`.
    """
    model, seed = pretrainer.model, pretrainer.seed
    may_solve = optimizer is None and learning_rate is None and pretrainer.mode == "scales"
    halving = max(60, _HALVING[pretrainer.mode] * max_updates)
    pretrainer.compile(
        "adam" if optimizer is None else optimizer,
        learning_rate=learning_rate,
        decay_updates=halving,
    )
    probe = Probe(model, pretrainer.radius, pretrainer.transition_map, CHECK)
    rows = draw_rows(x, rows_to_draw(model.inputs), seed, input_structure(model))
    training, held_out = hold_out(rows)
    before = State(model.variables)
    history = _History(max_updates)
    progress = Progress(model.name, max_updates, verbose)
    try:
        pretrainer.apply_constraints()
        init_firing_rates(pretrainer.transition_map, training)
        solve = partial(
            _Solving, pretrainer, probe, training, tolerance, [*callbacks, history, progress]
        )
        solving = solve() if may_solve else None
        isotropy = None
        while True:
            if solving is not None:
                solving.go_on(max_updates - history.updates)
            else:
                pretrainer.fit(
                    _Batches(training, batch_size, seed + history.updates),
                    epochs=max_updates,
                    shuffle=False,
                    callbacks=[
                        *callbacks,
                        StopWhenStable(tolerance / 2, history.round_at_least),
                        history,
                        progress,
                    ],
                    verbose=0,
                )
            is_last = history.updates >= max_updates
            report = probe.report(held_out, samples, seed)
            # Without its standard error a radius may be near enough to be worth a closer look.
            rough = _largest_deviation(report, pretrainer, -2.0)
            if rough <= tolerance or (is_last and math.isfinite(rough)):
                again = partial(probe.report, held_out, seed=seed)
                report = at_enough_points(report, again, tolerance / 3, _MOST_SAMPLES)
            errors = 0.0 if is_last else 1.0
            is_sound = not report.silent_or_saturated
            is_sound &= solving is None or solving.is_isotropic
            if is_sound and _largest_deviation(report, pretrainer, errors) <= tolerance:
                progress.end(_largest_deviation(report, pretrainer, 0.0))
                return report
            if is_last:
                raise NotStabilizedError(_explain(report, pretrainer, tolerance, history), report)
            if solving is None and may_solve:
                # A round of gradients came near, and the rest may be solved for.
                solving = solve(isotropy)
            elif solving is not None and not solving.may_go_on:
                # Gradients find their own way, from where solving began.
                solving.take_back()
                isotropy = solving.isotropy
                solving = None
    except BaseException:
        before.restore()
        progress.leave()
        raise


class _Solving:
    """Solves for the scales at a few points, then at more.

    Args:
        pretrainer: Pretrainer, compiled.
        probe: Of its model.
        rows: Sequences, one array an input.
        tolerance: Largest deviation of a mean radius to accept.
        callbacks: Are told every measurement as an update.
        isotropy: As of `ScaleSolver`.

    Attributes:
        may_go_on: whether going on may bring what held-out sequences say is not there.
        is_isotropic: whether every transition is about as isotropic as it was at first.
        isotropy: as of `ScaleSolver`.
    """

    def __init__(
        self,
        pretrainer: LSCPretrainer,
        probe: Probe,
        rows: list[np.ndarray],
        tolerance: float,
        callbacks: Sequence[keras.callbacks.Callback],
        isotropy: np.ndarray | None = None,
    ):
        self._pretrainer, self._tolerance = pretrainer, tolerance
        self._callbacks = keras.callbacks.CallbackList(list(callbacks), model=pretrainer)
        self._origin = State(pretrainer.model.variables)
        found = pretrainer.transition_map
        time, depth = resolve(pretrainer.target, found.depth, found.steps(rows))
        wanted = {"time": time, "depth": depth}
        if pretrainer.include_input:
            wanted["input"] = depth
        scales = Scales(pretrainer.movable)
        self._solver = ScaleSolver(
            probe, scales, wanted, rows, pretrainer.seed, self._tell, isotropy
        )
        self._points, self._rounds = _FIRST_POINTS, 0
        self.may_go_on = True

    @property
    def is_isotropic(self) -> bool:
        return self._solver.is_isotropic

    @property
    def isotropy(self) -> np.ndarray | None:
        return self._solver.isotropy

    def take_back(self) -> None:
        """Gives the model the weights that it had when this was made."""
        self._origin.restore()

    def go_on(self, most: int) -> None:
        """Solves, by so many measurements at most."""
        self._pretrainer.stop_training = False
        self._callbacks.on_train_begin()
        self._callbacks.on_epoch_begin(self._rounds)
        if self._rounds:
            error = self._solver.standard_error * math.sqrt(self._points)
            needed = math.ceil((error / (_SHARE * self._tolerance)) ** 2)
            self._points = min(max(needed, 2 * self._points), _MOST_SAMPLES)
        close = self._tolerance / 2 if self._rounds else self._tolerance
        most += self._solver.measurements
        deviation = self._solver.solve(self._points, close, most)
        self._rounds += 1
        is_near = deviation <= max(self._tolerance, self._solver.standard_error)
        self.may_go_on = is_near and self._rounds < _ROUNDS
        self.may_go_on &= self.is_isotropic and not self._solver.is_over
        self._callbacks.on_epoch_end(self._rounds)
        self._callbacks.on_train_end()

    def _tell(self, report: StabilityReport) -> bool:
        logs: dict[str, float] = {}
        for row in _aimed(report, _wanted(report, self._pretrainer)):
            logs |= {f"{row.name}_radius": row.radius, f"{row.name}_gain": row.gain}
        logs["max_deviation"] = _largest_deviation(report, self._pretrainer, 0.0)
        index = self._solver.measurements - 1
        self._callbacks.on_train_batch_begin(index)
        self._callbacks.on_train_batch_end(index, logs)
        return not self._pretrainer.stop_training


class _Batches(keras.utils.PyDataset):
    """The training rows in batches, in an order drawn by NumPy, without an incomplete batch."""

    def __init__(self, rows: list[np.ndarray], batch_size: int, seed: int):
        super().__init__()
        self._rows = rows
        self._batch_size = min(batch_size, len(rows[0]))
        self._generator = np.random.default_rng([seed, 3])
        self._order = self._generator.permutation(len(rows[0]))

    @property
    def num_batches(self) -> int:
        return len(self._order) // self._batch_size

    def __getitem__(self, index: int) -> tuple[Any]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        batch = [array[chosen] for array in self._rows]
        return (batch[0] if len(batch) == 1 else batch,)

    def on_epoch_end(self) -> None:
        self._order = self._generator.permutation(len(self._rows[0]))


class _History(keras.callbacks.Callback):
    """The metrics after every update; ends a round of training, and all after `max_updates`."""

    def __init__(self, max_updates: int):
        super().__init__()
        self.max_updates = max_updates
        self._round_ends = 0
        self.logs: list[dict[str, float]] = []

    @property
    def updates(self) -> int:
        return len(self.logs)

    @property
    def round_at_least(self) -> int:
        """Updates before a round may end: a second round is one that noise ended too early."""
        return 8 if not self.logs else _ROUND // 2

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        del logs
        self._round_ends = min(self.updates + _ROUND, self.max_updates)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del batch
        self.logs.append({name: float(value) for name, value in (logs or {}).items()})
        if self.updates >= self._round_ends:
            self.model.stop_training = True

    def last_radius(self, transition: str) -> float:
        """A transition's radius as the last updates had it."""
        return self.logs[-1][f"{transition}_radius"]

    def recent_change(self, transition: str) -> float:
        """How far a transition's radius moved over the last quarter of the updates."""
        radii = [logs[f"{transition}_radius"] for logs in self.logs]
        return radii[-1] - radii[-min(len(radii), max(2, len(radii) // 4))]


def _wanted(report: StabilityReport, pretrainer: LSCPretrainer) -> dict[str, float]:
    wanted = report.wanted(pretrainer.target)
    return {**wanted, "input": wanted["depth"]} if pretrainer.include_input else wanted


def _aimed(report: StabilityReport, wanted: dict[str, float]) -> list[TransitionStatistics]:
    return [row for row in report.transitions if row.kind in wanted]


def _largest_deviation(
    report: StabilityReport, pretrainer: LSCPretrainer, standard_errors: float
) -> float:
    """Largest |mean radius - target|, so many standard errors of the mean included."""
    wanted = _wanted(report, pretrainer)
    rows = _aimed(report, wanted)
    share = standard_errors / math.sqrt(report.samples)
    # NaN, where a radius is, is the largest.
    return float(np.max([abs(r.radius - wanted[r.kind]) + share * r.radius_std for r in rows]))


def _explain(
    report: StabilityReport, pretrainer: LSCPretrainer, tolerance: float, history: _History
) -> str:
    wanted = _wanted(report, pretrainer)
    lines = []
    for row in _aimed(report, wanted):
        if abs(row.radius - wanted[row.kind]) <= tolerance:
            continue
        lines.append(
            f"  {row.name}: {row.radius:.3f}, wanted {wanted[row.kind]:.3f}; "
            f"{_reason(row, wanted[row.kind], pretrainer, tolerance, history)}"
        )
    for name, rate in report.silent_or_saturated.items():
        state = "silent" if rate < SILENT_RATE else "saturated"
        lines.append(
            f"  {name} is {state}, with {rate:.4f} spikes a step and neuron: its radii say nothing "
            "about its gradients on other inputs. Change its threshold, its weights or its inputs"
        )
    advice = "Allow more updates (max_updates), or a larger tolerance"
    if pretrainer.mode == "scales":
        advice += ', or let every weight move (mode="weights")'
    held = [f"{name} on {path!r}" for path, name in pretrainer.constraints.items()]
    if held:
        advice += f". Constraints hold and may forbid the target: {', '.join(held)}"
    return (
        f"{report.model!r} is not within {tolerance} of the target {pretrainer.target!r} after "
        f"{history.updates} updates:\n" + "\n".join(lines) + f"\n{advice}. "
        "The model has its former weights; the report is on this error."
    )


def _reason(
    row: TransitionStatistics,
    wanted: float,
    pretrainer: LSCPretrainer,
    tolerance: float,
    history: _History,
) -> str:
    """Why a radius is not what was wanted of it."""
    if not math.isfinite(row.radius):
        return "it is not a number: the states or the weights overflow"
    if row.radius == 0.0:
        return "its Jacobian is zero: the units are dead or saturated"
    last = history.last_radius(row.name)
    if pretrainer.averages_weights and abs(last - wanted) < abs(row.radius - wanted) / 2:
        return (
            f"the updates had brought it to {last:.3f}, but the optimizer keeps averages of the "
            "weights (use_ema=True), which lag behind"
        )
    change = history.recent_change(row.name)
    if abs(change) > tolerance:
        return f"it was still moving ({change:+.3f} over the last quarter)"
    others = ["the cell saturates", "another transition holds it back"]
    if pretrainer.constraints:
        others.append("a constraint forbids it")
    if pretrainer.holds_frozen_weights:
        others.append("what would move it is frozen")
    return f"it no longer moved: {', '.join(others[:-1])}, or {others[-1]}"
