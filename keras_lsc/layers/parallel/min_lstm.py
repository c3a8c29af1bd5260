"""The long short-term memory whose gates and candidate see the input alone."""

from typing import Any

import keras
from keras import ops

from keras_lsc.layers.parallel.linear import LinearGatedCell
from keras_lsc.layers.sequence import SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class MinLSTMCell(LinearGatedCell):
    """One step of a minimal long short-term memory.

        f = sigmoid(W_f x + b_f),    i = sigmoid(W_i x + b_i)
        h' = f / (f + i) h + i / (f + i) (W_h x + b_h)

    Its Jacobian in time is the diagonal f / (f + i), between 0 and 1. The state is h, float32
    under every lower dtype policy.

    Args:
        units: number of features of the output.
        use_bias: whether gates and candidate have a bias.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.01201, section 3.2.

    Example:
        >>> cell = MinLSTMCell(4)
        >>> y, (h,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(h.shape)
        ((1, 4), (1, 4))
    """

    gates = 3

    def __init__(
        self, units: int, *, use_bias: bool = True, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(units, use_bias=use_bias, seed=seed, **kwargs)

    def recurrence(self, gates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the share of the forget gate, and the candidate times that of the input gate."""
        forget, write, candidate = gates
        # f / (f + i) = sigmoid(log f - log i), without a quotient of two that may vanish.
        log_ratio = ops.softplus(-write) - ops.softplus(-forget)
        return ops.sigmoid(log_ratio), ops.sigmoid(-log_ratio) * candidate


@keras.saving.register_keras_serializable(package="keras_lsc")
class MinLSTM(SequenceLayer):
    """Minimal long short-term memories along a sequence, all steps in one scan.

    `MinLSTM.cell` is the same unit for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        use_bias: whether gates and candidate have a bias.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last state as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.01201, section 3.2.

    Example:
        >>> layer = MinLSTM(16, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = MinLSTMCell

    def __init__(
        self,
        units: int,
        *,
        use_bias: bool = True,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            {"use_bias": use_bias, "seed": seed},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
