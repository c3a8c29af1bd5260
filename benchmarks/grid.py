"""Does stabilize reach its target? Every cell, depth, target and mode on sequential MNIST.

    KERAS_BACKEND=jax python benchmarks/grid.py [--only TEXT]

Adds one line a setting to `benchmarks/results/grid_<backend>.jsonl` and goes on where it stopped:
delete a line to have its setting run again. Radii are measured once more on sequences that
`stabilize` never saw.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc
from keras_lsc.callbacks import UpdateCounter

RESULTS = Path(__file__).parent / "results"
UNITS, FEED_FORWARD_UNITS, FEED_FORWARD_DEPTH = 32, 128, 30
RECURRENT = ("lstm", "gru", "tanh", "relu", "sigmoid")
FEED_FORWARD = ("dense_relu", "dense_sin", "dense_cos")
TARGETS = ("variance", 1.0, 0.5, "unbalanced")
SEEN = 17_000

Setting = dict[str, Any]


def settings() -> Iterator[Setting]:
    """Every setting of the grid."""
    for mode, depth, cell, target in itertools.product(
        ("scales", "weights"), (2, 5), RECURRENT, TARGETS
    ):
        yield {"cell": cell, "depth": depth, "units": UNITS, "target": target, "mode": mode}
    for mode, cell in itertools.product(("scales", "weights"), FEED_FORWARD):
        yield {
            "cell": cell,
            "depth": FEED_FORWARD_DEPTH,
            "units": FEED_FORWARD_UNITS,
            "target": 1.0,
            "mode": mode,
        }


def network(cell: str, depth: int, units: int) -> keras.Model:
    """A recurrent stack on rows of pixels, or a dense one on whole images."""
    keras.utils.set_random_seed(0)
    if cell in FEED_FORWARD:
        function = {"relu": keras.ops.relu, "sin": keras.ops.sin, "cos": keras.ops.cos}
        activation = function[cell.removeprefix("dense_")]
        stack = [keras.layers.Dense(units, activation=activation) for _ in range(depth)]
        return keras.Sequential([keras.Input((784,)), *stack, keras.layers.Dense(10)])
    gated = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
    stack = []
    for index in range(depth):
        options: dict[str, Any] = {"return_sequences": index < depth - 1}
        if cell not in gated:
            options["activation"] = cell
        stack.append(gated.get(cell, keras.layers.SimpleRNN)(units, **options))
    return keras.Sequential([keras.Input((28, 28)), *stack, keras.layers.Dense(10)])


def run(setting: Setting, images: np.ndarray) -> Setting:
    """Stabilises one network; returns the setting with what came of it."""
    x = images
    if setting["cell"] in FEED_FORWARD:
        x = images.reshape(len(images), -1)
        x = (x - x.mean()) / x.std()
    model = network(setting["cell"], setting["depth"], setting["units"])
    before = keras_lsc.measure(model, x[:SEEN], samples=256)
    updates = UpdateCounter()
    start = time.perf_counter()
    try:
        report = keras_lsc.stabilize(
            model, x[:SEEN], setting["target"], mode=setting["mode"], callbacks=(updates,)
        )
        reason = None
    except keras_lsc.NotStabilizedError as error:
        report, reason = error.report, str(error)
    elapsed = time.perf_counter() - start
    fresh = keras_lsc.measure(model, x[SEEN:], samples=1024, seed=5)
    drift = [
        after.isotropy / start_row.isotropy
        for start_row, after in zip(before.transitions, report.transitions, strict=True)
        if after.kind != "input"
    ]
    return {
        **setting,
        "reached": reason is None,
        "reason": reason,
        "deviation": report.max_deviation(setting["target"]),
        "deviation_on_unseen": None if reason else fresh.max_deviation(setting["target"]),
        "isotropy_to_its_start": [min(drift), max(drift)],
        "updates": updates.updates,
        "seconds": round(elapsed, 1),
    }


def main() -> None:
    """Runs what is missing in the file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only settings whose JSON has this text")
    options = parser.parse_args()
    path = RESULTS / f"grid_{keras.backend.backend()}.jsonl"
    RESULTS.mkdir(exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    images, _ = keras_lsc.datasets.load("smnist", limit=20_000, download=False)
    for setting in settings():
        if any(all(row[key] == setting[key] for key in setting) for row in done):
            continue
        if options.only not in json.dumps(setting):
            continue
        row = run(setting, images)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
