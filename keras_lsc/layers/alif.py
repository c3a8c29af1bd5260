"""Adaptive leaky integrate-and-fire neurons: each spike raises the threshold for a while."""

from typing import Any

import keras

from keras_lsc import arguments
from keras_lsc.layers.lif import LIFCell
from keras_lsc.layers.parameters import initializer, positive_weight
from keras_lsc.layers.sequence import SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class ALIFCell(LIFCell):
    """One step of adaptive leaky integrate-and-fire neurons.

    As `LIFCell`, with spikes H(v' - theta - beta a') and the adaptation
    a' = rho a + (1 - rho) z, rho = exp(-1/tau_adaptation), a running mean of the neuron's spikes.
    The reset subtracts theta. The state is the voltage and the adaptation.

    Args:
        units: number of neurons.
        beta: how much the threshold rises with the adaptation: a number of either sign or an
            initialiser, per neuron.
        trainable_beta: whether it is trained.
        tau_adaptation: time constant of the adaptation in steps, a positive number or an
            initialiser, per neuron.
        trainable_tau_adaptation: whether it is trained.
        **options: as `LIFCell` takes them.

    Raises:
        ValueError: as `LIFCell` raises it.

    Source: arXiv 2202.00282, section 2.

    Example:
        >>> from keras import ops
        >>> cell = ALIFCell(2)
        >>> _, states = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> len(states)
        2
    """

    def __init__(
        self,
        units: int,
        *,
        beta: Any = 1.8,
        trainable_beta: bool = True,
        tau_adaptation: Any = 100.0,
        trainable_tau_adaptation: bool = True,
        **options: Any,
    ):
        super().__init__(units, **options)
        self.beta_initializer = initializer(beta, "beta", must_be_positive=False)
        self.trainable_beta = arguments.flag("trainable_beta", trainable_beta)
        self.tau_adaptation = initializer(tau_adaptation, "tau_adaptation")
        self.trainable_tau_adaptation = arguments.flag(
            "trainable_tau_adaptation", trainable_tau_adaptation
        )

    @property
    def _state_names(self) -> list[str]:
        return ["v", "a", *super()._state_names[1:]]

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        super().build(input_shape)
        self.beta = self._add_parameter(
            "beta", (self.units,), self.beta_initializer, self.trainable_beta
        )
        self.log_tau_adaptation = positive_weight(
            self, "tau_adaptation", self.tau_adaptation, self.trainable_tau_adaptation
        )

    def _values(self) -> dict[str, Tensor]:
        values = super()._values()
        values["beta"] = self._value(self.beta)
        values["rho"] = self._decay(self.log_tau_adaptation)
        return values

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "beta": serialize(self.beta_initializer),
            "trainable_beta": self.trainable_beta,
            "tau_adaptation": serialize(self.tau_adaptation),
            "trainable_tau_adaptation": self.trainable_tau_adaptation,
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class ALIF(SequenceLayer):
    """Adaptive leaky integrate-and-fire neurons along a sequence.

    Args:
        units: number of neurons.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **options: as `ALIFCell` and `keras.Layer` take them.

    Source: arXiv 2202.00282, section 2.

    Example:
        >>> from keras import ops
        >>> layer = ALIF(16, beta=0.5, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = ALIFCell
