"""The pictures: radii, gradients, eigenvalues, spikes, learning curves and backends, on matplotlib.

Every function draws what was measured elsewhere and returns the `Axes`. Colours are those of
Okabe and Ito, which the colour-blind can tell apart; a marker of its own tells each thing too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_lsc.arguments import flag, integer, number, text

__all__ = ["backends", "eigenvalues", "gradient_grids", "learning_curves", "radii", "spike_raster"]

WIDTH = 6.4
# Colour and marker of the first, second, ... thing that a picture compares; the first is hollow.
STYLES = (
    ("#D55E00", "o"),
    ("#0072B2", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
_RADII = "radii"
# Norms further than this from that of the last output have the colours of the ends.
_DECADES = 4.0
_MARKED_EPOCHS = 12
_SMALLEST_DIFFERENCE = 1e-9


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
    _check_labels(labels)
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
        ax = _new_axes(height_of_radii(len(rows)))
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
    _legend_below(ax, columns=2 * drawn)
    return ax


_RADIUS_NAMES = {
    "spectral": "spectral radius, mean ± standard deviation",
    "rms": "RMS gain, mean ± standard deviation",
    "norm": "spectral norm, mean ± standard deviation",
}


def height_of_radii(transitions: int) -> float:
    """Height in inches that suits the picture of so many transitions."""
    return 1.5 + 0.25 * transitions


def _check_labels(labels: Sequence[str]) -> None:
    is_list = isinstance(labels, list | tuple)
    if not is_list or len(labels) != 2 or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a pair of strings, got {labels!r}.")


def _check_reports(before: Any, after: Any) -> None:
    # The report draws itself with this module, and so is imported after it.
    from keras_lsc.stability.report import StabilityReport

    advice = "Measure it: keras_lsc.measure(model, x)."
    _check_type("before", before, StabilityReport, advice)
    if after is not None:
        _check_type("after", after, StabilityReport, advice)


def _check_type(name: str, value: Any, expected: type, advice: str) -> None:
    if not isinstance(value, expected):
        raise ValueError(f"{name} must be a {expected.__name__}, got {value!r:.200}. {advice}")


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
    style = _marker_style(index)
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


def gradient_grids(grids: Any, ax: Any = None) -> Any:
    """Draws the norm of the gradient at every time step and layer, one map a network.

    White is the norm at the last output, from which the gradient comes; red has grown, blue has
    shrunk. All maps have one scale, which ends four decades from white.

    Args:
        grids: a `GradientGrid`; or a dictionary from titles to `GradientGrid`s, or to `(T, L)`
            arrays of mean squared norms relative to the last point.
        ax: matplotlib `Axes`, as many as grids; a new figure without it.

    Returns:
        The `Axes`: one for a `GradientGrid`, else an array of them.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no grid, one that is neither a grid nor such an array, or not one
            `Axes` for each.

    Source: the grid of arXiv 2308.12075, section 3; what is drawn is measured, not bounded.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> grid = keras_lsc.gradient_grid(model, np.random.normal(size=(8, 20, 3)))
        >>> keras_lsc.plot.gradient_grids(grid).get_xlabel()
        'time step'
    """
    named = grids if isinstance(grids, Mapping) else {"": grids}
    if not named:
        raise ValueError("There is no gradient grid to draw; give at least one.")
    energies = {name: _energies_of(name, grid) for name, grid in named.items()}
    if ax is None:
        shape = (len(named), 1)
        height = sum(0.75 + 0.16 * grid.shape[1] for grid in energies.values()) + 0.3
        ax = _new_axes(height, *shape)
    panels = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(panels) != len(named):
        raise ValueError(f"{len(named)} grids need as many Axes, got {len(panels)}.")
    for panel, (name, grid) in zip(panels, energies.items(), strict=True):
        image = _draw_grid(panel, grid, name)
    panels[-1].set_xlabel("time step")
    bar = panels[0].figure.colorbar(image, ax=list(panels), extend="both", pad=0.02)
    bar.set_label("gradient norm, relative\nto the last output")
    bar.set_ticks(np.arange(-_DECADES, _DECADES + 1, 2))
    bar.ax.set_yticklabels([f"$10^{{{int(power)}}}$" for power in bar.get_ticks()])
    bar.outline.set_visible(False)
    return panels if isinstance(grids, Mapping) else panels[0]


def _energies_of(name: str, grid: Any) -> np.ndarray:
    try:
        energies = np.asarray(getattr(grid, "measured", grid))
    except ValueError:
        # Lists of unequal length.
        energies = np.empty(0)
    if energies.ndim == 2 and energies.size and energies.dtype.kind in "iuf":
        return energies
    of = f" of {name!r}" if name else ""
    raise ValueError(
        f"The gradient grid{of} must be a GradientGrid or an array (steps, layers) of numbers, got "
        f"{grid!r:.200}. Measure it: keras_lsc.gradient_grid(model, x)."
    )


def _draw_grid(ax: Any, energies: np.ndarray, title: str) -> Any:
    steps, layers = energies.shape
    smallest = 10.0 ** (-4 * _DECADES)
    # The norm is the root of the energy: half its logarithm.
    decades = 0.5 * np.log10(np.maximum(energies, smallest))
    image = ax.imshow(
        decades.T,
        origin="lower",
        aspect="auto",
        cmap="RdBu_r",
        vmin=-_DECADES,
        vmax=_DECADES,
        extent=(0.5, steps + 0.5, 0.5, layers + 0.5),
        interpolation="nearest",
    )
    ax.set_yticks(range(1, layers + 1) if layers <= 8 else [1, layers])
    ax.set_ylabel("layer")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=10, loc="left")
    return image


def eigenvalues(
    before: Any,
    after: Any = None,
    target: float | None = None,
    ax: Any = None,
    *,
    labels: Sequence[str] = ("before", "after"),
) -> Any:
    """Draws the eigenvalues of a transition at all sample points, about the unit circle.

    A cloud that fills its disc is a transition that treats all directions alike; one point far
    out, of a cloud near 0, is an outlier that only the radius sees.

    Args:
        before: a `Spectrum`, as `keras_lsc.eigenvalues` gives them.
        after: another one, or None.
        target: radius of a dashed circle, a positive number.
        ax: matplotlib `Axes` to draw on; a new figure without it.
        labels: names of the two spectra in the legend.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `target` is not a positive number, there are not two labels, or a spectrum is
            none.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8, name="layer")])
        >>> spectra = keras_lsc.eigenvalues(model, np.random.normal(size=(8, 20, 3)))
        >>> keras_lsc.plot.eigenvalues(spectra["layer.time"], target=0.7).get_title()
        'eigenvalues in time, layer 1'
    """
    from keras_lsc.stability.eigenvalues import Spectrum

    _check_labels(labels)
    advice = "Compute it: keras_lsc.eigenvalues(model, x)[transition]."
    _check_type("before", before, Spectrum, advice)
    if after is not None:
        _check_type("after", after, Spectrum, advice)
    if target is not None:
        target = number("target", target, above=0, advice="A target is the radius of a circle.")
    if ax is None:
        ax = _new_axes(4.6, width=4.6)
    angle = np.linspace(0, 2 * np.pi, 361)
    ax.axhline(0, color="0.9", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.9", linewidth=0.8, zorder=0)
    ax.plot(np.cos(angle), np.sin(angle), color="0.5", linewidth=1, label="unit circle")
    reach = 1.0
    if target is not None:
        circle = target * np.exp(1j * angle)
        ax.plot(circle.real, circle.imag, "k--", linewidth=1.1, zorder=4, label="target")
        reach = max(reach, target)
    for index, (spectrum, label) in enumerate(zip((before, after), labels, strict=True)):
        if spectrum is None:
            continue
        values = spectrum.values.ravel()
        ax.plot(
            values.real,
            values.imag,
            **{**_marker_style(index), "markeredgewidth": 0.6},
            markersize=3.4 - index,
            alpha=0.6,
            zorder=2 + index,
            label=f"{label}, mean radius {spectrum.radius:.2f}",
        )
        size = np.abs(values)
        reach = max(reach, np.max(size, where=np.isfinite(size), initial=0.0))
    ax.set_aspect("equal")
    ax.set_xlim(-1.06 * reach, 1.06 * reach)
    ax.set_ylim(-1.06 * reach, 1.06 * reach)
    ax.set_xlabel("real part")
    ax.set_ylabel("imaginary part")
    ax.set_title(f"eigenvalues in {before.kind}, layer {before.layer + 1}", fontsize=10)
    ax.spines[:].set_visible(False)
    _legend_below(ax, columns=2)
    return ax


def spike_raster(spikes: Any, ax: Any = None) -> Any:
    """Draws the spikes of one sequence, a stroke each, with the firing rate as title.

    Args:
        spikes: `(steps, neurons)` of 0 and 1.
        ax: matplotlib `Axes` to draw on; a new figure without it.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `spikes` is no array, is empty, has another number of axes, or entries that are
            neither 0 nor 1.

    Example:
        >>> import keras_lsc, numpy as np
        >>> keras_lsc.plot.spike_raster(np.eye(50, 20)).get_title("left")
        'firing rate 0.020'
    """
    given = spikes
    try:
        spikes = ops.convert_to_numpy(given)
    except (ValueError, TypeError):
        # Each backend says so in its own way.
        spikes = np.empty((), object)
    if spikes.dtype.kind not in "biuf" and spikes.dtype.name != "bfloat16":
        raise ValueError(
            f"spikes must be an array (steps, neurons) of 0 and 1, got {given!r:.200}."
        )
    if not spikes.size:
        raise ValueError(f"There are no spikes to draw; got the shape {spikes.shape}.")
    if spikes.ndim != 2:
        raise ValueError(
            f"A raster shows one sequence, (steps, neurons); got the shape {spikes.shape}. "
            "Choose a row of the batch."
        )
    if not np.isin(spikes, (0, 1)).all():
        raise ValueError(
            "Spikes are 0 or 1; got values from "
            f"{spikes.min():.3g} to {spikes.max():.3g}. Is this a voltage?"
        )
    steps, neurons = spikes.shape
    if ax is None:
        ax = _new_axes(3.2)
    times, sources = np.nonzero(spikes)
    places = ax.get_window_extent().height * 72 / ax.figure.dpi
    ax.plot(
        times,
        sources,
        linestyle="none",
        marker="|",
        markersize=max(2.5, 0.8 * places / neurons),
        markeredgewidth=1.2,
        color=STYLES[1][0],
    )
    ax.set_xlim(-0.5, steps - 0.5)
    ax.set_ylim(-0.5, neurons - 0.5)
    ax.set_xlabel("time step")
    ax.set_ylabel("neuron")
    ax.set_title(f"firing rate {spikes.mean():.3f}", fontsize=10, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def learning_curves(
    histories: Mapping[str, Sequence[Any]],
    metric: str = "val_accuracy",
    ax: Any = None,
    *,
    first_epoch: int = 1,
    connected: bool = True,
) -> Any:
    """Draws a metric over the epochs: mean over seeds, with a band from least to most.

    Args:
        histories: Mapping from the name of a start to what its seeds gave: a list of what `fit`
            returns, or of dictionaries of lists as in its `history`. All of one start equally long.
        metric: its name in the histories.
        ax: matplotlib `Axes` to draw on; a new figure without it.
        first_epoch: number of epochs done at the first value: 0 where the histories begin with
            the network before training.
        connected: whether a line joins the epochs.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a start has no histories, one without the metric, or ones of unequal length.

    Example:
        >>> import keras_lsc
        >>> histories = {"default": [{"val_accuracy": [0.1, 0.4]}, {"val_accuracy": [0.2, 0.5]}]}
        >>> keras_lsc.plot.learning_curves(histories).get_ylabel()
        'validation accuracy'
    """
    text("metric", metric)
    first_epoch = integer("first_epoch", first_epoch, at_least=0)
    flag("connected", connected)
    if not isinstance(histories, Mapping):
        raise ValueError(
            f"histories must be a dictionary from the name of a start to a list, got {histories!r}."
        )
    values = {name: _metric_of(name, seeds, metric) for name, seeds in histories.items()}
    if not values:
        raise ValueError("There is no history to draw; give at least one start.")
    if ax is None:
        ax = _new_axes(3.4)
    for index, (name, of_seeds) in enumerate(values.items()):
        mean = of_seeds.mean(axis=0)
        epochs = first_epoch + np.arange(len(mean))
        style = _marker_style(index)
        if len(of_seeds) > 1:
            band = (of_seeds.min(axis=0), of_seeds.max(axis=0))
            ax.fill_between(epochs, *band, color=style["color"], alpha=0.18, linewidth=0)
        ax.plot(
            epochs,
            mean,
            **{**style, "linestyle": "-" if connected else "none"},
            linewidth=1.4,
            markersize=6,
            markevery=max(1, len(mean) // _MARKED_EPOCHS),
            clip_on=False,
            zorder=4 - index / len(values),
            label=name if len(of_seeds) == 1 else f"{name} ({len(of_seeds)} seeds)",
        )
        ax.annotate(
            f"{mean[-1]:.2f}",
            (epochs[-1], mean[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=style["color"],
            fontweight="bold",
            annotation_clip=False,
        )
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    is_of_validation = metric.startswith("val_")
    readable = metric.removeprefix("val_").replace("_", " ")
    ax.set_ylabel(f"validation {readable}" if is_of_validation else readable)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="best", fontsize=9)
    return ax


def _metric_of(name: str, seeds: Sequence[Any], metric: str) -> np.ndarray:
    if not isinstance(seeds, list | tuple):
        raise ValueError(
            f"The histories of {name!r} must be a list, one of a seed each, got {seeds!r:.200}."
        )
    values = []
    for seed in seeds:
        history = getattr(seed, "history", seed)
        if not isinstance(history, Mapping):
            raise ValueError(
                f"A history of {name!r} is neither what fit returns nor a dictionary of lists, got "
                f"{seed!r:.200}."
            )
        if metric not in history:
            raise ValueError(
                f"A history of {name!r} has no {metric!r}; it has {', '.join(sorted(history))}."
            )
        values.append(_curve_of(name, metric, history[metric]))
    lengths = {len(curve) for curve in values}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"The histories of {name!r} must be at least one, and of equal length; got "
            f"{[len(curve) for curve in values]} epochs. Cut the longer ones, or draw each seed "
            "under a name of its own."
        )
    return np.asarray(values, dtype=float)


def _curve_of(name: str, metric: str, values: Any) -> np.ndarray:
    try:
        curve = np.asarray(values)
    except ValueError:
        # Lists of unequal length.
        curve = np.empty(0, object)
    if curve.ndim == 1 and (curve.dtype.kind in "iuf" or not curve.size):
        return curve.astype(float)
    raise ValueError(
        f"The {metric!r} of a history of {name!r} must be a list of numbers, one an epoch, got "
        f"{values!r:.200}."
    )


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
    _check_type("comparison", comparison, BackendComparison, advice)
    rows = comparison.ran
    if not rows:
        raise ValueError("There is nothing to draw: no backend ran. Each row says why.")
    if ax is None:
        ax = _new_axes(max(2.6, 1.7 + 0.35 * len(rows)), 1, 2, width=1.5 * WIDTH)
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
        style = _marker_style(index)
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
    _spread_log_axis(times, least=8.0)
    first, *others = rows
    kinds = ("radius_difference", "output_difference", "gradient_difference")
    # A line without points takes room outside the figure, so a lone backend has none.
    for index, kind in enumerate(kinds if others else ()):
        values = [max(getattr(row, kind), _SMALLEST_DIFFERENCE) for row in others]
        differences.plot(
            values,
            heights[1:] + 0.2 * (index - 1),
            **_marker_style(index),
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
            _legend_below(panel, columns=3)
    times.set_title(comparison.model, fontsize=10, loc="left")
    return panels


def _spread_log_axis(ax: Any, least: float) -> None:
    """Makes the right end of the axis at least so many times the left, so that labels fit."""
    left, right = ax.get_xlim()
    missing = max(1.0, least * left / right) ** 0.5
    ax.set_xlim(left / missing, right * missing)


def new_figure(height: float, *shape: int, width: float = WIDTH, **options: Any) -> tuple[Any, Any]:
    """Returns a matplotlib figure and its `Axes`, as `pyplot.subplots` does.

    Args:
        height: Height in inches.
        *shape: numbers of rows and columns of panels.
        width: Width in inches; as wide as a notebook without it.
        **options: Other arguments, as `pyplot.subplots` takes them.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            'Pictures are drawn with matplotlib; install it: pip install "keras-lsc[plot]"'
        ) from error
    return pyplot.subplots(*shape, figsize=(width, height), layout="constrained", **options)


def _new_axes(height: float, *shape: int, width: float = WIDTH) -> Any:
    return new_figure(height, *shape, width=width)[1]


def _marker_style(index: int) -> dict[str, Any]:
    color, marker = STYLES[index % len(STYLES)]
    return {
        "linestyle": "none",
        "marker": marker,
        "color": color,
        "markerfacecolor": "white" if index == 0 else color,
        "markeredgewidth": 1.6,
    }


def _legend_below(ax: Any, columns: int) -> None:
    # The distance is counted in letters: below the label of the axis whatever the height.
    ax.legend(
        frameon=False,
        fontsize=8.5,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=4.4,
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.4,
    )


def __dir__() -> list[str]:
    return sorted(__all__)
