"""A real diagonal state space whose input chooses what is kept, written and read."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import glorot_uniform, numpy_generator
from keras_lsc.layers.scan import linear_scan
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer, project

Tensor = Any

# Between which the lengths of a step are drawn, evenly in their logarithms, as published.
_SHORTEST, _LONGEST = 1e-3, 1e-1
# Of the norms, below which what selects is taken for nothing.
_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="keras_lsc")
class SelectiveSSMCell(SequenceCell):
    """One step of a selective state space with a gate.

        v = W_v x,    delta = softplus(W_d x + b_d),    B = norm(W_B x),    C = norm(W_C x)
        h' = exp(-delta rate) h + delta v B,    y = (C h' + D v) silu(W_g x)

    Every one of the `units` features of v has a state of `state_units` numbers h, with rates of
    their own; B and C are shared by all features, and of unit mean square, because products of so
    many functions of x grow out of hand. Each decay is between 0 and 1. The state is all h side by
    side, float32 under every lower dtype policy, as are rates and steps.

    Args:
        units: number of features of the output.
        state_units: numbers of state of each of them.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2312.00752, section 3, without its convolution and its output projection; the
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

        def drawn(*columns: int) -> Any:
            def draw(shape: tuple, **_: Any) -> np.ndarray:
                parts = [glorot_uniform((features, width), generator) for width in columns]
                return np.concatenate(parts, axis=1).reshape(shape)

            return draw

        def steps(shape: tuple, **_: Any) -> np.ndarray:
            logarithms = generator.uniform(math.log(_SHORTEST), math.log(_LONGEST), shape)
            # What softplus makes the step of.
            return np.log(np.expm1(np.exp(logarithms)))

        def rates(_shape: tuple, **_: Any) -> np.ndarray:
            return np.log(np.tile(np.arange(1.0, self.state_units + 1.0), self.units))

        units, inner = self.units, self.state_units
        # What is written and what opens the output, and what selects.
        self.kernel = self._add_matrix("kernel", (features, 2 * units), drawn(units, units))
        self.selection = self._add_matrix(
            "selection", (features, units + 2 * inner), drawn(units, inner, inner)
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
        decay, drive, read = self._selected(inputs)
        h = decay * h + drive
        return self._read_out(inputs, h, read), [h]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        sequences = ops.swapaxes(sequences, 0, 1)
        decay, drive, read = self._selected(sequences)
        if mask is not None:
            keep = self._keep(mask)
            decay, drive = decay * keep + (1.0 - keep), drive * keep
        (start,) = self._states(states)
        h = linear_scan(decay, drive, start)
        outputs = self._read_out(sequences, h, read)
        return ops.swapaxes(outputs, 0, 1), [h[-1]]

    def _selected(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decay and drive of the state, `(..., units * state_units)`, and what reads it."""
        units, inner = self.units, self.state_units
        chosen = self._product(inputs, self.selection)
        step = ops.softplus(chosen[..., :units] + self._value(self.step_bias))
        write, read = _normed(chosen[..., units : units + inner]), _normed(chosen[..., -inner:])
        # By repeating each feature and tiling what they share, all states are side by side.
        step = ops.repeat(step, inner, axis=-1)
        decay = ops.exp(-step * ops.exp(self._value(self.log_rate)))
        value = ops.repeat(self._product(inputs, self.kernel)[..., :units], inner, axis=-1)
        return decay, step * value * self._shared(write), self._shared(read)

    def _shared(self, x: Tensor) -> Tensor:
        return ops.concatenate([x] * self.units, axis=-1)

    def _read_out(self, inputs: Tensor, h: Tensor, read: Tensor) -> Tensor:
        product = self._product(inputs, self.kernel)
        value, opening = product[..., : self.units], product[..., self.units :]
        # A matrix of zeros and ones adds up the states of a feature, whatever the leading axes.
        of_feature = np.repeat(np.eye(self.units), self.state_units, axis=0)
        outputs = project(h * read, ops.convert_to_tensor(of_feature, dtype=self.compute_dtype))
        outputs = outputs + self._value(self.feedthrough) * value
        return self._output(outputs * ops.silu(opening))

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

    Source: arXiv 2312.00752, section 3; without its convolution and its output projection.

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
