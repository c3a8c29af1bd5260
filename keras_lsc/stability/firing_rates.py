"""First firing rates: a constant current until as many neurons fire as gradients need."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.parametrization import is_bias
from keras_lsc.stability.placing import place
from keras_lsc.stability.recorder import is_spiking
from keras_lsc.stability.taps import leaves
from keras_lsc.stability.transitions import TransitionMap

Tensor = Any

# Firing rates between which a layer is left alone, and the one that others are given.
RATES = (0.02, 0.5)
_WANTED = 0.1
_SEQUENCES = 64
_FIRST_STEP, _LARGEST_STEP, _HALVINGS = 0.05, 1000.0, 10


def spiking_layers(model: keras.Model) -> list[keras.Layer]:
    """The recurrent layers of a model of any kind whose outputs are spikes, each once."""
    return [layer for layer in leaves(model) if is_recurrent(layer) and is_spiking(layer)]


def init_firing_rates(
    transition_map: TransitionMap, rows: list[np.ndarray], wanted: float | None = None
) -> None:
    """Gives silent and saturated layers a firing rate of 0.1, in place, by their biases alone.

    Or every layer the one that is wanted.

    The radii of a silent layer are those of the tail of its surrogate, and scales that are trained
    to please them make noise of the first spikes. A constant current, the same for all neurons,
    changes nothing else. Layers without biases, frozen ones, and such as no current brings to
    fire, are left. Constraints of the biases hold.

    Args:
        transition_map: Transitions of the model.
        rows: sequences, one array an input.
        wanted: firing rate of all layers; without it 0.1 of those that are silent or saturated.

    Source: arXiv 2202.00282 (the first firing rate is set by fitting the bias current alone).
    """
    layers = transition_map.spiking_layers
    if not layers:
        return
    rates = _FiringRates(transition_map)
    frozen = frozen_variables(transition_map.model)
    few = [array[:_SEQUENCES] for array in rows]
    # From the bottom: what a layer does is the input of those above. All calls of a layer that is
    # shared have the same biases.
    for layer in {id(layer): layer for layer in layers}.values():
        columns = [index for index, other in enumerate(layers) if other is layer]
        biases = [
            variable
            for variable in layer.trainable_variables
            if is_bias(variable) and id(variable) not in frozen
        ]
        if biases:
            _init_rate(biases, rates, few, columns, wanted)


def _init_rate(
    biases: list[Any],
    rates: keras.Model,
    rows: list[np.ndarray],
    columns: list[int],
    wanted: float | None,
) -> None:
    first = [np.array(ops.convert_to_numpy(bias)) for bias in biases]

    def rate_with(current: float) -> float:
        for bias, value in zip(biases, first, strict=True):
            place(bias, value + current)
        found, weights = (part[:, columns] for part in rates.predict_on_batch(rows))
        # Padding from end to end does not fire, whatever the current.
        return float((found * weights).sum() / max(weights.sum(), 1.0))

    start = rate_with(0.0)
    if wanted is None and RATES[0] <= start <= RATES[1]:
        return
    wanted = _WANTED if wanted is None else wanted
    sign = 1.0 if start < wanted else -1.0
    far = _FIRST_STEP
    while sign * (rate_with(sign * far) - wanted) < 0.0:
        far *= 2.0
        if far > _LARGEST_STEP:
            rate_with(0.0)
            return
    near = 0.0 if far == _FIRST_STEP else far / 2.0
    for _ in range(_HALVINGS):
        middle = (near + far) / 2.0
        if sign * (rate_with(sign * middle) - wanted) < 0.0:
            near = middle
        else:
            far = middle
    rate_with(sign * far)


class _FiringRates(keras.Model):
    """The firing rate of every spiking layer in every sequence, `(rows, layers)`, and its weight.

    The weight is 0 for a sequence without a valid step.
    """

    def __init__(self, transition_map: TransitionMap):
        super().__init__(name="firing_rates", autocast=False)
        self.model = transition_map.model
        self.transition_map = transition_map
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False

    def call(self, x: list[Tensor]) -> tuple[Tensor, Tensor]:
        anywhere = ops.zeros((ops.shape(x[0])[0],), dtype="float32")
        points = self.transition_map.sample(x, anywhere)
        ones = ops.ones_like(anywhere)
        weights = [ones if weight is None else weight for weight in points.firing_weights()]
        return ops.stack(points.firing_rates(), axis=-1), ops.stack(weights, axis=-1)
