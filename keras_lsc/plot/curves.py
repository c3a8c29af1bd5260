"""A metric over the epochs, of several starts and seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_lsc.arguments import flag, integer, text
from keras_lsc.plot.style import marker_style, new_axes

_MARKED_EPOCHS = 12


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
        ax = new_axes(3.4)
    for index, (name, of_seeds) in enumerate(values.items()):
        mean = of_seeds.mean(axis=0)
        epochs = first_epoch + np.arange(len(mean))
        style = marker_style(index)
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
