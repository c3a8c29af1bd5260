"""What large networks cost: seconds and peak memory by width, depth, length and number of points.

    KERAS_BACKEND=jax python -m benchmarks.scaling [--only TEXT ...] [--cap SECONDS] [--quick]

An update of pre-training, a pass of levelling and a measurement, of LSTM, GRU, ALIF and LRU. Every
row has a process of its own, which is ended after so many seconds, and is added to
`benchmarks/results/scaling_<backend>.json` when it is done; what is there is skipped: delete a row
to have it measured again. A row that did not end in time says so, and is tried again with a larger
cap. With the rows of a sweep the exponents of time and memory are fitted to its upper half and
written beside them. `--quick` has small networks, and writes to `build/` instead.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from benchmarks.rows import is_of, is_wanted, with_row
from benchmarks.timing import seconds, summary
from keras_lsc import files
from keras_lsc.stability.energies import draw
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.stages import Stages

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CELLS = ("LSTM", "GRU", "ALIF", "LRU")
WORKS = ("update", "pass", "measure")
REPEATS, FEATURES, CLASSES = 3, 64, 10
# What the others are while one of them grows.
BASE = {"units": 256, "depth": 2, "steps": 20, "points": 8}
SWEEPS = {
    "units": (1024, 2048, 4096),
    "depth": (2, 4, 8, 16),
    "steps": (20, 80, 320),
    "points": (8, 32, 128),
}
# Wide and deep at once.
LARGEST = {"units": 4096, "depth": 16, "steps": 20, "points": 2}
# One sweep of width for every cell; the others say little of a cell.
CELL_OF_SWEEPS = "LSTM"
# What a row may take before it is ended, above the 12 GB that are the goal.
LIMIT_GB = 14

Setting = dict[str, Any]


def settings(quick: bool) -> Iterator[Setting]:
    """Every row."""
    base = {**BASE, "units": 16} if quick else BASE
    for name, values in SWEEPS.items():
        for cell in CELLS if name == "units" else (CELL_OF_SWEEPS,):
            for value in values[:2] if quick else values:
                size = {**base, name: value // 16 if quick and name == "units" else value}
                yield from ({"cell": cell, **size, "work": work} for work in WORKS)
    if not quick:
        for cell in CELLS:
            yield from ({"cell": cell, **LARGEST, "work": work} for work in WORKS)


def unique(rows: Iterator[Setting]) -> list[Setting]:
    """The rows, of which sweeps share some."""
    return list({json.dumps(row): row for row in rows}.values())


def network(cell: str, units: int, depth: int, steps: int) -> keras.Model:
    """A stack of recurrent layers with a dense head on its last step."""
    keras.utils.set_random_seed(0)
    layer = getattr(keras_lsc.layers, cell)
    stack = [layer(units, return_sequences=index < depth - 1) for index in range(depth)]
    return keras.Sequential([keras.Input((steps, FEATURES)), *stack, keras.layers.Dense(CLASSES)])


def work_of(setting: Setting) -> Callable[[], Any]:
    """What a row times: an update, a pass or a measurement."""
    steps, points = setting["steps"], setting["points"]
    x = np.random.default_rng(0).standard_normal((points, steps, FEATURES)).astype("float32")
    model = network(setting["cell"], setting["units"], setting["depth"], steps)
    if setting["work"] == "update":
        pretrainer = keras_lsc.LSCPretrainer(model)
        pretrainer.compile()
        return lambda: pretrainer.train_on_batch(x)
    if setting["work"] == "pass":
        rows, structure = draw(model, x, points, 0)
        stages, generator = Stages(model, rows, structure), np.random.default_rng(0)
        return lambda: stages.measure(rows, generator)
    probe = Probe(model)
    return lambda: probe.report([x], points, 0)


def peak_memory_gb() -> float:
    """Peak resident memory of this process, from Linux' own record.

    Not from `getrusage`, whose peak a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**20


def one(setting: Setting) -> Setting:
    """A row; the first call compiles."""
    # A machine that runs out of memory would end others as well.
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GB * 2**30, LIMIT_GB * 2**30))
    at_first = peak_memory_gb()
    work = work_of(setting)
    first = seconds(work)
    # Of what takes a minute once is enough: the first call is that long then for what it computes.
    samples = [seconds(work)]
    if samples[0] < 20:
        samples += [seconds(work) for _ in range(REPEATS - 1)]
    return {
        "first_call": first,
        "seconds": summary(samples),
        "memory_gb": peak_memory_gb(),
        "memory_before_gb": at_first,
        "load": os.getloadavg()[0],
    }


def measured(setting: Setting, cap: float) -> Setting:
    """A row, from a process of its own; of one that failed or was ended, why."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--row", json.dumps(setting)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=cap, check=False
        )
    except subprocess.TimeoutExpired:
        return {**setting, "failed": f"not done after {cap:g} seconds", "cap": cap}
    if done.returncode:
        why = (done.stderr.strip() or f"ended by signal {-done.returncode}")[-300:]
        return {**setting, "failed": why, "cap": cap}
    return {**setting, **json.loads(done.stdout.strip().splitlines()[-1])}


def exponent(sizes: list[float], values: list[float]) -> float:
    """The power of its size by which something grows, fitted to logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponents(rows: list[Setting]) -> list[Setting]:
    """By which powers time and memory grow along every sweep, over the larger half of it.

    Memory is what is taken beyond that of the libraries, which no size changes.
    """
    found = []
    for sweep in SWEEPS:
        for cell in CELLS:
            for work in WORKS:
                fixed = {"cell": cell, "work": work, **BASE}
                fixed.pop(sweep)
                along = sorted(
                    (r for r in rows if is_of(r, fixed) and "failed" not in r),
                    key=lambda r: r[sweep],
                )
                upper = along[len(along) // 2 - (len(along) % 2 == 0) :]
                if len(along) < 3:
                    continue
                sizes = [float(r[sweep]) for r in upper]
                times = [r["seconds"]["median"] for r in upper]
                memory = [max(r["memory_gb"] - r["memory_before_gb"], 1e-3) for r in upper]
                found.append(
                    {
                        "sweep": sweep,
                        "cell": cell,
                        "work": work,
                        "sizes": sizes,
                        "seconds": round(exponent(sizes, times), 2),
                        "memory": round(exponent(sizes, memory), 2),
                    }
                )
    return found


def main() -> int:
    """Measures what is missing in the file of this backend; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="rows with all of these values")
    parser.add_argument("--cap", type=float, default=300, help="seconds of a row (300)")
    parser.add_argument("--quick", action="store_true", help="small networks, to try it")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(one(options.row)))
        return 0
    folder = ROOT / "build" if options.quick else RESULTS
    path = folder / f"scaling_{keras.backend.backend()}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    every, failed = unique(settings(options.quick)), False
    for setting in every:
        rows = result.get("rows", [])
        if not is_wanted(setting, rows, options.only, options.cap):
            continue
        row = measured(setting, options.cap)
        failed |= "failed" in row
        print(json.dumps(row), flush=True)
        ordered = with_row(rows, row, setting, every)
        result = {
            "environment": environment(),
            "base": BASE,
            "limit_gb": LIMIT_GB,
            "exponents": exponents(ordered),
            "rows": ordered,
        }
        folder.mkdir(exist_ok=True)
        files.write_json(path, result)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
