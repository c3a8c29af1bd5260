"""Where the best balanced target lies, and whether it is where the laws say."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from experiments import statistics
from experiments.summary import FAR_CORNER, LEAST_SEEDS, Network, tally
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


def optimum_sentence(networks: list[Network], mode: str = "scales") -> str:
    """How often the best target's interval holds what each law says, and whether it moves with it.

    Args:
        networks: of the sweep.
        mode: of the pre-training.
    """
    found = [(network, best_target(network, mode)) for network in networks]
    known = [(n, place) for n, place in found if place is not None and learns(n, mode)]
    if not known:
        return ""
    counts = [
        f"{name} on {sum(_holds(place, value) for _, place in known)}" for name, value in LAWS
    ]
    corners = [(network, place, network.setting.far_corner_target) for network, place in known]
    held = sum(_holds(place, _nearest_tried(net, mode, corner)) for net, place, corner in corners)
    text = (
        f"In the sweep of the balanced target, of {len(known)} networks that learn anything, the "
        f"interval of the best target holds {', '.join(counts)}, and the tried one that is nearest "
        f"to the far-corner radius on {held}: the radius by which the energy law keeps the "
        "gradient from the last output to the first input, nearer to 1 the longer the sequences "
        "and the fewer the layers."
    )
    if len(known) < _LEAST_NETWORKS:
        return text
    correlation = statistics.rank_correlation(
        [corner for *_, corner in corners], [place.value for _, place in known]
    )
    moves = "moves" if correlation.is_clearly_positive else "does not move"
    return (
        f"{text} From network to network the best target {moves} with that radius ({correlation})."
    )


def nearer_target_sentence(networks: list[Network]) -> str:
    """How often the one of "variance" and 1 that is nearer to the far-corner radius is better.

    Args:
        networks: of other experiments than the sweep, where the far-corner radius was first seen.
    """
    wins, clear = Counter[str](), 0
    for network in networks:
        gain = network.compare("variance", "1")
        if gain is None or not (gain.is_above_zero or gain.is_below_zero):
            continue
        clear += 1
        better = "variance" if gain.is_above_zero else "1"
        wins[better] += 1
        nearer = "variance" if network.setting.far_corner_target < (ENERGY + 1) / 2 else "1"
        wins["nearer"] += better == nearer
    if not clear:
        return ""
    return (
        f'Elsewhere "variance" and 1, by scales, differ clearly on {clear} recurrent networks: the '
        f"one nearer to the far-corner radius is better on {wins['nearer']} "
        f'({share(statistics.share(wins["nearer"], clear))}), "variance" on {wins["variance"]}, '
        f"1 on {wins['1']}."
    )


def aimed_at_sentence(networks: list[Network]) -> str:
    """How often the far-corner radius itself, as a target, beats the default and other targets."""
    parts = []
    for other in ("default", "variance", "1"):
        counts = tally(networks, FAR_CORNER, other)
        if counts.count:
            name = {"default": "the default start", "variance": '"variance"'}.get(other, other)
            parts.append(f"than {name} on {counts.better} and {counts.worse} of {counts.count}")
    if not parts:
        return ""
    return (
        "As a target of its own the radius is clearly better and clearly worse "
        f"{', '.join(parts)} networks."
    )
