"""Where the best balanced target lies, and whether it is where the laws say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from experiments import statistics
from experiments.summary import LEAST_SEEDS, Network
from experiments.tables import markdown, metric, share
from keras_lsc import datasets

ENERGY = math.sqrt(0.5)
LAWS = (("1/√2", ENERGY), ("0.5", 0.5), ("1", 1.0))
_NO_PLACE = "nothing learned"
# A rank correlation takes that many networks.
_LEAST_NETWORKS = 5


def balanced_starts(network: Network, mode: str) -> list[tuple[float, str]]:
    """Targets of the finished starts with a single number for a target, and their labels."""
    found = [
        (float(start.setting.target), start.label)
        for start in network.starts.values()
        if isinstance(start.setting.target, float | int)
        and start.setting.mode == mode
        and start.is_finished
    ]
    return sorted(found)


def best_target(network: Network, mode: str) -> statistics.Interval | None:
    """The target with the best mean test metric, with a bootstrap interval over the seeds.

    Returns:
        None where fewer than three targets are finished on the same seeds.
    """
    starts = balanced_starts(network, mode)
    if len(starts) < 3:
        return None
    seeds = sorted(set.intersection(*(set(network.starts[label].test) for _, label in starts)))
    if len(seeds) < LEAST_SEEDS:
        return None
    values = np.array(
        [
            [network.starts[label].gain_of(network.starts[label].test[seed]) for seed in seeds]
            for _, label in starts
        ]
    )
    return statistics.place_of_best([target for target, _ in starts], values)


def learns(network: Network, mode: str) -> bool:
    """Whether the best target has more than twice the accuracy of guessing.

    Below that the place of the best target is an accident.
    """
    tests = [network.starts[label].test.values() for _, label in balanced_starts(network, mode)]
    guessing = 1 / datasets.info(network.setting.dataset).outputs
    return max(float(np.mean(list(values))) for values in tests) > 2 * guessing


def optimum_table(networks: list[Network]) -> str:
    """The best target of every network, beside what the laws say."""
    rows = []
    for network in networks:
        for mode in ("scales", "weights"):
            place = best_target(network, mode)
            if place is None:
                continue
            starts = dict(balanced_starts(network, mode))
            tests = network.starts[starts[place.value]].test
            inside = [name for name, value in LAWS if _holds(place, value)]
            rows.append(
                [
                    network.label,
                    mode,
                    f"{place.value:.2g} [{place.low:.2g}, {place.high:.2g}]",
                    f"{network.setting.far_corner_target:.2f}",
                    metric(network, float(np.mean(list(tests.values())))),
                    (", ".join(inside) or "none of them") if learns(network, mode) else _NO_PLACE,
                    f"{place.count}",
                ]
            )
    if not rows:
        return ""
    header = ["network", "mode", "best target", "far-corner radius", "test there",
              "in its interval", "seeds"]  # fmt: skip
    return markdown(header, rows)


def _holds(place: statistics.Interval, value: float) -> bool:
    return place.low - 1e-9 <= value <= place.high + 1e-9


def _nearest_tried(network: Network, mode: str, target: float) -> float:
    """The target of the sweep that is nearest to one of a law."""
    return min(
        (tried for tried, _ in balanced_starts(network, mode)), key=lambda t: abs(t - target)
    )


def law_table(networks: list[Network], mode: str = "scales") -> str:
    """On how many networks of a sweep the interval of the best target holds what each law says."""
    known = _learned(networks, mode)
    if not known:
        return ""
    held = {name: sum(_holds(place, value) for _, place in known) for name, value in LAWS}
    held["the tried one nearest to the far-corner radius"] = sum(
        _holds(place, _nearest_tried(network, mode, network.setting.far_corner_target))
        for network, place in known
    )
    rows = [[name, f"{count} of {len(known)}"] for name, count in held.items()]
    return markdown(["target", "in the interval of the best one"], rows)


def corner_correlation(
    networks: list[Network], mode: str = "scales"
) -> statistics.RankCorrelation | None:
    """Correlation of the best target with the far-corner radius, from network to network.

    Returns:
        None where too few networks learn anything.
    """
    known = _learned(networks, mode)
    if len(known) < _LEAST_NETWORKS:
        return None
    return statistics.rank_correlation(
        [network.setting.far_corner_target for network, _ in known],
        [place.value for _, place in known],
    )


def _learned(networks: list[Network], mode: str) -> list[tuple[Network, statistics.Interval]]:
    """The networks that learn anything, and where their best targets are."""
    found = [(network, best_target(network, mode)) for network in networks]
    return [(n, place) for n, place in found if place is not None and learns(n, mode)]


def nearer_target_table(networks: list[Network]) -> str:
    """How often the one of "variance" and 1 that is nearer to the far-corner radius is better.

    Args:
        networks: of other experiments than the sweep, where the far-corner radius was first seen.
    """
    gains = [(network, network.compare("variance", "1")) for network in networks]
    clear = pd.DataFrame(
        [
            (gain.is_above_zero, network.setting.far_corner_target < (ENERGY + 1) / 2)
            for network, gain in gains
            if gain is not None and (gain.is_above_zero or gain.is_below_zero)
        ],
        columns=["variance_is_better", "variance_is_nearer"],
    )
    if clear.empty:
        return ""
    nearer = clear["variance_is_better"] == clear["variance_is_nearer"]
    wins = {
        "the one nearer to the far-corner radius": nearer,
        "variance": clear["variance_is_better"],
        "1": ~clear["variance_is_better"],
    }
    rows = [
        [name, f"{won.sum()} of {len(clear)}", share(statistics.share(int(won.sum()), len(clear)))]
        for name, won in wins.items()
    ]
    return markdown(["of variance and 1, by scales", "clearly better on", "share"], rows)
