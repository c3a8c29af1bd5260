"""What pre-training costs: an update beside a training step, time to tolerance, width and depth.

    KERAS_BACKEND=jax python benchmarks/pretraining.py [--quick]

Prints a table and writes `benchmarks/results/pretraining_<backend>.json`. `benchmarks/tables.py`
makes the table from the JSON. Every ratio is of two medians of one process, its samples
taken in turn. Rows of the scaling table and times to tolerance are of processes of their own.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import environment
from timing import in_turn, seconds, summary

import keras_lsc
from keras_lsc.callbacks import UpdateCounter

RESULTS = Path(__file__).parent / "results"
STEPS, BATCH, INPUTS = 200, 32, 784
PARTS = ("time_to_tolerance", "update", "scaling")
CELLS = {"lstm": (keras.layers.LSTM, 42), "gru": (keras.layers.GRU, 53)}


TARGETS = ("variance", 0.5, 1.0)


def spikes(rows: int, steps: int, features: int, rate: float = 0.03) -> np.ndarray:
    """Random spikes, as sparse as latency-coded images."""
    return (np.random.default_rng(0).random((rows, steps, features)) < rate).astype("float32")


def digits(rows: int) -> np.ndarray:
    """Latency-coded digits, every other step of which is empty."""
    x = keras_lsc.datasets.load("smnist_latency", limit=rows)[0]
    result = np.zeros((rows, STEPS, INPUTS), "float32")
    result[:, ::2] = x
    return result


SEQUENCES = {
    "random bits": lambda: spikes(512, STEPS, INPUTS, rate=0.05),
    "digits": lambda: digits(512),
}


def network(
    cell: str, units: int, depth: int, steps: int, features: int, seed: int = 0
) -> keras.Model:
    """A stack of recurrent layers with a softmax readout."""
    keras.utils.set_random_seed(seed)
    layer, _ = CELLS[cell]
    stack = [layer(units, return_sequences=index < depth - 1) for index in range(depth)]
    readout = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((steps, features)), *stack, readout])


def update_against_step(cell: str, repeats: int) -> dict[str, Any]:
    """Seconds of a pre-training update and of a training step of the same model and batch."""
    x, labels = spikes(BATCH, STEPS, INPUTS), np.zeros(BATCH, dtype="int32")
    units = CELLS[cell][1]
    model = network(cell, units, 2, STEPS, INPUTS)
    model.compile("adam", "sparse_categorical_crossentropy")
    pretrainer = keras_lsc.LSCPretrainer(network(cell, units, 2, STEPS, INPUTS))
    pretrainer.compile()
    calls = {
        "training_step": lambda: model.train_on_batch(x, labels),
        "pretraining_update": lambda: pretrainer.train_on_batch(x),
    }
    first = {name: seconds(call) for name, call in calls.items()}
    row: dict[str, Any] = in_turn(calls, repeats)
    row["first_call"] = first
    row["ratio"] = row["pretraining_update"]["median"] / row["training_step"]["median"]
    return {"cell": cell, "units": units, "depth": 2, **row}


def tolerance_row(
    cell: str, sequences: str, target: str | float, tolerance: float = 0.02
) -> dict[str, Any]:
    """Seconds of `stabilize`, with compilation and its check on held-out sequences.

    The second network has the same shapes and other weights.
    """
    x = SEQUENCES[sequences]()
    row: dict[str, Any] = {"cell": cell, "sequences": sequences, "target": target}
    for seed, which in ((3, "first"), (4, "second")):
        model = network(cell, CELLS[cell][1], 2, STEPS, INPUTS, seed=seed)
        count = UpdateCounter()
        stabilize = partial(
            keras_lsc.stabilize, model, x[:384], target, tolerance=tolerance, callbacks=(count,)
        )
        elapsed = seconds(stabilize)
        report = keras_lsc.measure(model, x[384:], samples=512, gradient=False)
        row[which] = {
            "seconds": elapsed,
            "updates": count.updates,
            "deviation_on_unseen": report.max_deviation(target),
        }
    return {**row, "tolerance": tolerance}


def time_to_tolerance(quick: bool) -> list[dict[str, Any]]:
    """`tolerance_row` over networks, sequences and targets, each in its own process."""
    keys = [(cell, name, target) for cell in CELLS for name in SEQUENCES for target in TARGETS]
    return [
        {"cell": cell, "sequences": name, "target": target}
        | in_process("tolerance", [cell, name, target])
        for cell, name, target in (keys[:1] if quick else keys)
    ]


def in_process(part: str, row: list[Any]) -> dict[str, Any]:
    """A row, made in a process of its own; that of a process that failed says why."""
    command = [sys.executable, __file__, "--row", json.dumps([part, *row])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        made = {"failed": done.stderr.strip()[-500:]}
    else:
        made = json.loads(done.stdout.strip().splitlines()[-1])
    print(made, flush=True)
    return made


def peak_memory_gb() -> float:
    """Peak resident memory of this process, from Linux' own record.

    Not from `getrusage`, whose peak a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**20


def scaling_row(units: int, depth: int, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    """Seconds of an update and peak memory of this process for one size of LSTM."""
    x = spikes(batch, steps, 300)
    pretrainer = keras_lsc.LSCPretrainer(network("lstm", units, depth, steps, 300))
    pretrainer.compile()
    first = seconds(lambda: pretrainer.train_on_batch(x))
    samples = [seconds(lambda: pretrainer.train_on_batch(x)) for _ in range(repeats)]
    return {
        "units": units,
        "depth": depth,
        "batch": batch,
        "steps": steps,
        "first_call": first,
        "update": summary(samples),
        "peak_memory_gb": peak_memory_gb(),
    }


def scaling(quick: bool) -> list[dict[str, Any]]:
    """`scaling_row` over widths and depths, each in its own process."""
    sizes = [(64, 2), (128, 2), (256, 2), (512, 2), (1024, 2), (1300, 2), (2048, 2)]
    sizes += [(64, 4), (64, 8), (64, 16)]
    if quick:
        sizes = [(64, 2), (64, 4)]
    rows = []
    for units, depth in sizes:
        row = in_process("scaling", [units, depth, 8, 35, 3])
        rows.append({"units": units, "depth": depth, **row})
    return rows


def main() -> None:
    """Runs everything and writes the JSON file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats, two sizes; no JSON")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="to be renewed")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        part, *row = options.row
        print(json.dumps({"tolerance": tolerance_row, "scaling": scaling_row}[part](*row)))
        return
    path = RESULTS / f"pretraining_{keras.backend.backend()}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["environment"] = environment()
    result["setting"] = {
        "steps": STEPS,
        "batch": BATCH,
        "inputs": INPUTS,
        "data": "random spikes",
    }
    make = {
        "time_to_tolerance": lambda: time_to_tolerance(options.quick),
        "update": lambda: [update_against_step(cell, 3 if options.quick else 15) for cell in CELLS],
        "scaling": lambda: scaling(options.quick),
    }
    for part in options.parts:
        result[part] = make[part]()
        print(json.dumps(result[part], indent=2), flush=True)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
