"""Spiking networks that are to fire little: from many spikes to few, or few from the start.

    python -m experiments.sparsity [--seeds 4] [--hours 1]

The sparsity schedule of arXiv 2202.00282 at reduced size. A run is one network; finished ones are
skipped.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from experiments import storage
from experiments.measures import rounded
from experiments.missing import run_missing
from experiments.statistics import mean
from experiments.tables import markdown
from keras_lsc import datasets
from keras_lsc.callbacks import SparsitySchedule
from keras_lsc.layers import LIF, FiringRateRegularizer

FOLDER = storage.FOLDER / "sparsity"
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 20, "limit": 1397, "options": {}},
    "parity": {"epochs": 20, "limit": 2000, "options": {"n": 2, "delay": 8, "length": 12}},
}
STARTS = ("high", "low")
SEEDS = 4
_HIGH = 0.5
_SCHEDULE = {"begin": 0.2, "end": 0.6}
# As good as at once: the penalty is whole in the second epoch.
_AT_ONCE = {"begin": 0.0, "end": 1e-3}
_SAMPLES = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Everything that makes a run.

    Attributes:
        task: one of `TASKS`.
        start: "high", a firing rate of one half at first and the penalty rising between 1/5 and 3/5
            of the epochs, or "low", the wanted rate and the whole penalty from the start.
        seed: of weights and the order of batches.
        wanted: firing rate.
        strength: of the penalty.
        units: of each of two layers.
        batch_size: sequences of an update.
        learning_rate: of Adam.
    """

    task: str
    start: str
    seed: int
    wanted: float = 0.05
    strength: float = 30.0
    units: int = 64
    batch_size: int = 64
    learning_rate: float = 1e-2

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has."""
        return storage.identity(asdict(self))


def settings(seeds: int = SEEDS) -> list[Setting]:
    """All runs, a seed after the other."""
    return [
        Setting(task, start, seed)
        for seed, task, start in itertools.product(range(seeds), TASKS, STARTS)
    ]


def network(setting: Setting, input_shape: tuple[int, ...]) -> keras.Sequential:
    """Two layers of LIF whose firing rates are held, and a readout of the rates."""
    model = keras.Sequential([keras.Input(input_shape)])
    for _ in range(2):
        model.add(LIF(setting.units, return_sequences=True))
        model.add(FiringRateRegularizer(setting.wanted, setting.strength))
    model.add(keras.layers.GlobalAveragePooling1D())
    outputs = datasets.info(setting.task).outputs
    model.add(keras.layers.Dense(outputs, activation="softmax"))
    model.compile(
        keras.optimizers.Adam(setting.learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def run(setting: Setting, epochs: int | None = None) -> Row:
    """Trains one network; its last weights count, as in the first epochs it is not sparse.

    Args:
        setting: of the run.
        epochs: passes over the training data; those of the task without it.
    """
    keras.utils.set_random_seed(setting.seed)
    task = TASKS[setting.task]
    (x, y), test = (
        datasets.load(setting.task, split, limit=task["limit"], download=False, **task["options"])
        for split in ("train", "test")
    )
    model = network(setting, x.shape[1:])
    is_high = setting.start == "high"
    schedule = SparsitySchedule(
        x,
        initial_rate=_HIGH if is_high else setting.wanted,
        seed=setting.seed,
        **(_SCHEDULE if is_high else _AT_ONCE),
    )
    begin = time.perf_counter()
    history = model.fit(
        x,
        y,
        epochs=epochs or task["epochs"],
        batch_size=setting.batch_size,
        verbose=0,
        callbacks=[schedule],
    ).history
    row: Row = {
        "id": setting.id,
        "setting": asdict(setting),
        "environment": environment(),
        "seconds": round(time.perf_counter() - begin, 1),
        "loss": rounded(history["loss"]),
    }
    row["test"] = rounded(model.evaluate(*test, verbose=0, return_dict=True)["accuracy"], 6)
    report = keras_lsc.measure(model, test[0], samples=_SAMPLES, gradient=False)
    row["firing_rates"] = rounded(list(report.firing_rates.values()))
    return row


def members(rows: Sequence[Row], task: str, start: str) -> list[Row]:
    """The runs of a task and a start."""
    return [
        row for row in rows if (row["setting"]["task"], row["setting"]["start"]) == (task, start)
    ]


def table(rows: Sequence[Row]) -> str:
    """Test accuracies and firing rates at the end of the training."""
    lines = []
    for task, start in itertools.product(TASKS, STARTS):
        runs = members(rows, task, start)
        if not runs:
            continue
        accuracy = mean([100 * run["test"] for run in runs])
        rates = mean([float(np.mean(run["firing_rates"])) for run in runs])
        lines.append(
            [task, start, f"{accuracy.value:.1f} ± {accuracy.high - accuracy.value:.1f}",
             f"{rates.value:.3f}", str(len(runs))]
        )  # fmt: skip
    header = ["task", "start", "test accuracy, %", "firing rate", "seeds"]
    return markdown(header, lines)


def _told(row: Row) -> str:
    return f"{row['seconds']} s, {row['test']} {row['firing_rates']}"


def main() -> None:
    """Runs what is missing."""
    run_missing(__doc__, FOLDER, SEEDS, settings, run, _told)


if __name__ == "__main__":
    main()
