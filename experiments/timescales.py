"""Time constants that are trained on tasks of growing memory: one head for the present n, or many.

    python -m experiments.timescales [--seeds 4] [--hours 1]

The experiment of arXiv 2309.12927 at reduced size. A run is one network; finished ones are skipped.
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
from keras_lsc.callbacks import LowestAccuracy, NCurriculum
from keras_lsc.datasets import GrowingTask
from keras_lsc.layers import LeakyRNN

FOLDER = storage.FOLDER / "timescales"
TASKS = ("parity", "delayed_match")
HEADS = ("single", "multi")
SEEDS = 4
_SAMPLES = 64
_NEGATIVE_SLOPE = 0.01
_CLIP = 2.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Everything that makes a run.

    Attributes:
        task: "parity" or "delayed_match".
        heads: "single" or "multi".
        seed: of weights and sequences.
        units: of the one layer.
        largest: n at which the training ends.
        batch_size: sequences of an update, all of them new.
        batches: updates of an epoch, after each of which n may grow.
        epochs: after which the training ends in any case.
        learning_rate: of Adam.
    """

    task: str
    heads: str
    seed: int
    units: int = 64
    largest: int = 14
    batch_size: int = 128
    batches: int = 100
    epochs: int = 120
    learning_rate: float = 3e-3

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has."""
        return storage.identity(asdict(self))


def settings(seeds: int = SEEDS) -> list[Setting]:
    """All runs, a seed after the other."""
    return [
        Setting(task, heads, seed)
        for seed, task, heads in itertools.product(range(seeds), TASKS, HEADS)
    ]


def network(setting: Setting) -> tuple[keras.Model, LeakyRNN]:
    """The compiled network of a setting, and its recurrent layer.

    Initial weights are as published: uniform, up to the inverse root of the number of units that
    are read, and time constants between 1 and 2.
    """
    steps, units = 4 * setting.largest + 1, setting.units
    heads = setting.largest - 1 if setting.heads == "multi" else 1
    limit = units**-0.5
    recurrent = LeakyRNN(
        units,
        activation=lambda x: keras.ops.leaky_relu(x, _NEGATIVE_SLOPE),
        kernel_initializer=keras.initializers.RandomUniform(-1.0, 1.0),
        recurrent_initializer=keras.initializers.RandomUniform(-limit, limit),
    )
    x, mask = keras.Input((steps, 1), name="x"), keras.Input((steps,), dtype="bool", name="mask")
    scores = keras.layers.Dense(2 * heads)(recurrent(x, mask=mask))
    if setting.heads == "multi":
        scores = keras.layers.Reshape((heads, 2))(scores)
    model = keras.Model({"x": x, "mask": mask}, keras.layers.Softmax()(scores))
    is_multi = setting.heads == "multi"
    model.compile(
        keras.optimizers.Adam(setting.learning_rate, global_clipnorm=_CLIP),
        "sparse_categorical_crossentropy",
        # Of all heads Keras takes the mean; the sum is what is published.
        loss_weights=[float(heads)],
        metrics=None if is_multi else ["accuracy"],
        weighted_metrics=[LowestAccuracy(heads)] if is_multi else None,
    )
    return model, recurrent


class _Passed(keras.callbacks.Callback):
    """What the time constants were when each n was passed; put it before the curriculum."""

    def __init__(self, curriculum: NCurriculum, layer: LeakyRNN):
        super().__init__()
        self._curriculum, self._layer = curriculum, layer
        self._since = 0
        self.rows: list[Row] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes them if the curriculum is about to go on."""
        if float((logs or {})[self._curriculum.monitor]) <= self._curriculum.threshold:
            return
        taken, self._since = epoch + 1 - self._since, epoch + 1
        row = {"n": self._curriculum.task.n, "epochs": taken, "tau": spread(self._layer)}
        self.rows.append(row)


def spread(layer: LeakyRNN) -> dict[str, float]:
    """Mean, median and largest time constant of a layer."""
    tau = keras.ops.convert_to_numpy(layer.cell.tau)
    figures = {"mean": tau.mean(), "median": np.median(tau), "largest": tau.max()}
    return {name: rounded(value) for name, value in figures.items()}


def radius(model: keras.Model, task: GrowingTask) -> float:
    """The radius in time, of the recurrent weights and the time constants together."""
    report = keras_lsc.measure(model, task[0][0], samples=_SAMPLES, gradient=False)
    (row,) = [row for row in report.transitions if row.kind == "time"]
    return rounded(row.radius)


def run(setting: Setting) -> Row:
    """Trains one network through its curriculum.

    Args:
        setting: of the run.

    Returns:
        What a line of the results has.
    """
    keras.utils.set_random_seed(setting.seed)
    task = GrowingTask(
        setting.task,
        largest=setting.largest,
        batch_size=setting.batch_size,
        batches=setting.batches,
        seed=setting.seed,
        heads=setting.heads,
    )
    model, layer = network(setting)
    monitor = "accuracy" if setting.heads == "single" else "lowest_accuracy"
    curriculum = NCurriculum(task, monitor=monitor)
    passed = _Passed(curriculum, layer)
    row: Row = {
        "id": setting.id,
        "setting": asdict(setting),
        "environment": environment(),
        "start": {"tau": spread(layer), "radius": radius(model, task)},
    }
    begin = time.perf_counter()
    model.fit(task, epochs=setting.epochs, verbose=0, callbacks=[passed, curriculum])
    row["seconds"] = round(time.perf_counter() - begin, 1)
    row["epochs"] = len(curriculum.history)
    row["passed"] = passed.rows
    row["end"] = {"n": task.n, "tau": spread(layer), "radius": radius(model, task)}
    return row


def curves(rows: Sequence[Row]) -> dict[tuple[str, str], dict[int, list[float]]]:
    """Mean time constants over units, by task and heads, by the n that was passed: one a seed.

    Args:
        rows: of `storage.read_rows`.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for key in itertools.product(TASKS, HEADS):
        chosen = [row for row in rows if (row["setting"]["task"], row["setting"]["heads"]) == key]
        by_n: dict[int, list[float]] = {}
        for row in chosen:
            for step in row["passed"]:
                by_n.setdefault(step["n"], []).append(step["tau"]["mean"])
        if chosen:
            found[key] = by_n
    return found


def common_n(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
    """The largest n that every seed has passed, by task and heads; 0 for none."""
    return {
        key: max((n for n, values in by_n.items() if len(values) == _seeds(rows, key)), default=0)
        for key, by_n in curves(rows).items()
    }


def _seeds(rows: Sequence[Row], key: tuple[str, str]) -> int:
    return sum((row["setting"]["task"], row["setting"]["heads"]) == key for row in rows)


def table(rows: Sequence[Row]) -> str:
    """Time constants when n was 2, and when it was the last that all seeds passed."""
    last, lines = common_n(rows), []
    for key, by_n in curves(rows).items():
        task, heads = key
        members = [row for row in rows if (row["setting"]["task"], row["setting"]["heads"]) == key]
        reached = sorted(step["n"] for row in members for step in row["passed"][-1:])
        radii = [mean([row[when]["radius"] for row in members]) for when in ("start", "end")]
        both = min(last[task, other] for other in HEADS if (task, other) in last)
        cells = [f"{mean(by_n[n]).value:.2f}" if n in by_n else "-" for n in (2, both, last[key])]
        largest = [row["end"]["tau"]["largest"] for row in members]
        lines.append(
            [task, heads, *cells[:2], f"{cells[2]} (n = {last[key]})", f"{mean(largest).value:.1f}",
             " to ".join(f"{one.value:.2f}" for one in radii),
             f"{reached[0]} to {reached[-1]}" if reached else "none",
             f"{mean([row['epochs'] for row in members]).value:.0f}", str(len(members))]
        )  # fmt: skip
    shared = {
        task: min(last[task, other] for other in HEADS if (task, other) in last)
        for task in TASKS
        if any(key[0] == task for key in last)
    }
    both = " and ".join(f"{n} ({task})" for task, n in shared.items())
    header = [
        "task",
        "heads",
        "mean tau at n = 2",
        f"at n = {both}",
        "at the last that all passed",
        "largest tau at the end",
        "radius in time",
        "largest n passed",
        "epochs",
        "seeds",
    ]
    return markdown(header, lines)


def _told(row: Row) -> str:
    taus = [f"{step['n']}: {step['tau']['mean']:.2f}" for step in row["passed"]]
    return f"{row['seconds']} s, {'; '.join(taus)}"


def main() -> None:
    """Runs what is missing."""
    run_missing(__doc__, FOLDER, SEEDS, settings, run, _told)


if __name__ == "__main__":
    main()
