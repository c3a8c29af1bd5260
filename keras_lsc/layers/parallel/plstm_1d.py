"""pLSTM along a sequence: memories that are written and read by gates of the input."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.layers.parallel.plstm import (
    SourceTransitionMark,
    bias_of_decays,
    read_out,
)
from keras_lsc.layers.scan import linear_scan, shifted
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class PLSTM1DCell(SourceTransitionMark, SequenceCell):
    """One step of a pLSTM: parallelisable linear source, transition and mark.

        y = m q C + d (q k) v + D v,    C' = t C + s k v

    for each head, with a query q, a key k and a value v that are linear in the input, and gates s
    (source), t (transition), m (mark) and d (direct) between 0 and 1 that are sigmoids of it. An
    edge of a sequence has one successor, to which t hands on a part of it; there is nothing to
    share out, as the two-dimensional form does. Its Jacobian in time is the diagonal t. The state
    is the C side by side, float32 under every lower dtype policy.

    Args:
        units: number of features of the output.
        heads: number of memories side by side, each with gates of its own; it divides `units`.
        key_units: number of features of a key.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `heads` does not divide `units`, or an argument is out of range.

    Source: arXiv 2506.11997 with scalar transitions, without its convolution, norm, skip and output
        projection; keys and queries are bounded.

    Example:
        >>> cell = PLSTM1DCell(4, heads=2, key_units=3)
        >>> y, (memory,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(memory.shape)
        ((1, 4), (1, 12))
    """

    def __init__(
        self,
        units: int,
        *,
        heads: int = 1,
        key_units: int = 8,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, heads=heads, key_units=key_units, seed=seed, **kwargs)
        self.state_size = [self.units * self.key_units]
        self.output_size = self.units

    def _gate_biases(self, generator: np.random.Generator) -> Sequence[np.ndarray]:
        half = np.zeros(self.heads)
        return half, bias_of_decays(self.heads, generator), half, half

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: C, `(batch, units * key_units)`, in a list.
            training: has no effect.

        Returns:
            y `(batch, units)`, and the new states.
        """
        del training
        memory = self._memory(states)
        queries, keys, values, (source, transition, mark, direct) = self._read(inputs)
        written = keys * values
        found = read_out(queries, mark * memory + direct * written)
        memory = transition * memory + source * written
        return self._outputs(found, values), [self._state(memory)]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        queries, keys, values, gates = self._read(ops.swapaxes(sequences, 0, 1))
        source, transition, reading, direct = gates
        written = keys * values
        drive = source * written
        if mask is not None:
            keep = ops.expand_dims(ops.expand_dims(self._keep(mask), -1), -1)
            transition, drive = transition * keep + (1.0 - keep), drive * keep
        start = self._memory(states)
        visited = linear_scan(transition, drive, start)
        (before,) = shifted((visited,), (start,), False)
        found = read_out(queries, reading * before + direct * written)
        outputs = ops.swapaxes(self._outputs(found, values), 0, 1)
        return outputs, [self._state(visited[-1])]

    def _memory(self, states: list[Tensor]) -> Tensor:
        (state,) = self._states(states)
        return ops.reshape(state, (-1, self.heads, self.key_units, self.units // self.heads))

    def _state(self, memory: Tensor) -> Tensor:
        return ops.reshape(memory, (-1, self.state_size[0]))


@keras.saving.register_keras_serializable(package="keras_lsc")
class PLSTM1D(SequenceLayer):
    """A pLSTM along a sequence, all steps in one scan.

    `PLSTM1D.cell` is the same for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        heads: number of memories side by side, each with gates of its own; it divides `units`.
        key_units: number of features of a key.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last state as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `heads` does not divide `units`, or an argument is out of range.

    Source: arXiv 2506.11997 with scalar transitions; see `PLSTM1DCell`.

    Example:
        >>> layer = PLSTM1D(16, heads=4, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = PLSTM1DCell

    def __init__(
        self,
        units: int,
        *,
        heads: int = 1,
        key_units: int = 8,
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
            {"heads": heads, "key_units": key_units, "seed": seed},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
