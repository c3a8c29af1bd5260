"""Whether reading data holds up training: batches of sMNIST beside a training step, and all tasks.

    TFDS_DATA_DIR=... KERAS_BACKEND=jax python benchmarks/datasets.py [--quick]

Prints a table and writes `benchmarks/results/datasets_<backend>.json`. A training step is one of a
2-layer LSTM on a batch that is already there; its samples and those of the loader are taken in
turn, in one process. Tasks whose data is not prepared are named and left out.
"""

import argparse
import json
from typing import Any

import keras
from environment import environment
from pretraining import RESULTS, network, seconds, summary

from keras_lsc import datasets

UNITS, DEPTH, BATCH = 128, 2, 64


def loader_against_step(repeats: int) -> dict[str, Any]:
    """Seconds of one batch of sMNIST and of one training step on it, and examples a second.

    Reading decodes all images once, before training; its share is that of one batch of them.
    """
    count, made = 20, []
    datasets.load("smnist", limit=1, download=False)  # The first reading imports the reader.
    options = {"batch_size": BATCH, "limit": count * BATCH, "download": False}
    elapsed = seconds(lambda: made.append(datasets.batches("smnist", **options)))
    batches = made[0]
    model = network("lstm", UNITS, DEPTH, *datasets.info("smnist").shape)
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = batches[0]

    def step() -> None:
        # The loss comes back as a number, so that the step is over when it does.
        float(model.train_on_batch(x, y))

    first = seconds(step)
    steps, loads = [], []
    for repeat in range(repeats):
        steps.append(seconds(step))
        loads.append(seconds(lambda repeat=repeat: batches[repeat % len(batches)]))
    row: dict[str, Any] = {"training_step": summary(steps), "batch": summary(loads)}
    row["first_step"] = first
    row["reading_of_a_batch"] = elapsed / count
    row["examples_per_second"] = BATCH / row["batch"]["median"]
    row["share_of_a_step"] = row["batch"]["median"] / row["training_step"]["median"]
    row["reading_share_of_a_step"] = row["reading_of_a_batch"] / row["training_step"]["median"]
    return row


def reading(name: str, limit: int, repeats: int) -> dict[str, Any] | None:
    """Seconds to read a task, and of one of its batches; None where it is not prepared."""
    info = datasets.info(name)
    options: dict[str, Any] = {}
    if info.source is not None:
        if datasets.prepared(name) is None:
            return None
        options["download"] = False
    if info.target != "next token":
        options["limit"] = limit
    read: list[Any] = []
    elapsed = seconds(lambda: read.append(datasets.batches(name, batch_size=BATCH, **options)))
    batches = read[0]
    count = min(repeats, len(batches))
    # In order, which a text requires.
    samples = [seconds(lambda index=index: batches[index]) for index in range(count)]
    return {"task": name, "examples": limit, "read": elapsed, "batch": summary(samples)}


def main() -> None:
    """Runs everything and writes the JSON file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats and examples; no JSON")
    options = parser.parse_args()
    repeats, limit = (5, 200) if options.quick else (50, 2_000)
    setting = {"units": UNITS, "depth": DEPTH, "batch": BATCH, "task": "smnist"}
    result: dict[str, Any] = {"environment": environment(), "setting": setting}
    result["loader_against_step"] = row = loader_against_step(repeats)
    print(f"training step of a {DEPTH}-layer LSTM: {1e3 * row['training_step']['median']:.2f} ms")
    print(f"batch of {BATCH} of sMNIST:           {1e3 * row['batch']['median']:.3f} ms")
    print(f"share of a step: {100 * row['share_of_a_step']:.2f} %")
    print(f"reading it once: {100 * row['reading_share_of_a_step']:.2f} % of a step", flush=True)
    result["reading"] = []
    for name in datasets.names():
        task = reading(name, limit, repeats)
        if task is None:
            print(f"{name:20s} not prepared", flush=True)
            continue
        result["reading"].append(task)
        print(
            f"{name:20s} read in {task['read']:6.2f} s, {1e3 * task['batch']['median']:8.3f} ms a "
            "batch",
            flush=True,
        )
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"datasets_{keras.backend.backend()}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
