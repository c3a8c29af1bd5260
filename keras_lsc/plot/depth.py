"""The energy of the gradient over depth, of several starts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lsc.plot.style import marker_style, new_axes, spread

_NAMED_LAYERS = 8
# Names that are longer, all together, do not fit beside one another.
_LETTERS = 56


def energies(reports: Mapping[str, Any], ax: Any = None) -> Any:
    """Draws the energy of the gradient at every layer, relative to the last one, a line a start.

    A line that falls to the left vanishes with depth, one that rises explodes; a level start lies
    on the thin line at 1. Where the gradient is zero the line leaves at the bottom.

    Args:
        reports: Mapping from the name of a start to its `StabilityReport` or `GradientEnergies`,
            all of networks with equally many layers.
        ax: matplotlib `Axes` to draw on; a new figure without it.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no report, one that is neither of the two, that holds no gradient or
            one of zero or NaN at the last layer; or the networks have unequal numbers of layers.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> stack = [keras.layers.GRU(8, return_sequences=True) for _ in range(3)]
        >>> model = keras.Sequential([keras.Input((20, 3)), *stack])
        >>> report = keras_lsc.measure(model, np.random.normal(size=(8, 20, 3)))
        >>> keras_lsc.plot.energies({"default": report}).get_yscale()
        'log'
    """
    if not isinstance(reports, Mapping):
        raise ValueError(
            "reports must be a dictionary from the name of a start to its StabilityReport, got "
            f'{reports!r:.200}. Name it: {{"default": keras_lsc.measure(model, x)}}.'
        )
    gradients = {name: _gradient_of(name, report) for name, report in reports.items()}
    if not gradients:
        raise ValueError("There is no report to draw; give at least one start.")
    depths = {name: len(gradient.layers) for name, gradient in gradients.items()}
    if len(set(depths.values())) > 1:
        raise ValueError(
            "The reports are of networks with unequal numbers of layers: "
            f"{', '.join(f'{name!r} has {depth}' for name, depth in depths.items())}. "
            "Draw them on an Axes each."
        )
    if ax is None:
        ax = new_axes(3.4)
    ax.axhline(1, color="0.5", linewidth=0.8, zorder=1)
    for index, (name, gradient) in enumerate(gradients.items()):
        energy = gradient.energy
        ax.plot(
            1 + np.arange(len(energy)),
            energy,
            **{**marker_style(index), "linestyle": "-"},
            linewidth=1.4,
            markersize=6,
            zorder=4 - index / len(gradients),
            label=name,
        )
    from matplotlib.ticker import NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.margins(y=0.08)
    # What differs by a few per cent is not to look like a slope.
    ax.set_ylim(spread(ax.get_ylim(), least=100.0))
    _name_layers(ax, [gradient.layers for gradient in gradients.values()])
    ax.set_ylabel("energy of the gradient,\nrelative to the last layer")
    ax.grid(axis="y", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="best", fontsize=9)
    return ax


def _gradient_of(name: str, report: Any) -> Any:
    # The report draws itself with this package, and so is imported after it.
    from keras_lsc.stability.report import GradientEnergies, StabilityReport

    if not isinstance(report, StabilityReport | GradientEnergies):
        raise ValueError(
            f"The report of {name!r} must be a StabilityReport or GradientEnergies, got "
            f"{report!r:.200}. Measure it: keras_lsc.measure(model, x)."
        )
    gradient = report.gradient if isinstance(report, StabilityReport) else report
    if gradient is None:
        raise ValueError(
            f"The report of {name!r} holds no gradient. Measure it: "
            "keras_lsc.measure(model, x, gradient=True), or keras_lsc.gradient_energies(model, x) "
            "where that leaves it out."
        )
    if not np.isfinite(gradient.energy[-1]):
        raise ValueError(
            f"The gradient of {name!r} is {gradient.energies[-1]:.3g} at the last layer, "
            f"{gradient.layers[-1]!r}, to which the others are relative. Leave this start out, or "
            "find out why no gradient arrives there."
        )
    return gradient


def _name_layers(ax: Any, layers: list[tuple[str, ...]]) -> None:
    """Names few layers that have the same names in all networks; else numbers them."""
    from matplotlib.ticker import MaxNLocator

    names, depth = layers[0], len(layers[0])
    ax.set_xlabel("layer, from the input to the output")
    ax.set_xlim(0.7, depth + 0.3)
    if depth <= _NAMED_LAYERS and len(set(layers)) == 1:
        is_long = sum(map(len, names)) > _LETTERS
        slant = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
        ax.set_xticks(range(1, depth + 1), names, **slant)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
