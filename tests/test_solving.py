"""Scales that are solved for: Broyden's method, what the numbers do, and where it ends."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lsc
from keras_lsc.stability.broyden import Broyden
from keras_lsc.stability.scales import Scales
from keras_lsc.stability.transitions import TransitionMap


@pytest.mark.once
def test_a_step_is_the_damped_least_squares_solution_of_least_norm(rng):
    jacobian, residuals = rng.normal(size=(3, 5)), rng.normal(size=3)
    weights = np.array([1.0, 0.5, 2.0])
    rows = weights[:, None] * jacobian
    damping = 0.01 * np.square(rows).sum() / 3
    # Tikhonov's problem, as ordinary least squares.
    wanted = np.linalg.lstsq(
        np.vstack([rows, np.sqrt(damping) * np.eye(5)]),
        np.concatenate([-weights * residuals, np.zeros(5)]),
        rcond=None,
    )[0]
    np.testing.assert_allclose(Broyden(jacobian).step(residuals, weights), wanted, rtol=1e-9)
    short = Broyden(jacobian, longest=0.01).step(residuals, weights)
    assert np.abs(short).max() == pytest.approx(0.01)
    np.testing.assert_allclose(short / 0.01, wanted / np.abs(wanted).max(), rtol=1e-9)


@pytest.mark.once
def test_what_was_learned_holds_along_the_step_and_changes_nothing_across_it(rng):
    jacobian, step, change = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=3)
    solver = Broyden(jacobian)
    solver.learn(step, change, helped=True)
    np.testing.assert_allclose(solver.jacobian @ step, change, rtol=1e-9)
    across = rng.normal(size=4)
    across -= (across @ step) / (step @ step) * step
    np.testing.assert_allclose(solver.jacobian @ across, jacobian @ across, rtol=1e-9)
    before = solver.jacobian.copy()
    solver.learn(step, np.array([np.nan, 0.0, 0.0]), helped=False)
    np.testing.assert_array_equal(solver.jacobian, before)


@pytest.mark.once
def test_nonlinear_equations_are_solved_from_a_jacobian_that_is_off():
    def function(x):
        return np.array([np.exp(x[0]) * x[1] - 2.0, x[0] + x[1] ** 3 + x[2] - 1.0])

    x = np.array([0.2, 0.8, 0.1])
    derivatives = np.array([[np.exp(0.2) * 0.8, np.exp(0.2), 0.0], [1.0, 3 * 0.8**2, 1.0]])
    solver = Broyden(derivatives * [[1.1, 0.9, 1.0], [0.9, 1.1, 0.9]])
    residuals = function(x)
    for _ in range(15):
        step = solver.step(residuals, np.ones(2))
        after = function(x + step)
        helped = np.linalg.norm(after) < np.linalg.norm(residuals)
        solver.learn(step, after - residuals, helped)
        if helped:
            x, residuals = x + step, after
    assert np.abs(residuals).max() < 1e-8


def sequences(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 8, 3)).astype("float32")


def network(layer, **options):
    keras.utils.set_random_seed(0)
    stack = [layer(8, return_sequences=True, **options) for _ in range(2)]
    return keras.Sequential([keras.Input((8, 3)), *stack])


def _two_layers():
    constraint = keras.constraints.MaxNorm(0.5)
    return keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4, return_sequences=True),
            layers.Dense(6),
            layers.SimpleRNN(4, recurrent_constraint=constraint),
        ]
    )


def test_numbers_scale_gates_shift_biases_and_obey_constraints(rng):
    model = _two_layers()
    model.layers[1].trainable = False
    moved = TransitionMap(model).variables_taking_part
    first = [np.array(keras.ops.convert_to_numpy(row.variable)) for row in moved]
    scales = Scales(moved)
    lstm, rnn = model.layers[0].cell, model.layers[2].cell
    # Four gates each of kernel, recurrent kernel and bias; then one number a weight.
    assert len(scales.layers) == 12 + 3
    assert scales.layers.tolist() == 12 * [0] + 3 * [1]
    assert sorted(number for some in scales.together for number in some) == list(range(15))
    for some in scales.together:
        assert len({scales.layers[number] for number in some}) == len(some)
    numbers = rng.normal(size=15)
    scales.put(numbers)
    names = [row.variable.path for row in moved]
    kernel = first[names.index(lstm.kernel.path)]
    at = names.index(lstm.kernel.path) * 4
    for gate in range(4):
        columns = slice(4 * gate, 4 * gate + 4)
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(lstm.kernel)[:, columns],
            kernel[:, columns] * np.exp(numbers[at + gate]),
            rtol=1e-5,
        )
    at = names.index(lstm.bias.path)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(lstm.bias),
        first[at] + np.repeat(numbers[4 * at : 4 * at + 4], 4),
        rtol=1e-5,
        atol=1e-6,
    )
    scales.put(np.full(15, 3.0))
    norms = np.linalg.norm(keras.ops.convert_to_numpy(rnn.recurrent_kernel), axis=0)
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
    scales.put(np.zeros(15))
    for row, value in zip(moved, first, strict=True):
        if row.variable is not rnn.recurrent_kernel:  # its constraint holds from the first
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(row.variable), value)


@pytest.mark.parametrize(("layer", "gates"), [(layers.GRU, 3), (layers.SimpleRNN, 1)])
def test_what_is_solved_for_holds_on_other_sequences_and_is_one_factor_a_block(layer, gates):
    model = network(layer)
    kernels = [weight for weight in model.weights if "kernel" in weight.path]
    before = [np.array(keras.ops.convert_to_numpy(kernel)) for kernel in kernels]
    counter = keras_lsc.callbacks.UpdateCounter()
    keras_lsc.stabilize(model, sequences(600), 0.6, tolerance=0.05, callbacks=[counter])
    found = keras_lsc.measure(model, sequences(600, seed=7), samples=512, gradient=False)
    assert found.max_deviation(0.6) < 0.09
    # So many updates by gradients there are before held-out sequences are looked at twice.
    assert counter.updates < 80
    for kernel, old in zip(kernels, before, strict=True):
        blocks = np.split(keras.ops.convert_to_numpy(kernel), gates, axis=1)
        for block, first in zip(blocks, np.split(old, gates, axis=1), strict=True):
            factor = (block * first).sum() / np.square(first).sum()
            np.testing.assert_allclose(block, factor * first, rtol=1e-4, atol=1e-6)


class _Stop(keras.callbacks.Callback):
    """Ends whatever runs at its first batch, the first time."""

    def __init__(self):
        super().__init__()
        self.trainings = 0
        self.batches = []

    def on_train_begin(self, logs=None):
        self.trainings += 1

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.trainings)
        if self.trainings == 1:
            self.model.stop_training = True


def test_gradients_go_on_from_the_first_weights_where_solving_ends():
    stop = _Stop()
    report = keras_lsc.stabilize(
        network(layers.SimpleRNN), sequences(400), 0.5, tolerance=0.1, callbacks=[stop]
    )
    assert report.max_deviation(0.5) <= 0.1
    assert stop.batches.count(1) == 1
    assert stop.batches.count(2) >= 8


@pytest.mark.parametrize("given", [{"optimizer": "adam"}, {"learning_rate": 0.05}])
@pytest.mark.once
def test_an_optimizer_or_a_learning_rate_asks_for_gradients(given):
    model = network(layers.SimpleRNN)
    before = model.get_weights()
    counter = keras_lsc.callbacks.UpdateCounter()
    keras_lsc.stabilize(model, sequences(400), 0.5, tolerance=0.1, callbacks=[counter], **given)
    assert counter.updates >= 8
    # Single biases move, which no scale does.
    biases = [
        (new, old) for new, old in zip(model.get_weights(), before, strict=True) if new.ndim == 1
    ]
    assert any(np.ptp(new - old) > 1e-6 for new, old in biases)
