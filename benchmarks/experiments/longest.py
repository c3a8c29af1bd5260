"""The longest sequence that is solved from each start."""

from __future__ import annotations

from benchmarks.experiments.runs import reaches_threshold
from benchmarks.experiments.summary import Network, Start
from benchmarks.experiments.tables import labels_of, markdown


def length_of(network: Network) -> int:
    """Time steps over which a network of these tasks must remember."""
    options = network.setting.options
    return options["delay"] if "delay" in options else options["length"]


def solved(start: Start) -> int:
    """Of how many seeds the test metric passes the threshold."""
    return sum(reaches_threshold(start.setting, value) for value in start.test.values())


def longest_table(networks: list[Network]) -> str:
    """Per task, cell and start the longest length that at least half of the seeds solve."""
    groups: dict[tuple[str, str], list[Network]] = {}
    for network in networks:
        groups.setdefault((network.setting.dataset, network.setting.cell), []).append(network)
    rows = []
    for (task, cell), members in sorted(groups.items()):
        members.sort(key=length_of)
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
