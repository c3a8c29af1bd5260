"""The command of an experiment whose runs are made one by one: it makes what is missing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import storage

NAME = "runs"


def run_missing(
    about: str | None,
    folder: Path,
    seeds: int,
    settings: Callable[[int], Sequence[Any]],
    run: Callable[[Any], dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
) -> None:
    """Runs every setting that has no line in the results yet, as the command line asks.

    Args:
        about: what the command does.
        folder: of the results.
        seeds: how many there are at most.
        settings: all of so many seeds, each with an `id`.
        run: makes the row of a setting.
        told: what is printed of a row.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seeds", type=int, default=seeds, help="only the first so many seeds")
    parser.add_argument("--hours", type=float, default=1e6, help="begin no run after these")
    parser.add_argument("--results", type=Path, default=folder, help="folder of results")
    options = parser.parse_args()
    end = time.monotonic() + 3600 * options.hours
    with storage.writer(options.results) as writer:
        done = {row["id"] for row in storage.read_rows(options.results / f"{NAME}.jsonl")}
        for setting in settings(options.seeds):
            if setting.id in done:
                continue
            if time.monotonic() > end:
                break
            row = run(setting)
            writer.append(NAME, row)
            print(setting, told(row), flush=True)
