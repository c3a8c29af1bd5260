"""Flossing: leading exponents go to zero, on sequences that it was not done on."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc.zoo.networks import orthogonal

STEPS, UNITS = 30, 12


def sequences(rows=768, seed=0):
    noise = np.random.default_rng(seed).standard_normal((rows, STEPS, 3))
    return 0.3 * noise.astype("float32")


def network(scale, layer=layers.SimpleRNN, depth=1):
    keras.utils.set_random_seed(0)
    stack = [layer(UNITS, return_sequences=k < depth - 1) for k in range(depth)]
    model = keras.Sequential([keras.Input((STEPS, 3)), *stack, layers.Dense(2)])
    for k in range(depth):
        kernel = model.layers[k].cell.recurrent_kernel
        blocks = kernel.shape[1] // UNITS
        drawn = [orthogonal((UNITS, UNITS), np.random.default_rng([k, b])) for b in range(blocks)]
        kernel.assign(scale * np.concatenate(drawn, axis=1))
    return model


@pytest.mark.parametrize(
    ("scale", "k", "rate"), [(0.5, 3, 0.01), pytest.param(4.0, 1, 0.02, marks=pytest.mark.once)]
)
def test_exponents_go_to_zero(scale, k, rate):
    model = network(scale)
    head = to_numpy(model.layers[-1].kernel)
    # What 64 sequences tell of chaos differs by some hundredths from what 64 others tell.
    fresh = sequences(seed=1)
    before = keras_lsc.lyapunov(model, fresh, k, samples=256).exponents[0]
    options = {"exponents": k, "learning_rate": rate, "max_updates": 1500}
    report = keras_lsc.stabilize(model, sequences(), method="flossing", **options)
    found = keras_lsc.lyapunov(model, fresh, k, samples=256)
    after, error = found.exponents[0], max(found.errors[0])
    assert np.abs(after).max() < 0.1 < np.abs(before).max()
    np.testing.assert_allclose(report.exponents.exponents[0], after, atol=4 * max(error, 0.005))
    np.testing.assert_array_equal(to_numpy(model.layers[-1].kernel), head)


def test_the_gradient_is_that_of_differences():
    """Of a linear recurrence the exponents do not depend on the states."""
    from keras_lsc.flossing import Flosser

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((STEPS, 3)), layers.SimpleRNN(4, activation="linear", use_bias=False)]
    )
    kernel = model.layers[0].cell.recurrent_kernel
    start = np.diag([0.9, 0.6, 0.4, 0.2]) + 0.1 * orthogonal((4, 4), np.random.default_rng(0))
    kernel.assign(start)
    flosser = Flosser(model, 2)
    inputs = [sequences(4), *flosser.probe.draw(4, np.random.default_rng(0))]
    tensors = [keras.ops.convert_to_tensor(part) for part in inputs]

    def loss():
        return flosser.compute_loss(y_pred=flosser(tensors))

    from keras_lsc import backend

    (found,) = backend.gradients(loss, [kernel])
    found = to_numpy(found)
    for row, column in ((0, 0), (1, 1), (0, 2)):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[row, column] += sign * 1e-3
            kernel.assign(moved)
            sides.append(float(to_numpy(loss())))
        kernel.assign(start)
        assert found[row, column] == pytest.approx((sides[0] - sides[1]) / 2e-3, rel=0.03, abs=0.02)


@pytest.mark.once
def test_gated_layers_and_frozen_ones():
    model = network(1.0, layers.GRU, depth=2)
    model.layers[0].trainable = False
    frozen = [to_numpy(weight) for weight in model.layers[0].weights]
    keras_lsc.stabilize(
        model, sequences(), method="flossing", exponents=1, tolerance=1.0, max_updates=20
    )
    for weight, value in zip(model.layers[0].weights, frozen, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


@pytest.mark.once
def test_failure_gives_the_weights_back():
    model = network(0.5)
    before = [to_numpy(weight) for weight in model.weights]
    with pytest.raises(keras_lsc.NotFlossedError, match="after 4 updates") as failure:
        keras_lsc.stabilize(model, sequences(), method="flossing", max_updates=4)
    assert len(failure.value.exponents.exponents[0]) == 4
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


@pytest.mark.once
def test_exponents_in_a_report():
    model, x = network(0.5), sequences()
    report = keras_lsc.measure(model, x, samples=4, exponents=2)
    assert report.exponents == keras_lsc.lyapunov(model, x, 2)
    again = keras_lsc.StabilityReport.from_dict(report.to_dict())
    assert again.exponents.exponents == report.exponents.exponents
    for text in (str(report), report._repr_html_()):
        assert f"{report.exponents.exponents[0][0]:+.4f}" in text


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"exponents": 0}, "exponents"),
        ({"target": 1.0}, 'target=1.0 is of method="lsc"'),
        ({"growth": 1.2}, 'growth=1.2 is of method="level"'),
        ({"learning_rate": 0}, "learning_rate"),
        ({"method": "lsc", "exponents": 2}, 'exponents=2 is of method="flossing"'),
    ],
    ids=str,
)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        keras_lsc.stabilize(network(0.5), sequences(), **{"method": "flossing", **options})


@pytest.mark.once
def test_feed_forward_and_frozen_models_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    with pytest.raises(ValueError, match="feed-forward"):
        keras_lsc.stabilize(model, np.zeros((8, 4)), method="flossing")
    model = network(0.5)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="every recurrent layer is frozen"):
        keras_lsc.stabilize(model, sequences(), method="flossing")
