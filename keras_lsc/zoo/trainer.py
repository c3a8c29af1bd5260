"""Trained weights for the zoo: from the table of what is trained to files with their scores."""

import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets, files
from keras_lsc.arguments import flag, integer, learning_rates, positive_integer
from keras_lsc.datasets.batching import Batches
from keras_lsc.version import installed_versions
from keras_lsc.workers import Answer, Jobs, Work, checked_jobs, start_workers
from keras_lsc.zoo import (
    heads,
    inputs,
    locks,
    networks,
    registry,
    sources,
    start_file,
    trained_file,
    training,
)
from keras_lsc.zoo.build import start_path, with_trained
from keras_lsc.zoo.certificate import PACKAGES, certificate_data
from keras_lsc.zoo.damage import DamagedCheckpointError
from keras_lsc.zoo.pretraining import Gauge
from keras_lsc.zoo.recipes import Recipe, RecipeError
from keras_lsc.zoo.schema import check_entry
from keras_lsc.zoo.scores import MOST_SEEDS, is_better
from keras_lsc.zoo.start_file import StartFile
from keras_lsc.zoo.task_data import TaskData, read_task

# Beside the files of trained weights, what is trained and how.
PLAN = "plan.toml"
# What a worker is for.
_TRAINER = f"{__name__}:trainer"


class NotTrainedError(RuntimeError):
    """No learning rate gave a finite loss."""


@dataclass(frozen=True)
class Plan:
    """How the trained weights of a checkpoint are made.

    Attributes:
        name: Name of the checkpoint.
        epochs: Number of epochs.
        limit: Most sequences of each split; None for all.
        batch_size: Number of sequences of an update.
        learning_rates: Learning rates of Adam to try with the first seed.
        seeds: Number of seeds.
        stored: Whether the file is part of the package; of a large network it is not.
    """

    name: str
    epochs: int
    limit: int | None = None
    batch_size: int = 32
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    seeds: int = 3
    stored: bool = True


def read_plans(folder: Path) -> dict[str, Plan]:
    """Reads what is to be trained, by the names of the checkpoints.

    The file has keys that hold for all and `[[training]]` tables, each with `names` and keys that
    go before those.

    Args:
        folder: Folder of the zoo; the file is `trained/plan.toml` in it.

    Raises:
        RecipeError: It cannot be read, or has a key or a value of no use, or a name twice.
    """
    path = folder / sources.TRAINED / PLAN
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    tables = content.pop("training", None)
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise RecipeError(f"{path} has no [[training]] table.")
    plans: dict[str, Plan] = {}
    for table in tables:
        given = {**content, **table}
        names = given.pop("names", None)
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise RecipeError(f"{path} has a [[training]] table without a list of names.")
        for name in names:
            if name in plans:
                raise RecipeError(f"{path} has {name!r} twice.")
            plans[name] = _checked(path, {"name": name, **given})
    return plans


def _checked(path: Path, given: dict[str, Any]) -> Plan:
    unknown = sorted(given.keys() - {item.name for item in fields(Plan)})
    if unknown or "epochs" not in given:
        what = f"has the unknown key {unknown[0]!r:.200}" if unknown else "gives no 'epochs'"
        raise RecipeError(f"{path} {what} for {given['name']!r}.")
    try:
        checked = {key: _CHECKS[key](key, value) for key, value in given.items() if key in _CHECKS}
    except ValueError as error:
        raise RecipeError(f"{path}, of {given['name']!r}: {error}") from error
    return Plan(**{**given, **checked})


def _seeds(key: str, value: Any) -> int:
    count = integer(key, value, at_least=2)
    if count > MOST_SEEDS:
        raise ValueError(f"{key} must be at most {MOST_SEEDS}, got {count}.")
    return count


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "epochs": positive_integer,
    "limit": positive_integer,
    "batch_size": positive_integer,
    "learning_rates": learning_rates,
    "seeds": _seeds,
    "stored": flag,
}


def trained_path(folder: Path, plan: Plan) -> Path:
    """Where the file of trained weights is in the folder of a zoo."""
    part = sources.TRAINED if plan.stored else sources.LARGE
    return folder / part / f"{plan.name}{start_file.SUFFIX}"


def is_trained(plan: Plan, folder: Path) -> bool:
    """Whether the index has weights that were trained by this plan, from the start that is there.

    Of what is part of the package the file has to be there too, unchanged.
    """
    entry = registry.read_index(folder / registry.INDEX).get(plan.name, {})
    made = entry.get("trained")
    if made is None or made["start"] != entry["sha256"]:
        return False
    planned = {
        "epochs": plan.epochs,
        "limit": plan.limit,
        "batch_size": plan.batch_size,
        "learning_rates": list(plan.learning_rates),
    }
    as_planned = all(made[key] == value for key, value in planned.items())
    is_there = not plan.stored or files.is_intact(trained_path(folder, plan), made["sha256"])
    return as_planned and len(made["seeds"]) == plan.seeds and is_there


def train(plan: Plan, folder: Path, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Trains a checkpoint and its twin, and puts the weights with their scores into the zoo.

    Both try the learning rates of the plan with the first seed, and the one that does best on the
    validation split with the other seeds. Of the seeds of the checkpoint, whichever does best
    there is stored; the test split is measured once for each.

    Args:
        plan: How it is trained.
        folder: Folder of the zoo; the file is written to its `trained`, or to `trained_large`
            where that is no part of the package, and the entry of the index is changed.
        tell: Is called with a line for every training.

    Returns:
        The fields of `keras_lsc.zoo.Trained`.

    Raises:
        UnknownCheckpointError: The index has no such checkpoint.
        NotTrainedError: No learning rate gave a finite loss.
        DatasetUnavailableError: The data is not on this computer.
        DamagedCheckpointError: The file of the start is another one than the index says.
    """
    start = _start(plan, folder)
    return _put_into_zoo(plan, folder, start, _trained(plan, start, tell))


def train_all(
    plans: Sequence[Plan],
    folder: Path,
    jobs: Jobs,
    finished: Callable[[Plan, list[str], dict[str, Any]], None],
) -> None:
    """Trains checkpoints as `train` does, in processes of their own, `jobs` at a time.

    The first that fails ends it; the others are in the zoo, and what is killed is begun anew.

    Args:
        plans: How they are trained.
        folder: Folder of the zoo, which the processes need not have: this one alone writes.
        jobs: Number of processes at a time; "ray" for the cores of a Ray cluster.
        finished: Called after each with its plan, a line for every training, and what `train`
            returns.

    Raises:
        NotTrainedError: One failed; it says why.
        WorkerFailedError: A process did.
    """
    jobs = checked_jobs(jobs)
    starts = [_start(plan, folder) for plan in plans]

    def tell(answer: Answer) -> None:
        if answer.failure is not None:
            raise answer.failure
        plan, outcome = plans[answer.job], answer.value
        if isinstance(outcome, str):
            raise NotTrainedError(outcome)
        lines, made = outcome
        finished(plan, lines, _put_into_zoo(plan, folder, starts[answer.job], made))

    with start_workers(Work(_TRAINER, is_fresh=True), jobs) as workers:
        workers.run([[job] for job in zip(plans, starts, strict=True)], tell)


def trainer() -> Callable[[list[tuple[Plan, StartFile]]], Iterator[Any]]:
    """What a worker of `train_all` does: plans and starts in; lines and outcomes, or why not."""
    return lambda jobs: (_told(plan, start) for plan, start in jobs)


def _told(plan: Plan, start: StartFile) -> "tuple[list[str], _Outcome] | str":
    lines: list[str] = []
    try:
        return lines, _trained(plan, start, lines.append)
    except (NotTrainedError, datasets.DatasetUnavailableError, DamagedCheckpointError) as error:
        return str(error)


def _start(plan: Plan, folder: Path) -> StartFile:
    """The start that is trained."""
    entries = registry.read_index(folder / registry.INDEX)
    if plan.name not in entries:
        raise registry.refuse(plan.name, list(entries))
    entry = entries[plan.name]
    recipe = Recipe.from_dict(entry["certificate"]["recipe"])
    return StartFile.read(start_path(folder, plan.name), recipe).checked(entry["sha256"])


@dataclass(frozen=True)
class _Outcome:
    """The content of a file of trained weights, its entry, and what was measured of them."""

    content: bytes
    made: dict[str, Any]
    report: dict[str, Any]


def _trained(plan: Plan, start: StartFile, tell: Callable[[str], None]) -> _Outcome:
    began = time.perf_counter()
    school = _School(plan, start)
    trained, twin = (
        school.graduates(networks.weights_of(start.model(is_initial=is_initial)), tell)
        for is_initial in (False, True)
    )
    best = trained.best(school.metric)
    before = networks.weights_of(start.model())
    numbers = trained_file.numbers_of(before, best.weights)
    content = start_file.content_of(numbers)
    rounded = trained_file.moved(before, numbers)
    scores = school.scores(rounded)
    made = {
        "metric": school.metric,
        **scores,
        "unrounded": best.test,
        "seeds": [run.test for run in trained.runs],
        "twin": [run.test for run in twin.runs],
        "learning_rate": trained.rate,
        "twin_learning_rate": twin.rate,
        "learning_rates": list(plan.learning_rates),
        "epochs": plan.epochs,
        "best_epoch": best.epoch,
        "batch_size": plan.batch_size,
        "limit": plan.limit,
        "sequences": {split: len(b.examples) for split, b in school.data.splits.items()},
        "masks": school.masks,
        "seconds": round(time.perf_counter() - began, 1),
        "backend": keras.backend.backend(),
        "versions": installed_versions(*PACKAGES),
        "start": start.sha256,
        "sha256": files.sha256_of(content),
        "bytes": len(content),
        "address": None,
    }
    return _Outcome(content, made, _report(start, rounded))


def _put_into_zoo(plan: Plan, folder: Path, start: StartFile, outcome: _Outcome) -> dict[str, Any]:
    path = trained_path(folder, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as new:
        new.write_bytes(outcome.content)
    _put_into_index(folder, plan.name, start.sha256, outcome.made, outcome.report)
    return outcome.made


def _report(start: StartFile, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is measured of the trained network, as the certificate of its start has it."""
    recipe, model = start.recipe, start.model()
    networks.set_weights(model, values)
    gauge = Gauge(model, certificate_data(recipe), recipe, recipe.seed)
    return gauge.with_energies(gauge.radii(recipe.samples)).to_dict()


def _put_into_index(
    folder: Path, name: str, start: str, made: dict[str, Any], report: dict[str, Any]
) -> None:
    index = folder / registry.INDEX
    with locks.locked(folder):
        entries = dict(registry.read_index(index))
        entry = entries[name]
        if entry["sha256"] != start:
            raise NotTrainedError(
                f"The start of {name!r} was built anew meanwhile: train it again."
            )
        entries[name] = with_trained(entry, made, report)
        check_entry(index, name, entries[name])
        files.write_json(index, entries, sort_keys=True)


@dataclass(frozen=True)
class _Run:
    """A training: the metric on both splits, the best epoch, and the weights it had there."""

    validation: float
    test: float
    epoch: int
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Graduates:
    """The trainings of all seeds at one learning rate."""

    rate: float
    runs: list[_Run]

    def best(self, metric: str) -> _Run:
        found = self.runs[0]
        for run in self.runs[1:]:
            found = run if is_better(metric, run.validation, found.validation) else found
        return found


class _School:
    """Trains one network from any weights, with what is compiled once.

    Args:
        plan: How it is trained.
        start: A start of its recipe.
    """

    def __init__(self, plan: Plan, start: StartFile):
        recipe, task = start.recipe, datasets.info(start.recipe.dataset)
        self._plan = plan
        self.metric = task.metric
        self.data: TaskData = read_task(
            task,
            recipe.options,
            data_dir=None,
            download=False,
            batch_size=plan.batch_size,
            limit=plan.limit,
            seed=0,
        )
        model, is_fresh = heads.fit_head(start.model(), task, self.data.outputs, 0)
        assert not is_fresh, "the networks of recipes have the heads of their tasks"
        self._model, self.masks = inputs.fit_mask(model, task, self.data.splits["train"])
        for batches in self.data.splits.values():
            batches.masks = self.masks == "dataset"
        training.compile_for(self._model, task, plan.learning_rates[0])

    def graduates(
        self, weights: Mapping[str, np.ndarray], tell: Callable[[str], None]
    ) -> _Graduates:
        """Tries the learning rates with the first seed, and the best one with the others."""
        best: tuple[float, _Run] | None = None
        for rate in self._plan.learning_rates:
            run = self._trained(weights, rate, 0, tell)
            if run is not None and (
                best is None or is_better(self.metric, run.validation, best[1].validation)
            ):
                best = rate, run
        if best is None:
            raise NotTrainedError(f"{self._plan.name} learns at none of the learning rates.")
        rate, first = best
        others = [self._trained(weights, rate, s, tell) for s in range(1, self._plan.seeds)]
        if any(run is None for run in others):
            raise NotTrainedError(f"{self._plan.name} does not learn from every seed at {rate:g}.")
        runs = [first, *(run for run in others if run is not None)]
        return _Graduates(rate, [self._tested(run) for run in runs])

    def scores(self, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metric on both splits."""
        networks.set_weights(self._model, weights)
        return {
            split: training.evaluate(self._model, self.data.splits[split])[self.metric]
            for split in ("validation", "test")
        }

    def _tested(self, run: _Run) -> _Run:
        return replace(run, test=self.scores(run.weights)["test"])

    def _trained(
        self,
        weights: Mapping[str, np.ndarray],
        rate: float,
        seed: int,
        tell: Callable[[str], None],
    ) -> _Run | None:
        """A training, its test split not yet measured; None where the loss is not finite."""
        keras.utils.set_random_seed(seed)
        networks.set_weights(self._model, weights)
        for variable in self._model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        self._model.optimizer.learning_rate = rate
        examples, masks = self.data.splits["train"].examples, self.masks == "dataset"
        size = self._plan.batch_size
        order = Batches(examples, batch_size=size, shuffle=True, seed=seed, masks=masks)
        data = replace(self.data, splits={**self.data.splits, "train": order})
        epochs = self._plan.epochs
        stopping, callbacks = training.watchers(data.task, epochs, None, None)
        try:
            done = training.train(
                self._model,
                data,
                epochs=epochs,
                stopping=stopping,
                callbacks=callbacks,
                class_weight=None,
                verbose=0,
            )
        except FloatingPointError:
            tell(f"rate {rate:g}, seed {seed}: no finite loss")
            return None
        # An epoch that broke off has no figure, and none of the others may be the best.
        found = np.asarray(done.history.get(f"val_{self.metric}", [np.nan]))
        if not np.isfinite(found).any():
            return None
        best = float(np.nanmax(found) if self.metric == "accuracy" else np.nanmin(found))
        tell(f"rate {rate:g}, seed {seed}: validation {best:.4f}, {done.seconds:.1f} s")
        return _Run(best, float("nan"), done.best_epoch, networks.weights_of(self._model))
