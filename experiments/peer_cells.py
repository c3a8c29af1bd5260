"""The neuron that other simulators start with, where no layer of the package has its step."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_lsc.layers import Surrogate

Tensor = Any


class NeuronCell(keras.Layer):
    """One step of leaky integrate-and-fire neurons, with a synaptic current and full recurrence.

    With z the spikes of the step before, i the synaptic current and c what comes in:

        c  = W x + R z + b
        i' = synapse i + c                   (i' = c without a synapse)
        u' = decay u - theta z + gain i'     reset "subtract"
        u' = decay u (1 - z) + gain i'       reset "zero"

    and spikes H(u' - theta). Beyond `keras_lsc.layers.LIF` it has the current, which is a second
    state, neurons that are connected with themselves, and a decay of any number from 0 to 1.

    Args:
        units: number of neurons.
        reset: "subtract" or "zero".
        reset_gradient: whether a gradient passes through the reset.
        surrogate: of the spikes' gradient.
        recurrent: whether there are recurrent weights.
        synapse: decay of the synaptic current a step; None for no such state.
        gain: of the current.
    """

    is_spiking = True
    threshold = 1.0

    def __init__(
        self,
        units: int,
        *,
        reset: str,
        reset_gradient: bool,
        surrogate: Surrogate,
        recurrent: bool,
        synapse: float | None = None,
        gain: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = units
        self.reset = reset
        self.reset_gradient = reset_gradient
        self.surrogate = surrogate
        self.recurrent = recurrent
        self.synapse = synapse
        self.gain = gain
        self.state_size = [units] if synapse is None else [units, units]
        self.output_size = units

    def build(self, input_shape: tuple) -> None:
        """Makes the weights; they are to be assigned."""
        units = self.units
        self.kernel = self.add_weight(shape=(input_shape[-1], units), name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.decay = self.add_weight(shape=(units,), name="decay")
        if self.recurrent:
            self.recurrent_kernel = self.add_weight(shape=(units, units), name="recurrent_kernel")
        self.built = True

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the spikes `(batch, units)` and the new states."""
        del training
        u = states[0]
        z = self._spikes(u)
        current = ops.matmul(inputs, self.kernel) + self.bias
        if self.recurrent:
            current = current + ops.matmul(z, self.recurrent_kernel)
        if self.synapse is not None:
            current = self.synapse * states[1] + current
        resetting = z if self.reset_gradient else ops.stop_gradient(z)
        if self.reset == "zero":
            left = self.decay * u * (1.0 - resetting)
        else:
            left = self.decay * u - self.threshold * resetting
        new = left + self.gain * current
        return self._spikes(new), [new, current][: len(states)]

    def _spikes(self, u: Tensor) -> Tensor:
        return self.surrogate(u - self.threshold)
