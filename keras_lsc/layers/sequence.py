"""Recurrent layers whose cell can take a whole sequence at once."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_lsc import backend

Tensor = Any


class SequenceCell(keras.Layer):
    """A Keras cell that also has `run`, the same as its steps but for a whole sequence.

    A subclass sets `units`, `state_size`, `output_size`, `call` and `run`.
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
            `(batch, T, output_size)` and the list of states after the last step.
        """
        raise NotImplementedError

    def get_initial_state(self, batch_size: int | Tensor | None = None) -> list[Tensor]:
        """Returns zeros, one `(batch_size, size)` tensor a state."""
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def _value(self, variable: Any) -> Tensor:
        return ops.cast(variable, self.compute_dtype)


class SequenceLayer(keras.layers.RNN):
    """`keras.layers.RNN` over a `SequenceCell`, run by the cell's `run` instead of its steps."""

    cell_class: type[SequenceCell]

    def __init__(
        self,
        units: int,
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        **options: Any,
    ):
        known = _options_of(self.cell_class)
        of_cell = {name: value for name, value in options.items() if name in known}
        of_layer = {name: value for name, value in options.items() if name not in known}
        for name in ("dtype", "trainable"):
            if name in of_layer:
                of_cell[name] = of_layer[name]
        super().__init__(
            self.cell_class(units, **of_cell),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **of_layer,
        )
        self.input_spec = keras.InputSpec(ndim=3)

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
        """Runs the layer, as `keras.layers.RNN.call`."""
        return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

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
    latest = ops.expand_dims(ops.swapaxes(latest, 0, 1), -1)
    repeated = ops.take_along_axis(outputs, ops.maximum(latest - 1, 0), axis=1)
    return repeated * ops.cast(latest > 0, outputs.dtype)


def _options_of(cell_class: type[SequenceCell]) -> set[str]:
    """Names of the arguments of a cell, those that it hands to the class it extends included."""
    options = set()
    for part in cell_class.__mro__[: cell_class.__mro__.index(SequenceCell)]:
        for name, parameter in inspect.signature(part).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                options.add(name)
    return options


def project(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiplies the last axis of `(..., n)` by an `(n, m)` matrix, as one product."""
    if len(x.shape) == 2:
        return x @ matrix
    sizes = [-1 if size is None else size for size in x.shape[:-1]]
    if sizes.count(-1) > 1:
        sizes = list(ops.shape(x)[:-1])
    return ops.reshape(ops.reshape(x, (-1, x.shape[-1])) @ matrix, (*sizes, matrix.shape[-1]))
