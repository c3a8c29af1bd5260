"""Runs what is missing of the experiments, and appends it to their results.

    python -m experiments.run                 # every experiment of reduced size
    python -m experiments.run recurrent --jobs 2 --budget 0.5
    python -m experiments.run --paper recurrent    # the paper's sizes
    python -m experiments.run --ray           # on the machines of a Ray cluster
    python -m experiments.run --repeat 1f00c0ffee12

Finished runs are skipped, so an interrupted command goes on where it stopped. Each worker is a
process that makes all runs of one network; this process alone writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from experiments import storage
from experiments.settings import (
    FOLDER,
    Setting,
    experiment_names,
    in_order,
    read_experiment,
)
from keras_lsc.workers import RAY, Answer, Jobs, Work, checked_jobs, start_workers
from keras_lsc.workers.threads import thread_limits

PAPER = FOLDER / "paper"
# Small networks gain nothing from a second thread, and two that wait for one another lose much.
_ONE_THREAD = thread_limits(1)
# glibc gives buffers of some megabytes back to the system and faults every page in anew at the
# next step: of three state-space blocks that was more than half of the time.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
}
# What a worker is for.
_RUNNER = "experiments.worker:runner"
# Runs of one worker: it ends after these, so that what it compiled is freed.
_LARGEST_JOB = 200

Job = tuple[str, list[Setting]]


def pending_jobs(
    names: list[str],
    toml_folder: Path,
    result_folder: Path,
    budget: float,
    only: Sequence[str] = (),
    seeds: int | None = None,
    skip: Sequence[str] = (),
) -> list[Job]:
    """What is missing, as lists of settings that share a network, in the order of the files.

    Args:
        names: of the experiments.
        toml_folder: with their TOML files.
        result_folder: with their results.
        budget: factor of epochs and seeds.
        only: texts that the JSON of a setting must have, every one of them.
        seeds: only so many of them, the first; None for all.
        skip: texts that it must not have.
    """
    jobs: list[Job] = []
    for name in names:
        done = {row["id"] for row in storage.read_rows(result_folder / f"{name}.jsonl")}
        groups: dict[str, list[Setting]] = {}
        for setting in read_experiment(toml_folder / f"{name}.toml", budget).settings:
            text = json.dumps(setting.to_dict())
            is_asked = all(part in text for part in only) and not any(p in text for p in skip)
            is_asked = is_asked and (seeds is None or setting.seed < seeds)
            if is_asked and setting.id not in done:
                groups.setdefault(setting.network, []).append(setting)
        for settings in groups.values():
            rest = iter(settings)
            while part := list(islice(rest, _LARGEST_JOB)):
                jobs.append((name, in_order(part)))
    return jobs


def run_jobs(jobs: list[Job], result_folder: Path, workers: Jobs, seconds: float) -> int:
    """Runs jobs in worker processes and appends what they make.

    What a worker leaves that is killed is taken up by another.

    Args:
        jobs: of `pending_jobs`.
        result_folder: to append to.
        workers: processes at a time; "ray" for the cores of a Ray cluster.
        seconds: after which no further job is begun.

    Returns:
        How many jobs failed.
    """
    workers = checked_jobs(workers)
    end = time.monotonic() + seconds
    failures = 0
    in_time = takewhile(lambda _: time.monotonic() < end, jobs)
    work = Work(_RUNNER, environment=_environment(), is_fresh=True)

    with storage.writer(result_folder) as writer, start_workers(work, workers) as running:

        def tell(answer: Answer) -> None:
            nonlocal failures
            name = jobs[answer.job][0]
            if answer.failure is None:
                writer.append(name, answer.value)
                print(_summary(name, answer.value), flush=True)
                return
            failures += 1
            print(answer.failure.words, file=sys.stderr)
            print(f"{name}: a worker ended with {answer.failure.end}", file=sys.stderr)

        running.run(([setting.to_dict() for setting in job[1]] for job in in_time), tell)
    return failures


def _environment() -> dict[str, str]:
    cache = Path(tempfile.gettempdir()) / f"keras_lsc_experiments_{os.getuid()}"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        **_ONE_THREAD,
        **_KEEP_MEMORY,
    }


def _summary(experiment: str, row: dict[str, Any]) -> str:
    setting, trained = row["setting"], row.get("training", {})
    return (
        f"{time.strftime('%H:%M:%S')} {experiment} {row['id']} {setting['cell']} "
        f"{setting['depth']}x{setting['units']} {setting['dataset']} {setting['target']} "
        f"{setting['mode']} seed {setting['seed']} lr {setting['learning_rate']:g}: "
        f"{row['status']}, validation {trained.get('best')}, start {row['start']['seconds']} s "
        f"({row['start']['updates']} updates), training {trained.get('seconds')} s"
    )


def repeat(identity: str, result_folder: Path) -> int:
    """Makes a stored run again and says whether its figures are the same.

    Args:
        identity: the id of the run, or its beginning.
        result_folder: with the results.

    Returns:
        0 if they are, 1 if they differ.
    """
    from experiments.runs import Workplace

    rows = [
        row for path in sorted(result_folder.glob("*.jsonl")) for row in storage.read_rows(path)
    ]
    found = [row for row in rows if row["id"].startswith(identity)]
    if len(found) != 1:
        sys.exit(f"{len(found)} runs in {result_folder} have an id that begins with {identity!r}.")
    setting = Setting.from_dict(found[0]["setting"])
    (again,) = Workplace(setting).runs([setting])
    before, after = figures_of(found[0]), figures_of(again)
    print(json.dumps({"setting": setting.to_dict(), "stored": before, "again": after}, indent=1))
    return 0 if before == after else 1


def figures_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a repeated run must give again: all but times and what it was made with."""
    rest = {key: row[key] for key in ("id", "status", "data")}
    start = {key: value for key, value in row["start"].items() if key != "seconds"}
    trained = {k: v for k, v in row.get("training", {}).items() if k != "seconds"}
    return {**rest, "start": start, "training": trained}


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="experiments; all of them without a name")
    parser.add_argument("--paper", action="store_true", help="the paper's sizes (for a GPU)")
    parser.add_argument("--budget", type=float, default=1.0, help="factor of epochs and seeds")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes at a time")
    parser.add_argument(
        "--ray", action="store_true", help="on the machines of a Ray cluster, a core a worker"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="only settings whose JSON has this text"
    )
    parser.add_argument(
        "--skip", action="append", default=[], help="no settings whose JSON has this text"
    )
    parser.add_argument("--seeds", type=int, help="only the first so many seeds")
    parser.add_argument("--hours", type=float, default=1e6, help="begin no network after these")
    parser.add_argument("--list", action="store_true", help="say what is missing, and run nothing")
    parser.add_argument("--repeat", metavar="ID", help="make one stored run again")
    parser.add_argument("--results", type=Path, default=storage.FOLDER, help="folder of results")
    options = parser.parse_args()
    folder = options.results / "paper" if options.paper else options.results
    if options.repeat:
        sys.exit(repeat(options.repeat, folder))
    toml_folder = PAPER if options.paper else FOLDER
    names = options.names or experiment_names(toml_folder)
    unknown = sorted(set(names) - set(experiment_names(toml_folder)))
    if unknown:
        sys.exit(
            f"There is no experiment {unknown[0]!r}. Known ones: "
            f"{', '.join(experiment_names(toml_folder))}."
        )
    jobs = pending_jobs(
        names, toml_folder, folder, options.budget, options.only, options.seeds, options.skip
    )
    print(f"{sum(len(settings) for _, settings in jobs)} runs of {len(jobs)} jobs are missing")
    if options.list:
        for name, settings in jobs:
            first = settings[0]
            print(f"{name}: {first.cell} {first.depth}x{first.units}, {len(settings)} runs")
        return
    workers = RAY if options.ray else options.jobs
    sys.exit(1 if run_jobs(jobs, folder, workers, 3600 * options.hours) else 0)


if __name__ == "__main__":
    main()
