"""Where the best balanced target lies, and whether it is where the laws say."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.experiments import statistics
from benchmarks.experiments.summary import LEAST_SEEDS, Network
from benchmarks.experiments.tables import markdown, metric

ENERGY, AMPLITUDE = math.sqrt(0.5), 0.5


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
            inside = [
                name
                for name, value in (("1/√2", ENERGY), ("0.5", AMPLITUDE), ("1", 1.0))
                if place.low - 1e-9 <= value <= place.high + 1e-9
            ]
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


def energy_table(networks: list[Network]) -> str:
    """Gradient energy of the bottom layer relative to the top one: measured, law, bound."""
    rows = []
    for network in networks:
        for start in network.starts.values():
            ratios = energy_ratios(network, start.label)
            if ratios:
                cells = [f"{np.exp(np.mean(np.log(ratios[name]))):.3g}" for name in ratios]
                rows.append([network.label, start.label, *cells, str(len(ratios["measured"]))])
    if not rows:
        return ""
    header = ["network", "start", "measured", "energy law", "coherent bound", "seeds"]
    return markdown(header, rows)


def energy_ratios(network: Network, label: str) -> dict[str, list[float]]:
    """Bottom over top energy, summed over time, of every seed with a gradient.

    Args:
        network: recurrent.
        label: of a start.
    """
    start = network.starts[label]
    ratios: dict[str, list[float]] = {"measured": [], "predicted": [], "bound": []}
    for seed in start.reached:
        gradients = start.rows[start.learning_rates[0], seed]["start"]["gradients"]
        if not gradients or "silent" in gradients:
            continue
        values = {name: gradients[name]["layers"] for name in ratios}
        if all(v[0] and v[-1] for v in values.values()):
            for name, energies in values.items():
                ratios[name].append(energies[0] / energies[-1])
    return ratios if len(ratios["measured"]) >= LEAST_SEEDS else {}
