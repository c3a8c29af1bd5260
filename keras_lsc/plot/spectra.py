"""The eigenvalues of a transition about the unit circle."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lsc.arguments import number
from keras_lsc.plot.checks import check_labels, check_type
from keras_lsc.plot.style import legend_below, marker_style, new_axes


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

    check_labels(labels)
    advice = "Compute it: keras_lsc.eigenvalues(model, x)[transition]."
    check_type("before", before, Spectrum, advice)
    if after is not None:
        check_type("after", after, Spectrum, advice)
    if target is not None:
        target = number("target", target, above=0, advice="A target is the radius of a circle.")
    if ax is None:
        ax = new_axes(4.6, width=4.6)
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
            **{**marker_style(index), "markeredgewidth": 0.6},
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
    legend_below(ax, columns=2)
    return ax
