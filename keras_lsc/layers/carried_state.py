"""A recurrent layer whose state continues from batch to batch, on every backend."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_lsc")
class CarriedState(keras.layers.Wrapper):
    """Wraps a recurrent layer so that each batch begins with the state that the last one ended in.

    It is what `stateful=True` promises. In Keras 3.15 that is carried by `fit` and `evaluate` on
    TensorFlow only: on JAX every batch silently begins at zero, and on torch LSTM and GRU fail to
    train (keras issue 23462). Here the state is a non-trainable weight of the layer, which every
    backend carries, and which is saved with the model. No gradient passes from batch to batch.

    Args:
        layer: a `keras.layers.RNN`: SimpleRNN, LSTM, GRU, or RNN with a cell of one's own. It is
            made to return its states, and must not be `stateful` itself.

    Raises:
        TypeError: the layer is no `keras.layers.RNN`.
        ValueError: the layer is stateful itself, or the size of the batches is not fixed.

    Example:
        >>> import keras
        >>> from keras_lsc import layers
        >>> model = keras.Sequential(
        ...     [
        ...         keras.Input(batch_shape=(20, None), dtype="int32"),
        ...         keras.layers.Embedding(65, 16),
        ...         layers.CarriedState(keras.layers.GRU(32, return_sequences=True)),
        ...         keras.layers.Dense(65),
        ...     ]
        ... )
        >>> model.output_shape
        (20, None, 65)
    """

    # Tells `keras_lsc.callbacks.ResetStates` that there is something to reset.
    stateful = True

    def __init__(self, layer: keras.layers.RNN, **kwargs: Any):
        if not isinstance(layer, keras.layers.RNN):
            raise TypeError(
                f"CarriedState wraps a keras.layers.RNN, got {type(layer).__name__}; wrap the two "
                "layers of a Bidirectional by themselves: only the forward one can be carried."
            )
        if layer.stateful:
            raise ValueError(f"the layer {layer.name!r} is stateful itself; use stateful=False.")
        super().__init__(layer, **kwargs)
        layer.return_state = True
        self.supports_masking = True
        self._states: list[Any] = []
        self._batch = 0

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes a weight for every state tensor, zero to begin with."""
        if input_shape[0] is None:
            raise ValueError(
                f"CarriedState needs batches of a fixed size, got inputs of shape {input_shape}; "
                "give it with keras.Input(batch_shape=(batch, steps, ...))."
            )
        super().build(input_shape)
        self._batch = input_shape[0]
        initial = self.layer.get_initial_state(input_shape[0])
        self._states = [
            self.add_weight(
                shape=state.shape,
                initializer="zeros",
                trainable=False,
                dtype=keras.backend.standardize_dtype(state.dtype),
                name=f"state_{index}",
            )
            for index, state in enumerate(keras.tree.flatten(initial))
        ]

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        """Runs the layer from the carried state, and keeps the state it ends in."""
        # A copy, because torch would find the state changed when it goes back through this batch.
        begin = [ops.copy(ops.convert_to_tensor(state)) for state in self._states]
        # Stacked cells have a list of states each.
        structure = self.layer.get_initial_state(self._batch)
        begin = keras.tree.pack_sequence_as(structure, begin)
        outputs, *end = self.layer(inputs, initial_state=begin, training=training, mask=mask)
        for state, value in zip(self._states, keras.tree.flatten(end), strict=True):
            state.assign(ops.cast(ops.stop_gradient(value), state.dtype))
        return outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """Returns the shape of the outputs, without that of the states."""
        return self.layer.compute_output_shape(input_shape)[0]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Passes the mask on where there are outputs at every step."""
        del inputs
        return mask if self.layer.return_sequences else None

    def reset_state(self) -> None:
        """Sets the carried state to zero."""
        for state in self._states:
            state.assign(ops.zeros(state.shape, state.dtype))
