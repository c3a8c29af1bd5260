"""Whether pre-training helps a network, and how to tell beforehand."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from experiments import statistics
from experiments.summary import Network, Start, tally
from experiments.tables import TARGETS, in_mode, markdown
from keras_lsc import datasets

HELPS, NEITHER, HURTS = "helps", "makes no clear difference", "hurts"
# Borders between ranges of the energy sum, each a factor of two or four from the law's 1.
_BORDERS = (0.25, 0.5, 2.0)


@dataclass(frozen=True)
class Verdict:
    """What one network says of pre-training.

    Attributes:
        network: of which it is said.
        best: label of the pre-trained start with the best validation metric.
        gain: paired difference of its test metric to that of the default start.
    """

    network: Network
    best: str
    gain: statistics.Interval

    @property
    def cell(self) -> str:
        """Cell of the network."""
        return self.network.setting.cell

    @property
    def depth(self) -> int:
        """Number of layers of the network."""
        return self.network.setting.depth

    @property
    def word(self) -> str:
        """One of `HELPS`, `NEITHER`, `HURTS`."""
        if self.gain.is_above_zero:
            return HELPS
        return HURTS if self.gain.is_below_zero else NEITHER

    @cached_property
    def error_ratio(self) -> float:
        """Test error of the pre-trained start over that of the default one.

        Geometric mean over the seeds.
        """
        starts = self.network.starts
        best, default = starts[self.best].test_errors, starts["default"].test_errors
        seeds = sorted(set(best) & set(default))
        return math.exp(np.mean([math.log(best[seed] / default[seed]) for seed in seeds]))

    @cached_property
    def energy_sum(self) -> float | None:
        """gain_t² + gain_l² of the default start, which the energy law wants to be 1.

        None of a network without transitions in time.
        """
        default = self.network.starts["default"]
        gains = [default.start_figures(kind, "gain") for kind in ("time", "depth")]
        known = [gain for gain in gains if gain is not None]
        return sum(gain**2 for gain in known) if len(known) == len(gains) else None


def verdicts(networks: Iterable[Network]) -> list[Verdict]:
    """One verdict a network: the target is chosen on validation, the gain is of the test split."""
    found = []
    for network in networks:
        rivals = [s for s in network.starts.values() if s.setting.target and s.is_finished]
        if not rivals or "default" not in network.starts:
            continue
        best = max(rivals, key=_mean_validation)
        gain = network.compare(best.label, "default")
        if gain is not None:
            found.append(Verdict(network, best.label, gain))
    return found


def _mean_validation(start: Start) -> float:
    return float(np.mean([start.gain_of(value) for value in start.validation.values()]))


def verdict_table(found: list[Verdict]) -> str:
    """The verdicts, one a line."""
    rows = []
    for verdict in found:
        gain = verdict.gain
        energy = "-" if verdict.energy_sum is None else f"{verdict.energy_sum:.2f}"
        rows.append(
            [
                verdict.network.label,
                energy,
                verdict.best,
                f"{gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] {_unit(verdict.network)}",
                f"{verdict.error_ratio:.2f}",
                verdict.word,
                str(gain.count),
            ]
        )
    header = ["network", "default start: energy sum", "best pre-trained start",
              "test, minus default", "ratio of test errors", "pre-training", "seeds"]  # fmt: skip
    return markdown(header, rows)


def frame(found: list[Verdict]) -> pd.DataFrame:
    """The verdicts, one a row."""
    names = ("network", "cell", "depth", "best", "word", "error_ratio", "energy_sum")
    return pd.DataFrame([[getattr(one, name) for name in names] for one in found], columns=names)


def cell_table(found: list[Verdict]) -> str:
    """The verdicts, counted cell by cell."""
    verdicts = frame(found)
    rows = []
    for cell in _cells(verdicts):
        chosen = verdicts[verdicts["cell"] == cell]
        ratios = chosen["error_ratio"]
        rows.append(
            [
                cell,
                *_counted(chosen),
                f"{ratios.median():.2f} [{ratios.min():.2f}, {ratios.max():.2f}]",
                "; ".join(f"{n} ({c})" for n, c in Counter(chosen["best"]).most_common()),
            ]
        )
    header = ["cell", "networks", HELPS, NEITHER, HURTS, "ratio of test errors: median [range]",
              "start that validation chose"]  # fmt: skip
    return markdown(header, rows)


def depth_table(found: list[Verdict]) -> str:
    """The verdicts, counted by the number of layers."""
    rows = [[str(depth), *_counted(chosen)] for depth, chosen in frame(found).groupby("depth")]
    return markdown(["layers", "networks", HELPS, NEITHER, HURTS], rows)


def _counted(verdicts: pd.DataFrame) -> list[str]:
    counts = verdicts["word"].value_counts().reindex([HELPS, NEITHER, HURTS], fill_value=0)
    return [str(len(verdicts)), *map(str, counts)]


def _cells(verdicts: pd.DataFrame) -> list[str]:
    """The cells, the one that is helped most first."""
    logarithms = verdicts["error_ratio"].map(math.log).groupby(verdicts["cell"]).median()
    # By name where they are equal, as groups are in the order of their names.
    return list(logarithms.sort_values(kind="stable").index)


def _by_range(found: list[Verdict]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The verdicts by ranges of the default start's energy sum, with the name of each range."""
    verdicts = frame([verdict for verdict in found if verdict.energy_sum is not None])
    edges = [0.0, *_BORDERS, math.inf]
    names = [_range_name(low, high) for low, high in itertools.pairwise(edges)]
    ranges = pd.cut(verdicts["energy_sum"].astype(float), edges, right=False, labels=names)
    for name, chosen in verdicts.groupby(ranges, observed=True):
        yield str(name), chosen


def range_table(found: list[Verdict]) -> str:
    """By ranges of the default start's energy sum, what pre-training does, target by target."""
    rows = []
    for name, chosen in _by_range(found):
        networks, helps, _, hurts = _counted(chosen)
        tallies = [tally(chosen["network"], *in_mode((one, "default"), "")) for one in TARGETS]
        rows.append(
            [
                name,
                ", ".join(_cells(chosen)),
                f"{helps}, {hurts} of {networks}",
                *(f"{one.better}, {one.worse} of {one.count}" if one.count else "-"
                  for one in tallies),
            ]
        )  # fmt: skip
    header = ["energy sum", "cells", "best: better, worse", *TARGETS]
    return markdown(header, rows) if rows else ""


def short_range_table(found: list[Verdict]) -> str:
    """By the same ranges, on how many networks the best pre-trained start is better and worse."""
    rows = [[name, ", ".join(_cells(some)), *_counted(some)] for name, some in _by_range(found)]
    rows.append(["all", "", *_counted(frame(found))])
    header = ["energy sum", "cells", "networks", "clearly better", "no clear difference",
              "clearly worse"]  # fmt: skip
    return markdown(header, rows)


def _range_name(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:g}"
    return f"above {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def distance_correlation(found: list[Verdict]) -> statistics.RankCorrelation:
    """Correlation of the default start's distance from the law with the gain.

    Args:
        found: verdicts with an energy sum.
    """
    distance = [abs(math.log(verdict.energy_sum or math.nan)) for verdict in found]
    return statistics.rank_correlation(distance, [-math.log(v.error_ratio) for v in found])


def _unit(network: Network) -> str:
    name = datasets.info(network.setting.dataset).metric
    return {"accuracy": "points"}.get(name, f"log {name.replace('_', ' ')}")
