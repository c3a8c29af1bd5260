"""The gated recurrent unit whose gate and candidate see the input alone."""

from typing import Any

import keras
from keras import ops

from keras_lsc.layers.parallel.linear import LinearGatedCell
from keras_lsc.layers.sequence import SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class MinGRUCell(LinearGatedCell):
    """One step of a minimal gated recurrent unit.

        z = sigmoid(W_z x + b_z),    h' = (1 - z) h + z (W_h x + b_h)

    Its Jacobian in time is the diagonal 1 - z, between 0 and 1. The state is h, float32 under
    every lower dtype policy.

    Args:
        units: number of features of the output.
        use_bias: whether gate and candidate have a bias.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.01201, section 3.1.

    Example:
        >>> cell = MinGRUCell(4)
        >>> y, (h,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(h.shape)
        ((1, 4), (1, 4))
    """

    gates = 2

    def __init__(
        self, units: int, *, use_bias: bool = True, seed: int | None = None, **kwargs: Any
    ):
        super().__init__(units, use_bias=use_bias, seed=seed, **kwargs)

    def recurrence(self, gates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns 1 - z, and z times the candidate."""
        update, candidate = gates
        return ops.sigmoid(-update), ops.sigmoid(update) * candidate


@keras.saving.register_keras_serializable(package="keras_lsc")
class MinGRU(SequenceLayer):
    """Minimal gated recurrent units along a sequence, all steps in one scan.

    `MinGRU.cell` is the same unit for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        use_bias: whether gate and candidate have a bias.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last state as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.01201, section 3.1.

    Example:
        >>> layer = MinGRU(16, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = MinGRUCell

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
