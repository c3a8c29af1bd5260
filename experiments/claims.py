"""What the comparisons of all networks say together, in the form of the paper's summary."""

from __future__ import annotations

import numpy as np

from experiments import statistics
from experiments.summary import Network, Tally, tally
from experiments.tables import (
    COMPARISONS,
    MODES,
    TARGETS,
    in_mode,
    labels_of,
    markdown,
    share,
)


def paper_form(networks: list[Network]) -> str:
    """In what share of settings one start beats another, per mode, with intervals."""
    rows = []
    for mode, suffix in MODES:
        for pair in COMPARISONS:
            counts = tally(networks, *in_mode(pair, suffix))
            if counts.count:
                rows.append([f"{pair[0]} beats {pair[1]}", mode, *_cells(counts)])
    header = ["", "mode", "settings", "share", "clearly better", "clearly worse"]
    return markdown(header, rows)


def mode_comparison(networks: list[Network]) -> str:
    """For every target, in what share of settings mode "scales" beats mode "weights"."""
    rows = []
    for target in TARGETS:
        counts = tally(networks, target, f"{target}, weights")
        if counts.count:
            rows.append([target, *_cells(counts)])
    header = ["target", "settings", "scales beat weights", "clearly", "clearly worse"]
    return markdown(header, rows)


def _cells(counts: Tally) -> list[str]:
    ahead = share(statistics.share(counts.ahead, counts.count))
    return [str(counts.count), ahead, str(counts.better), str(counts.worse)]


def distance_table(networks: list[Network]) -> str:
    """How far each start is from the best one of its network, in the middle and at worst."""
    ratios: dict[str, list[tuple[float, str]]] = {}
    for network in networks:
        errors = {
            label: float(np.exp(np.mean(np.log(list(start.test_errors.values())))))
            for label, start in network.starts.items()
            if start.is_finished
        }
        for label, error in errors.items():
            ratio = error / min(errors.values())
            ratios.setdefault(label, []).append((ratio, network.label))
    rows = []
    for label in labels_of(networks):
        if label not in ratios:
            continue
        worst, where = max(ratios[label])
        middle = np.median([ratio for ratio, _ in ratios[label]])
        best = sum(ratio == 1 for ratio, _ in ratios[label])
        rows.append(
            [label, str(len(ratios[label])), str(best), f"{middle:.2f}", f"{worst:.2f}", where]
        )
    header = ["start", "networks", "best on", "median ratio", "worst ratio", "there"]
    return markdown(header, rows) if rows else ""
