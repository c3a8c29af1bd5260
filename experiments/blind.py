"""Starts that `keras_lsc.best_start` chooses blind, beside those of all stored runs.

    python -m experiments.blind [--seeds 4] [--hours 1]

A race sees the training and validation digits of a network of the other experiments, no stored
run, and may train three times as long as one training. Its choice is then trained as all others
were. A run is one race; finished ones are skipped.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from experiments import storage
from experiments.measures import rounded
from experiments.missing import run_missing
from experiments.networks import load_split, make_network, set_initial_weights
from experiments.runs import evaluate, train
from experiments.settings import Setting as RunSetting
from experiments.settings import read_experiment
from experiments.statistics import Interval, paired_difference
from experiments.summary import Network, start_label
from experiments.tables import markdown
from keras_lsc import datasets

FOLDER = storage.FOLDER / "blind"
# Experiment, cell and depth: where a default start fails and where it does not.
NETWORKS = {
    "lstm 10x32": ("levelled", "lstm", 10),
    "gru 20x32": ("levelled", "gru", 20),
    "sigmoid 5x32": ("recurrent", "sigmoid", 5),
    "gru 2x32": ("recurrent", "gru", 2),
}
# As the experiments name them, and as a race does.
STARTS: dict[str, dict[str, Any]] = {
    "levelled": {"default": "default", "level": "level", "variance": "variance"},
    "recurrent": {"default": "default", "variance": "variance", "1": 1.0, "0.5": 0.5},
}
SEEDS = 4
BUDGET = 3.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Everything that makes a race.

    Attributes:
        network: one of `NETWORKS`.
        seed: of the initial weights, the starts and the order of batches.
        budget: training steps of the race over those of one training.
    """

    network: str
    seed: int
    budget: float = BUDGET

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has."""
        return storage.identity(asdict(self))


def settings(seeds: int = SEEDS) -> list[Setting]:
    """All races, a seed after the other."""
    return [Setting(name, seed) for seed, name in itertools.product(range(seeds), NETWORKS)]


def runs_of(name: str) -> list[RunSetting]:
    """The settings of the runs of a network of the experiments, of the starts that race."""
    experiment, cell, depth = NETWORKS[name]
    return [
        setting
        for setting in read_experiment(FOLDER.parents[1] / f"{experiment}.toml").settings
        if (setting.cell, setting.depth, setting.units, setting.dataset)
        == (cell, depth, 32, "smnist")
        and start_label(setting) in STARTS[experiment]
    ]


def run(setting: Setting, change: dict[str, Any] | None = None) -> Row:
    """Holds one race.

    Args:
        setting: of the race.
        change: fields of the settings of the runs that are others, for a shorter race.
    """
    experiment = NETWORKS[setting.network][0]
    runs = [replace(one, **(change or {})) for one in runs_of(setting.network)]
    one = next(found for found in runs if found.seed == setting.seed)
    training, validation = load_split(one, "train"), load_split(one, "validation")
    keras.utils.set_random_seed(setting.seed)
    model = make_network(one, training.x.shape[1:])
    set_initial_weights(model, one)
    loss = datasets.info(one.dataset).loss
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    begin = time.perf_counter()
    race = keras_lsc.best_start(
        model,
        training.x,
        training.y,
        validation_data=(validation.x, validation.y),
        starts=list(STARTS[experiment].values()),
        learning_rates=sorted({found.learning_rate for found in runs}),
        epochs=one.epochs,
        batch_size=one.batch_size,
        budget=setting.budget,
        monitor="accuracy",
        seed=setting.seed,
    )
    seconds = round(time.perf_counter() - begin, 1)
    trained = train(model, one, training, validation)
    test = None
    if not trained["diverged"]:
        model.set_weights(trained["weights"])
        test = rounded(evaluate(model, one, load_split(one, "test"))[0], 6)
    steps = one.epochs * (len(training.x) // one.batch_size)
    names = {str(of_race): label for label, of_race in STARTS[experiment].items()}
    return {
        "id": setting.id,
        "setting": asdict(setting),
        "environment": environment(),
        "seconds": seconds,
        "seconds_of_starts": round(sum({e.start: e.seconds for e in race.entrants}.values()), 1),
        "cost": race.steps / steps,
        "winner": names[race.winner.start],
        "learning_rate": race.winner.learning_rate,
        "test": test,
        "race": race.to_dict(),
    }


@dataclass(frozen=True)
class Choice:
    """What the races of a network came to, in points of test accuracy over the seeds.

    Attributes:
        name: of the network.
        winners: start and learning rate of every race.
        ahead: of the default start, its learning rate chosen on all validation data.
        best: label of the start with the best validation of all stored runs.
        best_ahead: of the default start.
        cost: mean of the steps of a race over those of one training.
    """

    name: str
    winners: tuple[tuple[str, float], ...]
    ahead: Interval
    best: str
    best_ahead: float
    cost: float


def choices(rows: Sequence[Row], networks: Mapping[str, Sequence[Network]]) -> list[Choice]:
    """What the races are worth by the stored runs.

    Args:
        rows: of races.
        networks: of the stored runs, by experiment.
    """
    found = []
    for name in NETWORKS:
        races = sorted(
            (row for row in rows if row["setting"]["network"] == name),
            key=lambda row: row["setting"]["seed"],
        )
        if len(races) < 2:
            continue
        starts = _network_of(name, networks).starts
        default = starts["default"]
        won = [(race["winner"], race["learning_rate"]) for race in races]
        # What diverged knows nothing.
        gains = [default.gain_of(race["test"] or 0.1) for race in races]
        seeds = [race["setting"]["seed"] for race in races]
        raced = [starts[label] for label in STARTS[NETWORKS[name][0]]]
        best = max(
            (start for start in raced if start.learning_rate is not None),
            key=lambda start: np.mean([start.gain_of(v) for v in start.validation.values()]),
        )
        of_default = [default.gain_of(default.test[seed]) for seed in seeds]
        best_ahead = [
            best.gain_of(best.test[seed]) - default.gain_of(default.test[seed])
            for seed in seeds
            if seed in best.test
        ]
        found.append(
            Choice(
                name,
                tuple(won),
                paired_difference(gains, of_default),
                best.label,
                float(np.mean(best_ahead)),
                float(np.mean([race["cost"] for race in races])),
            )
        )
    return found


def _network_of(name: str, networks: Mapping[str, Sequence[Network]]) -> Network:
    # Other experiments may have the same network, from other starts.
    members, key = networks[NETWORKS[name][0]], runs_of(name)[0].network
    return next(network for network in members if network.setting.network == key)


def table(found: Sequence[Choice]) -> str:
    """A row a network."""
    header = [
        "network",
        "races: start at learning rate",
        "choice ahead of default",
        "best start",
        "ahead",
        "cost",
    ]
    rows = [
        [
            choice.name,
            ", ".join(f"{start} at {rate:g}" for start, rate in choice.winners),
            f"{choice.ahead.value:+.1f} [{choice.ahead.low:.1f}, {choice.ahead.high:.1f}]",
            choice.best,
            f"{choice.best_ahead:+.1f}",
            f"{choice.cost:.1f}",
        ]
        for choice in found
    ]
    return markdown(header, rows)


def main() -> None:
    """Holds the races that are missing."""
    run_missing(
        __doc__,
        FOLDER,
        SEEDS,
        settings,
        run,
        lambda row: f"{row['winner']} at {row['learning_rate']:g}, {row['seconds']:.0f} s",
    )


if __name__ == "__main__":
    main()
