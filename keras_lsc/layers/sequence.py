"""Recurrent layers whose cell can take a whole sequence at once."""

from typing import Any

import keras
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.layers.precision import PreciseLayer, cast

Tensor = Any


class SequenceCell(PreciseLayer):
    """A Keras cell that also has `run`, the same as its steps but for a whole sequence.

    A subclass sets `units`, `state_size`, `output_size`, `call` and `run`.

    Args:
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns what the cell returns at every step, and its last states.

        Args:
            sequences: `(batch, T, features)`.
            states: the states before the first step.
            mask: `(batch, T)` booleans; a step where it is False leaves the states as they are,
                and its output is not used. None for none.
            training: whether dropout drops.

        Returns:
            `(batch, T, output_size)` in the `product_dtype`, and the list of states after the
            last step.
        """
        raise NotImplementedError

    def get_initial_state(self, batch_size: int | Tensor | None = None) -> list[Tensor]:
        """Returns zeros, one `(batch_size, size)` tensor a state."""
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def _keep(self, mask: Tensor) -> Tensor:
        """1 where a step is taken and 0 where it is skipped, `(T, batch, 1)`."""
        return ops.expand_dims(ops.cast(ops.swapaxes(mask, 0, 1), self.compute_dtype), -1)


class SequenceLayer(keras.layers.RNN):
    """`keras.layers.RNN` over a `SequenceCell`, run by the cell's `run` instead of its steps.

    Args:
        units: number of features of the output.
        options: Options of the cell, by name.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    # A `SequenceCell` that is made from its number of units.
    cell_class: type[Any]

    def __init__(
        self,
        units: int,
        options: dict[str, Any],
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        flags = {
            "return_sequences": return_sequences,
            "return_state": return_state,
            "go_backwards": go_backwards,
            "stateful": stateful,
            "zero_output_for_mask": zero_output_for_mask,
        }
        if kwargs.get("dtype") is not None:
            # One object for both: Keras notes the quantisation of a part in the map it came from.
            kwargs["dtype"] = keras.dtype_policies.get(kwargs["dtype"])
        shared = {name: kwargs[name] for name in ("dtype", "trainable") if name in kwargs}
        super().__init__(
            # Without a name the paths of weights would count the layers of the process.
            self.cell_class(units, **options, **shared, name="cell"),
            # The cell casts what it is given; of the states nothing may be lost before that.
            autocast=False,
            **{name: arguments.flag(name, value) for name, value in flags.items()},
            **kwargs,
        )
        self.input_spec = keras.InputSpec(ndim=3)
        # Said outright, because Keras' own recurrent layers drop masks from 3.16 on.
        self.supports_masking = True

    @property
    def units(self) -> int:
        """Number of features of the output."""
        return self.cell.units

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Runs the layer.

        Args:
            sequences: `(batch, T, features)`.
            initial_state: the states before the first step, of any dtype; None for zeros or, if
                the layer is stateful, for the last ones of the batch before.
            mask: `(batch, T)` booleans, or None.
            training: whether dropout drops.

        Returns:
            The outputs of all steps or of the last one, in the compute dtype; if `return_state`,
            a tuple of them and of the last states, which are float32 (float64 under float64).

        Raises:
            ValueError: the layer is stateful and was built for another number of sequences.
        """
        if self.stateful:
            self._check_batch_size(sequences)
        if initial_state is None:
            initial_state = (
                self.states
                if self.stateful
                else self.cell.get_initial_state(ops.shape(sequences)[0])
            )
        if not isinstance(initial_state, list | tuple):
            initial_state = [initial_state]
        states = [
            cast(ops.convert_to_tensor(state), self.cell.compute_dtype) for state in initial_state
        ]
        last_output, outputs, states = self.inner_loop(sequences, states, mask, training)
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
        output = outputs if self.return_sequences else last_output
        return (output, *states) if self.return_state else output

    def _check_batch_size(self, sequences: Tensor) -> None:
        built, given = self.states[0].shape[0], sequences.shape[0]
        if given is not None and given != built:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} is stateful and keeps the states of {built} "
                f"sequences; got {given}. Feed batches of {built}, with no smaller one at the end."
            )

    def build(self, sequences_shape: tuple, initial_state_shape: Any = None) -> None:
        """Makes the weights and, if the layer is stateful, the variables of the states."""
        are_new, dtype = self.states is None, self.cell.compute_dtype
        super().build(sequences_shape, initial_state_shape)
        if not (self.stateful and are_new):
            return
        # Those of Keras have the policy's dtype, which may be too low to hold a state, and under
        # a mixed policy torch assigns to a cast copy of them.
        for k, state in enumerate(self.states):
            self.states[k] = keras.Variable(
                ops.zeros(state.shape, dtype),
                dtype=dtype,
                trainable=False,
                autocast=False,
                name="rnn_state",
            )

    def compute_mask(self, _inputs: Any, mask: Any = None) -> Any:
        """Returns the mask of the outputs: that of the inputs, if all steps are returned."""
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        mask = mask if self.return_sequences else None
        return [mask, *(None for _ in self.state_size)] if self.return_state else mask

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns shapes and dtypes of what `call` returns."""
        spec = super().compute_output_spec(*args, **kwargs)
        if not self.return_state:
            return spec
        output, *states = spec
        dtype = self.cell.compute_dtype
        return output, *(keras.KerasTensor(state.shape, dtype=dtype) for state in states)

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Returns the last output, all outputs and the last states."""
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        states = list(initial_state)
        if self.stateful:
            # The state variables are written to in place before the gradient is taken.
            states = [ops.copy(state) for state in states]
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        if mask is not None:
            mask = ops.cast(mask, "bool")
        outputs, states = self.cell.run(sequences, states, mask, training)
        if mask is not None:
            outputs = _at_masked_steps(outputs, mask, self.zero_output_for_mask)
        return outputs[:, -1], outputs, states

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["cell"], config["unroll"]
        cell = self.cell.get_config()
        return {**cell, **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SequenceLayer":
        """Makes a layer from `get_config`."""
        return cls(**config)


def _at_masked_steps(outputs: Tensor, mask: Tensor, zero: bool) -> Tensor:
    """Repeats at masked steps the output before them; zeros, if so asked or if there is none."""
    if zero:
        return outputs * ops.cast(ops.expand_dims(mask, -1), outputs.dtype)
    steps = ops.cast(mask, "int32") * ops.arange(1, ops.shape(mask)[1] + 1, dtype="int32")
    steps = ops.swapaxes(steps, 0, 1)
    (latest,) = backend.running_states(
        lambda before, here: (ops.maximum(before[0], here[0]),),
        (ops.zeros_like(steps[0]),),
        (steps,),
    )
    latest = ops.swapaxes(latest, 0, 1)
    # Rows of a table, because ONNX has no word for `take_along_axis`.
    batch, length = ops.shape(mask)
    first = ops.expand_dims(ops.arange(batch, dtype="int32") * length, -1)
    table = ops.reshape(outputs, (-1, outputs.shape[-1]))
    has_one = latest > 0
    repeated = ops.take(table, first + latest - ops.cast(has_one, "int32"), axis=0)
    return repeated * ops.cast(ops.expand_dims(has_one, -1), outputs.dtype)
