"""Which start, if one method is to be chosen: the methods of others side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from experiments.energies import depth_ratio
from experiments.summary import Network, Start
from experiments.tables import labels_of, markdown

CELLS = ("lstm", "gru", "tanh", "relu", "lif", "lru")
TASKS = ("digits", "parity")
# Points of accuracy below the best start of a network at which a start still counts as good.
NEAR = 2.0


def is_trained(start: Start | None) -> bool:
    """Whether a start has a learning rate at which all of its seeds were trained."""
    return start is not None and bool(start.test)


def accuracy(start: Start) -> float:
    """Mean test accuracy over the seeds, in per cent."""
    return 100 * float(np.mean(list(start.test.values())))


def depths(networks: Iterable[Network]) -> list[int]:
    """The depths that there are runs of."""
    return sorted({network.setting.depth for network in networks})


def at(networks: Iterable[Network], depth: int, cell: str, task: str) -> Network | None:
    """The network of a depth, cell and task."""
    for network in networks:
        setting = network.setting
        if (setting.depth, setting.cell, setting.dataset) == (depth, cell, task):
            return network
    return None


def accuracy_table(networks: Sequence[Network], depth: int) -> str:
    """Test accuracy of every start on both tasks, a column a cell; the best of a cell is bold."""
    chosen = [network for network in networks if network.setting.depth == depth]
    lines = []
    for label in labels_of(chosen):
        cells = [_both_tasks(chosen, depth, cell, label) for cell in CELLS]
        lines.append([label, *cells])
    return markdown(["start", *(f"{cell}: {', '.join(TASKS)}" for cell in CELLS)], lines)


def _both_tasks(networks: Sequence[Network], depth: int, cell: str, label: str) -> str:
    texts = []
    for task in TASKS:
        network = at(networks, depth, cell, task)
        start = network.starts.get(label) if network else None
        if network is None or start is None:
            texts.append("")
            continue
        if not is_trained(start):
            texts.append("none" if start.seeds and not start.reached else "?")
            continue
        text = f"{accuracy(start):.1f}"
        texts.append(f"**{text}**" if label in best(network) else text)
    return ", ".join(texts) if any(texts) else ""


def best(network: Network) -> list[str]:
    """The starts of the highest mean test accuracy."""
    found = {k: accuracy(s) for k, s in network.starts.items() if is_trained(s)}
    return [label for label, value in found.items() if value == max(found.values())]


def near_best(networks: Iterable[Network], label: str) -> tuple[int, int]:
    """On how many networks a start is among the good ones, and how many have it.

    Args:
        networks: to count.
        label: of the start.
    """
    near = count = 0
    for network in networks:
        start = network.starts.get(label)
        if start is None or not start.seeds:
            continue
        count += 1
        if is_trained(start):
            most = max(accuracy(s) for s in network.starts.values() if is_trained(s))
            near += accuracy(start) >= most - NEAR
    return near, count


def summary_table(networks: Sequence[Network]) -> str:
    """A line a start: on how many networks it is good, energies, radii, seconds."""
    lines = []
    for label in labels_of(networks):
        starts = [n.starts[label] for n in networks if is_trained(n.starts.get(label))]
        if not starts:
            continue
        counts = [near_best([n for n in networks if n.setting.depth == d], label)
                  for d in depths(networks)]  # fmt: skip
        seconds = [row["start"]["seconds"] for s in starts for row in s.chosen_rows.values()]
        trained = [row["training"]["seconds"] for s in starts for row in s.chosen_rows.values()]
        energies = [orders(start) for start in starts]
        known = [value for value in energies if value is not None]
        radii = [s.start_figures("time", "radius") for s in starts]
        radii = [value for value in radii if value is not None]
        lines.append(
            [label, *(f"{near} of {count}" if count else "" for near, count in counts),
             f"{median(known):.1f}" if known else "-",
             f"{median(radii):.2f}" if radii else "-",
             f"{median(seconds):.1f}", f"{median(trained):.1f}"]
        )  # fmt: skip
    header = ["start", *(f"good at depth {depth}" for depth in depths(networks))]
    header += ["orders of magnitude", "radius in time", "seconds: start", "training"]
    return markdown(header, lines)


def orders(start: Start) -> float | None:
    """How many orders of magnitude the energy of the gradient changes from top to bottom layer.

    Args:
        start: of a network.

    Returns:
        |log10| of the ratio, its mean over the seeds; None where there is no gradient.
    """
    found = []
    for row in start.chosen_rows.values():
        gradients = row["start"]["gradients"]
        if not gradients or "silent" in gradients:
            continue
        ratio = depth_ratio(gradients["measured"], gradients["lags"])
        if ratio:
            found.append(abs(np.log10(ratio)))
    return float(np.mean(found)) if found else None
