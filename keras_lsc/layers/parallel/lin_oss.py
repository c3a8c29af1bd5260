"""Forced harmonic oscillators, damped by the implicit way in which time is cut into steps."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import glorot_uniform, numpy_generator
from keras_lsc.layers.precision import project
from keras_lsc.layers.scan import complex_scan
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any

# Squared frequencies are drawn from the unit interval, away from 0, where there is no logarithm.
_SLOWEST = 1e-3


@keras.saving.register_keras_serializable(package="keras_lsc")
class LinOSSCell(SequenceCell):
    """One implicit step of linear oscillators, position'' = -omega^2 position + B x.

        v' = v + d (-omega^2 p' + B x),    p' = p + d v',    y = C p' + D x

    with position p, speed v, frequencies omega and steps d between 0 and 1, of each oscillator its
    own. It turns the complex state omega p + i v by (1 - i d omega) / (1 + (d omega)^2), whose
    modulus is below 1: an implicit step damps, however long it is. The state is omega p and v,
    float32 under every lower dtype policy, as are frequencies and steps.

    Args:
        units: number of features of the output.
        state_units: number of oscillators; `units` without it.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.03943, the implicit model (IM) of section 2.

    Example:
        >>> cell = LinOSSCell(4, state_units=8)
        >>> y, (position, speed) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(speed.shape)
        ((1, 4), (1, 8))
    """

    def __init__(
        self,
        units: int,
        *,
        state_units: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.state_units = (
            self.units
            if state_units is None
            else arguments.positive_integer("state_units", state_units)
        )
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.state_size = [self.state_units, self.state_units]
        self.output_size = self.units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, generator = input_shape[-1], numpy_generator(self.seed)

        def glorot(shape: tuple, **_: Any) -> np.ndarray:
            return glorot_uniform(shape, generator)

        def frequencies(shape: tuple, **_: Any) -> np.ndarray:
            return 0.5 * np.log(generator.uniform(_SLOWEST, 1.0, shape))

        def steps(shape: tuple, **_: Any) -> np.ndarray:
            # What the logistic function makes a number between 0 and 1 of.
            drawn = generator.uniform(0.01, 0.99, shape)
            return np.log(drawn / (1.0 - drawn))

        inner = self.state_units
        self.log_frequency = self._add_parameter("log_frequency", (inner,), frequencies)
        self.step_logit = self._add_parameter("step_logit", (inner,), steps)
        self.kernel = self._add_matrix("kernel", (features, inner), glorot)
        self.output_kernel = self._add_matrix("output_kernel", (inner, self.units), glorot)
        self.feedthrough = self._add_matrix("feedthrough", (features, self.units), glorot)
        self.built = True

    @property
    def input_weights(self) -> list[Any]:
        """The weights that scale all that the cell reads, and nothing else."""
        return [self.kernel, self.feedthrough]

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: omega p and v, each `(batch, state_units)`.
            training: has no effect.

        Returns:
            y `(batch, units)`, and the new states.
        """
        del training
        position, speed = self._states(states)
        real, imag = self._decay()
        push_position, push_speed = self._drive(inputs)
        new = [
            real * position - imag * speed + push_position,
            real * speed + imag * position + push_speed,
        ]
        return self._read_out(inputs, new[0]), new

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        sequences = ops.swapaxes(sequences, 0, 1)
        decay, drive = self._decay(), self._drive(sequences)
        if mask is not None:
            keep = self._keep(mask)
            decay = (decay[0] * keep + (1.0 - keep), decay[1] * keep)
            drive = (drive[0] * keep, drive[1] * keep)
        start = self._states(states)
        position, speed = complex_scan(decay, drive, (start[0], start[1]))
        outputs = ops.swapaxes(self._read_out(sequences, position), 0, 1)
        return outputs, [position[-1], speed[-1]]

    def _turn(self) -> tuple[Tensor, Tensor, Tensor]:
        """Frequency, d times it, and what an implicit step divides by."""
        frequency = ops.exp(self._value(self.log_frequency))
        angle = ops.sigmoid(self._value(self.step_logit)) * frequency
        return frequency, angle, 1.0 + angle * angle

    def _decay(self) -> tuple[Tensor, Tensor]:
        """What the complex state is multiplied by at a step."""
        _, angle, divisor = self._turn()
        return 1.0 / divisor, -angle / divisor

    def _drive(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        _, angle, divisor = self._turn()
        force = self._product(inputs, self.kernel)
        step = ops.sigmoid(self._value(self.step_logit))
        push = step / divisor * force
        return angle * push, push

    def _read_out(self, inputs: Tensor, position: Tensor) -> Tensor:
        # The state holds positions times frequencies.
        position = position / self._turn()[0]
        outputs = project(self._factor(position), self._factor(self.output_kernel))
        return outputs + project(self._factor(inputs), self._factor(self.feedthrough))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "state_units": self.state_units,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LinOSS(SequenceLayer):
    """Linear oscillators along a sequence, all steps in one scan.

    `LinOSS.cell` is the same for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        state_units: number of oscillators; `units` without it.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2410.03943, the implicit model (IM) of section 2.

    Example:
        >>> layer = LinOSS(16, state_units=32, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = LinOSSCell

    def __init__(
        self,
        units: int,
        *,
        state_units: int | None = None,
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
