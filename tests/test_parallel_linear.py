"""Gated layers that are linear in their state, against loops in float64."""

import numpy as np
import pytest
from harness import gradients_of_layer_and_steps, sequences, to_numpy
from keras import ops

from keras_lsc import layers


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def min_gru(gates):
    update, candidate = np.split(gates, 2, axis=-1)
    z = sigmoid(update)
    return 1 - z, z * candidate


def min_lstm(gates):
    forget, write, candidate = np.split(gates, 3, axis=-1)
    f, i = sigmoid(forget), sigmoid(write)
    return f / (f + i), i / (f + i) * candidate


LAYERS = {"gru": (layers.MinGRU, min_gru), "lstm": (layers.MinLSTM, min_lstm)}


def built(layer_class, rng, features=3, units=4, **options):
    layer = layer_class(units, return_sequences=True, seed=1, **options)
    layer.build((None, None, features))
    for weight in layer.weights:
        weight.assign(0.7 * rng.standard_normal(weight.shape))
    return layer


def published(layer, law, x):
    """The recurrence step by step, in float64."""
    kernel, bias = (to_numpy(w).astype("float64") for w in layer.weights)
    h, states = np.zeros((len(x), layer.units)), []
    for t in range(x.shape[1]):
        decay, drive = law(x[:, t] @ kernel + bias)
        h = decay * h + drive
        states.append(h)
    return np.stack(states, axis=1)


@pytest.mark.parametrize("name", LAYERS)
def test_is_the_published_recurrence(name, rng):
    layer_class, law = LAYERS[name]
    layer = built(layer_class, rng)
    x = sequences(rng, batch=2, steps=300, features=3)
    np.testing.assert_allclose(to_numpy(layer(x)), published(layer, law, x), atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_stepped_cell(name, rng):
    layer = built(LAYERS[name][0], rng)
    x = sequences(rng, batch=2, steps=20, features=3)

    found, expected = gradients_of_layer_and_steps(layer, x)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 1e-2
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1.0, np.abs(other).max()))


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_is_a_mean_of_candidates(name, rng):
    """Decay and share of the candidate sum to one, so a constant candidate is kept for ever."""
    layer = built(LAYERS[name][0], rng)
    kernel, bias = layer.weights
    values = to_numpy(kernel).copy()
    values[:, -4:] = 0.0
    kernel.assign(values)
    constant = to_numpy(bias)[-4:]
    x = sequences(rng, batch=2, steps=50, features=3)
    kept = layer(x, initial_state=[ops.convert_to_tensor(np.tile(constant, (2, 1)))])
    np.testing.assert_allclose(to_numpy(kept), np.broadcast_to(constant, (2, 50, 4)), atol=2e-6)


@pytest.mark.once
def test_gates_that_are_shut_leave_finite_numbers(rng):
    """Both gates of MinLSTM at exp(-200): their ratio is what counts."""
    layer = layers.MinLSTM(1, return_sequences=True)
    layer.build((None, None, 1))
    layer.cell.kernel.assign([[0.0, 0.0, 0.0]])
    layer.cell.bias.assign([-200.0, -200.0, 1.0])
    found = to_numpy(layer(np.ones((1, 3, 1), "float32")))[0, :, 0]
    np.testing.assert_allclose(found, [0.5, 0.75, 0.875], atol=1e-6)


def test_a_selective_state_space_is_the_published_recurrence(rng):
    """Feature by feature and state by state, in float64."""
    layer = layers.SelectiveSSM(3, state_units=2, return_sequences=True, seed=1)
    x = sequences(rng, batch=2, steps=120, features=4)
    found = to_numpy(layer(x))
    w = {weight.name: to_numpy(weight).astype("float64") for weight in layer.weights}
    expected = np.zeros((2, 120, 3))
    for row in range(2):
        for k in range(3):
            h = np.zeros(2)
            for t in range(120):
                u = x[row, t].astype("float64")
                value, opening = u @ w["kernel"][:, k], u @ w["selection"][:, 3 + k]
                step = np.log1p(np.exp(u @ w["selection"][:, k] + w["step_bias"][k]))
                write, read = (
                    vector / np.sqrt(np.mean(vector**2) + 1e-5)
                    for vector in (u @ w["selection"][:, 6:8], u @ w["selection"][:, 8:])
                )
                rate = np.exp(w["log_rate"][2 * k : 2 * k + 2])
                h = np.exp(-step * rate) * h + step * value * write
                y = read @ h + w["feedthrough"][k] * value
                expected[row, t, k] = y * sigmoid(opening)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_oscillators_solve_their_implicit_equations(rng):
    """Each step is solved for as two equations in new position and speed, in float64."""
    layer = layers.LinOSS(3, state_units=5, return_sequences=True, seed=1)
    x = sequences(rng, batch=2, steps=120, features=4)
    found = to_numpy(layer(x))
    w = {weight.name: to_numpy(weight).astype("float64") for weight in layer.weights}
    square, step = np.exp(2 * w["log_frequency"]), sigmoid(w["step_logit"])
    # v' + d omega^2 p' = v + d f and p' - d v' = p.
    equations = np.array([[np.ones(5), -step], [step * square, np.ones(5)]]).transpose(2, 0, 1)
    position, speed = np.zeros((2, 2, 5))
    for t in range(120):
        force = x[:, t] @ w["kernel"]
        known = np.stack([position, speed + step * force], axis=-1)
        solved = np.linalg.solve(equations, known[..., None])[..., 0]
        position, speed = solved[..., 0], solved[..., 1]
        expected = position @ w["output_kernel"] + x[:, t] @ w["feedthrough"]
        np.testing.assert_allclose(found[:, t], expected, atol=2e-5)


@pytest.mark.once
def test_oscillators_lose_energy_at_any_step():
    """Without a force omega^2 p^2 + v^2 falls at each step by 1 / (1 + (d omega)^2)."""
    layer = layers.LinOSS(2, state_units=50, return_state=True, seed=1)
    layer.build((None, None, 3))
    position, speed = np.random.default_rng(0).standard_normal((2, 1, 50)).astype("float32")
    x = np.zeros((1, 7, 3), "float32")
    _, *after = map(to_numpy, layer(x, initial_state=[position, speed]))
    w = {weight.name: to_numpy(weight) for weight in layer.weights}
    divisor = 1 + (sigmoid(w["step_logit"]) * np.exp(w["log_frequency"])) ** 2
    expected = (position**2 + speed**2) / divisor**7
    np.testing.assert_allclose(after[0] ** 2 + after[1] ** 2, expected, rtol=1e-4)
