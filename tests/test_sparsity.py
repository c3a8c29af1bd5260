"""The sparsity schedule, its penalties, and the gradient of EXODUS."""

import keras
import numpy as np
import pytest
from harness import gradients, to_numpy
from keras import layers, ops

from keras_lsc.callbacks import SparsitySchedule
from keras_lsc.layers import LIF, FiringRateRegularizer, LIFCell

X = np.random.default_rng(0).standard_normal((32, 30, 5)).astype("float32")


def network(rate=0.02, penalty="squared", optimizer="sgd"):
    model = keras.Sequential(
        [
            keras.Input((30, 5)),
            LIF(12, return_sequences=True),
            FiringRateRegularizer(rate, 50.0, penalty),
            LIF(12, return_sequences=True),
            FiringRateRegularizer(rate, 50.0, penalty),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    return model


def rates(model):
    below, found = ops.convert_to_tensor(X), []
    for layer in model.layers:
        below = layer(below)
        if isinstance(layer, LIF):
            found.append(float(to_numpy(below).mean()))
    return found


def test_layers_begin_at_the_initial_rate_and_the_switches_rise():
    model = network(optimizer=keras.optimizers.SGD(0.0))
    switches = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: switches.append(
            float(to_numpy(model.layers[1].switch.value))
        )
    )
    schedule = SparsitySchedule(X, initial_rate=0.4)
    model.fit(X, np.zeros((32, 1)), epochs=5, verbose=0, callbacks=[schedule, watch])
    # A step of the rate is one spike of 32 x 30 x 12, and the current is found to a thousandth.
    np.testing.assert_allclose(rates(model), 0.4, atol=0.02)
    np.testing.assert_allclose(switches, [0, 0, 0.5, 1, 1])


@pytest.mark.once(on="jax")
@pytest.mark.parametrize("penalty", ["squared", "kl"])
def test_the_rate_that_is_wanted_comes_in_the_end(penalty):
    model = network(rate=0.1, penalty=penalty, optimizer=keras.optimizers.Adam(0.02))
    schedule = SparsitySchedule(X, initial_rate=0.5)
    model.fit(X, np.zeros((32, 1)), epochs=40, batch_size=16, verbose=0, callbacks=[schedule])
    np.testing.assert_allclose(rates(model), 0.1, atol=0.05)


@pytest.mark.once
def test_the_kl_penalty_is_the_divergence_of_bernoulli_laws():
    for target, rate in ((0.1, 0.25), (0.0, 0.25), (1.0, 0.25), (0.25, 0.25)):
        layer = FiringRateRegularizer(target, 2.0, "kl")
        layer(ops.convert_to_tensor([[[1.0, 0.0], [0.0, 0.0]]]), training=True)
        law, found = np.array([target, 1 - target]), np.array([rate, 1 - rate])
        kept = law > 0
        expected = 2.0 * np.sum(law[kept] * np.log(law[kept] / found[kept]))
        assert float(to_numpy(layer.losses[0])) == pytest.approx(expected, abs=1e-6)
    silent = FiringRateRegularizer(0.1, penalty="kl")
    silent(ops.zeros((1, 2, 2)), training=True)
    assert np.isfinite(float(to_numpy(silent.losses[0])))
    assert FiringRateRegularizer.from_config(layer.get_config()).penalty == "kl"


@pytest.mark.once
def test_arguments_are_checked():
    with pytest.raises(ValueError, match="initial_rate"):
        SparsitySchedule(X, initial_rate=1.0)
    with pytest.raises(ValueError, match="penalty must be one of"):
        FiringRateRegularizer(penalty="l2")
    plain = keras.Sequential([keras.Input((30, 5)), LIF(3)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no FiringRateRegularizer"):
        plain.fit(X, np.zeros((32, 3)), verbose=0, callbacks=[SparsitySchedule(X)])


def voltages_back(cell, x, weights):
    """The gradient of sum(weights * z) by the currents, by the reverse scan of EXODUS in NumPy."""
    alpha = np.exp(-np.exp(-to_numpy(cell.log_tau.value).astype("float64")))
    kernel = to_numpy(cell.kernel.value).astype("float64")
    v, z, visited = np.zeros((len(x), cell.units)), np.zeros((len(x), cell.units)), []
    for t in range(x.shape[1]):
        v = alpha * v + x[:, t] @ kernel - z
        z = (v > 1.0).astype("float64")
        visited.append(v)
    adjoint, found = np.zeros_like(v), []
    for t in reversed(range(x.shape[1])):
        slope = 0.5 / np.square(1 + 2 * np.abs(visited[t] - 1.0))
        # d v_(t+1) / d v_t = alpha - theta s_t, as the reset follows the decay here.
        adjoint = slope * weights[:, t] + (alpha - slope) * adjoint
        found.append(adjoint)
    return np.stack(found[::-1], axis=1)


def test_without_recurrence_the_gradient_is_that_of_exodus_and_of_time():
    generator = np.random.default_rng(1)
    x = (3 * generator.standard_normal((4, 25, 3))).astype("float32")
    weights = generator.standard_normal((4, 25, 6)).astype("float32")
    layer = LIF(6, recurrent=False, use_bias=False, tau=4.0, return_sequences=True)
    layer.build((None, 25, 3))
    cell = LIFCell(6, recurrent=False, use_bias=False, tau=4.0)
    stepped = layers.RNN(cell, return_sequences=True)
    stepped.build((None, 25, 3))
    stepped.set_weights(layer.get_weights())
    assert 0.05 < to_numpy(layer(x)).mean() < 0.95
    by, given_back = [], ops.convert_to_tensor(weights)
    for each in (layer, stepped):
        kernel = each.cell.kernel
        found = gradients(lambda given, e=each: ops.sum(e(given) * given_back), [kernel], x)
        by.append(found)
    scan = voltages_back(layer.cell, x.astype("float64"), weights.astype("float64"))
    expected = np.einsum("btf,btu->fu", x.astype("float64"), scan)
    size = np.abs(expected).max()
    for k in range(2):
        np.testing.assert_allclose(by[0][k], by[1][k], atol=1e-6 * max(size, 1))
    np.testing.assert_allclose(by[0][1], expected, atol=2e-6 * size)
