"""Recurrent units that each have a time constant of their own, which is trained."""

from typing import Any

import keras
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.layers.parameters import initializer
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class AtLeastOne(keras.constraints.Constraint):
    """Raises to 1 what training has taken below it.

    Example:
        >>> ops.convert_to_numpy(AtLeastOne()(ops.convert_to_tensor([0.5, 2.0]))).tolist()
        [1.0, 2.0]
    """

    def __call__(self, w: Tensor) -> Tensor:
        """Returns max(w, 1)."""
        w = ops.convert_to_tensor(w)  # an optimiser gives the variable
        # With a derivative of 1 at 1 on every backend, which that of a maximum is not.
        return ops.where(w < 1.0, ops.ones_like(w), w)


@keras.saving.register_keras_serializable(package="keras_lsc")
class LeakyRNNCell(SequenceCell):
    """One step of recurrent units that forget at a rate 1/tau, with tau >= 1 per unit.

        h' = phi((1 - 1/tau) h + (W x + R h + b)/tau)

    R has no diagonal, so that a unit remembers itself by tau alone; at tau = 1 it does not. The
    weight `tau` is float32 under every lower dtype policy, as is the state, and stays at 1 where
    training would take it below.

    Args:
        units: number of units.
        activation: phi. One that is flat, as tanh is, forgets what is large whatever tau.
        tau: time constant in steps, a number of at least 1 or an initialiser, per unit; of what it
            draws, what is less becomes 1. Without it uniform between 1 and 2.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
        kernel_initializer: Initialiser of W, `(features, units)`.
        recurrent_initializer: Initialiser of R, `(units, units)`.
        bias_initializer: Initialiser of b, `(units,)`.
        kernel_regularizer: Regulariser of W.
        recurrent_regularizer: Regulariser of R.
        bias_regularizer: Regulariser of b.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `units` is not positive, `tau` below 1, or the activation unknown.

    Source: arXiv 2309.12927, section 2, with phi a leaky rectifier.

    Example:
        >>> cell = LeakyRNNCell(1, tau=4.0, kernel_initializer="ones")
        >>> y, (h,) = cell(ops.ones((1, 1)), [ops.ones((1, 1))])
        >>> float(ops.convert_to_numpy(h)[0, 0])
        1.0
    """

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "leaky_relu",
        tau: Any = None,
        trainable_tau: bool = True,
        use_bias: bool = True,
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
        self.activation = keras.activations.get(activation)
        if tau is None:
            tau = keras.initializers.RandomUniform(1.0, 2.0)
        self.tau_initializer = initializer(tau, "tau")
        if isinstance(self.tau_initializer, keras.initializers.Constant):
            arguments.number("tau", self.tau_initializer.value, at_least=1)
        self.trainable_tau = arguments.flag("trainable_tau", trainable_tau)
        self.use_bias = arguments.flag("use_bias", use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.state_size = [self.units]
        self.output_size = self.units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        units, at_least_one = self.units, AtLeastOne()
        self.kernel = self._add_matrix(
            "kernel", (input_shape[-1], units), self.kernel_initializer, self.kernel_regularizer
        )
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

        def draw(shape: tuple, dtype: Any = None) -> Tensor:
            return at_least_one(ops.convert_to_tensor(self.tau_initializer(shape, dtype=dtype)))

        self.tau = self._add_parameter("tau", (units,), draw, self.trainable_tau, at_least_one)
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: h, `(batch, units)`.
            training: has no effect.

        Returns:
            h `(batch, units)`, twice: as output and as state.
        """
        del training
        (h,) = self._states(states)
        new = self._advanced(h, self._drive(inputs), *self._dynamics())
        return self._output(new), [new]

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        dynamics = self._dynamics()
        drive = self._drive(ops.swapaxes(sequences, 0, 1))
        at = (drive,) if mask is None else (drive, self._keep(mask))

        def step(before: tuple, at: tuple) -> tuple:
            new = self._advanced(before[0], at[0], *dynamics)
            return (new if len(at) == 1 else at[1] * new + (1.0 - at[1]) * before[0],)

        (visited,) = backend.running_states(step, tuple(self._states(states)), at)
        return ops.swapaxes(self._output(visited), 0, 1), [visited[-1]]

    def _drive(self, inputs: Tensor) -> Tensor:
        drive = self._product(inputs, self.kernel)
        return drive + self._value(self.bias) if self.use_bias else drive

    def _dynamics(self) -> tuple[Tensor, Tensor]:
        """R without its diagonal, and 1/tau."""
        others = 1.0 - ops.eye(self.units, dtype=self.compute_dtype)
        # Weights may have been set to anything.
        tau = AtLeastOne()(self._value(self.tau))
        return self._value(self.recurrent_kernel) * others, 1.0 / tau

    def _advanced(self, h: Tensor, drive: Tensor, kernel: Tensor, rate: Tensor) -> Tensor:
        return self.activation(h + rate * (drive + h @ kernel - h))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "tau": serialize(self.tau_initializer),
            "trainable_tau": self.trainable_tau,
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "recurrent_initializer": serialize(self.recurrent_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "recurrent_regularizer": serialize(self.recurrent_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LeakyRNN(SequenceLayer):
    """Recurrent units with trained time constants, along a sequence.

    Args:
        units: number of units.
        activation: phi. One that is flat, as tanh is, forgets what is large whatever tau.
        tau: time constant in steps, a number of at least 1 or an initialiser, per unit; of what it
            draws, what is less becomes 1. Without it uniform between 1 and 2.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
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

    Source: arXiv 2309.12927, section 2.

    Example:
        >>> layer = LeakyRNN(16, tau=3.0, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = LeakyRNNCell

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "leaky_relu",
        tau: Any = None,
        trainable_tau: bool = True,
        use_bias: bool = True,
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
                "activation": activation,
                "tau": tau,
                "trainable_tau": trainable_tau,
                "use_bias": use_bias,
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
