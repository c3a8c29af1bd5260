"""Watches a network while it trains."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np

from keras_lsc import backend
from keras_lsc.arguments import flag, integer, positive_integer
from keras_lsc.callbacks.weights import bring_weights
from keras_lsc.diagnosis.checkup import Checkup, CheckupProbe
from keras_lsc.diagnosis.findings import Finding, in_order
from keras_lsc.diagnosis.judging import of_activity, of_gradient
from keras_lsc.layers.parallel import SolverCounts
from keras_lsc.stability.accuracy import GLANCE
from keras_lsc.stability.energies import Drawn, check_built, draw_tapped
from keras_lsc.stability.forecast import solver_counts
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.transitions.any_model import transitions_of

# By what factor the loss has to exceed that of the first update to be called diverging.
LOSS_GROWTH = 10.0
_ACTIONS = ("warn", "stop")
# Points at which radii are measured, at most: what they cost grows with their number, and the same
# points at every look show a change long before it is as large as their spread.
_POINTS = 8
# Of so many looks one measures radii, the dearest of what is seen, of which no alarm depends.
LOOKS_FOR_RADII = 2


class StabilityWarning(UserWarning):
    """What `StabilityMonitor` warns of."""


class StabilityMonitor(keras.callbacks.Callback):
    """Measures a network while it trains, and tells before the loss is NaN.

    Every so many updates it looks at a few sequences: the energy of the gradient and the share of
    saturated and of constant units at every layer, the share of the gradient from early steps,
    firing rates, radii and gains. What was seen last becomes part of `logs`, so that `History` and
    callbacks that follow it, such as `keras.callbacks.TensorBoard`, have it. The training is the
    same with and without it.

    Of layers that Newton's method solves (`keras_lsc.layers.ParaGRU` and others) it tells the mean
    number of iterations a batch, "iterations/<layer>", and for which share of the batches they did
    not converge, so that the loop took over, "loops/<layer>": of the batches since the look before,
    and in the logs of an epoch of all of its batches. After an epoch with such a batch it warns.

    An alarm is what `keras_lsc.diagnose` would find and did not before the training, or a loss that
    is ten times the first one or no number. Every kind is told once.

    Args:
        x: inputs of the model, as `keras_lsc.measure` takes them; some are drawn.
        every: number of updates between two looks; the first is before the first update.
        samples: number of sequences that are looked at.
        radii: whether the first look and every second one after it measure radii and gains, where
            the model has transitions: within 1 %, at a point each of eight of the sequences, the
            same ones every time.
        on_alarm: "warn", "stop" (which warns, and ends the training) or a function of a
            `keras_lsc.diagnosis.Finding`.
        seed: Integer, seed of what is drawn.

    Attributes:
        updates: number of updates seen.
        history: a dictionary a look, with its "update".
        alarms: pairs of an update and a `keras_lsc.diagnosis.Finding`.
        unseen: of which layers there are no radii, and why, a sentence each; empty where the model
            has all.

    Raises:
        ValueError: an argument is of no use; or, as training begins, x does not fit the model.

    Source: this project, `docs/guides/diagnosis.md`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8, name="gru"),
        ...     keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.random.normal(size=(64, 20, 3)), np.zeros((64, 1))
        >>> monitor = keras_lsc.callbacks.StabilityMonitor(x, every=2)
        >>> history = model.fit(x, y, verbose=0, callbacks=[monitor])
        >>> len(monitor.history), "energy/gru" in history.history
        (2, True)
    """

    def __init__(
        self,
        x: Any,
        every: int = 100,
        *,
        samples: int = 16,
        radii: bool = True,
        on_alarm: Literal["warn", "stop"] | Callable[[Finding], Any] = "warn",
        seed: int = 0,
    ):
        super().__init__()
        self.x = x
        self.every = positive_integer("every", every)
        self.samples = positive_integer("samples", samples)
        self.radii = flag("radii", radii)
        self.seed = integer("seed", seed, at_least=0)
        if not callable(on_alarm) and on_alarm not in _ACTIONS:
            raise ValueError(
                'on_alarm must be "warn", "stop" or a function of a finding, got '
                f"{on_alarm!r:.200}."
            )
        self.on_alarm = on_alarm
        self.updates = 0
        self.history: list[dict[str, float]] = []
        self.alarms: list[tuple[int, Finding]] = []
        self.unseen: tuple[str, ...] = ()
        self._known: set[str] = set()
        # Of everything what was seen last.
        self._shown: dict[str, float] = {}
        self._first_loss: float | None = None
        # Of the epoch: updates whose loss was read, the sum of these, and updates so far.
        self._seen, self._summed, self._counted = 0, 0.0, 0
        # The last mean loss of the epoch, and of how many updates, which is not read yet.
        self._unread: tuple[Any, int] | None = None
        # What Newton's method had done at the last look, and as the epoch began.
        self._solved: dict[str, SolverCounts] = {}
        self._solved_before: dict[str, SolverCounts] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks for the first time; what is found now is no alarm."""
        del logs
        with backend.aside_from_random_draws():
            self._watch = _Watch(self.model, self.x, self.samples, self.radii, self.seed)
        self.unseen = self._watch.unseen
        self._shown = {}
        self._solved = solver_counts(self.model)
        self._known |= {finding.kind for finding in self._look()}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The mean of the loss starts anew."""
        del epoch, logs
        self._seen, self._summed, self._counted = 0, 0.0, 0
        self._unread = None
        self._solved_before = solver_counts(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss and, every so often, at the model."""
        logs = {} if logs is None else logs
        # An execution may be of several updates.
        made, self._counted = batch + 1 - self._counted, batch + 1
        former, self.updates = self.updates, self.updates + made
        # To read the loss of an update that has just begun is to wait for its end.
        self._read_loss()
        self._unread = (logs["loss"], batch + 1) if "loss" in logs else None
        if self.updates // self.every > former // self.every:
            for finding in self._look():
                self._alarm(finding)
        logs.update(self._shown)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds what was seen last, and what Newton's method did in the epoch."""
        self._read_loss()
        solved = _since(solver_counts(self.model), self._solved_before)
        if logs is not None:
            logs.update(self._shown | _of_solvers(solved))
        for name, counts in solved.items():
            if counts.loops:
                warnings.warn(
                    f"epoch {epoch + 1}: Newton's method has not converged in {counts.loops} of "
                    f"{counts.solves} batches of {name!r}, whose steps were taken one after "
                    "another, which is exact and slower. Lower the learning rate, hold the radius "
                    'with keras_lsc.callbacks.RadiusRegularizer, or use solver="loop".',
                    StabilityWarning,
                    stacklevel=2,
                )

    def _look(self) -> list[Finding]:
        bring_weights(self)
        with backend.aside_from_random_draws():
            seen, findings = self._watch.look()
        solved = solver_counts(self.model)
        seen |= _of_solvers(_since(solved, self._solved))
        self._solved = solved
        self.history.append({"update": self.updates, **seen})
        self._shown |= seen
        return findings

    def _read_loss(self) -> None:
        if self._unread is None:
            return
        mean, seen = self._unread
        self._unread = None
        # Keras tells the mean of the epoch.
        summed = float(mean) * seen
        loss = (summed - self._summed) / (seen - self._seen)
        self._seen, self._summed = seen, summed
        if not math.isfinite(loss):
            self._alarm(Finding("overflow", None, f"The loss is {loss}."))
        elif self._first_loss is None:
            self._first_loss = abs(loss)
        elif loss > LOSS_GROWTH * self._first_loss:
            what = f"The loss is {loss:.3g}, after {self._first_loss:.3g} at first."
            self._alarm(Finding("learning_rate", None, what))

    def _alarm(self, finding: Finding) -> None:
        if finding.kind in self._known:
            return
        self._known.add(finding.kind)
        self.alarms.append((self.updates, finding))
        if callable(self.on_alarm):
            self.on_alarm(finding)
            return
        warnings.warn(f"update {self.updates}: {finding}", StabilityWarning, stacklevel=2)
        if self.on_alarm == "stop":
            self.model.stop_training = True


class _Watch:
    """What looks at a model, compiled once."""

    def __init__(self, model: keras.Model, x: Any, samples: int, radii: bool, seed: int):
        check_built(model)
        generator = np.random.default_rng([seed, 8])
        drawn = draw_tapped(model, x, None, samples, seed, generator)
        self._rows, self._others = drawn.rows, drawn.others
        self._checkup = CheckupProbe(model, drawn.taps, drawn.structure, drawn.functional)
        self._probe, self.unseen = _probe(model, drawn) if radii else (None, ())
        self._looks = 0

    def look(self) -> tuple[dict[str, float], list[Finding]]:
        """What is seen now, and what is wrong with it."""
        checkup = self._checkup.look(self._rows, self._others)
        seen = _of_layers(checkup)
        if self._probe is not None and self._looks % LOOKS_FOR_RADII == 0:
            report = self._probe.report(self._rows, min(len(self._rows[0]), _POINTS), 0)
            for row in report.transitions:
                seen[f"radius/{row.name}"] = row.radius
                seen[f"gain/{row.name}"] = row.gain
        self._looks += 1
        broken = [layer.name for layer in checkup.layers if not math.isfinite(layer.rms)]
        if broken:
            what = f"{broken[0]!r} is the first layer to give out NaN or infinity."
            return seen, [Finding("overflow", broken[0], what)]
        return seen, list(in_order([*of_activity(checkup), *of_gradient(checkup)]))


def _probe(model: keras.Model, drawn: Drawn) -> tuple[Probe | None, tuple[str, ...]]:
    """What measures the radii of a model, None of one that has none, and what it does not see."""
    try:
        found = transitions_of(model, drawn.rows, drawn.structure)
    except (TypeError, ValueError) as error:
        return None, (str(error),)
    probe = Probe(model, transition_map=found, accuracy=GLANCE) if found.transitions else None
    return probe, found.unseen


def _of_layers(checkup: Checkup) -> dict[str, float]:
    seen: dict[str, float] = {}
    for layer in checkup.stages:
        seen[f"energy/{layer.name}"] = layer.energy
        seen[f"constant/{layer.name}"] = layer.constant
        if layer.saturated is not None:
            seen[f"saturated/{layer.name}"] = layer.saturated
        if layer.gates is not None:
            seen[f"saturated_gates/{layer.name}"] = layer.gates
        if layer.is_spiking:
            seen[f"rate/{layer.name}"] = layer.rms**2
    for name in ("early", "memory"):
        value = getattr(checkup, name)
        if value is not None:
            seen[f"gradient/{name}"] = value
    return seen


def _since(
    now: dict[str, SolverCounts], before: dict[str, SolverCounts]
) -> dict[str, SolverCounts]:
    """What was solved since, of the layers of which anything was."""
    made = {name: counts.since(before.get(name, SolverCounts())) for name, counts in now.items()}
    return {name: counts for name, counts in made.items() if counts.solves}


def _of_solvers(solved: dict[str, SolverCounts]) -> dict[str, float]:
    seen = {}
    for name, counts in solved.items():
        seen[f"iterations/{name}"] = counts.iterations / counts.solves
        seen[f"loops/{name}"] = counts.loops / counts.solves
    return seen
