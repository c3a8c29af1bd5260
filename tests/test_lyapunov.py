"""Lyapunov exponents against closed forms, known maps and an independent product of Jacobians."""

import json

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers, ops

import keras_lsc


class Linear(keras.layers.Layer):
    """s -> A s, whatever the inputs."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = np.asarray(matrix, "float32")
        self.state_size = len(matrix)
        self.output_size = len(matrix)
        self.built = True

    def call(self, inputs, states):
        del inputs
        new = ops.matmul(states[0], ops.convert_to_tensor(self.matrix.T))
        return new, [new]


class Henon(keras.layers.Layer):
    """(x, y) -> (1 - 1.4 x^2 + y, .3 x), from a state that the first input gives."""

    state_size = 2
    output_size = 2

    def build(self, shape):
        del shape

    def call(self, inputs, states):
        x, y = ops.split(states[0] + inputs, 2, axis=-1)
        new = ops.concatenate([1.0 - 1.4 * ops.square(x) + y, 0.3 * x], axis=-1)
        return new, [new]


class Lorenz(keras.layers.Layer):
    """A Runge-Kutta step of .01 of Lorenz' equations."""

    state_size = 3
    output_size = 3

    def build(self, shape):
        del shape

    @staticmethod
    def speed(s):
        x, y, z = ops.split(s, 3, axis=-1)
        return ops.concatenate([10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z], axis=-1)

    def call(self, inputs, states):
        s, h = states[0] + inputs, 0.01
        a = self.speed(s)
        b = self.speed(s + h / 2 * a)
        c = self.speed(s + h / 2 * b)
        d = self.speed(s + h * c)
        new = s + h / 6 * (a + 2 * b + 2 * c + d)
        return new, [new]


def network(cell, steps, width):
    return keras.Sequential([keras.Input((steps, width)), layers.RNN(cell)])


def kicked(rows, steps, width, scale, seed=0):
    """Inputs of which the first step alone is not zero: it is added to the state."""
    x = np.zeros((rows, steps, width), "float32")
    x[:, 0] = scale * np.random.default_rng(seed).standard_normal((rows, width))
    return x


def test_exponents_of_a_linear_network_are_the_log_moduli_of_its_eigenvalues():
    generator = np.random.default_rng(3)
    moduli = np.array([1.1, 0.9, 0.9, 0.5, 0.2])
    turn = 0.7
    block = np.diag(moduli)
    block[1:3, 1:3] = 0.9 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    basis = np.linalg.qr(generator.standard_normal((5, 5)))[0] + 0.2 * np.eye(5)
    matrix = basis @ block @ np.linalg.inv(basis)
    model = network(Linear(matrix), 400, 1)
    found = keras_lsc.lyapunov(model, np.zeros((2, 400, 1)), k=5)
    np.testing.assert_allclose(found.exponents[0], np.log(moduli), atol=1e-4)


def test_exponents_of_the_identity_are_zero_and_of_nilpotent_ones_infinite():
    found = keras_lsc.lyapunov(network(Linear(np.eye(4)), 30, 1), np.zeros((2, 30, 1)))
    np.testing.assert_allclose(found.exponents[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(found.errors[0], 0.0, atol=1e-6)
    found = keras_lsc.lyapunov(network(Linear(np.eye(4, k=1)), 30, 1), np.zeros((2, 30, 1)))
    assert found.exponents[0] == (-np.inf,) * 4


@pytest.mark.once(on="jax")
def test_exponents_of_henons_map():
    x = kicked(64, 600, 2, 0.1)
    found = keras_lsc.lyapunov(network(Henon(), 600, 2), x, samples=64)
    np.testing.assert_allclose(found.exponents[0], [0.419, -1.623], atol=0.01)
    assert 0 < found.errors[0][0] < 0.01


@pytest.mark.once(on="jax")
def test_exponents_of_lorenz_equations():
    x = kicked(16, 12000, 3, 1.0)
    x[:, 0] += [1.0, 1.0, 20.0]
    found = keras_lsc.lyapunov(network(Lorenz(), 12000, 3), x, samples=16, transient=2000)
    per_time = np.asarray(found.exponents[0]) / 0.01
    np.testing.assert_allclose(per_time, [0.906, 0.0, -14.572], atol=0.02)


def jacobian(cell, x, state):
    """Of the new state of a cell by the old one, by central differences."""
    sizes = [part.shape[-1] for part in state]
    flat = np.concatenate(state, axis=-1)[0]
    rows = np.stack([flat + sign * row for row in 1e-2 * np.eye(len(flat)) for sign in (1, -1)])
    parts = np.split(rows.astype("float32"), np.cumsum(sizes)[:-1], axis=-1)
    inputs = ops.convert_to_tensor(np.repeat(x, len(rows), axis=0))
    _, after = cell(inputs, [ops.convert_to_tensor(part) for part in parts])
    after = np.concatenate([to_numpy(part) for part in after], axis=-1).astype("float64")
    return ((after[::2] - after[1::2]) / 2e-2).T


def states_along(cell, x):
    """The states of a cell before every step of one sequence."""
    states = [[to_numpy(part) for part in cell.get_initial_state(batch_size=1)]]
    for t in range(x.shape[1] - 1):
        before = [ops.convert_to_tensor(part) for part in states[-1]]
        states.append([to_numpy(part) for part in cell(ops.convert_to_tensor(x[:, t]), before)[1]])
    return states


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_at_a_fixed_point_they_are_the_log_moduli_of_its_jacobian(kind):
    keras.utils.set_random_seed(3)
    layer = kind(3)
    model = keras.Sequential([keras.Input((300, 2)), layer])
    x = np.full((1, 300, 2), 0.5, "float32")
    state = states_along(layer.cell, x[:, :150])[-1]
    moduli = np.sort(np.abs(np.linalg.eigvals(jacobian(layer.cell, x[:, 0], state))))[::-1]
    found = keras_lsc.lyapunov(model, x, k=2, transient=100)
    np.testing.assert_allclose(found.exponents[0], np.log(moduli[:2]), atol=0.02)


def test_along_a_sequence_all_of_them_add_up_to_the_log_volume():
    keras.utils.set_random_seed(3)
    layer = layers.GRU(3)
    model = keras.Sequential([keras.Input((200, 2)), layer])
    x = np.random.default_rng(0).standard_normal((1, 200, 2)).astype("float32")
    volumes = [
        np.log(np.abs(np.linalg.det(jacobian(layer.cell, x[:, t], state))))
        for t, state in enumerate(states_along(layer.cell, x))
    ]
    found = keras_lsc.lyapunov(model, x, k=3, transient=20)
    error = np.std(volumes) / np.sqrt(len(volumes))
    assert sum(found.exponents[0]) == pytest.approx(np.mean(volumes), abs=3 * error)
    assert error < 0.1 * abs(np.mean(volumes))


def test_masked_steps_do_not_count():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((None, 2)), layers.Masking(), layers.GRU(4, return_sequences=True)]
    )
    x = np.random.default_rng(0).standard_normal((8, 40, 2)).astype("float32")
    padded = np.concatenate([x, np.zeros((8, 20, 2), "float32")], axis=1)
    one = keras_lsc.lyapunov(model, x, samples=8)
    other = keras_lsc.lyapunov(model, padded, samples=8)
    np.testing.assert_allclose(one.exponents, other.exponents, rtol=1e-4)
    assert one.steps == other.steps == 32


def test_every_layer_direction_and_stacked_cell_has_its_own():
    cells = [layers.GRUCell(3, name="low"), layers.LSTMCell(4, name="high")]
    model = keras.Sequential(
        [
            keras.Input((20, 2)),
            layers.Bidirectional(layers.GRU(5, return_sequences=True), name="both"),
            layers.RNN(cells, name="stack"),
        ]
    )
    x = np.random.default_rng(0).standard_normal((4, 20, 2))
    found = keras_lsc.lyapunov(model, x, k=3, samples=4)
    assert found.layers == ("both.forward", "both.backward", "stack.low", "stack.high")
    assert found.sizes == (5, 5, 3, 8)
    assert found.stack.shape == (3,)
    assert found.stack[0] == max(values[0] for values in found.exponents)
    assert "both.backward" in str(found)
    assert "both.backward" in found._repr_html_()
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_backward_direction_is_followed_in_its_own_order():
    keras.utils.set_random_seed(3)
    forward = layers.GRU(4, return_sequences=True)
    backward = layers.GRU(4, return_sequences=True, go_backwards=True)
    one = keras.Sequential([keras.Input((40, 2)), forward])
    other = keras.Sequential([keras.Input((40, 2)), backward])
    backward.set_weights(forward.get_weights())
    x = np.random.default_rng(0).standard_normal((4, 40, 2))
    expected = keras_lsc.lyapunov(one, x, samples=4).exponents
    np.testing.assert_allclose(
        keras_lsc.lyapunov(other, x[:, ::-1], samples=4).exponents, expected, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k"),
        ({"samples": "x"}, "samples"),
        ({"transient": -1}, "transient"),
        ({"transient": 10}, "No step is left to count"),
    ],
)
def test_arguments_are_checked(change, message):
    model = keras.Sequential([keras.Input((20, 2)), layers.GRU(3)])
    with pytest.raises((ValueError, TypeError), match=message):
        keras_lsc.lyapunov(model, np.ones((4, 20, 2)), **change)


def test_a_feed_forward_model_has_none():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(3)])
    with pytest.raises(ValueError, match="feed-forward"):
        keras_lsc.lyapunov(model, np.ones((4, 2)))
