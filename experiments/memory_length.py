"""Over how many time steps a network remembers from each start."""

from __future__ import annotations

import pandas as pd

from experiments.runs import reaches_threshold
from experiments.summary import Network, Start
from experiments.tables import labels_of, markdown


def length_of(network: Network) -> int:
    """Time steps over which a network of these tasks must remember."""
    options = network.setting.options
    return options["delay"] if "delay" in options else options["length"]


def solved(start: Start) -> int:
    """Of how many seeds the test metric passes the threshold."""
    return sum(reaches_threshold(start.setting, value) for value in start.test.values())


def by_task_and_cell(networks: list[Network]) -> dict[tuple[str, str], list[Network]]:
    """The networks of every task and cell, by length."""
    groups: dict[tuple[str, str], list[Network]] = {}
    for network in sorted(networks, key=length_of):
        groups.setdefault((network.setting.dataset, network.setting.cell), []).append(network)
    return groups


def longest_table(networks: list[Network]) -> str:
    """Per task, cell and start the longest length that at least half of the seeds solve."""
    tried = pd.DataFrame(
        [
            (
                network.setting.dataset,
                network.setting.cell,
                label,
                length_of(network),
                solved(start),
                len(start.test),
            )
            for network in networks
            for label, start in network.starts.items()
            if start.is_finished
        ],
        columns=["task", "cell", "start", "length", "solved", "seeds"],
    )
    rows = []
    for (task, cell), chosen in tried.sort_values("length").groupby(["task", "cell"]):
        members = [n for n in networks if (n.setting.dataset, n.setting.cell) == (task, cell)]
        by_start = dict(list(chosen.groupby("start")))
        for label in (one for one in labels_of(members) if one in by_start):
            lengths = by_start[label]
            passed = lengths[2 * lengths["solved"] >= lengths["seeds"]]["length"]
            counts = ", ".join(
                f"{row.length}: {row.solved}/{row.seeds}" for row in lengths.itertuples()
            )
            rows.append([task, cell, label, "none" if passed.empty else f"{passed.max()}", counts])
    if not rows:
        return ""
    header = ["task", "cell", "start", "longest solved of those tried",
              "length: seeds that solve it"]  # fmt: skip
    return markdown(header, rows)
