"""The pictures of the report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments import defaults, methods, timescales
from experiments.advice import NEITHER, Verdict
from experiments.memory_length import by_task_and_cell, length_of, solved
from experiments.optimum import (
    ENERGY,
    balanced_starts,
    best_target,
    learns,
)
from experiments.statistics import mean
from experiments.summary import LEAST_SEEDS, Network
from experiments.tables import labels_of
from keras_lsc.plot import style
from keras_lsc.stability.theory import PascalRNN, far_corner_radius, number_of_paths

matplotlib.use("Agg")
from matplotlib import cm, colors, lines, pyplot, ticker

_GRID_DEPTH = 8
_FLOOR = 1e-8
_ENERGIES = colors.LogNorm(_FLOOR, 1 / _FLOOR)
_COLOURS = "RdBu_r"
# Solved tasks have ratios of a thousandth, which would hide all others.
_LEAST_RATIO = 0.1
# Energies and shares are drawn down to this.
_LEAST_SHARE = 1e-14
# What is drawn of a gradient, and what it is called.
_KINDS = {"measured": "measured", "predicted": "energy law", "bound": "bound"}
# What the length of a task of long dependencies is called.
_LENGTHS = {"adding": "length", "copy_memory": "delay", "parity": "delay"}
_MARKERS = "os^vDP*X<>"


def theory(path: Path) -> None:
    """Path counts of the grid, and the exact gradient of PascalRNN on each family of targets."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = np.arange(1, 101)
    for depth in (1, 2, 5, 10):
        left.semilogy(steps, [number_of_paths(int(t), depth) for t in steps], label=f"{depth}")
    left.set(xlabel="steps in time", ylabel="paths", title="paths through the grid")
    left.legend(title="layers")
    pairs = {"1, 1": (1.0, 1.0), "1/√2, 1/√2": (ENERGY, ENERGY), "½, ½": (0.5, 0.5)}
    lengths = np.arange(1, 201, 2)
    for name, pair in pairs.items():
        network = PascalRNN(*pair, layers=5)
        right.semilogy(lengths, [network.gradient_sum(int(t)) for t in lengths], label=name)
    unbalanced = [
        PascalRNN(t / (5 + t), 5 / (5 + t), layers=5).gradient_sum(int(t)) for t in lengths
    ]
    right.semilogy(lengths, unbalanced, "--", label="unbalanced")
    right.set(xlabel="steps T", ylabel="gradient, summed over T", title="PascalRNN, 5 layers")
    right.legend(title="radius in time, depth")
    _save(figure, path)


def gradient_grids(networks: list[Network], path: Path) -> bool:
    """Energies over time and depth of each start of a deep LSTM: measured, by the law, the bound.

    Args:
        networks: of the experiment on gradients.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    chosen = [n for n in networks if n.setting.depth == _GRID_DEPTH and n.setting.cell == "lstm"]
    found = {s.label: _grids(s) for n in chosen for s in n.starts.values()}
    starts = {label: grids for label, grids in found.items() if grids is not None}
    if not starts:
        return False
    figure, axes = pyplot.subplots(
        len(starts), len(_KINDS), figsize=(9, 1.7 * len(starts)), squeeze=False, sharex=True,
        sharey=True, layout="constrained",
    )  # fmt: skip
    for (label, grids), line in zip(starts.items(), axes, strict=True):
        for (kind, name), ax in zip(_KINDS.items(), line, strict=True):
            _draw_grid(grids[kind], ax)
            ax.set_title(f"{label}: {name}", fontsize=9)
        line[0].set_ylabel("layer")
    _save_grids(figure, axes, path)
    return True


def gradients_by_depth(networks: list[Network], path: Path) -> bool:
    """Energies over time and depth of default and stabilised networks, one column a depth.

    Args:
        networks: of the experiment on gradients.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    found = {
        (network.setting.cell, label, network.setting.depth): grids
        for network in networks
        for label in ("default", "variance")
        if label in network.starts and (grids := _grids(network.starts[label])) is not None
    }
    if not found:
        return False
    depths = sorted({depth for *_, depth in found})
    rows = [(cell, label, kind)
            for cell, label in sorted({(cell, label) for cell, label, _ in found})
            for kind in _KINDS]  # fmt: skip
    figure, axes = pyplot.subplots(
        len(rows), len(depths), figsize=(2.3 * len(depths) + 1, 1.15 * len(rows)), squeeze=False,
        sharex=True, layout="constrained",
    )  # fmt: skip
    for (cell, label, kind), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(f"{cell}\n{label}\n{_KINDS[kind]}", fontsize=8)
        for depth, ax in zip(depths, line, strict=True):
            if (cell, label, depth) in found:
                _draw_grid(found[cell, label, depth][kind], ax)
            ax.set_yticks([])
            ax.tick_params(labelsize=7)
        line[0].set_yticks([0, depths[0] - 1], ["bottom", "top"])
    for depth, ax in zip(depths, axes[0], strict=True):
        ax.set_title(f"{depth} layers", fontsize=9)
    _save_grids(figure, axes, path)
    return True


def _draw_grid(grid: np.ndarray, ax: Any) -> None:
    energies = np.clip(grid, _FLOOR, 1 / _FLOOR).T
    ax.imshow(energies, origin="lower", aspect="auto", norm=_ENERGIES, cmap=_COLOURS)


def _save_grids(figure: Any, axes: Any, path: Path) -> None:
    for ax in axes[-1]:
        ax.set_xlabel("time step")
    scale = cm.ScalarMappable(_ENERGIES, _COLOURS)
    label = "gradient energy, 1 at the last step of the top layer"
    figure.colorbar(scale, ax=axes, label=label, shrink=min(1.0, 6 / figure.get_figheight()))
    _save(figure, path)


def _grids(start: Any) -> dict[str, np.ndarray] | None:
    """Geometric mean over the seeds of the whole grids."""
    grids = []
    for seed in start.reached:
        gradients = start.rows[start.learning_rates[0], seed]["start"]["gradients"]
        if gradients and "grid" in gradients.get("measured", {}):
            grids.append(gradients)
    if len(grids) < LEAST_SEEDS:
        return None
    return {
        name: np.exp(
            np.mean([np.log(np.maximum(np.array(g[name]["grid"]), 1e-30)) for g in grids], axis=0)
        )
        for name in _KINDS
    }


def target_sweep(networks: list[Network], path: Path) -> bool:
    """Test metric against the balanced target, cell by cell, and the best target against the law's.

    Args:
        networks: of the sweep.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [n for n in networks if len(balanced_starts(n, "scales")) >= 3]
    if not drawn:
        return False
    cells = sorted({network.setting.cell for network in drawn})
    sizes = sorted({_size(network) for network in drawn})
    columns = 3
    figure, axes = pyplot.subplots(
        math.ceil((len(cells) + 1) / columns), columns, figsize=(10, 6), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[len(cells) + 1 :]:
        ax.set_axis_off()
    for cell, ax in zip(cells, axes.flat, strict=False):
        for network in (n for n in drawn if n.setting.cell == cell):
            _draw_sweep(network, f"C{sizes.index(_size(network))}", ax)
        ax.axvline(ENERGY, color="grey", linewidth=1)
        ax.set(title=cell, xlabel="target", ylim=(0, 1), xlim=(0.27, 1.03))
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy (dotted: default start)")
    _draw_best_targets(drawn, sizes, axes.flat[len(cells)])
    handles = [lines.Line2D([], [], color=f"C{index}") for index in range(len(sizes))]
    labels = [f"depth {depth}, T {steps}" for steps, depth in sizes]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(sizes))
    _save(figure, path)
    return True


def _size(network: Network) -> tuple[int, int]:
    return network.setting.number_of_steps, network.setting.depth


def _draw_sweep(network: Network, colour: str, ax: Any) -> None:
    starts = balanced_starts(network, "scales")
    middle = [mean(list(network.starts[label].test.values())) for _, label in starts]
    ax.errorbar(
        [target for target, _ in starts],
        [m.value for m in middle],
        [m.high - m.value for m in middle],
        color=colour,
        capsize=2,
    )
    default = network.starts.get("default")
    if default is not None and default.is_finished:
        level = np.mean(list(default.test.values()))
        ax.axhline(level, color=colour, linestyle=":", linewidth=1)


def _draw_best_targets(networks: list[Network], sizes: list[tuple[int, int]], ax: Any) -> None:
    """The best target and its interval against the far-corner radius, a point a network."""
    cells = sorted({network.setting.cell for network in networks})
    for network in networks:
        place = best_target(network, "scales")
        if place is None or not learns(network, "scales"):
            continue
        steps, depth = _size(network)
        which = cells.index(network.setting.cell)
        # Networks of one size have the same radius; side by side they can be told apart.
        x = far_corner_radius(steps, depth) + 0.006 * (which - (len(cells) - 1) / 2)
        ax.errorbar(
            [x],
            [place.value],
            [[place.value - place.low], [place.high - place.value]],
            marker=_MARKERS[which],
            color=f"C{sizes.index((steps, depth))}",
            capsize=2,
        )
    for which, cell in enumerate(cells):
        ax.plot([], [], _MARKERS[which], color="grey", label=cell)
    ax.plot([ENERGY, 1], [ENERGY, 1], color="grey", linewidth=1)
    ax.set(title="where the best target lies", xlabel="far-corner radius, by the energy law",
           ylabel="best target, 95 % interval", ylim=(0.37, 1.03))  # fmt: skip
    ax.legend(fontsize=7)


def when_it_helps(verdicts: list[Verdict], path: Path) -> bool:
    """Ratio of test errors against the energy sum of the default start, one point a network.

    Args:
        verdicts: on the networks.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [verdict for verdict in verdicts if verdict.energy_sum is not None]
    if not drawn:
        return False
    figure, ax = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
    tasks = sorted({verdict.network.setting.dataset for verdict in drawn})
    cells = sorted({verdict.cell for verdict in drawn})
    for verdict in drawn:
        colour = f"C{cells.index(verdict.cell)}"
        ax.plot(
            verdict.energy_sum,
            max(verdict.error_ratio, _LEAST_RATIO),
            marker=_MARKERS[tasks.index(verdict.network.setting.dataset) % len(_MARKERS)],
            color=colour,
            markerfacecolor="none" if verdict.word == NEITHER else colour,
            linestyle="none",
        )
    ax.axhline(1, color="grey", linewidth=1)
    ax.axvline(1, color="grey", linewidth=1, linestyle=":")
    ax.set(
        xscale="log", yscale="log",
        ylabel=f"ratio of test errors, pre-trained to default\n(drawn down to {_LEAST_RATIO:g})",
        xlabel="energy sum of the default start (filled: a clear difference)",
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
        axis.set_major_formatter("{x:.3g}")
        axis.set_minor_formatter("{x:.3g}")
    for index, cell in enumerate(cells):
        ax.plot([], [], "s", color=f"C{index}", label=cell)
    for index, task in enumerate(tasks):
        ax.plot([], [], _MARKERS[index % len(_MARKERS)], color="k", markerfacecolor="none",
                label=task)  # fmt: skip
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)
    return True


def solved_by_length(networks: list[Network], path: Path) -> bool:
    """In what share of the seeds each length is solved, one curve a start.

    Args:
        networks: of the experiment on long dependencies.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [n for n in networks if any(start.is_finished for start in n.starts.values())]
    if not drawn:
        return False
    groups = by_task_and_cell(drawn)
    tasks = sorted({task for task, _ in groups})
    cells = sorted({cell for _, cell in groups})
    figure, axes = pyplot.subplots(
        len(cells), len(tasks), figsize=(3.2 * len(tasks), 2.2 * len(cells)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    figure.supylabel("share of seeds that solve it")
    labels = labels_of(drawn)
    for (row, cell), (column, task) in itertools.product(enumerate(cells), enumerate(tasks)):
        ax = axes[row, column]
        if (task, cell) not in groups:
            ax.set_axis_off()
            continue
        for index, label in enumerate(labels):
            finished = [n for n in groups[task, cell]
                        if label in n.starts and n.starts[label].is_finished]  # fmt: skip
            shares = [solved(n.starts[label]) / len(n.starts[label].test) for n in finished]
            # Curves of the same height stay apart.
            shift = 0.012 * (index - (len(labels) - 1) / 2)
            ax.plot([length_of(n) for n in finished], np.add(shares, shift), f"C{index}o-",
                    markersize=4)  # fmt: skip
        lengths = [length_of(n) for n in groups[task, cell]]
        ax.set(xscale="log", title=f"{task}, {cell}", xlabel=_LENGTHS[task], ylim=(-0.1, 1.1))
        ax.set_xticks(lengths, [str(length) for length in lengths])
        ax.minorticks_off()
    handles = [lines.Line2D([], [], color=f"C{index}", marker="o") for index in range(len(labels))]
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    _save(figure, path)
    return True


def starts_compared(networks: list[Network], path: Path) -> bool:
    """Test metric of every seed, network by network and start by start.

    Args:
        networks: of an experiment; those with finished starts are drawn.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [n for n in networks if any(start.is_finished for start in n.starts.values())]
    if not drawn:
        return False
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.4 * columns, 2.4 * rows), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(drawn) :]:
        ax.set_axis_off()
    # A start has the same colour in every network, also where others are missing.
    colours = {label: f"C{index}" for index, label in enumerate(labels_of(drawn))}
    for network, ax in zip(drawn, axes.flat, strict=False):
        labels = [label for label in labels_of([network]) if network.starts[label].is_finished]
        for position, label in enumerate(labels):
            values = list(network.starts[label].test.values())
            places = [position] * len(values)
            ax.plot(places, values, "o", color=colours[label], markersize=3, alpha=0.7)
            ax.plot([position - 0.3, position + 0.3], [np.mean(values)] * 2, "k-", linewidth=1)
        ax.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=6)
        ax.set_title(network.label, fontsize=7)
        ax.tick_params(axis="y", labelsize=6)
    _save(figure, path)
    return True


def methods_compared(networks: list[Network], path: Path) -> bool:
    """Test accuracy of every start on every cell and task, a panel a depth.

    Args:
        networks: of the experiment on the methods of others.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [n for n in networks if any(methods.is_trained(s) for s in n.starts.values())]
    if not drawn:
        return False
    labels, found = labels_of(drawn), methods.depths(drawn)
    columns = list(itertools.product(methods.CELLS, methods.TASKS))
    figure, axes = pyplot.subplots(
        1, len(found), figsize=(1.2 + 3.6 * len(found), 4.2), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for ax, depth in zip(axes[0], found, strict=True):
        values = np.full((len(labels), len(columns)), np.nan)
        for column, (cell, task) in enumerate(columns):
            network = methods.at(drawn, depth, cell, task)
            for row, label in enumerate(labels):
                start = network.starts.get(label) if network else None
                if start is not None and methods.is_trained(start):
                    values[row, column] = methods.accuracy(start)
        image = ax.imshow(values, aspect="auto", cmap="viridis", vmin=10, vmax=100)
        for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
            value = values[row, column]
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6,
                    color="white" if value < 60 else "black")  # fmt: skip
        ax.set_title(f"{depth} layers", fontsize=9)
        names = [f"{cell}, {task}" for cell, task in columns]
        ax.set_xticks(range(len(columns)), names, rotation=60, ha="right", fontsize=7)
        ax.set_yticks(range(len(labels)), labels, fontsize=7)
    figure.colorbar(image, ax=axes, label="test accuracy, %", shrink=0.8)
    _save(figure, path)
    return True


def time_constants(rows: Sequence[timescales.Row], path: Path) -> bool:
    """Mean time constants of single-head and multi-head networks, by the n that they passed.

    Args:
        rows: of `experiments.timescales`.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    found = timescales.curves(rows)
    if not found:
        return False
    figure, axes = pyplot.subplots(
        1, len(timescales.TASKS), figsize=(8, 3.2), sharey=True, layout="constrained"
    )
    for ax, task in zip(axes, timescales.TASKS, strict=True):
        for index, heads in enumerate(timescales.HEADS):
            by_n = found.get((task, heads), {})
            middle = [float(np.mean(values)) for values in by_n.values()]
            ax.plot(list(by_n), middle, f"C{index}o-", markersize=4, label=f"{heads} head")
            for n, values in by_n.items():
                ax.plot(len(values) * [n], values, f"C{index}.", markersize=3, alpha=0.5)
        ax.set(xlabel="n that was passed", title=f"N-{task.replace('_', ' ')}")
        ax.axhline(1.0, color="grey", linewidth=0.8, linestyle=":")
    axes[0].set_ylabel("mean time constant, steps")
    axes[0].legend()
    _save(figure, path)
    return True


def default_starts(rows: Sequence[defaults.Row], path: Path) -> bool:
    """Radii, energies, reach and exponents of the default starts, a line a layer.

    Args:
        rows: of `experiments.defaults`.
        path: of the picture.

    Returns:
        Whether there was anything to draw.
    """
    found = defaults.names(rows)
    if not found:
        return False
    figure, axes = style.new_figure(0.26 * len(found) + 1.7, 1, 4, width=12, sharey=True)
    deepest = max(defaults.DEPTHS)
    stacks = [defaults.by_depth(rows, name) for name in found]
    panels = (
        (f"radius, {deepest} layers", ENERGY, {
            "in time": [defaults.mean_of(s[deepest], "time") for s in stacks],
            "in depth": [defaults.mean_of(s[deepest], "depth") for s in stacks]}),
        (f"gradient's energy, bottom over top layer\n(drawn down to {_LEAST_SHARE:g})", 1.0, {
            depth: [max(defaults.fall(s[depth]), _LEAST_SHARE) for s in stacks]
            for depth in defaults.DEPTHS[1:]}),
        ("reach: share of the energy that is\nof the first quarter of the steps", 0.25, {
            depth: [defaults.reach(s[depth]) for s in stacks] for depth in defaults.DEPTHS}),
        (f"largest Lyapunov exponent, {deepest} layers", 0.0, {
            "per step": [defaults.largest_exponent(s[deepest]) for s in stacks]}),
    )  # fmt: skip
    for ax, (title, kept, drawn) in zip(axes, panels, strict=True):
        ax.axvline(kept, color="0.6", linewidth=1)
        for index, (name, values) in enumerate(drawn.items()):
            # A depth looks the same in every panel.
            is_depth = name in defaults.DEPTHS
            look = defaults.DEPTHS.index(name) if is_depth else index
            label = f"{name} layer" + "s" * (name > 1) if is_depth else name
            lines_down = [-line for line in range(len(values))]
            ax.plot(values, lines_down, **style.marker_style(look), markersize=5, label=label)
        if any(name in defaults.DEPTHS for name in drawn):
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
        ax.set_xlabel(title, fontsize=9)
        ax.tick_params(labelsize=8)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2,
                  columnspacing=1.0, handletextpad=0.2)  # fmt: skip
    axes[0].set_yticks([-line for line in range(len(found))], found)
    axes[0].set_ylabel("library and layer")
    _save(figure, path)
    return True


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the name and version of what wrote it, the same picture is the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
