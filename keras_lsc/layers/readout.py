"""Leaky integrators: what is usually read out of a spiking network."""

from typing import Any

import keras
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import initializer, positive_weight
from keras_lsc.layers.scan import linear_scan
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class LeakyReadoutCell(SequenceCell):
    """One step of leaky integrators v' = kappa v + W x + b, kappa = exp(-1/tau).

    Args:
        units: number of integrators.
        tau: time constant in steps: a positive number or an initialiser, per unit.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
        kernel_initializer: Initialiser of W, `(features, units)`.
        bias_initializer: Initialiser of b, `(units,)`.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `units` or `tau` is not positive.

    Example:
        >>> cell = LeakyReadoutCell(2)
        >>> v, _ = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(v.shape)
        (1, 2)
    """

    def __init__(
        self,
        units: int,
        *,
        tau: Any = 10.0,
        trainable_tau: bool = True,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.tau = initializer(tau, "tau")
        self.trainable_tau = arguments.flag("trainable_tau", trainable_tau)
        self.use_bias = arguments.flag("use_bias", use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.state_size = [self.units]
        self.output_size = self.units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        shape = (input_shape[-1], self.units)
        self.kernel = self._add_matrix("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self._add_matrix("bias", (self.units,), self.bias_initializer)
        self.log_tau = positive_weight(self, "tau", self.tau, self.trainable_tau)
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: the integrators, `(batch, units)`.
            training: has no effect.

        Returns:
            The integrators `(batch, units)`, twice: as output and as state.
        """
        del training
        (v,) = self._states(states)
        new = self._decay() * v + self._drive(inputs)
        return self._output(new), [new]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        decay, drive = self._decay(), self._drive(ops.swapaxes(sequences, 0, 1))
        if mask is not None:
            keep = self._keep(mask)
            decay, drive = decay * keep + (1.0 - keep), drive * keep
        visited = linear_scan(decay, drive, self._states(states)[0])
        return ops.swapaxes(self._output(visited), 0, 1), [visited[-1]]

    def _decay(self) -> Tensor:
        return ops.exp(-ops.exp(-self._value(self.log_tau)))

    def _drive(self, inputs: Tensor) -> Tensor:
        drive = self._product(inputs, self.kernel)
        return drive + self._value(self.bias) if self.use_bias else drive

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "tau": serialize(self.tau),
            "trainable_tau": self.trainable_tau,
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LeakyReadout(SequenceLayer):
    """Leaky integrators along a sequence, all steps at once.

    Args:
        units: number of integrators, such as that of the classes.
        tau: time constant in steps: a positive number or an initialiser, per unit.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
        kernel_initializer: Initialiser of W, `(features, units)`.
        bias_initializer: Initialiser of b, `(units,)`.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Example:
        >>> LeakyReadout(10, tau=20.0)(ops.ones((2, 50, 3))).shape == (2, 10)
        True
    """

    cell_class = LeakyReadoutCell

    def __init__(
        self,
        units: int,
        *,
        tau: Any = 10.0,
        trainable_tau: bool = True,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            {
                "tau": tau,
                "trainable_tau": trainable_tau,
                "use_bias": use_bias,
                "kernel_initializer": kernel_initializer,
                "bias_initializer": bias_initializer,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
