"""Building checkpoints from recipes: restartable, in parallel, the same file every time."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lsc import files
from keras_lsc.callbacks import UpdateCounter
from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.stability.measure import at_enough_points
from keras_lsc.stability.report import StabilityReport
from keras_lsc.workers import Answer, Jobs, Work, checked_jobs, start_workers
from keras_lsc.zoo import locks, networks, registry, sources, start_file
from keras_lsc.zoo.certificate import certificate_data, make_certificate, training_data
from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage
from keras_lsc.zoo.pretraining import NOT_REACHED, Gauge, deviation, pretrain
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.schema import check_entry

LICENCE = "Apache-2.0"
_BUILDING = "building"
# What a worker is for.
_BUILDER = f"{__name__}:builder"
_ATTEMPTS, _CLOSER = 6, 0.6


class NotBuiltError(RuntimeError):
    """A network did not get to what its recipe asks for."""


def build(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Makes the checkpoint of a recipe.

    Args:
        recipe: Recipe of the checkpoint.
        folder: Folder of the zoo; the file is written to its `starts`.

    Returns:
        The entry of the index.

    Raises:
        NotBuiltError: It did not get within the recipe's tolerance on the certificate's data.
        DatasetUnavailableError: The data is not on this computer.
    """
    entry, content = _build(recipe)
    _write(start_path(folder, recipe.name), content)
    return entry


def start_path(folder: Path, name: str) -> Path:
    """Where the file of a checkpoint is in the folder of a zoo."""
    return folder / sources.STARTS / f"{name}{start_file.SUFFIX}"


def _build(recipe: Recipe) -> tuple[dict[str, Any], bytes]:
    """The entry of the index for a recipe, and the content of its file."""
    began = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    training, validation = training_data(recipe), certificate_data(recipe)
    model = networks.build_network(recipe)
    drawn = networks.weights_of(model)
    updates = UpdateCounter()
    gauge = Gauge(model, validation, recipe, recipe.seed)
    content, stabilized = _stabilize(recipe, model, drawn, training, gauge, updates)
    networks.set_weights(model, drawn)
    initial = gauge.with_energies(gauge.radii(stabilized.samples))
    certificate = make_certificate(recipe, initial, stabilized, training, validation)
    entry = {
        "parameters": model.count_params(),
        "bytes": len(content),
        "sha256": files.sha256_of(content),
        "licence": LICENCE,
        "updates": updates.updates,
        "seconds": round(time.perf_counter() - began, 1),
        "firing_rates": stabilized.firing_rates,
        "certificate": certificate,
    }
    return entry, content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as new:
        new.write_bytes(content)


def _stabilize(
    recipe: Recipe,
    model: keras.Model,
    drawn: dict[str, np.ndarray],
    training: np.ndarray,
    gauge: Gauge,
    updates: UpdateCounter,
) -> tuple[bytes, StabilityReport]:
    """Pre-trains to the recipe's tolerance on the certificate's data: the start and its report.

    Every attempt holds out another part of the training sequences. Where one does not carry over
    to the certificate's sequences, the next goes on to a closer tolerance; where one fails, the
    next may be as far off as the certificate.
    """
    tolerance = recipe.pretraining_tolerance
    for attempt in range(_ATTEMPTS):
        seed = recipe.seed + attempt
        try:
            pretrain(model, training, recipe, tolerance, seed, (updates,), verbose=0)
        except NOT_REACHED as failed:
            problem, tolerance = str(failed), recipe.tolerance
            continue
        numbers = start_file.numbers_of(drawn, networks.weights_of(model))
        # Certified is what will be loaded, in which scales are rounded.
        networks.set_weights(model, start_file.expanded(drawn, numbers))
        report = _certified(recipe, gauge)
        found = deviation(report, recipe)
        rates = report.silent_or_saturated
        if found <= recipe.tolerance and not rates:
            return start_file.content_of(numbers), report
        problem = (
            f"{recipe.name} is within {tolerance:.4f} of what it should be on training sequences "
            f"but {found:.4f} off on validation sequences, where {recipe.tolerance} is asked for."
        )
        if rates:
            problem = f"{recipe.name} has layers that are silent or saturated: {rates}."
        tolerance *= _CLOSER
    raise NotBuiltError(problem)


def _certified(recipe: Recipe, gauge: Gauge) -> StabilityReport:
    """The report of the certificate, at as many points as its tolerance asks for."""
    radii = gauge.radii(recipe.samples)
    if recipe.method == "lsc":
        radii = at_enough_points(radii, gauge.radii, recipe.tolerance / 3, recipe.most_samples)
    return gauge.with_energies(radii)


def is_built(recipe: Recipe, folder: Path) -> bool:
    """Whether the index has this very recipe, and its file is there, unchanged."""
    entry = registry.read_index(folder / registry.INDEX).get(recipe.name)
    path = start_path(folder, recipe.name)
    return (
        entry is not None
        and Recipe.from_dict(entry["certificate"]["recipe"]) == recipe
        and files.is_intact(path, entry["sha256"])
    )


def leave(name: str, entry: dict[str, Any], content: bytes, folder: Path) -> None:
    """Leaves a finished build, its file first, for `collect`."""
    _write(waiting_file(folder, entry["sha256"]), content)
    path = folder / _BUILDING / f"{name}.json"
    check_entry(path, name, entry)
    with locks.locked(folder):
        files.write_json(path, entry, sort_keys=True)


def waiting_file(folder: Path, digest: str) -> Path:
    """Where the file of a finished build waits for `collect`."""
    # Another process may build the same recipe, and its file be another one.
    return folder / _BUILDING / f"{digest}{start_file.SUFFIX}"


def collect(folder: Path) -> None:
    """Moves finished checkpoints in place and their entries into the index.

    One process at a time does so. Where it is killed, the next call goes on; an entry is removed
    from those that wait after it stands in the index. One that cannot be read is removed.
    """
    waiting = folder / _BUILDING
    if not waiting.is_dir():
        return
    index = folder / registry.INDEX
    with locks.locked(folder):
        finished = sorted(waiting.glob("*.json"))
        found = {path: _waiting_entry(path) for path in finished}
        entries = dict(registry.read_index(index))
        for path, entry in found.items():
            if entry is not None and _put_in_place(folder, path.stem, entry):
                entries[path.stem] = _with_training(entry, entries.get(path.stem))
        if found:
            files.write_json(index, entries, sort_keys=True)
        for path in found:
            path.unlink()


def _waiting_entry(path: Path) -> dict[str, Any] | None:
    try:
        with as_damage(path):
            entry = json.loads(path.read_text(encoding="utf-8"))
        check_entry(path, path.stem, entry)
    except DamagedCheckpointError:
        return None
    return entry


def _put_in_place(folder: Path, name: str, entry: dict[str, Any]) -> bool:
    waiting = waiting_file(folder, entry["sha256"])
    path = start_path(folder, name)
    if files.is_intact(waiting, entry["sha256"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(waiting, path)
        return True
    # It was moved by a process that was killed before it could say so.
    return files.is_intact(path, entry["sha256"])


def _with_training(entry: dict[str, Any], former: Mapping[str, Any] | None) -> dict[str, Any]:
    """An entry with the trained weights of the former one, where these are of the same start."""
    if former is None or "trained" not in former or former["sha256"] != entry["sha256"]:
        return entry
    return with_trained(entry, former["trained"], former["certificate"]["trained"])


def with_trained(
    entry: Mapping[str, Any], made: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """An entry of the index with what is known of its trained weights, and what was measured."""
    certificate = {**entry["certificate"], "trained": report}
    return {**entry, "certificate": certificate, "trained": made}


def build_all(
    recipes: Iterable[Recipe],
    folder: Path,
    jobs: Jobs,
    finished: Callable[[Recipe, str | None], None],
) -> int:
    """Builds checkpoints in processes of their own, `jobs` at a time.

    Several processes may do so in one folder, which those that build need not have: this one alone
    writes. The builds end with this process, however it ends. One that is killed is begun anew.

    Args:
        recipes: Recipes of the checkpoints; those that are built already are left out.
        folder: Folder of the zoo.
        jobs: Number of processes at a time; "ray" for the cores of a Ray cluster.
        finished: Called after each with its recipe and, if it failed, what it printed.

    Returns:
        How many failed.

    Raises:
        ValueError: `jobs` is neither a positive integer nor "ray".
        ModuleNotFoundError: `jobs` is "ray", which is not installed.
    """
    jobs = checked_jobs(jobs)
    collect(folder)
    pending = [recipe for recipe in recipes if not is_built(recipe, folder)]
    problems: list[str] = []

    def tell(answer: Answer) -> None:
        recipe, failure = pending[answer.job], answer.failure
        problem = f"{failure.words}\n{failure.end}".strip() if failure else answer.value["problem"]
        if problem is None:
            leave(recipe.name, answer.value["entry"], answer.value["content"], folder)
            collect(folder)
        else:
            problems.append(problem)
        finished(recipe, problem)

    if pending:
        with start_workers(Work(_BUILDER, is_fresh=True), jobs) as workers:
            workers.run([[recipe.to_dict()] for recipe in pending], tell)
    return len(problems)


def builder() -> Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]:
    """What a worker of `build_all` does: recipes in, their entries and files out."""
    return lambda recipes: map(_built, recipes)


def _built(recipe: dict[str, Any]) -> dict[str, Any]:
    try:
        entry, content = _build(Recipe.from_dict(recipe))
    except (NotBuiltError, DatasetUnavailableError) as error:
        return {"problem": str(error)}
    return {"problem": None, "entry": entry, "content": content}
