"""Flossed starts beside others on a task whose clue lies ever further in the past.

    python -m experiments.flossing [--seeds 4] [--hours 1]

Delayed XOR, with which arXiv 2312.17306 shows gradient flossing, at reduced size: two layers of
tanh units read the parity of two bits, so many steps after them. A run is one start of one network
with one delay, trained with two learning rates, of which validation chooses; finished ones are
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

FOLDER = storage.FOLDER / "flossing"
STARTS: dict[str, dict[str, Any]] = {
    "default": {},
    "level": {"method": "level"},
    "variance": {"target": "variance"},
    "1": {"target": 1.0},
    "flossing": {"method": "flossing"},
}
DELAYS = (10, 20, 40)
SEEDS = 4
_ROWS = {"train": 4000, "validation": 1000, "test": 2000}

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Everything that makes a run.

    Attributes:
        start: one of `STARTS`.
        delay: steps between the bits that count and the answer.
        seed: of weights, of the start and of the order of batches.
        units: of each of two layers.
        epochs: passes over the training data.
        batch_size: sequences of an update.
        learning_rates: of Adam.
    """

    start: str
    delay: int
    seed: int
    units: int = 64
    epochs: int = 15
    batch_size: int = 64
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has."""
        return storage.identity(asdict(self))


def settings(seeds: int = SEEDS) -> list[Setting]:
    """All runs, a seed after the other."""
    return [
        Setting(start, delay, seed)
        for seed, delay, start in itertools.product(range(seeds), DELAYS, STARTS)
    ]


def network(setting: Setting, features: int) -> keras.Sequential:
    """Two layers of tanh units, and a readout of the last state."""
    length = setting.delay + 4
    model = keras.Sequential([keras.Input((length, features))])
    model.add(keras.layers.SimpleRNN(setting.units, return_sequences=True))
    model.add(keras.layers.SimpleRNN(setting.units))
    model.add(keras.layers.Dense(2, activation="softmax"))
    return model


def run(setting: Setting, rows: dict[str, int] | None = None) -> Row:
    """Makes a start and trains from it.

    Args:
        setting: of the run.
        rows: number of sequences of every split; others for a shorter run.
    """
    options = {"n": 2, "delay": setting.delay, "length": setting.delay + 4}
    splits = {
        split: datasets.load("parity", split, limit=limit, download=False, **options)
        for split, limit in (rows or _ROWS).items()
    }
    x, y = splits["train"]
    keras.utils.set_random_seed(setting.seed)
    model = network(setting, x.shape[-1])
    begin = time.perf_counter()
    problem = None
    try:
        if STARTS[setting.start]:
            keras_lsc.stabilize(model, x, seed=setting.seed, verbose=0, **STARTS[setting.start])
    except (
        keras_lsc.NotFlossedError,
        keras_lsc.NotLevelledError,
        keras_lsc.NotStabilizedError,
        FloatingPointError,
    ) as error:
        problem = str(error)
    row: Row = {
        "id": setting.id,
        "setting": asdict(setting),
        "environment": environment(),
        "seconds_of_start": round(time.perf_counter() - begin, 1),
        "problem": problem,
    }
    if problem is not None:
        return row
    report = keras_lsc.measure(model, x, samples=64, exponents=1, gradient=False)
    row["radii"] = rounded(report.time.tolist())
    row["exponents"] = rounded([of[0] for of in report.exponents.exponents])
    weights = model.get_weights()
    best: dict[str, Any] = {"validation": -1.0}
    for rate in setting.learning_rates:
        model.set_weights(weights)
        model.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        generator = np.random.default_rng([setting.seed, 77])
        for _ in range(setting.epochs):
            order = generator.permutation(len(x))
            model.fit(x[order], y[order], setting.batch_size, shuffle=False, verbose=0)
        scores = {
            split: model.evaluate(*splits[split], verbose=0, return_dict=True)["accuracy"]
            for split in ("validation", "test")
        }
        if scores["validation"] > best["validation"]:
            best = {**scores, "learning_rate": rate}
    return {**row, **{name: rounded(value, 6) for name, value in best.items()}}


def members(rows: Sequence[Row], delay: int, start: str) -> list[Row]:
    """The runs of a delay and a start that reached it."""
    return [
        row
        for row in rows
        if (row["setting"]["delay"], row["setting"]["start"]) == (delay, start)
        and row["problem"] is None
    ]


def table(rows: Sequence[Row]) -> str:
    """Test accuracies by start and delay."""
    delays = sorted({row["setting"]["delay"] for row in rows})
    lines = []
    for start in STARTS:
        cells = [start]
        for delay in delays:
            runs = members(rows, delay, start)
            if not runs:
                cells.append("-")
                continue
            found = mean([100 * run["test"] for run in runs])
            cells.append(f"{found.value:.1f} ± {found.high - found.value:.1f} ({len(runs)})")
        every = [run for delay in delays for run in members(rows, delay, start)]
        exponent = np.mean([run["exponents"] for run in every]) if every else np.nan
        seconds = np.median([run["seconds_of_start"] for run in every]) if every else np.nan
        lines.append([*cells, f"{exponent:+.2f}", f"{seconds:.1f}"])
    header = ["start", *(f"delay {delay}" for delay in delays), "exponent", "seconds of the start"]
    return markdown(header, lines)


def _told(row: Row) -> str:
    return (
        row["problem"] or f"{row['test']} at {row['learning_rate']}, exponents {row['exponents']}"
    )


def main() -> None:
    """Runs what is missing."""
    run_missing(__doc__, FOLDER, SEEDS, settings, run, _told)


if __name__ == "__main__":
    main()
