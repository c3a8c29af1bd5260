"""Leaky integrate-and-fire neurons."""

from typing import Any

import keras
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.layers import membrane, surrogates
from keras_lsc.layers.parameters import initializer, positive_weight
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any

OUTPUTS = ("spikes", "voltage")


@keras.saving.register_keras_serializable(package="keras_lsc")
class LIFCell(SequenceCell):
    """One step of leaky integrate-and-fire neurons with recurrent weights.

    With z the spikes of the step before, I = W x + R z + b the current, alpha = exp(-1/tau):

        subtractive          v' = alpha v + I - theta z
        multiplicative-1     v' = (alpha v + I) (1 - z)
        multiplicative-2     v' = alpha v (1 - z) + I

    and spikes H(v' - theta), exactly 0 or 1, with a surrogate gradient. R has no diagonal. The
    state is the voltage v: the spikes follow from it (and, with a refractory period, from the
    counter of the steps that are left, which is a second state).

    The weight `log_slope` scales the surrogate gradient by its exponential. The outputs do not
    depend on it, so training leaves it at 0, or where pre-training has moved it.

    Args:
        units: number of neurons.
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
        ValueError: an unknown reset, output or surrogate, or a number outside its range.

    Source: arXiv 2202.00282, section 2.

    Example:
        >>> cell = LIFCell(2, kernel_initializer="identity", tau=10.0)
        >>> spikes, (voltage,) = cell(ops.convert_to_tensor([[2.0, 0.5]]), [ops.zeros((1, 2))])
        >>> ops.convert_to_numpy(spikes).tolist(), ops.convert_to_numpy(voltage).tolist()
        ([[1.0, 0.0]], [[2.0, 0.5]])
    """

    def __init__(
        self,
        units: int,
        *,
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
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.reset = arguments.one_of("reset", reset, membrane.RESETS)
        self.reset_gradient = arguments.flag("reset_gradient", reset_gradient)
        self.surrogate = surrogates.get(surrogate)
        self.tau = initializer(tau, "tau")
        self.trainable_tau = arguments.flag("trainable_tau", trainable_tau)
        self.threshold = initializer(threshold, "threshold")
        self.trainable_threshold = arguments.flag("trainable_threshold", trainable_threshold)
        self.recurrent = arguments.flag("recurrent", recurrent)
        self.use_bias = arguments.flag("use_bias", use_bias)
        self.refractory = arguments.integer("refractory", refractory, at_least=0)
        self.output_kind = arguments.one_of("output", output, OUTPUTS)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.state_size = [self.units] * len(self._state_names)
        self.output_size = self.units

    @property
    def is_spiking(self) -> bool:
        """Whether the outputs are spikes."""
        return self.output_kind == "spikes"

    @property
    def variables_of_gradient(self) -> list[Any]:
        """Weights that change the gradient alone; pre-training moves them, but of a frozen cell."""
        return [self.log_slope] if self.trainable else []

    @property
    def states_without_gradient(self) -> list[int]:
        """Indices of the states through which no gradient passes: the refractory counter."""
        return [k for k, name in enumerate(self._state_names) if name == "counter"]

    @property
    def _state_names(self) -> list[str]:
        return ["v", "counter"] if self.refractory else ["v"]

    @property
    def _membrane(self) -> membrane.Membrane:
        return membrane.Membrane(self.surrogate, self.reset, self.reset_gradient, self.refractory)

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        units = self.units
        self.kernel = self._add_matrix(
            "kernel", (input_shape[-1], units), self.kernel_initializer, self.kernel_regularizer
        )
        if self.recurrent:
            self.recurrent_kernel = self._add_matrix(
                "recurrent_kernel",
                (units, units),
                self.recurrent_initializer,
                self.recurrent_regularizer,
            )
        if self.use_bias:
            self.bias = self._add_matrix(
                "bias", (units,), self.bias_initializer, self.bias_regularizer
            )
        self.log_tau = positive_weight(self, "tau", self.tau, self.trainable_tau)
        self.log_threshold = positive_weight(
            self, "threshold", self.threshold, self.trainable_threshold
        )
        # No loss depends on it, so no training moves it: what it changes is the gradient.
        self.log_slope = self._add_parameter("log_slope", (1,), "zeros", trainable=False)
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: voltage (and what else a state is made of), each `(batch, units)`.
            training: has no effect.

        Returns:
            Spikes or voltages `(batch, units)`, and the new states.
        """
        del training
        neuron, values = self._membrane, self._values()
        old = dict(zip(self._state_names, self._states(states), strict=True))
        z = self._spikes(old, values)
        current = self._current(inputs)
        if self.recurrent:
            current = current + z @ values["kernel"]
        resetting = z if self.reset_gradient else ops.stop_gradient(z)
        new = {
            "v": neuron.next_voltage(old["v"], resetting, current, values["alpha"], values["theta"])
        }
        if "a" in old:
            new["a"] = backend.multiply_add(values["rho"], old["a"] - z, z)
        if "counter" in old:
            u = ops.stop_gradient(membrane.distance(new, values))
            new["counter"] = neuron.next_counter(ops.stop_gradient(old["counter"]), u)
        output = self._spikes(new, values) if self.is_spiking else new["v"]
        return self._output(output), [new[name] for name in self._state_names]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        start = dict(zip(self._state_names, self._states(states), strict=True))
        tensors = {**self._values(), **start}
        tensors["current"] = self._current(ops.swapaxes(sequences, 0, 1))
        if mask is not None:
            tensors["mask"] = self._keep(mask)
        spikes, visited = membrane.run(self._membrane, tensors)
        outputs = self._output(spikes if self.is_spiking else visited["v"])
        last = [visited[name][-1] for name in self._state_names]
        return ops.swapaxes(outputs, 0, 1), last

    def _current(self, inputs: Tensor) -> Tensor:
        current = self._product(inputs, self.kernel)
        return current + self._value(self.bias) if self.use_bias else current

    def _values(self) -> dict[str, Tensor]:
        """The numbers of a step under the names of the formulas."""
        values = {
            "alpha": self._decay(self.log_tau),
            "theta": ops.exp(self._value(self.log_threshold)),
            "slope": ops.exp(self._value(self.log_slope)),
        }
        if self.recurrent:
            others = 1.0 - ops.eye(self.units, dtype=self.compute_dtype)
            values["kernel"] = self._value(self.recurrent_kernel) * others
        return values

    def _decay(self, log_tau: Any) -> Tensor:
        return ops.exp(-ops.exp(-self._value(log_tau)))

    def _spikes(self, state: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        spikes = self.surrogate(membrane.distance(state, values), values["slope"])
        if "counter" not in state:
            return spikes
        return spikes * self._membrane.may_spike(ops.stop_gradient(state["counter"]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "reset": self.reset,
            "reset_gradient": self.reset_gradient,
            "surrogate": serialize(self.surrogate),
            "tau": serialize(self.tau),
            "trainable_tau": self.trainable_tau,
            "threshold": serialize(self.threshold),
            "trainable_threshold": self.trainable_threshold,
            "recurrent": self.recurrent,
            "use_bias": self.use_bias,
            "refractory": self.refractory,
            "output": self.output_kind,
            "kernel_initializer": serialize(self.kernel_initializer),
            "recurrent_initializer": serialize(self.recurrent_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "recurrent_regularizer": serialize(self.recurrent_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LIF(SequenceLayer):
    """Leaky integrate-and-fire neurons along a sequence.

    The input projection is one product for all steps, and the gradient is written out: only the
    voltage runs step by step, forward, and its adjoint, backward; without recurrent weights the
    gradient is a single scan. For forward-mode derivatives through a whole sequence use
    `keras.layers.RNN(LIFCell(...))`, which differentiates step by step.

    Args:
        units: number of neurons.
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

    Source: arXiv 2202.00282, section 2; the scan is that of EXODUS, arXiv 2205.10242.

    Example:
        >>> layer = LIF(16, reset="multiplicative-2", return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = LIFCell

    def __init__(
        self,
        units: int,
        *,
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
