"""What the comparisons of all networks say together, in the form of the paper's summary."""

from __future__ import annotations

import numpy as np
import pandas as pd

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
    errors = pd.DataFrame(
        [
            (label, network.label, np.exp(np.mean(np.log(list(start.test_errors.values())))))
            for network in networks
            for label, start in network.starts.items()
            if start.is_finished
        ],
        columns=["start", "network", "error"],
    )
    if errors.empty:
        return ""
    errors["ratio"] = errors["error"] / errors.groupby("network")["error"].transform("min")
    by_start = errors.sort_values(["ratio", "network"]).groupby("start")
    table = by_start.agg(
        networks=("ratio", "size"),
        best=("ratio", lambda ratios: (ratios == 1).sum()),
        middle=("ratio", "median"),
        worst=("ratio", "last"),
        where=("network", "last"),
    )
    labels = [label for label in labels_of(networks) if label in table.index]
    rows = [
        [row.Index, f"{row.networks}", f"{row.best}", f"{row.middle:.2f}", f"{row.worst:.2f}",
         row.where]
        for row in table.loc[labels].itertuples()
    ]  # fmt: skip
    return markdown(["start", "networks", "best on", "median ratio", "worst ratio", "there"], rows)
