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
        reset: "subtractive", "multiplicative-1" or "multiplicative-2".
        reset_gradient: whether a gradient passes through the reset.
        surrogate: Surrogate of the spikes' gradient: the name of a shape, a `Surrogate`, or a
            callable.
        tau: time constant of the voltage in steps: a number or an initialiser, per neuron.
        trainable_tau: whether it is trained. It sets the radius in time, so it is, by default.
        threshold: theta, a positive number or an initialiser, per neuron.
        trainable_threshold: whether it is trained.
        recurrent: whether there are recurrent weights. Without them the gradient is one scan.
        use_bias: whether there is an internal current b.
        refractory: number of steps after a spike without another one; the voltage runs on.
        output: "spikes" or "voltage".
        kernel_initializer: Initialiser of W, `(features, units)`.
        recurrent_initializer: Initialiser of R, `(units, units)`.
        bias_initializer: Initialiser of b, `(units,)`.
        kernel_regularizer: Regulariser of W.
        recurrent_regularizer: Regulariser of R.
        bias_regularizer: Regulariser of b.
        **kwargs: Other arguments, as `keras.Layer` takes them.

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
        reset: str = "subtractive",
        reset_gradient: bool = True,
        surrogate: Any = "fast_sigmoid",
        tau: Any = 10.0,
        trainable_tau: bool = True,
        threshold: Any = 1.0,
        trainable_threshold: bool = False,
        recurrent: bool = True,
        use_bias: bool = True,
        refractory: int = 0,
        output: str = "spikes",
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            reset=reset,
            reset_gradient=reset_gradient,
            surrogate=surrogate,
            tau=tau,
            trainable_tau=trainable_tau,
            threshold=threshold,
            trainable_threshold=trainable_threshold,
            recurrent=recurrent,
            use_bias=use_bias,
            refractory=refractory,
            output=output,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            **kwargs,
        )
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
        beta: how much the threshold rises with the adaptation: a number of either sign or an
            initialiser, per neuron.
        trainable_beta: whether it is trained.
        tau_adaptation: time constant of the adaptation in steps, a positive number or an
            initialiser, per neuron.
        trainable_tau_adaptation: whether it is trained.
        reset: "subtractive", "multiplicative-1" or "multiplicative-2".
        reset_gradient: whether a gradient passes through the reset.
        surrogate: Surrogate of the spikes' gradient: the name of a shape, a `Surrogate`, or a
            callable.
        tau: time constant of the voltage in steps: a number or an initialiser, per neuron.
        trainable_tau: whether it is trained. It sets the radius in time, so it is, by default.
        threshold: theta, a positive number or an initialiser, per neuron.
        trainable_threshold: whether it is trained.
        recurrent: whether there are recurrent weights. Without them the gradient is one scan.
        use_bias: whether there is an internal current b.
        refractory: number of steps after a spike without another one; the voltage runs on.
        output: "spikes" or "voltage".
        kernel_initializer: Initialiser of W, `(features, units)`.
        recurrent_initializer: Initialiser of R, `(units, units)`.
        bias_initializer: Initialiser of b, `(units,)`.
        kernel_regularizer: Regulariser of W.
        recurrent_regularizer: Regulariser of R.
        bias_regularizer: Regulariser of b.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2202.00282, section 2.

    Example:
        >>> from keras import ops
        >>> layer = ALIF(16, beta=0.5, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = ALIFCell

    def __init__(
        self,
        units: int,
        *,
        beta: Any = 1.8,
        trainable_beta: bool = True,
        tau_adaptation: Any = 100.0,
        trainable_tau_adaptation: bool = True,
        reset: str = "subtractive",
        reset_gradient: bool = True,
        surrogate: Any = "fast_sigmoid",
        tau: Any = 10.0,
        trainable_tau: bool = True,
        threshold: Any = 1.0,
        trainable_threshold: bool = False,
        recurrent: bool = True,
        use_bias: bool = True,
        refractory: int = 0,
        output: str = "spikes",
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
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
                "beta": beta,
                "trainable_beta": trainable_beta,
                "tau_adaptation": tau_adaptation,
                "trainable_tau_adaptation": trainable_tau_adaptation,
                "reset": reset,
                "reset_gradient": reset_gradient,
                "surrogate": surrogate,
                "tau": tau,
                "trainable_tau": trainable_tau,
                "threshold": threshold,
                "trainable_threshold": trainable_threshold,
                "recurrent": recurrent,
                "use_bias": use_bias,
                "refractory": refractory,
                "output": output,
                "kernel_initializer": kernel_initializer,
                "recurrent_initializer": recurrent_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
