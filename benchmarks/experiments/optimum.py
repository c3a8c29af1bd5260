"""Where the best balanced target lies, and whether it is where the laws say."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from benchmarks.experiments import statistics
from benchmarks.experiments.settings import Setting
from benchmarks.experiments.summary import LEAST_SEEDS, Network
from benchmarks.experiments.tables import markdown, metric
from keras_lsc import datasets
from keras_lsc.stability.theory import number_of_paths

ENERGY = math.sqrt(0.5)
LAWS = (("1/√2", ENERGY), ("0.5", 0.5), ("1", 1.0))
_NO_PLACE = "nothing learned"
# A rank correlation takes that many networks.
_LEAST_NETWORKS = 5


def number_of_steps(setting: Setting) -> int:
    """Length of the sequences of a network's task."""
    return setting.steps or datasets.info(setting.dataset).shape[0]


def corner_target(depth: int, steps: int) -> float:
    """The balanced target that keeps the gradient from the last output to the first input.

    Energies add over all paths between the two corners of the grid, C(T+L-2, L-1) of T+L-2
    transitions each, and the target makes their sum 1. It is 1 for a single layer, and tends to
    1/sqrt(2) where the network is as deep as its sequences are long.

    Args:
        depth: number of layers L.
        steps: number of time steps T, two or more.
    """
    # The count may be too large for a float, its logarithm is not.
    energy_to_lose = math.log(number_of_paths(steps - 1, depth - 1))
    return math.exp(-energy_to_lose / (2 * (steps + depth - 2)))


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
                    f"{_corner_of(network):.2f}",
                    metric(network, float(np.mean(list(tests.values())))),
                    (", ".join(inside) or "none of them") if learns(network, mode) else _NO_PLACE,
                    f"{place.count}",
                ]
            )
    if not rows:
        return ""
    header = ["network", "mode", "best target", "far corner's", "test there", "in its interval",
              "seeds"]  # fmt: skip
    return markdown(header, rows)


def _holds(place: statistics.Interval, value: float) -> bool:
    return place.low - 1e-9 <= value <= place.high + 1e-9


def _corner_of(network: Network) -> float:
    return corner_target(network.setting.depth, number_of_steps(network.setting))


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
    corners = [(network, place, _corner_of(network)) for network, place in known]
    held = sum(_holds(place, _nearest_tried(net, mode, corner)) for net, place, corner in corners)
    text = (
        f"In the sweep of the balanced target, of {len(known)} networks that learn anything, the "
        f"interval of the best target holds {', '.join(counts)}, and what is nearest to the far "
        f"corner's on {held}: that by which the energy law keeps the gradient from the last output "
        "to the first input, nearer to 1 the longer the sequences and the fewer the layers."
    )
    if len(known) < _LEAST_NETWORKS:
        return text
    test = stats.spearmanr([corner for *_, corner in corners], [p.value for _, p in known])
    moves = test.pvalue < 1 - statistics.CONFIDENCE and test.statistic > 0
    return (
        f"{text} From network to network the best target {'moves' if moves else 'does not move'} "
        f"with the far corner's (Spearman's correlation {test.statistic:.2f}, "
        f"p = {test.pvalue:.2g})."
    )
