"""The spikes of one sequence."""

from typing import Any

import numpy as np
from keras import ops

from keras_lsc.plot.style import STYLES, new_axes


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
        ax = new_axes(3.2)
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
