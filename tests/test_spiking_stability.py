"""Stability of spiking networks: firing rates beside the radii, and silence as a failure."""

import keras
import numpy as np
import pytest
from harness import mostly_once
from keras import ops

import keras_lsc
from keras_lsc import LSCPretrainer
from keras_lsc.stability.firing_rates import init_firing_rates
from keras_lsc.stability.transitions import TransitionMap


def spikes(rows=192, steps=20, features=30, rate=0.2):
    generator = np.random.default_rng(0)
    return (generator.random((rows, steps, features)) < rate).astype("float32")


def network(cell="lif", threshold=1.0, units=24, use_bias=True):
    keras.utils.set_random_seed(0)
    options = {"threshold": threshold, "use_bias": use_bias, "return_sequences": True}
    make = {"lif": keras_lsc.layers.LIF, "alif": keras_lsc.layers.ALIF}[cell]
    return keras.Sequential(
        [
            keras.Input((20, 30)),
            make(units, name="lower", **options),
            make(units, name="upper", **options),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(4),
        ]
    )


def test_firing_rates_are_the_mean_outputs_of_the_layers():
    model, x = network(), 3 * spikes(rows=64)
    report = keras_lsc.measure(model, x, samples=64, gradient=False)
    for name in ("lower", "upper"):
        layer = keras.Model(model.inputs, model.get_layer(name).output)
        rate = ops.convert_to_numpy(layer(x)).mean()
        assert report.firing_rates[name] == pytest.approx(rate, rel=1e-5)
    assert f"lower {report.firing_rates['lower']:.4f}" in str(report)
    assert report.to_dict()["firing_rates"] == report.firing_rates


def test_firing_rates_count_valid_steps_only():
    layer = keras_lsc.layers.LIF(24, return_sequences=True, name="only")
    upper = keras_lsc.layers.LIF(24, name="upper")
    inputs = keras.Input((20, 30))
    masked = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, upper(layer(masked)))
    x = 3 * spikes(rows=32)
    short = x[:, :10]
    x[:, 10:] = 0.0
    padded = keras_lsc.measure(model, x, samples=32, gradient=False).firing_rates["only"]
    assert padded == pytest.approx(ops.convert_to_numpy(layer(short)).mean(), rel=1e-5)


def test_models_without_spikes_have_no_firing_rates():
    model = keras.Sequential([keras.Input((20, 30)), keras.layers.GRU(4)])
    assert keras_lsc.measure(model, spikes(rows=8), samples=8).firing_rates == {}


def test_the_spikes_of_a_sampled_step_follow_the_weights():
    model, x = network(), 3 * spikes(rows=32)
    transition_map = TransitionMap(model)
    points = transition_map.sample([x], ops.convert_to_tensor(np.full(32, 0.99, "float32")))
    lower, upper = (ops.convert_to_numpy(layer) for layer in transition_map.spikes(points))
    for layer, name in ((lower, "lower"), (upper, "upper")):
        whole = keras.Model(model.inputs, model.get_layer(name).output)(x)
        np.testing.assert_array_equal(layer, ops.convert_to_numpy(whole)[:, -1])


@pytest.mark.once(on="jax")
@pytest.mark.parametrize("cell", ["lif", "alif"])
def test_a_silent_network_is_woken_and_stabilised(cell):
    model, x = network(cell), spikes(rows=768, rate=0.01)
    assert max(keras_lsc.measure(model, x, gradient=False).firing_rates.values()) < 0.001
    # So few neurons leave a mean radius uncertain; that it wakes them is the point here.
    report = keras_lsc.stabilize(model, x, "variance", batch_size=64, tolerance=0.05)
    assert min(report.firing_rates.values()) > 0.001
    assert max(report.firing_rates.values()) < 0.95


@pytest.mark.parametrize("current", [-0.5, 5.0], ids=["silent", "saturated"])
def test_waking_moves_all_biases_of_a_layer_alike_and_nothing_else(current):
    model, x = network(), spikes(rows=64)
    for layer in model.layers[:2]:
        layer.cell.bias.assign(current + np.linspace(0.0, 0.1, 24))
    biases = {layer.cell.bias.path for layer in model.layers[:2]}
    before = {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}
    init_firing_rates(TransitionMap(model), [x])
    for rate in keras_lsc.measure(model, x, samples=64, gradient=False).firing_rates.values():
        assert 0.08 < rate < 0.12
    for weight in model.weights:
        moved = ops.convert_to_numpy(weight) - before[weight.path]
        if weight.path in biases:
            np.testing.assert_allclose(moved, moved[0], rtol=1e-4)
            assert moved[0] * current < 0
        else:
            np.testing.assert_array_equal(moved, 0.0)


@pytest.mark.once
def test_layers_that_fire_are_not_woken():
    model, x = network(), 3 * spikes(rows=64)
    before = model.get_weights()
    assert min(keras_lsc.measure(model, x, gradient=False).firing_rates.values()) > 0.02
    init_firing_rates(TransitionMap(model), [x])
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("cell", mostly_once(["lif", "alif"], ["alif"]))
def test_the_height_of_the_surrogate_scales_gradients_and_no_outputs(cell):
    model, x = network(cell), 3 * spikes(rows=32)
    y, before = model(x), keras_lsc.measure(model, x, samples=32, gradient=False)
    for layer in model.layers[:2]:
        layer.cell.log_slope.assign([np.log(3.0)])
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (model(x), y)))
    after = keras_lsc.measure(model, x, samples=32, gradient=False)
    assert after.depth[1] == pytest.approx(3.0 * before.depth[1], rel=1e-4)


def test_mode_scales_moves_the_height_of_the_surrogate_and_mode_weights_does_not():
    model = network()
    moved = {
        mode: {
            r.weight.path for r in LSCPretrainer(model, mode=mode)._parametrization.reparametrized
        }
        for mode in ("scales", "weights")
    }
    slopes = {layer.cell.log_slope.path for layer in model.layers[:2]}
    assert slopes <= moved["scales"]
    assert not moved["weights"]
    free = {v.path for v in LSCPretrainer(model, mode="weights").trainable_variables}
    assert not slopes & free


@pytest.mark.once(on="jax")
def test_two_layers_reach_radius_one_with_their_spectra_kept():
    model = network(units=64)
    report = keras_lsc.stabilize(model, spikes(rows=768), 1.0, batch_size=64, tolerance=0.04)
    for row in report.transitions:
        if row.kind != "input":
            assert row.isotropy > 0.7


@pytest.mark.once
def test_silence_is_a_failure_that_names_the_layer():
    model = network(threshold=50.0, use_bias=False)
    with pytest.raises(keras_lsc.NotStabilizedError, match=r"lower is silent, with 0\.0000 spikes"):
        keras_lsc.stabilize(model, spikes(), "variance", tolerance=10.0, max_updates=1)
