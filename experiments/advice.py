"""Whether to pre-train a network, to which target, and how to tell beforehand."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments import statistics
from experiments.summary import LEAST_SEEDS, Network, Start, Tally, tally
from experiments.tables import MODES, TARGETS, in_mode, markdown
from keras_lsc import datasets

HELPS, NEITHER, HURTS = "helps", "makes no clear difference", "hurts"
# A rule about a group of networks takes that many of them.
_LEAST_NETWORKS = 3
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


def cell_table(found: list[Verdict]) -> str:
    """The verdicts, counted cell by cell."""
    rows = []
    for cell in _cells(found):
        chosen = [verdict for verdict in found if verdict.cell == cell]
        counts = Counter(verdict.word for verdict in chosen)
        ratios = [verdict.error_ratio for verdict in chosen]
        rows.append(
            [
                cell,
                str(len(chosen)),
                *(str(counts[word]) for word in (HELPS, NEITHER, HURTS)),
                f"{np.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]",
                _votes(chosen),
            ]
        )
    header = ["cell", "networks", HELPS, NEITHER, HURTS, "ratio of test errors: median [range]",
              "start that validation chose"]  # fmt: skip
    return markdown(header, rows)


def summary(found: list[Verdict]) -> str:
    """How often pre-training helps, and the target to take without a search."""
    if not found:
        return f"No network has {LEAST_SEEDS} seeds of both starts yet, so there is no advice."
    counts = Counter(verdict.word for verdict in found)
    text = (
        f"The best pre-trained start, its target chosen on validation, is clearly better than the "
        f"default one on {counts[HELPS]} of {len(found)} networks, clearly worse on "
        f"{counts[HURTS]}, and neither on {counts[NEITHER]}."
    )
    return " ".join(filter(None, [text, _of_target(found)]))


def by_cell(found: list[Verdict]) -> str:
    """What to do with networks of each cell, and at which depths it helps, by rule."""
    cells = [_of_cell(cell, [v for v in found if v.cell == cell]) for cell in _cells(found)]
    return " ".join(filter(None, [*cells, _of_depth(found)]))


def _cells(found: list[Verdict]) -> list[str]:
    """The cells, the one that is helped most first."""
    ratios: dict[str, list[float]] = {}
    for verdict in found:
        ratios.setdefault(verdict.cell, []).append(math.log(verdict.error_ratio))
    return sorted(ratios, key=lambda cell: (float(np.median(ratios[cell])), cell))


def _of_cell(cell: str, chosen: list[Verdict]) -> str:
    counts = Counter(verdict.word for verdict in chosen)
    name = cell.upper() if cell in ("gru", "lstm", "lif", "alif", "lru") else cell
    ratio = float(np.median([verdict.error_ratio for verdict in chosen]))
    tally = f"better on {counts[HELPS]} of {len(chosen)}"
    if counts[HURTS]:
        tally += f", worse on {counts[HURTS]}"
    if 2 * counts[HELPS] > len(chosen):
        helped = [verdict for verdict in chosen if verdict.word == HELPS]
        return (
            f"Pre-train {name} networks ({tally}; the median test error is {ratio:.2f} times the "
            f"default's; validation chose {_votes(helped)})."
        )
    if 2 * counts[HURTS] > len(chosen):
        return f"Leave {name} networks as they start ({tally})."
    if counts[HELPS] or counts[HURTS]:
        tasks: dict[str, list[str]] = {}
        for verdict in chosen:
            if verdict.word != NEITHER:
                key = f"{_start_name(verdict.best)} {verdict.word}"
                tasks.setdefault(key, []).append(_task(verdict))
        clear = "; ".join(f"{key} at {' and at '.join(places)}" for key, places in tasks.items())
        return f"For {name} networks it depends ({tally}: {clear})."
    return f"For {name} networks it changes little (clearly so on none of {len(chosen)})."


def _of_depth(found: list[Verdict]) -> str:
    """In what share of the networks of each depth it helps."""
    depths = sorted({verdict.depth for verdict in found})
    parts = []
    for depth in depths:
        chosen = [verdict for verdict in found if verdict.depth == depth]
        if len(chosen) >= _LEAST_NETWORKS:
            helped = sum(verdict.word == HELPS for verdict in chosen)
            parts.append(f"{helped} of {len(chosen)} with {depth} layers")
    return f"By depth it helps {', '.join(parts)}." if len(parts) > 1 else ""


def beforehand(found: list[Verdict]) -> str:
    """Whether the energy sum of the default start tells beforehand how much pre-training helps."""
    known = [verdict for verdict in found if verdict.energy_sum is not None]
    if len(known) < 2 * _LEAST_NETWORKS:
        return ""
    correlation = distance_correlation(known)
    tells = "tells" if correlation.is_clearly_positive else "does not tell"
    return (
        "What `measure` says of the default start is gain_t² + gain_l², which the energy law wants "
        f"to be 1. Its distance from 1, |log|, {tells} in advance how far the test error falls "
        f"({correlation})."
    )


def by_range(found: list[Verdict]) -> Iterator[tuple[str, list[Verdict]]]:
    """The verdicts by ranges of the default start's energy sum, with the name of each range."""
    for low, high in itertools.pairwise((0.0, *_BORDERS, math.inf)):
        chosen = [v for v in found if v.energy_sum is not None and low <= v.energy_sum < high]
        if chosen:
            yield _range_name(low, high), chosen


def range_table(found: list[Verdict]) -> str:
    """By ranges of the default start's energy sum, what pre-training does, target by target."""
    rows = []
    for name, chosen in by_range(found):
        counts = Counter(verdict.word for verdict in chosen)
        tallies = [_against_default(chosen, target, "") for target in TARGETS]
        rows.append(
            [
                name,
                ", ".join(_cells(chosen)),
                f"{counts[HELPS]}, {counts[HURTS]} of {len(chosen)}",
                *(
                    f"{counted.better}, {counted.worse} of {counted.count}"
                    if counted.count
                    else "-"
                    for counted in tallies
                ),
            ]
        )
    header = ["energy sum", "cells", "best: better, worse", *TARGETS]
    return markdown(header, rows) if rows else ""


def short_range_table(found: list[Verdict]) -> str:
    """By the same ranges, on how many networks the best pre-trained start is better and worse."""
    rows = []
    for name, chosen in [*by_range(found), ("all", found)]:
        counts = Counter(verdict.word for verdict in chosen)
        cells = ", ".join(_cells(chosen)) if chosen is not found else ""
        words = (HELPS, NEITHER, HURTS)
        rows.append([name, cells, str(len(chosen)), *(str(counts[word]) for word in words)])
    header = ["energy sum", "cells", "networks", "clearly better", "no clear difference",
              "clearly worse"]  # fmt: skip
    return markdown(header, rows)


def _range_name(low: float, high: float) -> str:
    if low == 0:
        return f"below {high:g}"
    return f"above {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def _against_default(found: list[Verdict], target: str, suffix: str) -> Tally:
    networks = [verdict.network for verdict in found]
    return tally(networks, *in_mode((target, "default"), suffix))


def distance_correlation(found: list[Verdict]) -> statistics.RankCorrelation:
    """Correlation of the default start's distance from the law with the gain.

    Args:
        found: verdicts with an energy sum.
    """
    distance = [abs(math.log(verdict.energy_sum or math.nan)) for verdict in found]
    return statistics.rank_correlation(distance, [-math.log(v.error_ratio) for v in found])


def _of_target(found: list[Verdict]) -> str:
    """Which target to take without a search: the one with the best balance of clear results."""
    balances = []
    for mode, suffix in MODES:
        for target in TARGETS:
            counts = _against_default(found, target, suffix)
            if 2 * counts.count >= len(found):
                balances.append((counts, target, mode))
    if not balances:
        return ""
    balances.sort(key=lambda item: (_balance(item[0]), item[0].better), reverse=True)
    best, worst = balances[0], balances[-1]
    if _balance(best[0]) > 0:
        text = f"Without a search take {_described(*best)}."
    else:
        text = (
            "No target is better than the default on more networks than it is worse on, so none is "
            f"to be taken untried; the nearest is {_described(*best)}."
        )
    if _balance(worst[0]) < min(_balance(best[0]), 0):
        return f"{text} Worst is {_described(*worst)}."
    return text


def _balance(counts: Tally) -> int:
    return counts.better - counts.worse


def _described(counts: Tally, target: str, mode: str) -> str:
    return (
        f'{_start_name(target)} in mode "{mode}", clearly better than the default on '
        f"{counts.better} and clearly worse on {counts.worse} of {counts.count} networks"
    )


def _start_name(label: str) -> str:
    return label if label[0].isdigit() else f'"{label}"'


def _votes(chosen: list[Verdict]) -> str:
    votes = Counter(verdict.best for verdict in chosen)
    return "; ".join(f"{label} ({count})" for label, count in votes.most_common())


def _task(verdict: Verdict) -> str:
    label = verdict.network.label.removeprefix(f"{verdict.cell} ")
    size, _, task = label.partition(", ")
    return f"depth {size.split('x')[0]} on {task}"


def _unit(network: Network) -> str:
    name = datasets.info(network.setting.dataset).metric
    return {"accuracy": "points"}.get(name, f"log {name.replace('_', ' ')}")
