"""Wakes spiking layers: a constant current until as many neurons fire as gradients need."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.scales import is_bias
from keras_lsc.stability.transitions import TransitionMap

Tensor = Any

# Firing rates between which a layer is left alone, and the one that others are given.
RATES = (0.02, 0.5)
_WOKEN = 0.1
_SEQUENCES = 64
_FIRST_STEP, _LARGEST_STEP, _HALVINGS = 0.05, 1000.0, 10


def wake(transition_map: TransitionMap, rows: list[np.ndarray]) -> None:
    """Gives silent and saturated layers a firing rate of 0.1, in place, by their biases alone.

    The radii of a silent layer are those of the tail of its surrogate, and scales that are moved
    to please them make noise of the first spikes. A constant current, the same for all neurons,
    changes nothing else. Layers without biases, frozen ones, and such as no current brings to
    fire, are left. Constraints of the biases hold.

    Args:
        transition_map: of the model.
        rows: sequences, one array an input.

    Source: arXiv 2202.00282 (the first firing rate is set by fitting the bias current alone).
    """
    layers = transition_map.spiking_layers
    if not layers:
        return
    rates = _FiringRates(transition_map)
    frozen = frozen_variables(transition_map.model)
    few = [array[:_SEQUENCES] for array in rows]
    # From the bottom: what a layer does is the input of those above.
    for index, layer in enumerate(layers):
        biases = [
            variable
            for variable in layer.trainable_variables
            if is_bias(variable) and id(variable) not in frozen
        ]
        if biases:
            _wake(biases, rates, few, index)


def _wake(biases: list[Any], rates: keras.Model, rows: list[np.ndarray], index: int) -> None:
    first = [np.array(ops.convert_to_numpy(bias)) for bias in biases]

    def rate_with(current: float) -> float:
        for bias, value in zip(biases, first, strict=True):
            bias.assign(value + current)
            if bias.constraint is not None:
                bias.assign(bias.constraint(bias.value))
        return float(rates.predict_on_batch(rows)[:, index].mean())

    start = rate_with(0.0)
    if RATES[0] <= start <= RATES[1]:
        return
    sign = 1.0 if start < RATES[0] else -1.0
    far = _FIRST_STEP
    while sign * (rate_with(sign * far) - _WOKEN) < 0.0:
        far *= 2.0
        if far > _LARGEST_STEP:
            rate_with(0.0)
            return
    near = 0.0 if far == _FIRST_STEP else far / 2.0
    for _ in range(_HALVINGS):
        middle = (near + far) / 2.0
        if sign * (rate_with(sign * middle) - _WOKEN) < 0.0:
            near = middle
        else:
            far = middle
    rate_with(sign * far)


class _FiringRates(keras.Model):
    """The firing rate of every spiking layer in every sequence, `(rows, layers)`."""

    def __init__(self, transition_map: TransitionMap):
        super().__init__(name="firing_rates")
        self.model = transition_map.model
        self.transition_map = transition_map
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False

    def call(self, x: list[Tensor]) -> Tensor:
        anywhere = ops.zeros((ops.shape(x[0])[0],), dtype="float32")
        return ops.stack(self.transition_map.sample(x, anywhere).firing_rates(), axis=-1)
