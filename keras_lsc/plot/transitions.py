"""Radius and gain of every transition, and how pre-training moved them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lsc.plot.checks import check_labels, check_type
from keras_lsc.plot.style import legend_below, marker_style, new_axes

_RADII = "radii"
_RADIUS_NAMES = {
    "spectral": "spectral radius, mean ± standard deviation",
    "rms": "RMS gain, mean ± standard deviation",
    "norm": "spectral norm, mean ± standard deviation",
}


def radii(
    before: Any,
    after: Any = None,
    target: Any = None,
    ax: Any = None,
    *,
    labels: Sequence[str] = ("before", "after"),
    kinds: Sequence[str] = ("time", "depth"),
) -> Any:
    """Draws radius and gain of every transition, and how pre-training moved them.

    A hollow or filled marker is a radius, with the standard deviation over the points as its bar;
    an upright stroke is the RMS gain of the same transition. A further call on the same `Axes`
    adds a report in the next colour.

    Args:
        before: a `StabilityReport`.
        after: another one of the same network, or None.
        target: Target, as `LSCPretrainer` takes it, for dashed lines at the radii that were
            asked for.
        ax: matplotlib `Axes` to draw on; a new figure without it.
        labels: names of the two reports in the legend; an empty one names none.
        kinds: which transitions, of "time", "depth" and "input".

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no transition of these kinds; the reports are of different networks;
            the target is none; there are not two labels; or an argument is of another type.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> report = keras_lsc.measure(model, np.random.normal(size=(8, 20, 3)))
        >>> keras_lsc.plot.radii(report, target="variance").get_xlabel()
        'spectral radius, mean ± standard deviation'
    """
    check_labels(labels)
    _check_reports(before, after)
    rows = _in_groups(before, kinds)
    names = _row_names(rows)
    heights = _heights(rows)
    if after is not None and _row_names(_in_groups(after, kinds)) != names:
        raise ValueError(
            f"The reports are of different networks: {before.model!r} has the transitions "
            f"{', '.join(names)}, {after.model!r} has "
            f"{', '.join(_row_names(_in_groups(after, kinds)))}. Draw them on an Axes each."
        )
    wanted = before.wanted(target) if target is not None else {}
    if ax is None:
        ax = new_axes(height_of_radii(len(rows)))
    drawn = _reports_on(ax)
    if drawn and [tick.get_text() for tick in ax.get_yticklabels()] != names:
        raise ValueError(
            "The Axes hold the report of a network with other transitions. Draw on other Axes."
        )
    right = ax.get_xlim()[1] if drawn else 0.0
    if after is not None:
        moved = zip(rows, _in_groups(after, kinds), heights, strict=True)
        for start, end, height in moved:
            ends = [start.radius, end.radius]
            ax.plot(ends, [height, height], color="0.85", linewidth=2, zorder=1)
    for report, label in zip((before, after), labels, strict=True):
        if report is not None:
            rows_of_it = _in_groups(report, kinds)
            _draw_report(ax, rows_of_it, heights, label, drawn)
            ends = [(row.radius + row.radius_std, row.gain) for row in rows_of_it]
            # What is NaN or infinite has no place on the axis.
            right = max(right, 1.08 * np.max(ends, where=np.isfinite(ends), initial=0.0))
            drawn += 1
    for kind, rho in wanted.items():
        at = [height for height, row in zip(heights, rows, strict=True) if row.kind == kind]
        if at:
            _draw_target(ax, rho, min(at), max(at))
            right = max(right, 1.08 * rho)
    ax.set_yticks(heights, names)
    ax.set_ylim(max(heights) + 0.7, min(heights) - (1.2 if wanted else 0.7))
    ax.set_xlim(0, right or 1.0)
    ax.set_xlabel(_RADIUS_NAMES[before.radius_kind])
    ax.grid(axis="x", alpha=0.25)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    legend_below(ax, columns=2 * drawn)
    return ax


def height_of_radii(transitions: int) -> float:
    """Height in inches that suits the picture of so many transitions."""
    return 1.5 + 0.25 * transitions


def _check_reports(before: Any, after: Any) -> None:
    # The report draws itself with this module, and so is imported after it.
    from keras_lsc.stability.report import StabilityReport

    advice = "Measure it: keras_lsc.measure(model, x)."
    check_type("before", before, StabilityReport, advice)
    if after is not None:
        check_type("after", after, StabilityReport, advice)


def _in_groups(report: Any, kinds: Sequence[str]) -> list[Any]:
    if not isinstance(kinds, list | tuple) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError(f'kinds must be a list such as ["time", "depth"], got {kinds!r:.200}.')
    rows = [row for kind in kinds for row in report.transitions if row.kind == kind]
    if not rows:
        raise ValueError(
            f"The report of {report.model!r} has no transition of kind "
            f"{' or '.join(map(repr, kinds))}; it has "
            f"{', '.join(sorted({row.kind for row in report.transitions}))}."
        )
    return rows


def _row_names(rows: list[Any]) -> list[str]:
    plain = [f"{row.kind}, layer {row.layer + 1}" for row in rows]
    # A bidirectional layer, or one with two layers below, has several transitions of a kind.
    return [
        row.name if plain.count(name) > 1 else name for row, name in zip(rows, plain, strict=True)
    ]


def _heights(rows: list[Any]) -> list[float]:
    """One place a row; half an empty row, for the name of the target, parts the kinds."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    return [k + 0.8 * kinds.index(row.kind) for k, row in enumerate(rows)]


def _reports_on(ax: Any) -> int:
    return sum(line.get_gid() == _RADII for line in ax.get_lines())


def _draw_report(ax: Any, rows: list[Any], heights: list[float], label: str, index: int) -> None:
    style = marker_style(index)
    of = f", {label}" if label else ""
    values = [row.radius for row in rows]
    spread = [row.radius_std for row in rows]
    bars = ax.errorbar(
        values, heights, xerr=spread, fmt="none", ecolor=style["color"], elinewidth=1, alpha=0.5
    )
    bars.set_label("_nolegend_")
    (line,) = ax.plot(values, heights, **style, markersize=6, zorder=4, label=f"radius{of}")
    line.set_gid(_RADII)
    ax.plot(
        [row.gain for row in rows],
        heights,
        linestyle="none",
        marker="|",
        markersize=12,
        markeredgewidth=2,
        color=style["color"],
        zorder=3,
        label=f"gain{of}",
    )


def _draw_target(ax: Any, rho: float, top: float, bottom: float) -> None:
    ends = [top - 0.5, bottom + 0.5]
    ax.plot([rho, rho], ends, "k--", linewidth=1.1, zorder=2)
    ax.annotate(
        f"target {rho:.3g}",
        (rho, ends[0]),
        xytext=(0, 1),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
    )
