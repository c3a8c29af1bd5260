"""Verifying many checkpoints in several processes, past those whose data is not here."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.workers import RAY, Answer, Jobs, Work, checked_jobs, start_workers
from keras_lsc.zoo.damage import DamagedCheckpointError
from keras_lsc.zoo.loading import Stored
from keras_lsc.zoo.sources import CheckpointUnavailableError
from keras_lsc.zoo.verification import CertificateMismatchError, verify

PASSED, FAILED, NO_DATA = "passed", "failed", "no data"
# What a worker is for.
_VERIFIER = f"{__name__}:verifier"


def outcome(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    weights: Stored = "stabilized",
) -> dict[str, Any]:
    """Verifies a checkpoint and says what came of it, whatever did.

    Args:
        name: Name of a checkpoint of the zoo.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        weights: As `verify` takes it.

    Returns:
        The fields of `Verification.to_dict`, with None for what was not measured; "verdict", which
        is "passed", "failed" or "no data"; and "seconds".
    """
    began = time.perf_counter()
    try:
        result = verify(name, weights=weights, data_dir=data_dir)
        row = {"verdict": PASSED if result.passed else FAILED, **result.to_dict()}
    except (DatasetUnavailableError, ModuleNotFoundError) as error:
        # Or what reads the data is not installed.
        row = _unmeasured(name, NO_DATA, str(error))
    except (
        CertificateMismatchError,
        CheckpointUnavailableError,
        DamagedCheckpointError,
    ) as error:
        row = _unmeasured(name, FAILED, str(error))
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def _unmeasured(name: str, verdict: str, problem: str) -> dict[str, Any]:
    figures = ("difference", "energy_difference", "deviation", "tolerance")
    return {
        "verdict": verdict,
        "name": name,
        "passed": None if verdict == NO_DATA else False,
        "backend": keras.backend.backend(),
        **dict.fromkeys(figures),
        "problems": [problem],
    }


def verify_all(
    names: Sequence[str],
    jobs: Jobs,
    finished: Callable[[dict[str, Any]], None],
    data_dir: str | os.PathLike[str] | None = None,
    weights: Stored = "stabilized",
) -> list[dict[str, Any]]:
    """Verifies checkpoints, `jobs` at a time; none keeps the others from being measured.

    Of several jobs each is a process that takes one checkpoint after the other, with its share of
    the cores. They end with this process, however it ends.

    Args:
        names: Names of checkpoints of the zoo.
        jobs: Number of processes at a time; 1 for this one, "ray" for the cores of a Ray cluster.
        finished: Called after each with what `outcome` returns.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        weights: As `verify` takes it.

    Returns:
        What `outcome` returns of each, in the order of the names.

    Raises:
        ValueError: `jobs` is neither a positive integer nor "ray".
        ModuleNotFoundError: `jobs` is "ray", which is not installed.
    """
    jobs = checked_jobs(jobs)
    if jobs != RAY:
        jobs = max(1, min(jobs, len(names)))
    if data_dir is not None:
        chosen_data_dir(data_dir)
    if jobs == 1:
        rows = []
        for name in names:
            rows.append(outcome(name, data_dir, weights))
            finished(rows[-1])
        return rows
    found: dict[str, dict[str, Any]] = {}

    def tell(answer: Answer) -> None:
        name, row = names[answer.job], answer.value
        if answer.failure is not None:
            row = {**_unmeasured(name, FAILED, str(answer.failure)), "seconds": None}
        found[name] = row
        finished(row)

    folder = None if data_dir is None else os.fspath(data_dir)
    with start_workers(Work(_VERIFIER, (folder, weights)), jobs) as workers:
        workers.run([[name] for name in names], tell)
    return [found[name] for name in names]


def verifier(
    data_dir: str | None, weights: Stored
) -> Callable[[list[str]], Iterator[dict[str, Any]]]:
    """What a worker of `verify_all` does: names in, outcomes out."""
    return lambda names: (outcome(name, data_dir, weights) for name in names)
