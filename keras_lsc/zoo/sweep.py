"""Verifying many checkpoints in several processes, past those whose data is not here."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras

from keras_lsc.arguments import positive_integer
from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.zoo.damage import DamagedCheckpointError
from keras_lsc.zoo.loading import Stored
from keras_lsc.zoo.processes import Child
from keras_lsc.zoo.sources import CheckpointUnavailableError
from keras_lsc.zoo.verification import CertificateMismatchError, verify

PASSED, FAILED, NO_DATA = "passed", "failed", "no data"
# How many threads each of the backends, and of the libraries below them, starts.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)


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
    jobs: int,
    finished: Callable[[dict[str, Any]], None],
    data_dir: str | os.PathLike[str] | None = None,
    weights: Stored = "stabilized",
) -> list[dict[str, Any]]:
    """Verifies checkpoints, `jobs` at a time; none keeps the others from being measured.

    Of several jobs each is a process that takes one checkpoint after the other, with its share of
    the cores. They end with this process, however it ends.

    Args:
        names: Names of checkpoints of the zoo.
        jobs: Number of processes at a time; 1 for this one.
        finished: Called after each with what `outcome` returns.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        weights: As `verify` takes it.

    Returns:
        What `outcome` returns of each, in the order of the names.

    Raises:
        ValueError: `jobs` is no positive integer.
    """
    jobs = min(positive_integer("jobs", jobs), len(names))
    if data_dir is not None:
        chosen_data_dir(data_dir)
    if jobs > 1:
        found = _Workers(jobs, data_dir, weights).outcomes(names, finished)
        return [found[name] for name in names]
    rows = []
    for name in names:
        rows.append(outcome(name, data_dir, weights))
        finished(rows[-1])
    return rows


class _Workers:
    """Processes that verify checkpoints, and a thread for each that asks it."""

    def __init__(self, jobs: int, data_dir: str | os.PathLike[str] | None, weights: Stored):
        self._jobs = jobs
        self._data_dir = data_dir
        self._weights = weights
        # What a thread puts there at last is None.
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._pending: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._children: list[Child] = []
        self._is_over = False
        self._starting = threading.Lock()

    def outcomes(
        self, names: Sequence[str], finished: Callable[[dict[str, Any]], None]
    ) -> dict[str, dict[str, Any]]:
        """What came of each, by name."""
        for name in names:
            self._pending.put(name)
        try:
            with ThreadPoolExecutor(self._jobs) as pool:
                threads = [pool.submit(self._ask) for _ in range(self._jobs)]
                try:
                    found = self._collect(finished)
                finally:
                    self._stop()
                for thread in threads:
                    thread.result()
        finally:
            for child in self._children:
                child.end()
        return found

    def _collect(self, finished: Callable[[dict[str, Any]], None]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        running = self._jobs
        while running:
            answer = self._answers.get()
            if answer is None:
                running -= 1
            else:
                found[answer["name"]] = answer
                finished(answer)
        return found

    def _stop(self) -> None:
        """Ends the processes, which are waited for by their threads."""
        with self._starting:
            self._is_over = True
        for child in self._children:
            child.process.kill()

    def _ask(self) -> None:
        child = None
        try:
            while not self._is_over:
                try:
                    name = self._pending.get_nowait()
                except queue.Empty:
                    return
                child = child or self._start()
                if child is None:
                    return
                answer = _answer(child, name)
                if answer is None:
                    answer = {**_unmeasured(name, FAILED, _end_of(child)), "seconds": None}
                    child = None
                self._answers.put(answer)
        finally:
            self._answers.put(None)

    def _start(self) -> Child | None:
        with self._starting:
            if self._is_over:
                return None
            child = _start(self._jobs, self._data_dir, self._weights)
            self._children.append(child)
            return child


def _answer(child: Child, name: str) -> dict[str, Any] | None:
    """What a process says of a checkpoint; None where it ended instead."""
    stdin, stdout = child.process.stdin, child.process.stdout
    assert stdin is not None
    assert stdout is not None
    try:
        stdin.write(f"{name}\n".encode())
        stdin.flush()
    except BrokenPipeError:
        return None
    line = stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _end_of(child: Child) -> str:
    code = child.process.wait()
    words = child.last_words().splitlines()
    return f"its process ended with exit code {code}" + (f": {words[-1]}" if words else "")


# Before anything slow is imported, a thread reads what is asked, and waits for the end of the
# parent, which has the other end of the pipe. What a library prints is kept from the answers.
_PROGRAM = """
import json, os, queue, sys, threading
asked = queue.SimpleQueue()
def listen():
    for line in sys.stdin:
        asked.put(line.rstrip())
    os._exit(1)
threading.Thread(target=listen, daemon=True).start()
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from keras_lsc.zoo.sweep import outcome
while True:
    found = outcome(asked.get(), *sys.argv[2:], weights=sys.argv[1])
    print(json.dumps(found), file=answers, flush=True)
"""


def _start(jobs: int, data_dir: str | os.PathLike[str] | None, weights: Stored) -> Child:
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    folder = [] if data_dir is None else [os.fspath(data_dir)]
    output = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with the process
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, weights, *folder],
        env={
            **dict.fromkeys(_THREADS, threads),
            **os.environ,
            "KERAS_BACKEND": keras.backend.backend(),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
    )
    return Child(process, output)
