"""Where the best balanced target lies, and whether it is where the laws say."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.experiments import statistics
from benchmarks.experiments.summary import LEAST_SEEDS, Network
from benchmarks.experiments.tables import markdown, metric

ENERGY = math.sqrt(0.5)
LAWS = (("1/√2", ENERGY), ("0.5", 0.5), ("1", 1.0))


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


def optimum_table(networks: list[Network]) -> str:
    """The best target of every network, beside the two laws."""
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
                    metric(network, float(np.mean(list(tests.values())))),
                    ", ".join(inside) or "none of them",
                    f"{place.count}",
                ]
            )
    if not rows:
        return ""
    header = ["network", "mode", "best target", "test there", "in its interval", "seeds"]
    return markdown(header, rows)


def _holds(place: statistics.Interval, value: float) -> bool:
    return place.low - 1e-9 <= value <= place.high + 1e-9


def optimum_sentence(networks: list[Network], mode: str = "scales") -> str:
    """How often the best target's interval holds what each law says, and how it moves.

    Args:
        networks: of the sweep.
        mode: of the pre-training.
    """
    found = [(network, best_target(network, mode)) for network in networks]
    known = [(network, place) for network, place in found if place is not None]
    if not known:
        return ""
    counts = ", ".join(
        f"{name} on {sum(_holds(place, value) for _, place in known)}" for name, value in LAWS
    )
    text = f"Of {len(known)} networks the interval of the best target holds {counts}."
    for cell in sorted({network.setting.cell for network, _ in known}):
        of_cell = [(network.setting, place) for network, place in known
                   if network.setting.cell == cell]  # fmt: skip
        places = ", ".join(
            f"{place.value:.2g} (depth {setting.depth}, T {setting.steps or 28})"
            for setting, place in sorted(
                of_cell, key=lambda pair: (pair[0].steps or 28, pair[0].depth)
            )
        )
        text += f" For {cell} it is {places}."
    return text
