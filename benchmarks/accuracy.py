"""Does it help? The depth-5 sigmoid RNN of the demonstration from two starts, on four seeds.

    KERAS_BACKEND=jax python benchmarks/accuracy.py

Adds one line a run to `benchmarks/results/accuracy_<backend>.jsonl` and goes on where it stopped.
Both starts of a seed have the same initial weights, data, order of batches and budget.
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import keras

import keras_lsc

RESULTS = Path(__file__).parent / "results"
SETTING = {"cell": "sigmoid", "depth": 5, "units": 64, "target": "variance", "mode": "scales"}
BUDGET = {"training": 17_000, "validation": 3_000, "epochs": 3, "batch": 32, "adam": 1e-3}
SEEDS = (0, 1, 2, 3)
STARTS = ("default", "stabilized")


def network() -> keras.Model:
    """Five sigmoid layers on rows of pixels, with a softmax readout."""
    stack = [
        keras.layers.SimpleRNN(64, activation="sigmoid", return_sequences=index < 4)
        for index in range(5)
    ]
    readout = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((28, 28)), *stack, readout])


def run(start: str, seed: int, x: Any, labels: Any) -> dict[str, Any]:
    """Trains from one start; returns the validation accuracy after every epoch."""
    split = BUDGET["training"]
    keras.utils.set_random_seed(seed)
    model = network()
    seconds = 0.0
    if start == "stabilized":
        begin = time.perf_counter()
        keras_lsc.stabilize(model, x[:split], SETTING["target"], seed=seed)
        seconds = time.perf_counter() - begin
    # Stabilising draws random numbers; without this the two starts would see other batches.
    keras.utils.set_random_seed(1000 + seed)
    optimizer = keras.optimizers.Adam(BUDGET["adam"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        x[:split],
        labels[:split],
        batch_size=BUDGET["batch"],
        epochs=BUDGET["epochs"],
        validation_data=(x[split:], labels[split:]),
        verbose=0,
    )
    return {
        "start": start,
        "seed": seed,
        **SETTING,
        **BUDGET,
        "validation_accuracy": [round(float(a), 4) for a in history.history["val_accuracy"]],
        "stabilizing_seconds": round(seconds, 1),
    }


def main() -> None:
    """Runs what is missing in the file of this backend."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"accuracy_{keras.backend.backend()}.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    total = BUDGET["training"] + BUDGET["validation"]
    x, labels = keras_lsc.datasets.load("smnist", limit=total, download=False)
    for seed, start in itertools.product(SEEDS, STARTS):
        if any((row["start"], row["seed"]) == (start, seed) for row in done):
            continue
        row = run(start, seed, x, labels)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
