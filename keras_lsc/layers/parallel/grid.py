"""Recurrences over a grid, whose nodes hand states to the right and down.

The nodes of an anti-diagonal wait for those of the one before it and for nothing else, so they are
taken side by side: height + width - 1 steps, each as wide as the grid is high.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_lsc import backend
from keras_lsc.layers.scan import shifted

Tensor = Any


def grid_states(
    node: Callable[[Tensor, Tensor, tuple], tuple[Tensor, Tensor]],
    at: tuple[Tensor, ...],
    nothing: Tensor,
) -> tuple[Tensor, Tensor]:
    """Returns what every node of a grid is handed from the left and from above.

    Args:
        node: (from the left, from above, what the node is given) -> (to the right, down), for
            many nodes along the first axis.
        at: tuple of `(height, width, ...)` tensors, sizes of the grid known; a node is given its
            entry of each.
        nothing: zeros `(height, ...)`, what the nodes at the edge are handed.

    Returns:
        Two tensors `(height, width, ...)`.

    Example:
        >>> import numpy as np
        >>> half = np.full((2, 3), 0.5, "float32")
        >>> source = np.float32([[1, 0, 0], [0, 0, 0]])
        >>> def node(left, above, at):
        ...     out = left + above + at[1]
        ...     return at[0] * out, (1 - at[0]) * out
        >>> left, above = grid_states(node, (half, source), np.zeros(2, "float32"))
        >>> ops.convert_to_numpy(left + above).tolist()
        [[0.0, 0.5, 0.25], [0.5, 0.5, 0.375]]
    """
    at = tuple(map(ops.convert_to_tensor, at))
    nothing = ops.convert_to_tensor(nothing)
    width = at[0].shape[1]

    def step(entering: tuple, here: tuple) -> tuple:
        from_left, from_above = entering
        right, down = node(from_left, from_above, here)
        # A row is handed what the row above hands down; the first one nothing.
        return right, ops.concatenate([ops.zeros_like(down[:1]), down[:-1]])

    start = (nothing, nothing)
    leaving = backend.running_states(step, start, tuple(map(_by_diagonals, at)))
    left, above = (_by_rows(part, width) for part in shifted(leaving, start, False))
    return left, above


def _by_diagonals(x: Tensor) -> Tensor:
    """`(height, width, ...)` to `(diagonal, height, ...)`, with zeros outside of the grid."""
    height, width, *others = _sizes(x)
    x = ops.pad(x, [(0, 0), (0, height), *((0, 0),) * len(others)])
    # Rows that are read off one node too short begin one diagonal later each.
    x = ops.reshape(x, (height * (width + height), *others))[: height * (width + height - 1)]
    return ops.swapaxes(ops.reshape(x, (height, width + height - 1, *others)), 0, 1)


def _by_rows(x: Tensor, width: int) -> Tensor:
    """`(diagonal, height, ...)` to `(height, width, ...)`, the inverse of `_by_diagonals`."""
    diagonals, height, *others = _sizes(x)
    x = ops.reshape(ops.swapaxes(x, 0, 1), (height * diagonals, *others))
    x = ops.pad(x, [(0, height), *((0, 0),) * len(others)])
    return ops.reshape(x, (height, diagonals + 1, *others))[:, :width]


def _sizes(x: Tensor) -> list[int]:
    """The shape with -1 for one unknown size."""
    return [-1 if size is None else size for size in x.shape]
