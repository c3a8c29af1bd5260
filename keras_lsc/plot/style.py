"""What the pictures have in common: width, colours, markers, figures and legends."""

from typing import Any

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


def new_axes(height: float, *shape: int, width: float = WIDTH) -> Any:
    """Returns the `Axes` alone of such a figure."""
    return new_figure(height, *shape, width=width)[1]


def marker_style(index: int) -> dict[str, Any]:
    """How `Axes.plot` draws the points of the first (0), second, ... thing."""
    color, marker = STYLES[index % len(STYLES)]
    return {
        "linestyle": "none",
        "marker": marker,
        "color": color,
        "markerfacecolor": "white" if index == 0 else color,
        "markeredgewidth": 1.6,
    }


def legend_below(ax: Any, columns: int) -> None:
    """Puts the legend below the label of the horizontal axis."""
    # The distance is counted in letters, and so is right whatever the height.
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


def spread(limits: tuple[float, float], least: float) -> tuple[float, float]:
    """Limits of a log axis whose upper one is at least so many times the lower."""
    low, high = limits
    missing = max(1.0, least * low / high) ** 0.5
    return low / missing, high * missing
