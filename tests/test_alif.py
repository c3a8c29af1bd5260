"""Adaptive LIF neurons: the loop, the adaptation's law, and back-propagation."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from test_lif import RESETS, UNITS, check_gradients, draw, numpy_lif, randomized

from keras_lsc import layers


@pytest.mark.parametrize("refractory", [0, 2])
@pytest.mark.parametrize("recurrent", [True, False], ids=["recurrent", "feedforward"])
@pytest.mark.parametrize("reset", RESETS)
def test_is_the_loop_step_by_step(rng, reset, recurrent, refractory):
    layer = layers.ALIF(
        UNITS,
        return_sequences=True,
        reset=reset,
        recurrent=recurrent,
        refractory=refractory,
        tau_adaptation=6.0,
    )
    x = draw(rng, scale=3.0)
    spikes, _ = numpy_lif(randomized(layer, rng), x)
    assert 0.05 < spikes.mean() < 0.9
    np.testing.assert_array_equal(to_numpy(layer(x)), spikes)


@pytest.mark.parametrize(
    "options",
    [
        {"reset": "subtractive"},
        {"reset": "subtractive", "recurrent": False, "refractory": 1},
        {"reset": "multiplicative-1", "reset_gradient": False},
        {"reset": "multiplicative-2", "output": "voltage", "surrogate": "exponential"},
    ],
    ids=str,
)
def test_gradients_are_back_propagation(rng, options):
    layer = layers.ALIF(
        UNITS, return_sequences=True, tau_adaptation=4.0, trainable_threshold=True, **options
    )
    check_gradients(randomized(layer, rng), layers.ALIFCell, rng, rtol=1e-5)


def test_without_beta_it_is_lif(rng):
    adaptive = randomized(layers.ALIF(UNITS, return_sequences=True), rng)
    adaptive.cell.beta.assign(np.zeros(UNITS))
    plain = layers.LIF(UNITS, return_sequences=True)
    x = draw(rng)
    plain.build(x.shape)
    of_plain = {weight.name for weight in plain.weights}
    for weight in plain.weights:
        (same,) = [w for w in adaptive.weights if w.name == weight.name]
        weight.assign(to_numpy(same))
    assert {w.name for w in adaptive.weights} - of_plain == {"beta", "log_tau_adaptation"}
    np.testing.assert_array_equal(to_numpy(adaptive(x)), to_numpy(plain(x)))


def test_adaptation_is_the_running_rate_and_lowers_it():
    """Under a constant current the adaptation tends to the firing rate, beta times it to theta."""
    drive = np.ones((1, 3000, 1), "float32")
    rates = {}
    for beta in (0.0, 4.0):
        layer = layers.ALIF(
            1,
            beta=beta,
            tau=5.0,
            tau_adaptation=200.0,
            recurrent=False,
            kernel_initializer="ones",
            return_sequences=True,
            return_state=True,
        )
        inputs = keras.Input(drive.shape[1:])
        # In a compiled program: TensorFlow takes seconds over so many steps one by one.
        spikes, _, adaptation = keras.Model(inputs, layer(inputs)).predict_on_batch(drive)
        rates[beta] = spikes[0, -1000:].mean()
        # A mean over 200 steps of spikes a few steps apart ripples by a few hundredths.
        assert adaptation[0, 0] == pytest.approx(rates[beta], abs=0.02)
    assert 0.0 < rates[4.0] < 0.8 * rates[0.0]
