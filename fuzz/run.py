"""Runs the inputs of all kinds in a process beside this one, and counts what comes of them."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fuzz.attempt import SECONDS_ON_THE_CLOCK, Result
from fuzz.kind import FAILED, REFUSED, RIGHT

# The harness itself rings before; code that never comes back to Python is killed here. The first
# input of a kind warms up, so that it is tried twice before there is a word of it.
_SILENT = 2 * SECONDS_ON_THE_CLOCK + 60
FAILURES = Path(__file__).parent / "failures"
Jobs = list[tuple[str, int, int]]


def run(jobs: Jobs, seed: int, heard: Callable[[Result], None]) -> None:
    """Tries inputs one after another.

    Args:
        jobs: name of a kind, and the first number and the end of its inputs.
        seed: of all of them.
        heard: called with every result.
    """
    while jobs:
        jobs = _run_until_killed(jobs, seed, heard)


def _run_until_killed(jobs: Jobs, seed: int, heard: Callable[[Result], None]) -> Jobs:
    """Runs a worker, and returns the jobs that are left where it ended before its time."""
    task = json.dumps({"seed": seed, "jobs": jobs})
    with subprocess.Popen(
        [sys.executable, "-m", "fuzz.worker", task], stdout=subprocess.PIPE
    ) as process:
        left = list(jobs)
        for line in _lines(process):
            result = Result(**json.loads(line))
            heard(result)
            left = _after(left, result.index)
        silent = process.poll() is None
        process.kill()
        code = process.wait()
    if not left:
        return []
    name, index, _ = left[0]
    reason = f"silent for {_SILENT} s" if silent else f"ended the process with code {code}"
    heard(Result(name, index, FAILED, f"input {index}", reason, reason))
    return _after(left, index)


def _after(jobs: Jobs, index: int) -> Jobs:
    """The jobs without all inputs of the first up to a number."""
    (name, _, stop), *others = jobs
    return [(name, index + 1, stop), *others] if index + 1 < stop else others


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Gives lines until the process ends, or says nothing for too long."""
    assert process.stdout is not None
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(_SILENT):
            content = os.read(process.stdout.fileno(), 2**20)
            if not content:
                process.wait()
                return
            *whole, waiting = (waiting + content).split(b"\n")
            yield from whole


class Tally:
    """Counts results by kind, and keeps what failed.

    Args:
        seed: of the run.
        show: called with a line for every new way to fail.
    """

    def __init__(self, seed: int, show: Callable[[str], None] = print):
        self.seed = seed
        self.counts: dict[str, dict[str, int]] = {}
        self.places: dict[tuple[str, str], list[int]] = {}
        self._show = show
        self._start = time.perf_counter()

    def add(self, result: Result) -> None:
        """Counts one, and writes down an input that failed."""
        counts = self.counts.setdefault(result.kind, {"tried": 0, RIGHT: 0, REFUSED: 0, FAILED: 0})
        counts["tried"] += 1
        counts[result.outcome] += 1
        if result.outcome != FAILED:
            return
        found = self.places.setdefault((result.kind, result.place), [])
        if not found:
            self._show(f"{result.kind} {result.index}: {result.place}")
            self._write(result)
        found.append(result.index)

    def _write(self, result: Result) -> None:
        FAILURES.mkdir(exist_ok=True)
        path = FAILURES / f"{result.kind}-{self.seed}-{result.index}.txt"
        again = f"python -m fuzz --seed {self.seed} --replay {result.kind}:{result.index}"
        content = f"{again}\n\n{result.given}\n\n{result.problem}\n"
        path.write_text(content, encoding="utf-8", errors="backslashreplace")

    def table(self) -> str:
        """What was tried, by kind."""
        rows: list[tuple[str, ...]] = [("kind", "tried", RIGHT, "refused well", FAILED)]
        for name, counts in self.counts.items():
            rows.append((name, *(str(counts[key]) for key in ("tried", RIGHT, REFUSED, FAILED))))
        sums = [sum(one[key] for one in self.counts.values()) for key in _KEYS]
        rows.append(("all", *map(str, sums)))
        lines = ["  ".join([f"{row[0]:12}", *(f"{cell:>12}" for cell in row[1:])]) for row in rows]
        for (kind, place), indices in self.places.items():
            lines.append(f"FAILED {len(indices)} of {kind}, first {indices[0]}: {place}")
        return "\n".join(lines)

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(counts[FAILED] for counts in self.counts.values())

    def to_dict(self, backend: str) -> dict[str, Any]:
        """Returns the counts as JSON types."""
        return {
            "kinds": self.counts,
            "seed": self.seed,
            "backend": backend,
            "seconds": round(time.perf_counter() - self._start, 1),
            "versions": _versions(),
        }


_KEYS = ("tried", RIGHT, REFUSED, FAILED)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    names = ("keras-lsc", "keras", "jax", "tensorflow", "tensorflow-cpu", "torch", "numpy")
    for package in (*names, "tensorflow-datasets", "array-record", "pillow", "typer"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
