"""Leaky recurrent units: closed forms of what they remember, and time constants of 1 or more."""

import keras
import numpy as np
import pytest
from harness import gradients, gradients_of_layer_and_steps, sequences, to_numpy
from keras import ops

import keras_lsc
from keras_lsc import layers
from keras_lsc.layers.leaky_rnn import AtLeastOne


def one_unit(tau, **options):
    """A linear unit that reads its input as it is."""
    layer = layers.LeakyRNN(
        1, tau=tau, activation="linear", kernel_initializer="ones", use_bias=False, **options
    )
    layer.build((None, None, 1))
    return layer


@pytest.mark.parametrize("tau", [1.0, 1.5, 30.0])
def test_an_impulse_decays_by_its_closed_form(tau):
    impulse = np.zeros((1, 40, 1), "float32")
    impulse[0, 0] = 1.0
    found = to_numpy(one_unit(tau, return_sequences=True)(impulse))[0, :, 0]
    expected = (1 - 1 / tau) ** np.arange(40) / tau
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_the_gradient_by_tau_is_its_closed_form():
    """Of constant input the unit holds h = 1 - (1 - 1/tau)^T."""
    tau, steps = 3.0, 6
    layer = one_unit(tau)
    x = np.ones((1, steps, 1), "float32")
    assert to_numpy(layer(x))[0, 0] == pytest.approx(1 - (1 - 1 / tau) ** steps, rel=1e-6)
    (_, found) = gradients(lambda x: ops.sum(layer(x)), [layer.cell.tau], x)
    expected = -steps * (1 - 1 / tau) ** (steps - 1) / tau**2
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_gradients_are_those_of_the_stepped_cell(rng):
    layer = layers.LeakyRNN(
        5, activation="tanh", return_sequences=True, recurrent_initializer="he_normal"
    )
    x = sequences(rng, batch=2, steps=6, features=3)
    layer.build(x.shape)

    names = ["input", *(w.name for w in layer.trainable_variables)]
    found, expected = gradients_of_layer_and_steps(layer, x)
    assert "tau" in names
    for name, one, other in zip(names, found, expected, strict=True):
        assert np.abs(other).max() > 1e-3, name
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)
    # No unit reads itself.
    by_recurrent = found[names.index("recurrent_kernel")]
    np.testing.assert_array_equal(np.diag(by_recurrent), 0.0)


@pytest.mark.once
def test_training_takes_tau_to_1_and_back_again():
    """The unit gives 1/tau after one step: of the answers 2 and 1/2 the nearest are at 1 and 2."""
    layer = one_unit(2.0)
    model = keras.Sequential([keras.Input((1, 1)), layer])
    layer.cell.kernel.trainable = layer.cell.recurrent_kernel.trainable = False
    x = np.ones((16, 1, 1), "float32")
    for answer, expected in ((2.0, 1.0), (0.5, 2.0)):
        model.compile(keras.optimizers.Adam(0.1), "mse")
        y = np.full((16, 1), answer, "float32")
        model.fit(x, y, batch_size=4, epochs=40, verbose=0)
        assert to_numpy(layer.cell.tau)[0] == pytest.approx(expected, rel=0.02)


def test_tau_is_at_least_1_whatever_is_drawn_or_set(rng):
    layer = layers.LeakyRNN(50, tau=keras.initializers.RandomUniform(-3.0, 5.0, seed=1))
    layer.build((None, 3, 2))
    tau = to_numpy(layer.cell.tau)
    assert tau.min() == 1.0 < tau.max()
    x = sequences(rng, batch=2, steps=5, features=2)
    layer.cell.tau.assign(np.ones(50))
    expected = to_numpy(layer(x))
    layer.cell.tau.assign(np.linspace(-1.0, 1.0, 50))
    np.testing.assert_array_equal(to_numpy(layer(x)), expected)
    assert np.isnan(to_numpy(AtLeastOne()(ops.convert_to_tensor([np.nan])))).all()


def test_time_constants_set_the_radius_in_time(rng):
    """Of linear units without recurrent weights every eigenvalue of a step is 1 - 1/tau."""
    units = layers.LeakyRNN(
        6, tau=5.0, activation="linear", recurrent_initializer="zeros", return_sequences=True
    )
    model = keras.Sequential([keras.Input((9, 3)), units])
    report = keras_lsc.measure(model, sequences(rng, batch=8, steps=9, features=3))
    (row,) = [row for row in report.transitions if row.kind == "time"]
    assert row.radius == pytest.approx(0.8, abs=1e-4)


def test_time_constants_take_part_in_pretraining(rng):
    """They are what moves the radius of units that do not read each other."""
    model = keras.Sequential(
        [keras.Input((9, 3)), layers.LeakyRNN(6, tau=2.0, recurrent_initializer="orthogonal")]
    )
    x = sequences(rng, batch=64, steps=9, features=3)
    report = keras_lsc.stabilize(model, x, 0.9, tolerance=0.05, max_updates=300, verbose=0)
    assert report.max_deviation(0.9) < 0.1
