"""Linear recurrent units, and the residual block around them."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.layers import ring
from keras_lsc.layers.parameters import glorot_uniform, numpy_generator
from keras_lsc.layers.precision import project
from keras_lsc.layers.scan import complex_scan
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any

# How far |lambda| stays below 1, in units of the relative rounding of its dtype: so far that its
# rounded real and imaginary part are inside the unit circle as well. 5e-7 in float32.
_ROOM = 4


@keras.saving.register_keras_serializable(package="keras_lsc")
class LRUCell(SequenceCell):
    """One step of a linear recurrent unit.

        h' = lambda h + exp(log_gamma) (B x),    y = Re(C h') + D x

    with complex lambda = exp(-exp(log_nu) - exp(log_damping) + i exp(log_theta)), B and C, held as
    real and imaginary parts. The damping is one number for all lambda, small at the start: it
    scales the whole ring, and |lambda| stays below 1, under every dtype policy and wherever
    training moves it: lambda, gamma and h are float32 under lower ones, and an |lambda| that
    rounds to 1 is held 5e-7 below it. Moving the nu together instead would take the powers of all
    |lambda|, and leave of the spectrum its largest few. The state is the real and the imaginary
    part of h.

    Args:
        units: number of features of the output.
        state_units: number of complex state variables; `units` without it.
        min_radius: smallest |lambda| at the start.
        max_radius: largest |lambda| at the start, below 1; 0.999999 is the most that float32 keeps
            apart from 1.
        max_phase: largest angle of lambda at the start, in radians.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: the ring is empty, or not inside the unit circle as far as the dtype tells.

    Source: arXiv 2303.06349, section 3 and appendix A; the common damping is this project's.

    Example:
        >>> cell = LRUCell(4, state_units=8)
        >>> y, (real, imag) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(real.shape)
        ((1, 4), (1, 8))
    """

    def __init__(
        self,
        units: int,
        *,
        state_units: int | None = None,
        min_radius: float = 0.5,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
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
        self.min_radius = arguments.number("min_radius", min_radius, at_least=0, below=1)
        self.max_radius = arguments.number("max_radius", max_radius, above=0, below=1)
        if self.min_radius >= self.max_radius:
            raise ValueError(
                "The ring of eigenvalues needs 0 <= min_radius < max_radius < 1; got "
                f"min_radius={min_radius!r} and max_radius={max_radius!r}."
            )
        if 1.0 - self.max_radius < 2 * self._room:
            raise ValueError(
                f"max_radius must be at most 1 - {2 * self._room:.1e}, or {self.compute_dtype} "
                f"does not tell it from 1; got {max_radius!r}."
            )
        self.max_phase = arguments.number("max_phase", max_phase, above=0)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.state_size = [self.state_units, self.state_units]
        self.output_size = self.units

    @property
    def _room(self) -> float:
        return _ROOM * float(np.finfo(self.compute_dtype).eps)

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, inner = input_shape[-1], self.state_units
        generator = numpy_generator(self.seed)
        eigenvalues = (inner,)
        log_nu = ring.draw_log_nu(eigenvalues, generator, self.min_radius, self.max_radius)
        log_theta = ring.draw_log_theta(eigenvalues, generator, self.max_phase)
        log_gamma = ring.log_gamma(log_nu, self.max_radius)
        log_damping = np.log([ring.damping(self.max_radius)])

        def exactly(values: np.ndarray) -> Any:
            return lambda shape, **_: values.reshape(shape)

        def drawn(draw: Any) -> Any:
            return lambda shape, **_: draw(shape, generator)

        self.log_nu = self._add_parameter("log_nu", eigenvalues, exactly(log_nu))
        self.log_damping = self._add_parameter("log_damping", (1,), exactly(log_damping))
        self.log_theta = self._add_parameter("log_theta", eigenvalues, exactly(log_theta))
        self.log_gamma = self._add_parameter("log_gamma", eigenvalues, exactly(log_gamma))
        into, out = drawn(ring.draw_input), drawn(ring.draw_output)
        self.input_real = self._add_matrix("input_real", (features, inner), into)
        self.input_imag = self._add_matrix("input_imag", (features, inner), into)
        self.output_real = self._add_matrix("output_real", (inner, self.units), out)
        self.output_imag = self._add_matrix("output_imag", (inner, self.units), out)
        # One factor a feature, as published, where there are as many out as in.
        is_diagonal = features == self.units
        self.feedthrough = self._add_matrix(
            "feedthrough",
            (features,) if is_diagonal else (features, self.units),
            (lambda shape, **_: generator.standard_normal(shape)) if is_diagonal else out,
        )
        self.built = True

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """Returns the real and imaginary parts of lambda, each `(state_units,)`."""
        rates = ops.exp(self._value(self.log_nu)) + ops.exp(self._value(self.log_damping))
        # As a tensor: a number becomes one in the dtype of `floatx`, where this may round to 1.
        most = ops.convert_to_tensor(1.0 - self._room, dtype=self.compute_dtype)
        modulus = ops.exp(-rates)
        # `ops.minimum` makes float32 of float64 on torch.
        modulus = ops.where(modulus < most, modulus, most)
        cos, sin = backend.cos_and_sin(ops.exp(self._value(self.log_theta)))
        return modulus * cos, modulus * sin

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: real and imaginary part of h, each `(batch, state_units)`.
            training: has no effect.

        Returns:
            y `(batch, units)`, and the new states.
        """
        del training
        real, imag = self.eigenvalues()
        drive_real, drive_imag = self._drive(inputs)
        h_real, h_imag = self._states(states)
        new = [
            real * h_real - imag * h_imag + drive_real,
            real * h_imag + imag * h_real + drive_imag,
        ]
        return self._read_out(inputs, new), new

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        del training
        sequences = ops.swapaxes(sequences, 0, 1)
        decay, drive = self.eigenvalues(), self._drive(sequences)
        if mask is not None:
            keep = self._keep(mask)
            decay = (decay[0] * keep + (1.0 - keep), decay[1] * keep)
            drive = (drive[0] * keep, drive[1] * keep)
        start_real, start_imag = self._states(states)
        real, imag = complex_scan(decay, drive, (start_real, start_imag))
        outputs = self._read_out(sequences, [real, imag])
        return ops.swapaxes(outputs, 0, 1), [real[-1], imag[-1]]

    def _drive(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        gamma = ops.exp(self._value(self.log_gamma))
        parts = [self.input_real, self.input_imag]
        is_exact = self.product_dtype == self.compute_dtype
        if is_exact:
            # Scaling the weights is less work than scaling what they make of every step, but
            # weights so small would be lost in a lower dtype.
            parts = [self._value(part) * gamma for part in parts]
        # One product for both parts: reading the inputs once is faster.
        drive = self._product(inputs, ops.concatenate([self._factor(p) for p in parts], axis=1))
        real, imag = drive[..., : self.state_units], drive[..., self.state_units :]
        return (real, imag) if is_exact else (gamma * real, gamma * imag)

    def _read_out(self, inputs: Tensor, states: list[Tensor]) -> Tensor:
        inputs, feedthrough = self._factor(inputs), self._factor(self.feedthrough)
        outputs = project(self._factor(states[0]), self._factor(self.output_real))
        outputs = outputs - project(self._factor(states[1]), self._factor(self.output_imag))
        if len(feedthrough.shape) == 1:
            return outputs + feedthrough * inputs
        return outputs + project(inputs, feedthrough)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "state_units": self.state_units,
            "min_radius": self.min_radius,
            "max_radius": self.max_radius,
            "max_phase": self.max_phase,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LRU(SequenceLayer):
    """Linear recurrent units along a sequence, all steps at once.

    `LRU.cell` is the same unit for streaming: it takes one step after another, with the same
    weights.

    Args:
        units: number of features of the output.
        state_units: number of complex state variables; `units` without it.
        min_radius: smallest |lambda| at the start.
        max_radius: largest |lambda| at the start, below 1; 0.999999 is the most that float32 keeps
            apart from 1.
        max_phase: largest angle of lambda at the start, in radians.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2303.06349, section 3.

    Example:
        >>> layer = LRU(16, state_units=32, return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = LRUCell

    def __init__(
        self,
        units: int,
        *,
        state_units: int | None = None,
        min_radius: float = 0.5,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
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
            {
                "state_units": state_units,
                "min_radius": min_radius,
                "max_radius": max_radius,
                "max_phase": max_phase,
                "seed": seed,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )


# The layers that an LRUBlockCell is made of, by their names.
_PARTS = ("lru", "norm", "gate", "drop")


@keras.saving.register_keras_serializable(package="keras_lsc")
class LRUBlockCell(SequenceCell):
    """One step of the residual block around a linear recurrent unit.

        y = g x + dropout(GLU(dropout(GELU(LRU(norm(x))))))

    GLU(x) = (W x + b) sigmoid(V x + c). The gain g of the skip connection is one number, 1 at the
    start: without it the radius in depth, 1 + that of the branch, could never be below 1. The
    state is that of the linear recurrent unit.

    Args:
        units: number of features of the input and the output.
        dropout: fraction that is dropped, twice.
        epsilon: Small positive number of the layer normalisation.
        state_units: Number of complex states; None for as many as `units`.
        min_radius: smallest |lambda| at the start.
        max_radius: largest |lambda| at the start, below 1.
        max_phase: largest angle of lambda at the start, in radians.
        seed: integer of the initial weights and of dropout, or None.
        part_dtypes: dtype policies of those parts ("lru", "norm", "gate", "drop") that have
            another one than the block, by name; `quantize` gives the gate one. None for none.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: as `LRUCell` raises it; a dropout or epsilon outside its range; a dtype of an
            unknown part; the input has another number of features.

    Source: arXiv 2303.06349, figure 1; the gain of the skip connection is this project's.

    Example:
        >>> cell = LRUBlockCell(4)
        >>> y, states = cell(ops.ones((1, 4)), cell.get_initial_state(1))
        >>> tuple(y.shape), len(states)
        ((1, 4), 2)
    """

    def __init__(
        self,
        units: int,
        *,
        dropout: float = 0.0,
        epsilon: float = 1e-3,
        state_units: int | None = None,
        min_radius: float = 0.5,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
        seed: int | None = None,
        part_dtypes: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        policies = self._policies_of_parts({} if part_dtypes is None else part_dtypes)
        self.units = arguments.positive_integer("units", units)
        self.dropout = arguments.number("dropout", dropout, at_least=0, at_most=1)
        self.epsilon = arguments.number("epsilon", epsilon, above=0)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.lru = LRUCell(
            self.units,
            state_units=state_units,
            min_radius=min_radius,
            max_radius=max_radius,
            max_phase=max_phase,
            seed=self.seed,
            dtype=policies["lru"],
            name="lru",
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=policies["norm"], name="norm"
        )
        self.gate = keras.layers.Dense(
            2 * self.units,
            kernel_initializer=self._draw_glorot,
            dtype=policies["gate"],
            name="gate",
        )
        self.drop = keras.layers.Dropout(
            self.dropout, seed=self.seed, dtype=policies["drop"], name="drop"
        )
        self.state_size = self.lru.state_size
        self.output_size = self.units

    def _policies_of_parts(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict) or not set(given) <= set(_PARTS):
            raise ValueError(
                f"part_dtypes must be a dictionary of dtype policies with keys among "
                f"{', '.join(_PARTS)}, got {given!r}."
            )
        of_block = self.dtype_policy
        return {
            name: keras.dtype_policies.get(given[name]) if name in given else of_block
            for name in _PARTS
        }

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        if input_shape[-1] != self.units:
            raise ValueError(
                f"LRUBlock has a skip connection: its input needs {self.units} features, as its "
                f"output, but has {input_shape[-1]}. Put a Dense({self.units}) before it."
            )
        shape = (None, self.units)
        for layer in (self.lru, self.norm, self.gate):
            layer.build(shape)
        self.skip = self._add_matrix("skip", (1,), "ones")
        self.built = True

    def _draw_glorot(self, shape: tuple[int, int], dtype: Any = None) -> np.ndarray:
        del dtype
        return glorot_uniform(shape, numpy_generator(self.seed, stream=1))

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, units)`.
            states: real and imaginary part of h, each `(batch, state_units)`.
            training: whether dropout drops.

        Returns:
            y `(batch, units)`, and the new states.
        """
        inputs = self._factor(inputs)
        outputs, states = self.lru.call(self._normalized(inputs), states)
        return self._residual(inputs, outputs, training), states

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        sequences = self._factor(sequences)
        outputs, states = self.lru.run(self._normalized(sequences), states, mask, training)
        return self._residual(sequences, outputs, training), states

    def _normalized(self, inputs: Tensor) -> Tensor:
        if not backend.is_exporting():
            return self.norm(inputs)
        # The same in plain operations: torch's exporter refuses that of Keras' layer.
        x = self._value(inputs)
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return self._factor(x * self._value(self.norm.gamma) + self._value(self.norm.beta))

    def _residual(self, inputs: Tensor, outputs: Tensor, training: bool) -> Tensor:
        outputs = self.drop(ops.gelu(outputs), training=training)
        value, opening = ops.split(self.gate(outputs), 2, axis=-1)
        outputs = self.drop(value * ops.sigmoid(opening), training=training)
        return self._factor(self.skip) * inputs + self._factor(outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        of_lru = self.lru.get_config()
        names = ("state_units", "min_radius", "max_radius", "max_phase")
        serialize = keras.dtype_policies.serialize
        policies = {name: serialize(getattr(self, name).dtype_policy) for name in _PARTS}
        of_block = serialize(self.dtype_policy)
        others = {name: policy for name, policy in policies.items() if policy != of_block}
        return {
            **super().get_config(),
            "units": self.units,
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "seed": self.seed,
            **{name: of_lru[name] for name in names},
            **({"part_dtypes": others} if others else {}),
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class LRUBlock(SequenceLayer):
    """Norm, linear recurrent unit, GELU, dropout, GLU, dropout and a skip connection.

    To be stacked; its input has as many features as its output.

    Args:
        units: number of features.
        dropout: fraction that is dropped, twice.
        epsilon: Small positive number of the layer normalisation.
        state_units: number of complex states; None for as many as `units`.
        min_radius: smallest |lambda| at the start.
        max_radius: largest |lambda| at the start, below 1.
        max_phase: largest angle of lambda at the start, in radians.
        seed: integer of the initial weights and of dropout, or None.
        part_dtypes: dtype policies of those parts ("lru", "norm", "gate", "drop") that have
            another one than the block, by name; `quantize` gives the gate one. None for none.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: as `LRUBlockCell` raises it.

    Source: arXiv 2303.06349, figure 1.

    Example:
        >>> layer = LRUBlock(8, dropout=0.1, return_sequences=True)
        >>> layer(ops.ones((2, 50, 8))).shape == (2, 50, 8)
        True
    """

    cell_class = LRUBlockCell

    def __init__(
        self,
        units: int,
        *,
        dropout: float = 0.0,
        epsilon: float = 1e-3,
        state_units: int | None = None,
        min_radius: float = 0.5,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
        seed: int | None = None,
        part_dtypes: dict[str, Any] | None = None,
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
                "dropout": dropout,
                "epsilon": epsilon,
                "state_units": state_units,
                "min_radius": min_radius,
                "max_radius": max_radius,
                "max_phase": max_phase,
                "seed": seed,
                "part_dtypes": part_dtypes,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
