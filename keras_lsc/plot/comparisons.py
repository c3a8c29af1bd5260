"""One checkpoint on every backend: times of a step, and how far the numbers are apart."""

from typing import Any

import numpy as np

from keras_lsc.plot.checks import check_type
from keras_lsc.plot.style import WIDTH, legend_below, marker_style, new_axes, spread

_SMALLEST_DIFFERENCE = 1e-9


def backends(comparison: Any, ax: Any = None) -> Any:
    """Draws the times of a step on every backend, and how far their numbers are apart.

    A time is a median with its quartiles as bar. A difference of 0 is drawn at the left edge.

    Args:
        comparison: a `BackendComparison`, as `keras_lsc.comparison.compare_backends` gives it.
        ax: two matplotlib `Axes` to draw on; a new figure without them.

    Returns:
        The two `Axes`: times, differences.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no backend ran; there are not two `Axes`; or it is no comparison.
    """
    from keras_lsc.comparison import BackendComparison

    advice = "Compute it: keras_lsc.comparison.compare_backends(name_or_path)."
    check_type("comparison", comparison, BackendComparison, advice)
    rows = comparison.ran
    if not rows:
        raise ValueError("There is nothing to draw: no backend ran. Each row says why.")
    if ax is None:
        ax = new_axes(max(2.6, 1.7 + 0.35 * len(rows)), 1, 2, width=1.5 * WIDTH)
    panels = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(panels) != 2:
        raise ValueError(f"Times and differences need two Axes, got {len(panels)}.")
    times, differences = panels
    heights = np.arange(len(rows), dtype=float)
    for index, (kind, name) in enumerate(
        (("training", "training"), ("pretraining", "pre-training"))
    ):
        timings = [getattr(row, kind) for row in rows]
        medians = np.array([1e3 * timing.median for timing in timings])
        ends = np.array([[1e3 * timing.low, 1e3 * timing.high] for timing in timings]).T
        style = marker_style(index)
        at = heights + 0.24 * (index - 0.5)
        bars = np.abs(ends - medians)
        times.errorbar(medians, at, xerr=bars, fmt="none", ecolor=style["color"], elinewidth=1)
        times.plot(medians, at, **style, markersize=6, zorder=4, label=name)
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    times.set_xscale("log")
    # Few and plain numbers: those of matplotlib overlap where times are within a decade or two.
    times.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    times.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    times.xaxis.set_minor_locator(NullLocator())
    times.set_xlabel("milliseconds of a step")
    # So that labels fit.
    times.set_xlim(spread(times.get_xlim(), least=8.0))
    first, *others = rows
    kinds = ("radius_difference", "output_difference", "gradient_difference")
    # A line without points takes room outside the figure, so a lone backend has none.
    for index, kind in enumerate(kinds if others else ()):
        values = [max(getattr(row, kind), _SMALLEST_DIFFERENCE) for row in others]
        differences.plot(
            values,
            heights[1:] + 0.2 * (index - 1),
            **marker_style(index),
            markersize=6,
            clip_on=False,
            label=kind.removesuffix("_difference"),
        )
    differences.set_xscale("log")
    differences.set_xlim(_SMALLEST_DIFFERENCE, 1.0)
    differences.set_xlabel(f"difference to {first.backend}")
    for panel in panels:
        panel.set_yticks(heights, [f"{row.backend} ({row.device})" for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", alpha=0.25)
        panel.spines[["top", "right", "left"]].set_visible(False)
        if panel.get_lines():
            legend_below(panel, columns=3)
    times.set_title(comparison.model, fontsize=10, loc="left")
    return panels
