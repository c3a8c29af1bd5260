"""stabilize reaches its target, on sequences it did not train on, or says why it did not."""

import os

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_lsc

TOLERANCE = 0.02
# Hundreds of updates, in which no backend has a part that the first tests do not have.
once = pytest.mark.once(on="jax")
DEEP = bool(os.environ.get("KERAS_LSC_DEEP"))
# A slice through the grid that benchmarks/grid.py runs as a whole.
SLICE = [
    ("lstm", 2, "variance", "scales"),
    ("tanh", 2, 1.0, "weights"),
    ("gru", 2, 0.5, "scales"),
    ("tanh", 2, 0.5, "scales"),
    ("relu", 2, "variance", "scales"),
    ("sigmoid", 5, "variance", "scales"),
    ("sigmoid", 2, "unbalanced", "scales"),
]


def network(cell, depth, units=32):
    keras.utils.set_random_seed(0)
    gated = {"lstm": layers.LSTM, "gru": layers.GRU}

    def layer(**options):
        if cell in gated:
            return gated[cell](units, **options)
        return layers.SimpleRNN(units, activation=cell, **options)

    stack = [layer(return_sequences=index < depth - 1) for index in range(depth)]
    return keras.Sequential([keras.Input((28, 28)), *stack, layers.Dense(10)])


@pytest.fixture(scope="module")
def digits(tfds_folder):
    """4,000 digits: radii of relu networks differ much from digit to digit."""
    return keras_lsc.datasets.load("smnist", limit=4000, data_dir=tfds_folder, download=False)[0]


def excess(report, target):
    """How far the worst transition is outside the tolerance, beyond three standard errors."""
    errors = {row.name: 3 * row.radius_std / report.samples**0.5 for row in report.transitions}
    deviations = report.deviations(target)
    return max(value - errors[name] for name, value in deviations.items()) - TOLERANCE


@pytest.mark.parametrize(
    ("cell", "depth", "target", "mode"),
    [SLICE[0], *(pytest.param(*options, marks=once) for options in SLICE[1:])],
)
def test_reaches_the_target_on_fresh_sequences(digits, cell, depth, target, mode):
    model = network(cell, depth)
    half = len(digits) // 2
    start = keras_lsc.measure(model, digits[:half], samples=256, gradient=False)
    report = keras_lsc.stabilize(model, digits[:half], target, mode=mode)
    assert report.max_deviation(target) <= TOLERANCE
    fresh = keras_lsc.measure(model, digits[half:], samples=512, seed=7, gradient=False)
    assert excess(fresh, target) <= 0
    if mode == "scales":
        for before, after in zip(start.transitions, fresh.transitions, strict=True):
            if after.kind != "input":
                assert after.isotropy == pytest.approx(before.isotropy, rel=0.2), after.name


@once
@pytest.mark.parametrize(
    ("activation", "depth"),
    [(ops.relu, 30), (ops.sin, 30 if DEEP else 10), *([(ops.cos, 30)] if DEEP else [])],
)
def test_deep_dense_layers(activation, depth, digits):
    keras.utils.set_random_seed(0)
    x = digits.reshape(len(digits), -1)
    x = (x - x.mean()) / x.std()
    stack = [layers.Dense(32, activation=activation) for _ in range(depth)]
    model = keras.Sequential([keras.Input((784,)), *stack, layers.Dense(10)])
    report = keras_lsc.stabilize(model, x[:2000], 1.0)
    assert report.max_deviation(1.0) <= TOLERANCE
    assert excess(keras_lsc.measure(model, x[2000:], samples=512, seed=7, gradient=False), 1.0) <= 0


@pytest.fixture(scope="module")
def noise():
    """Sequences alike at every step; the blank first rows of digits silence relu networks."""
    return np.random.default_rng(0).standard_normal((4000, 28, 28)).astype("float32")


def energies(cell, depth, target, noise):
    """The gradient grid of a network whose gains, not its radii, were driven to the target."""
    model = network(cell, depth, units=64)
    keras_lsc.stabilize(model, noise, target, radius="rms", tolerance=0.01, max_updates=800)
    return keras_lsc.gradient_grid(model, noise, samples=512)


@once
@pytest.mark.parametrize("cell", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("depth", [2, 6, *([16] if DEEP else [])])
def test_energies_are_level_where_the_squared_gains_add_up_to_one(cell, depth, noise):
    energy = energies(cell, depth, "variance", noise).energy_per_layer()
    np.testing.assert_allclose(energy / energy.mean(), 1.0, atol=0.25)


@once
@pytest.mark.parametrize("cell", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("target", [0.5, 1.0])
def test_energies_decay_or_grow_with_depth_as_the_law_says(cell, target, noise):
    grid = energies(cell, 4, target, noise)
    measured, predicted = grid.energy_per_layer(), grid.predicted_energy_per_layer()
    # From layer to layer, top to bottom: to a third at 0.5, to 7, 9 and 16 times as much at 1.
    rates = np.diff(np.log(measured))
    assert (rates > np.log(2)).all() if target == 0.5 else (rates < -np.log(4)).all()
    if (cell, target) != ("relu", 1.0):
        # The law multiplies mean gains. Those of relu differ from point to point, and growth
        # multiplies the difference: there the energies may grow faster.
        np.testing.assert_allclose(rates, np.diff(np.log(predicted)), rtol=0.2)


@pytest.mark.once
def test_failure_names_the_transition_and_restores_the_weights(digits):
    model = network("sigmoid", 2)
    before = model.get_weights()
    with pytest.raises(keras_lsc.NotStabilizedError, match="was still moving") as failure:
        keras_lsc.stabilize(model, digits, 1.0, max_updates=30, optimizer="adam")
    assert "simple_rnn" in str(failure.value)
    assert 'mode="weights"' in str(failure.value)
    assert failure.value.report.max_deviation(1.0) > TOLERANCE
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.once
def test_one_update_is_too_few_but_no_error_of_another_kind(digits):
    with pytest.raises(keras_lsc.NotStabilizedError):
        keras_lsc.stabilize(network("sigmoid", 2), digits, 1.0, max_updates=1)


def test_a_single_sequence_is_refused(digits):
    with pytest.raises(ValueError, match="single sequence"):
        keras_lsc.stabilize(network("tanh", 2), digits[:1])
