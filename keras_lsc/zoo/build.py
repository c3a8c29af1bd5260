"""Building checkpoints from recipes: restartable, in parallel, the same file every time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lsc.callbacks import UpdateCounter
from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.stability.data import draw_rows
from keras_lsc.stability.measure import Probe, measure
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stabilization import NotStabilizedError, stabilize
from keras_lsc.zoo import archive, registry, sources
from keras_lsc.zoo.certificate import certificate_data, make_certificate, training_data
from keras_lsc.zoo.networks import build_network
from keras_lsc.zoo.recipes import Recipe

LICENCE = "Apache-2.0"
_BUILDING = "building"
_ATTEMPTS, _CLOSER = 6, 0.6


def build(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Makes the checkpoint of a recipe.

    Args:
        recipe: of the checkpoint.
        folder: of the zoo; the file is written to its `checkpoints`.

    Returns:
        The entry of the index.

    Raises:
        NotStabilizedError: a radius is outside the recipe's tolerance on the certificate's data.
        DatasetUnavailableError: the data is not on this computer.
    """
    start = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    training, validation = training_data(recipe), certificate_data(recipe)
    model = build_network(recipe)
    updates = UpdateCounter()
    stabilized = _stabilize(recipe, model, training, validation, updates)
    deviation = stabilized.max_deviation(recipe.target)
    initial = measure(build_network(recipe), validation, stabilized.samples, recipe.seed)
    certificate = make_certificate(recipe, initial, stabilized, training, validation)
    certificate["deviation"] = deviation
    path = folder / sources.CHECKPOINTS / f"{recipe.name}.keras"
    digest = archive.write(model, path, certificate)
    return {
        "parameters": model.count_params(),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "licence": LICENCE,
        "updates": updates.updates,
        "seconds": round(time.perf_counter() - start, 1),
        "firing_rates": stabilized.firing_rates,
        "certificate": certificate,
    }


def _stabilize(
    recipe: Recipe,
    model: keras.Model,
    training: np.ndarray,
    validation: np.ndarray,
    updates: UpdateCounter,
) -> StabilityReport:
    """Pre-trains to the recipe's tolerance on the certificate's data, and returns its report.

    Every attempt holds out another part of the training sequences. Where one does not carry over
    to the certificate's sequences, the next goes on to a closer tolerance; where one fails, the
    next may be as far off as the certificate.
    """
    tolerance = recipe.pretraining_tolerance
    for attempt in range(_ATTEMPTS):
        try:
            stabilize(
                model,
                training,
                recipe.target,
                tolerance=tolerance,
                mode=recipe.mode,  # type: ignore[arg-type]
                max_updates=recipe.max_updates,
                batch_size=recipe.batch_size,
                seed=recipe.seed + attempt,
                learning_rate=recipe.learning_rate,
                callbacks=(updates,),
            )
        except NotStabilizedError as failed:
            error, tolerance = failed, recipe.tolerance
            continue
        report = _certified(recipe, model, validation)
        deviation = report.max_deviation(recipe.target)
        if deviation <= recipe.tolerance:
            return report
        error = NotStabilizedError(
            f"{recipe.name} is within {tolerance:.4f} of its target on training sequences but "
            f"{deviation:.4f} off on validation sequences, where {recipe.tolerance} is asked for.",
            report,
        )
        tolerance *= _CLOSER
    raise error


def _certified(recipe: Recipe, model: keras.Model, x: np.ndarray) -> StabilityReport:
    """The report of the certificate, at as many points as its tolerance asks for."""
    probe = Probe(model)

    def report(samples: int) -> StabilityReport:
        rows = draw_rows(x, samples, recipe.seed, model.inputs)
        return probe.report(rows, samples, recipe.seed)

    rough = report(recipe.samples)
    needed = min(rough.samples_for(recipe.tolerance / 3), recipe.most_samples)
    return report(needed) if needed > recipe.samples else rough


def is_built(recipe: Recipe, folder: Path) -> bool:
    """Whether the index has this very recipe, and its file is there, unchanged."""
    entry = registry.read_index(folder / registry.INDEX).get(recipe.name)
    path = folder / sources.CHECKPOINTS / f"{recipe.name}.keras"
    return (
        entry is not None
        and Recipe.from_dict(entry["certificate"]["recipe"]) == recipe
        and path.is_file()
        and archive.sha256(path) == entry["sha256"]
    )


def build_one(recipe: Recipe, folder: Path) -> None:
    """Builds one checkpoint and leaves its entry for `collect` to put into the index."""
    entry = build(recipe, folder)
    waiting = folder / _BUILDING
    waiting.mkdir(parents=True, exist_ok=True)
    _write(waiting / f"{recipe.name}.json", entry)


def build_in_process(recipe: str, folder: str) -> None:
    """`build_one` as the whole of a process; says in its last words why a build is not to be had.

    Args:
        recipe: JSON of `Recipe.to_dict`.
        folder: of the zoo.
    """
    try:
        build_one(Recipe.from_dict(json.loads(recipe)), Path(folder))
    except (NotStabilizedError, DatasetUnavailableError) as error:
        sys.exit(str(error))


def collect(folder: Path) -> None:
    """Moves the entries of finished builds into the index."""
    index = folder / registry.INDEX
    entries = registry.read_index(index)
    finished = sorted((folder / _BUILDING).glob("*.json"))
    for path in finished:
        entries[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    if finished:
        _write(index, dict(sorted(entries.items())))
    for path in finished:
        path.unlink()


def _write(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def build_all(
    recipes: Iterable[Recipe],
    folder: Path,
    jobs: int,
    finished: Callable[[Recipe, str | None], None],
) -> int:
    """Builds checkpoints in processes of their own, `jobs` at a time.

    Args:
        recipes: of the checkpoints; those that are built already are left out.
        folder: of the zoo.
        jobs: number of processes at a time.
        finished: called after each with its recipe and, if it failed, what it printed.

    Returns:
        How many failed.
    """
    collect(folder)
    pending = [recipe for recipe in recipes if not is_built(recipe, folder)]
    running: list[tuple[Recipe, subprocess.Popen[str]]] = []
    failures = 0
    try:
        while pending or running:
            while pending and len(running) < jobs:
                recipe = pending.pop(0)
                running.append((recipe, _start(recipe, folder)))
            time.sleep(0.2)
            for recipe, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((recipe, process))
                output = process.communicate()[0]
                problem = None
                if process.returncode:
                    failures += 1
                    problem = output.strip() or f"exit code {process.returncode}"
                collect(folder)
                finished(recipe, problem)
    finally:
        for _, process in running:
            process.terminate()
    return failures


def _start(recipe: Recipe, folder: Path) -> subprocess.Popen[str]:
    program = (
        "import sys; from keras_lsc.zoo.build import build_in_process; "
        "build_in_process(*sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(recipe.to_dict()), str(folder)],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
