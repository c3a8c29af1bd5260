"""Gated cells that are linear in their state: one scan takes all steps."""

from typing import Any

from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import glorot_blocks, numpy_generator
from keras_lsc.layers.scan import linear_scan
from keras_lsc.layers.sequence import SequenceCell

Tensor = Any


class LinearGatedCell(SequenceCell):
    """h' = decay(x) h + drive(x), which is also the output; a subclass says what both are.

    Args:
        units: number of features of the output.
        use_bias: whether there is a bias.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    # Number of matrices side by side in the kernel.
    gates: int

    def __init__(self, units: int, *, use_bias: bool, seed: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.use_bias = arguments.flag("use_bias", use_bias)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.state_size = [self.units]
        self.output_size = self.units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, generator = input_shape[-1], numpy_generator(self.seed)

        draw = glorot_blocks(self.gates * [self.units], generator)
        columns = self.gates * self.units
        self.kernel = self._add_matrix("kernel", (features, columns), draw)
        self.bias = self._add_parameter("bias", (columns,), "zeros") if self.use_bias else None
        self.built = True

    def recurrence(self, gates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns decay and drive.

        Args:
            gates: what the inputs give to each gate, of any shape `(..., units)`.
        """
        raise NotImplementedError

    def _recurrence(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        drive = self._product(inputs, self.kernel)
        if self.use_bias:
            drive = drive + self._value(self.bias)
        return self.recurrence(ops.split(drive, self.gates, axis=-1))

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: h, `(batch, units)`, in a list.
            training: has no effect.

        Returns:
            The new h in the dtype of the policy, and in a list.
        """
        del training
        (h,) = self._states(states)
        decay, drive = self._recurrence(inputs)
        h = decay * h + drive
        return self._output(h), [h]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        decay, drive = self._recurrence(ops.swapaxes(sequences, 0, 1))
        if mask is not None:
            keep = self._keep(mask)
            decay, drive = decay * keep + (1.0 - keep), drive * keep
        (start,) = self._states(states)
        h = linear_scan(decay, drive, start)
        return self._output(ops.swapaxes(h, 0, 1)), [h[-1]]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "seed": self.seed,
        }
