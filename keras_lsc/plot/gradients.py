"""Maps of the gradient over time and layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lsc.plot.style import new_axes

# Norms further than this from that of the last output have the colours of the ends.
_DECADES = 4.0


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
        ax = new_axes(height, *shape)
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
