"""From runs to what is compared: one figure a seed, for every start of every network.

The learning rate of a start is chosen by its validation metric, averaged over the seeds; the test
metric is looked at for that learning rate alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from experiments import statistics
from experiments.settings import CHOSEN_FIELDS, START_FIELDS, Setting
from keras_lsc import datasets

LEAST_SEEDS = 4
FAR_CORNER = "far corner"
Row = dict[str, Any]


def start_label(setting: Setting) -> str:
    """How the report names a start: "default", "he", "0.5", "1, weights", "level 1.3", ..."""
    if setting.method == "level":
        return "level" if setting.growth == 1 else f"level {setting.growth:g}"
    if setting.method != "lsc":
        return setting.sibling or setting.method
    if setting.target is None:
        return setting.initialization
    target = setting.target
    if isinstance(target, list | tuple):
        name = "(" + ", ".join(f"{radius:g}" for radius in target) + ")"
    elif isinstance(target, str):
        name = target
    elif abs(target - math.sqrt(0.5)) < 1e-9:
        name = "variance"
    else:
        name = FAR_CORNER if target == setting.far_corner_target else f"{target:g}"
    gain = ", rms" if setting.radius == "rms" else ""
    return f"{name}{gain}, weights" if setting.mode == "weights" else f"{name}{gain}"


def network_label(setting: Setting) -> str:
    """How the report names a network with its task: "sigmoid 5x32, smnist, T 28"."""
    size = ":".join(map(str, setting.widths)) if setting.widths else setting.units
    parts = [f"{setting.cell} {setting.depth}x{size}", setting.dataset]
    if setting.steps is not None:
        parts.append(f"T {setting.steps}")
    parts += [f"{name} {value}" for name, value in setting.options.items()]
    if setting.surrogate is not None:
        parts.append(setting.surrogate)
    if setting.clip_norm is not None:
        parts.append(f"clipped at {setting.clip_norm:g}")
    return ", ".join(parts)


@dataclass
class Start:
    """The runs of one network from one start.

    Attributes:
        label: of `start_label`.
        setting: of any of its runs.
        rows: by learning rate and seed.
        learning_rates: that each of its seeds should have.
    """

    label: str
    setting: Setting
    rows: dict[tuple[float, int], Row] = field(default_factory=dict)
    learning_rates: tuple[float, ...] = ()

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds with a run for every learning rate."""
        seeds = {seed for _, seed in self.rows}
        return sorted(s for s in seeds if all((r, s) in self.rows for r in self.learning_rates))

    @cached_property
    def reached(self) -> list[int]:
        """Seeds whose pre-training reached its target; all of them without pre-training."""
        rate = self.learning_rates[0]
        return [s for s in self.seeds if self.rows[rate, s]["status"] != "not stabilised"]

    @cached_property
    def learning_rate(self) -> float | None:
        """The one with the best mean validation metric; None where each diverged somewhere.

        Only the validation metric is read.
        """
        best: tuple[float, float] | None = None
        for rate in self.learning_rates:
            runs = [self.rows[rate, seed] for seed in self.reached]
            if not runs or any(run["status"] != "trained" for run in runs):
                continue
            score = float(np.mean([self.gain_of(run["training"]["best"]) for run in runs]))
            if best is None or score > best[0]:
                best = score, rate
        return best[1] if best else None

    @property
    def is_finished(self) -> bool:
        """Whether so many seeds are trained that claims may rest on them."""
        return self.learning_rate is not None and len(self.reached) >= LEAST_SEEDS

    def gain_of(self, metric: float) -> float:
        """The metric as a figure of which more is better and differences make sense.

        Accuracy in per cent; perplexity and squared error by minus their logarithm.
        """
        if datasets.info(self.setting.dataset).metric == "accuracy":
            return 100 * metric
        return -math.log(max(metric, 1e-12))

    @cached_property
    def chosen_rows(self) -> dict[int, Row]:
        """The runs with the chosen learning rate, by seed."""
        if self.learning_rate is None:
            return {}
        return {seed: self.rows[self.learning_rate, seed] for seed in self.reached}

    @property
    def test(self) -> dict[int, float]:
        """Test metric at the best validation, by seed."""
        return {seed: row["training"]["test"] for seed, row in self.chosen_rows.items()}

    @property
    def test_errors(self) -> dict[int, float]:
        """Test error at the best validation, by seed: of which less is better, and never zero.

        The share of wrong answers, the perplexity, or the squared error.
        """
        if datasets.info(self.setting.dataset).metric != "accuracy":
            return self.test
        # No accuracy is known better than to half an example.
        least = 0.5 / self.setting.test
        return {seed: max(1 - accuracy, least) for seed, accuracy in self.test.items()}

    @property
    def validation(self) -> dict[int, float]:
        """Best validation metric, by seed."""
        return {seed: row["training"]["best"] for seed, row in self.chosen_rows.items()}

    def start_figures(self, kind: str, figure: str) -> float | None:
        """Mean of a figure of the start over transitions and seeds.

        Args:
            kind: "time" or "depth".
            figure: "radius", "gain" or "isotropy".
        """
        rate = self.learning_rates[0]
        values = [
            value
            for seed in self.reached
            for value in self.rows[rate, seed]["start"]["radii"][kind][figure]
            if value is not None
        ]
        return float(np.mean(values)) if values else None


@dataclass
class Network:
    """One network with its task and budget, and all starts it was trained from.

    Attributes:
        label: of `network_label`.
        setting: of any of its runs.
        starts: by label, in the order of the settings.
    """

    label: str
    setting: Setting
    starts: dict[str, Start] = field(default_factory=dict)

    def compare(self, first: str, second: str) -> statistics.Interval | None:
        """Paired difference of the test metric, positive where the first start is better.

        Returns:
            None unless both are finished, on the same `LEAST_SEEDS` seeds or more.
        """
        if not all(
            name in self.starts and self.starts[name].is_finished for name in (first, second)
        ):
            return None
        a, b = self.starts[first], self.starts[second]
        seeds = sorted(set(a.test) & set(b.test))
        if len(seeds) < LEAST_SEEDS:
            return None
        return statistics.paired_difference(
            [a.gain_of(a.test[seed]) for seed in seeds],
            [b.gain_of(b.test[seed]) for seed in seeds],
        )


@dataclass(frozen=True)
class Tally:
    """How two starts compare over networks.

    Attributes:
        ahead: on how many the first has the better mean.
        better: on how many it is clearly better, its paired interval above zero.
        worse: on how many it is clearly worse.
        count: of networks that have both.
    """

    ahead: int
    better: int
    worse: int
    count: int


def tally(networks: Iterable[Network], first: str, second: str) -> Tally:
    """Counts the networks on which one start is better and worse than another."""
    compared = [network.compare(first, second) for network in networks]
    intervals = [interval for interval in compared if interval is not None]
    return Tally(
        ahead=sum(interval.value > 0 for interval in intervals),
        better=sum(interval.is_above_zero for interval in intervals),
        worse=sum(interval.is_below_zero for interval in intervals),
        count=len(intervals),
    )


def networks(rows: Iterable[Row]) -> list[Network]:
    """Sorts the runs of an experiment into networks and starts.

    Args:
        rows: of `storage.read_rows`, in any order.
    """
    found: dict[str, Network] = {}
    for row in rows:
        setting = Setting.from_dict(row["setting"])
        rest = setting.without(*START_FIELDS, *CHOSEN_FIELDS, "seed")
        key = json.dumps([rest, row["environment"]["backend"]])
        network = found.setdefault(key, Network(network_label(setting), setting))
        label = start_label(setting)
        start = network.starts.setdefault(label, Start(label, setting))
        start.rows[setting.learning_rate, setting.seed] = row
    for network in found.values():
        rates = {rate for start in network.starts.values() for rate, _ in start.rows}
        for start in network.starts.values():
            start.learning_rates = tuple(sorted(rates))
    ordered = sorted(found.items(), key=lambda item: (_order(item[1].setting), item[0]))
    names = Counter(network.label for network in found.values())
    for key, network in ordered:
        if names[network.label] > 1:
            network.label += f", {network.setting.epochs} epochs, {json.loads(key)[1]}"
    return [network for _, network in ordered]


def _order(setting: Setting) -> tuple[Any, ...]:
    length = setting.steps or setting.options.get("length") or setting.options.get("delay") or 0
    return (setting.dataset, setting.cell, setting.depth, setting.units, length,
            setting.clip_norm or 0.0, setting.epochs)  # fmt: skip
