"""One run: from initial weights, through pre-training, to a trained network and its figures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from experiments.lsuv import level_forward
from experiments.measures import (
    SAMPLES,
    as_target,
    gradient_energies,
    radii,
    rounded,
    signal,
)
from experiments.networks import Split, load_split, make_network, set_initial_weights
from experiments.settings import Setting, in_order, start_key
from keras_lsc import datasets, methods
from keras_lsc.callbacks import UpdateCounter

Row = dict[str, Any]
# Sequences that a start is pre-trained and measured on, the first of the training split.
_STABILIZED_ON = 1024
_EVALUATION_BATCH = 250


class NoStartError(Exception):
    """A method of others has no start for a network, and says why."""


class Workplace:
    """One compiled network with its data, on which many runs are made.

    Compiling takes longer than a short training: the weights, and those of the optimiser, are
    set back instead.

    Args:
        setting: any of those that share `Setting.network`.
    """

    def __init__(self, setting: Setting):
        self.training = load_split(setting, "train")
        self.validation = load_split(setting, "validation")
        self.test = load_split(setting, "test")
        self.model = make_network(setting, self.training.x.shape[1:])
        self._compiled_for: tuple[float | None] | None = None

    def runs(self, settings: Sequence[Setting]) -> Iterator[Row]:
        """Makes the runs of these settings, `in_order`; each start is pre-trained once."""
        for _, group in groupby(in_order(settings), key=start_key):
            chosen = list(group)
            start = self._start(chosen[0])
            weights = self.model.get_weights()
            for setting in chosen:
                self.model.set_weights(weights)
                yield self._run(setting, start)

    def _start(self, setting: Setting) -> dict[str, Any]:
        """Gives the network the weights that training starts from, and measures it."""
        keras.utils.set_random_seed(setting.seed)
        set_initial_weights(self.model, setting)
        x = self.training.x[:_STABILIZED_ON]
        begin = time.perf_counter()
        updates = UpdateCounter()
        problem = None
        try:
            report = self._started(x, setting, updates)
        except keras_lsc.NotStabilizedError as error:
            report, problem = error.report, str(error)
        except (FloatingPointError, keras_lsc.NotLevelledError, NoStartError) as error:
            report, problem = None, str(error)
        seconds = round(time.perf_counter() - begin, 2)
        start: dict[str, Any] = {"updates": updates.updates, "problem": problem, "seconds": seconds}
        if report is not None:
            start["radii"] = radii(report, setting)
        if problem is None:
            whole = setting.epochs == 0
            start["gradients"] = gradient_energies(self.model, self.validation.x, whole)
            start["signal"] = signal(self.model, self.validation.x)
        return start

    def _started(
        self, x: np.ndarray, setting: Setting, updates: UpdateCounter
    ) -> keras_lsc.StabilityReport:
        if setting.sibling is None:
            return _stabilized_or_measured(self.model, x, setting, updates)
        method = methods.get(setting.sibling)
        labels = {}
        if method.needs_labels:
            self._compile(setting)
            labels = {"y": self.training.y[: len(x)]}
        try:
            return keras_lsc.stabilize(
                self.model, x, method=method, seed=setting.seed, samples=SAMPLES, **labels
            )
        except ValueError as error:
            raise NoStartError(str(error)) from error

    def _run(self, setting: Setting, start: dict[str, Any]) -> Row:
        row: Row = {
            "id": setting.id,
            "setting": setting.to_dict(),
            "status": "measured",
            "start": start,
            "data": {
                "train": self.training.identity,
                "validation": self.validation.identity,
                "test": self.test.identity,
            },
            "environment": environment(),
        }
        if start["problem"] is not None:
            return {**row, "status": "not stabilised"}
        if setting.epochs == 0:
            return row
        begin = time.perf_counter()
        self._prepare_to_train(setting)
        trained = train(self.model, setting, self.training, self.validation)
        weights = trained.pop("weights")
        trained["seconds"] = round(time.perf_counter() - begin, 2)
        if trained.pop("diverged"):
            return {**row, "status": "diverged", "training": trained}
        # The test split is read here and nowhere else: nothing is chosen by it.
        trained["final_test"] = rounded(evaluate(self.model, setting, self.test)[0], 6)
        self.model.set_weights(weights)
        trained["test"] = rounded(evaluate(self.model, setting, self.test)[0], 6)
        return {**row, "status": "trained", "training": trained}

    def _compile(self, setting: Setting) -> None:
        if self._compiled_for == (setting.clip_norm,):
            return
        task = datasets.info(setting.dataset)
        optimizer = keras.optimizers.Adam(global_clipnorm=setting.clip_norm)
        metrics = ["accuracy"] if task.metric == "accuracy" else []
        self.model.compile(optimizer, task.loss, metrics=metrics)
        optimizer.build(self.model.trainable_variables)
        self._compiled_for = (setting.clip_norm,)

    def _prepare_to_train(self, setting: Setting) -> None:
        self._compile(setting)
        for variable in self.model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable.value))
        self.model.optimizer.learning_rate = setting.learning_rate


def train(
    model: keras.Model, setting: Setting, training: Split, validation: Split
) -> dict[str, Any]:
    """Trains a compiled network and keeps the weights of the best validation.

    The order of the examples is drawn by NumPy from the seed, so every start of a seed sees the
    same batches.

    Args:
        model: compiled, with its starting weights.
        setting: of the run.
        training: examples to train on.
        validation: examples that decide which weights are kept.

    Returns:
        "validation": the metric after every part of an epoch; "loss": of training; "best", "final";
        "updates_to_best", "updates_to_threshold" (None if never reached); "weights" of the best
        validation; "diverged".
    """
    generator = np.random.default_rng([setting.seed, 77])
    part = len(training.x) // setting.batch_size // setting.validations
    result: dict[str, Any] = {"updates_per_validation": part, "diverged": False}
    scores: list[float] = []
    losses: list[float] = []
    best, weights = None, model.get_weights()
    for _ in range(setting.epochs):
        order = generator.permutation(len(training.x))
        for k in range(setting.validations):
            size = part * setting.batch_size
            chosen = order[k * size : (k + 1) * size]
            history = model.fit(
                training.x[chosen],
                training.y[chosen],
                batch_size=setting.batch_size,
                shuffle=False,
                verbose=0,
            )
            losses.append(float(history.history["loss"][-1]))
            score, loss = evaluate(model, setting, validation)
            if not (math.isfinite(losses[-1]) and math.isfinite(loss)):
                return {**result, "diverged": True, "weights": None, "loss": rounded(losses)}
            scores.append(score)
            if best is None or is_better(setting, score, scores[best]):
                best, weights = len(scores) - 1, model.get_weights()
            if setting.patience is not None and len(scores) - 1 - best >= setting.patience:
                break
        else:
            continue
        break
    reached = [k for k, score in enumerate(scores) if reaches_threshold(setting, score)]
    return {
        **result,
        "validation": rounded(scores, 6),
        "loss": rounded(losses),
        "best": rounded(scores[best or 0], 6),
        "final": rounded(scores[-1], 6),
        "updates_to_best": part * ((best or 0) + 1),
        "updates_to_threshold": part * (reached[0] + 1) if reached else None,
        "weights": weights,
    }


def evaluate(model: keras.Model, setting: Setting, split: Split) -> tuple[float, float]:
    """The metric of a setting's task, and the loss, on one split."""
    batch = min(_EVALUATION_BATCH, len(split.x))
    result = model.evaluate(split.x, split.y, batch_size=batch, verbose=0, return_dict=True)
    loss = float(result["loss"])
    metric = datasets.info(setting.dataset).metric
    if metric == "accuracy":
        return float(result["accuracy"]), loss
    # Beyond this the perplexity is no number, and the network has diverged.
    return (math.exp(loss) if loss < 700 else math.inf) if metric == "perplexity" else loss, loss


def is_better(setting: Setting, score: float, other: float) -> bool:
    """Whether one value of the task's metric is better than another."""
    return score > other if higher_is_better(setting.dataset) else score < other


def higher_is_better(dataset: str) -> bool:
    """Whether more of a task's metric is better: of accuracy, not of errors or perplexity."""
    return datasets.info(dataset).metric == "accuracy"


def reaches_threshold(setting: Setting, score: float) -> bool:
    """Whether a value of the metric is at least as good as the setting's threshold."""
    if setting.threshold is None:
        return False
    return not is_better(setting, setting.threshold, score)


def _stabilized_or_measured(
    model: keras.Model, x: np.ndarray, setting: Setting, updates: UpdateCounter
) -> keras_lsc.StabilityReport:
    if setting.method == "level":
        return keras_lsc.stabilize(
            model, x, method="level", growth=setting.growth, seed=setting.seed, samples=SAMPLES
        )
    if setting.method == "lsuv":
        level_forward(model, x)
    if setting.target is None:
        return keras_lsc.measure(model, x, samples=SAMPLES, seed=setting.seed, gradient=False)
    options: dict[str, Any] = {
        "mode": setting.mode,
        "radius": setting.radius,
        "tolerance": setting.tolerance,
        "max_updates": setting.max_updates,
        # As the recorded starts were made, by gradients alone.
        "optimizer": "adam",
    }
    return keras_lsc.stabilize(
        model, x, as_target(setting.target), seed=setting.seed, callbacks=(updates,), **options
    )
