"""One scale per weight matrix: the few numbers that mode "scales" moves."""

from typing import Any

from keras import ops

Tensor = Any

NUDGE = 0.2
FASTER = 4.0


def gate_blocks(shape: tuple[int, ...], gate_width: int | None) -> int:
    """How many scales a weight of this shape gets: one, or one per gate of a gated cell.

    A cell's matrix whose number of columns is a multiple of the cell's state size holds that
    many gates side by side, as in LSTM (four) and GRU (three).

    Args:
        shape: Shape of the weight.
        gate_width: size of the cell's state; None for the weight of any other layer.

    Returns:
        Number of blocks along the last axis.

    Example:
        >>> gate_blocks((28, 256), 64)
        4
    """
    if len(shape) == 0 or not gate_width or shape[-1] % gate_width:
        return 1
    return shape[-1] // gate_width


def is_bias(variable: Any) -> bool:
    """Whether a weight is a bias."""
    return "bias" in variable.name


def is_matrix(variable: Any) -> bool:
    """Whether a weight is the matrix of a linear map, moved by scales."""
    return len(variable.shape) >= 2 and not is_bias(variable)


def scaled(value: Tensor, log_scale: Tensor) -> Tensor:
    """Multiplies the blocks of `value`'s last axis by exp of their `log_scale`, `(blocks,)`."""
    return value * ops.cast(_per_column(ops.exp(log_scale), value), ops.dtype(value))


def shifted(value: Tensor, shift: Tensor) -> Tensor:
    """Adds their `shift`, `(blocks,)`, to the blocks of `value`'s last axis."""
    return value + ops.cast(_per_column(shift, value), ops.dtype(value))


def shifted_first(value: Tensor, shift: Tensor) -> Tensor:
    """`shifted` several times as fast.

    For weights that change gradients alone: what they can do need not be done by the dynamics.
    """
    return shifted(value, FASTER * shift)


def nudged(value: Tensor, nudge: Tensor) -> Tensor:
    """Adds a fraction of `nudge`, of the shape of `value`.

    Only a fraction, so that the optimiser moves the single biases of a gate slower than all of
    them together: at full speed it moves them to lift an outlier of the spectrum.
    """
    return value + ops.cast(NUDGE * nudge, ops.dtype(value))


def _per_column(blocks: Tensor, value: Tensor) -> Tensor:
    if len(value.shape) == 0:  # a shape of TensorFlow's is true, whatever it holds
        return ops.reshape(blocks, ())
    return ops.repeat(blocks, value.shape[-1] // blocks.shape[0])
