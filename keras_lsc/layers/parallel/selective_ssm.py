"""A real diagonal state space whose input chooses what is kept, written and read."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import glorot_blocks, numpy_generator
from keras_lsc.layers.precision import project
from keras_lsc.layers.scan import linear_scan
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any

# Between which the lengths of a step are drawn, evenly in their logarithms, as published.
_SHORTEST, _LONGEST = 1e-3, 1e-1
# Of the norms, below which what selects is taken for nothing.
_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="keras_lsc")
class SelectiveSSMCell(SequenceCell):
    """One step of a selective state space with a gate.

        v = W_v x,    delta = softplus(W_d x + b_d),    B = norm(W_B x),    C = norm(W_C x)
        h' = exp(-delta rate) h + delta v B,    y = (C h' + D v) sigmoid(W_g x)

    Every one of the `units` features of v has a state of `state_units` numbers h, with rates of
    their own; B and C are shared by all features. They are of unit mean square, and the gate has
    no slope of its own, so that a layer is nearly linear in the size of x: stacked, products of so
    many functions of x get out of hand. Each decay is between 0 and 1. The state is all h side by
    side, float32 under every lower dtype policy, as are rates and steps.

    Args:
        units: number of features of the output.
        state_units: numbers of state of each of them.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2312.00752, section 3, without its convolution, SiLU and output projection; the
        norms are those of arXiv 2410.05355.

    Example:
        >>> cell = SelectiveSSMCell(4, state_units=2)
        >>> y, (h,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(h.shape)
        ((1, 4), (1, 8))
    """

    def __init__(self, units: int, *, state_units: int = 8, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.state_units = arguments.positive_integer("state_units", state_units)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.state_size = [self.units * self.state_units]
        self.output_size = self.units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, generator = input_shape[-1], numpy_generator(self.seed)

        def steps(shape: tuple, **_: Any) -> np.ndarray:
            logarithms = generator.uniform(math.log(_SHORTEST), math.log(_LONGEST), shape)
            # What softplus makes the step of.
            return np.log(np.expm1(np.exp(logarithms)))

        def rates(_shape: tuple, **_: Any) -> np.ndarray:
            return np.log(np.tile(np.arange(1.0, self.state_units + 1.0), self.units))

        units, inner = self.units, self.state_units
        self.kernel = self._add_matrix(
            "kernel", (features, units), glorot_blocks([units], generator)
        )
        # What chooses: steps and the opening of the output by feature, what is written and read.
        widths = (units, units, inner, inner)
        self.selection = self._add_matrix(
            "selection", (features, sum(widths)), glorot_blocks(widths, generator)
        )
        self.step_bias = self._add_parameter("step_bias", (units,), steps)
        self.log_rate = self._add_parameter("log_rate", (units * inner,), rates)
        self.feedthrough = self._add_parameter("feedthrough", (units,), "ones")
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: h, `(batch, units * state_units)`, in a list.
            training: has no effect.

        Returns:
            y `(batch, units)`, and the new states.
        """
        del training
        (h,) = self._states(states)
        decay, drive, *readers = self._selected(inputs)
        h = decay * h + drive
        return self._read_out(h, *readers), [h]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        decay, drive, *readers = self._selected(ops.swapaxes(sequences, 0, 1))
        if mask is not None:
            keep = self._keep(mask)
            decay, drive = decay * keep + (1.0 - keep), drive * keep
        (start,) = self._states(states)
        h = linear_scan(decay, drive, start)
        return ops.swapaxes(self._read_out(h, *readers), 0, 1), [h[-1]]

    def _selected(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Decay and drive of all h side by side, and what `_read_out` takes besides h."""
        units, inner = self.units, self.state_units
        value, chosen = (self._product(inputs, w) for w in (self.kernel, self.selection))
        step = ops.softplus(chosen[..., :units] + self._value(self.step_bias))
        opening = ops.sigmoid(chosen[..., units : 2 * units])
        write = _normed(chosen[..., 2 * units : 2 * units + inner])
        read = _normed(chosen[..., 2 * units + inner :])
        # Each feature is repeated for its states, and what all of them share is tiled.
        steps, values = (ops.repeat(x, inner, axis=-1) for x in (step, value))
        decay = ops.exp(-steps * ops.exp(self._value(self.log_rate)))
        return decay, steps * values * self._shared(write), value, opening, self._shared(read)

    def _shared(self, x: Tensor) -> Tensor:
        return ops.concatenate([x] * self.units, axis=-1)

    def _read_out(self, h: Tensor, value: Tensor, opening: Tensor, read: Tensor) -> Tensor:
        # A matrix of zeros and ones adds up the states of a feature, whatever the leading axes.
        of_feature = np.repeat(np.eye(self.units), self.state_units, axis=0)
        outputs = project(h * read, ops.convert_to_tensor(of_feature, dtype=self.compute_dtype))
        return self._output((outputs + self._value(self.feedthrough) * value) * opening)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "state_units": self.state_units,
            "seed": self.seed,
        }


def _normed(x: Tensor) -> Tensor:
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + _EPSILON)


@keras.saving.register_keras_serializable(package="keras_lsc")
class SelectiveSSM(SequenceLayer):
    """A selective state space along a sequence, all steps in one scan.

    `SelectiveSSM.cell` is the same for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        state_units: numbers of state of each of them.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last state as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2312.00752, section 3, without its convolution, SiLU and output projection.

    Example:
        >>> layer = SelectiveSSM(16, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = SelectiveSSMCell

    def __init__(
        self,
        units: int,
        *,
        state_units: int = 8,
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
            {"state_units": state_units, "seed": seed},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
