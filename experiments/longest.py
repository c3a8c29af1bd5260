"""The longest sequence that is solved from each start."""

from __future__ import annotations

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
    rows = []
    for (task, cell), members in sorted(by_task_and_cell(networks).items()):
        for label in labels_of(members):
            finished = [
                network
                for network in members
                if label in network.starts and network.starts[label].is_finished
            ]
            if not finished:
                continue
            passed = [
                n for n in finished if 2 * solved(n.starts[label]) >= len(n.starts[label].test)
            ]
            counts = ", ".join(
                f"{length_of(n)}: {solved(n.starts[label])}/{len(n.starts[label].test)}"
                for n in finished
            )
            longest = str(max(length_of(n) for n in passed)) if passed else "none"
            rows.append([task, cell, label, longest, counts])
    if not rows:
        return ""
    header = ["task", "cell", "start", "longest solved of those tried",
              "length: seeds that solve it"]  # fmt: skip
    return markdown(header, rows)
