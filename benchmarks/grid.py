"""Does stabilize reach its target? Every cell, depth, target and mode, on handwritten digits.

    KERAS_BACKEND=jax python benchmarks/grid.py [--only TEXT ...]

The digits are whole images, rows of pixels (28 steps), or spikes (784 trains of 100 steps). Adds
one line a setting to `benchmarks/results/grid_<backend>.jsonl` and goes on where it stopped: delete
a line to have its setting run again. Radii are measured once more on sequences that `stabilize`
never saw.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc
from keras_lsc import datasets
from keras_lsc.callbacks import UpdateCounter
from keras_lsc.stability.measure import at_enough_points
from keras_lsc.zoo.certificate import certificate_data, training_data
from keras_lsc.zoo.networks import build_network
from keras_lsc.zoo.recipes import Recipe

RESULTS = Path(__file__).parent / "results"
UNITS, FEED_FORWARD_UNITS, FEED_FORWARD_DEPTH = 32, 128, 30
RECURRENT = ("lstm", "gru", "tanh", "relu", "sigmoid")
FEED_FORWARD = ("dense_relu", "dense_sin", "dense_cos")
# Networks of the zoo's recipes, by cell: numbers of units.
OF_THE_ZOO = {"lif": (128, 256), "alif": (128, 256), "lru": (128,)}
TARGETS = ("variance", 1.0, 0.5, "unbalanced")
SEEN, UNSEEN = 17_000, 3_000
# Those of the zoo's networks, by input: digits as spikes take 300 kB each.
SEQUENCES = {"rows": (SEEN, UNSEEN), "spikes": (1536, 512)}
# The default, and what a setting that does not get there is given, from its start again.
MAX_UPDATES = (400, 1200)
# Standard error of a mean radius on sequences that were not seen, and the most points for it.
MEAN_WITHIN, MOST_SAMPLES = 0.01, 1024

Setting = dict[str, Any]


def settings() -> Iterator[Setting]:
    """Every setting of the grid."""
    for mode, depth, cell, target in itertools.product(
        ("scales", "weights"), (2, 5), RECURRENT, TARGETS
    ):
        size = {"input": "rows", "depth": depth, "units": UNITS}
        yield {"cell": cell, **size, "target": target, "mode": mode}
    for mode, cell in itertools.product(("scales", "weights"), FEED_FORWARD):
        yield {
            "cell": cell,
            "input": "images",
            "depth": FEED_FORWARD_DEPTH,
            "units": FEED_FORWARD_UNITS,
            "target": 1.0,
            "mode": mode,
        }
    for source, depth, cell, target in itertools.product(
        ("spikes", "rows"), (2, 5), OF_THE_ZOO, TARGETS
    ):
        for units in OF_THE_ZOO[cell]:
            size = {"input": source, "depth": depth, "units": units}
            yield {"cell": cell, **size, "target": target, "mode": "scales"}


def recipe(setting: Setting) -> Recipe:
    """The recipe that the zoo would have for a setting with one of its networks."""
    seen, unseen = SEQUENCES[setting["input"]]
    return Recipe(
        cell=setting["cell"],
        dataset={"rows": "smnist", "spikes": "smnist_latency"}[setting["input"]],
        depth=setting["depth"],
        units=setting["units"],
        target=setting["target"],
        sequences=seen,
        certificate_sequences=unseen,
    )


def network(setting: Setting) -> keras.Model:
    """A recurrent stack on rows of pixels or on spikes, or a dense one on whole images."""
    cell, depth, units = (setting[name] for name in ("cell", "depth", "units"))
    keras.utils.set_random_seed(0)
    if cell in OF_THE_ZOO:
        return build_network(recipe(setting))
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


@cache
def digits(source: str) -> tuple[np.ndarray, np.ndarray]:
    """The inputs that `stabilize` sees, and others."""
    x, _ = datasets.load("smnist", limit=SEEN + UNSEEN, download=False)
    if source == "images":
        x = x.reshape(len(x), -1)
        x = (x - x.mean()) / x.std()
    return x[:SEEN], x[SEEN:]


def run(setting: Setting) -> Setting:
    """Stabilises one network; returns the setting with what came of it."""
    of_the_zoo = setting["cell"] in OF_THE_ZOO
    if of_the_zoo:
        seen, unseen = training_data(recipe(setting)), certificate_data(recipe(setting))
    else:
        seen, unseen = digits(setting["input"])
    model = network(setting)
    before = keras_lsc.measure(model, seen, samples=64 if of_the_zoo else 256)
    for max_updates in MAX_UPDATES:
        updates = UpdateCounter()
        start = time.perf_counter()
        try:
            report = keras_lsc.stabilize(
                model,
                seen,
                setting["target"],
                mode=setting["mode"],
                max_updates=max_updates,
                callbacks=(updates,),
            )
            reason = None
            break
        except keras_lsc.NotStabilizedError as error:
            report, reason = error.report, str(error)
    elapsed = time.perf_counter() - start

    def measured(samples: int) -> keras_lsc.StabilityReport:
        return keras_lsc.measure(model, unseen, samples=samples, seed=5, gradient=False)

    fresh = at_enough_points(measured(256), measured, MEAN_WITHIN, MOST_SAMPLES)
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
        "firing_rates": report.firing_rates,
        "updates": updates.updates,
        "max_updates": max_updates,
        "seconds": round(elapsed, 1),
    }


def main() -> None:
    """Runs what is missing in the file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="settings with all of these values")
    options = parser.parse_args()
    path = RESULTS / f"grid_{keras.backend.backend()}.jsonl"
    RESULTS.mkdir(exist_ok=True)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for setting in settings():
        if any(all(row[key] == setting[key] for key in setting) for row in done):
            continue
        if not {*options.only} <= {str(value) for value in setting.values()}:
            continue
        row = run(setting)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
