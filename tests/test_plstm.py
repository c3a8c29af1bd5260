"""pLSTM in one dimension and in two, against loops in float64 and against closed forms."""

import math

import keras
import numpy as np
import pytest
from harness import (
    gradients,
    gradients_of_layer_and_steps,
    mostly_once,
    sequences,
    sigmoid,
    to_numpy,
)
from keras import ops

import keras_lsc
from keras_lsc import layers

FEATURES, HEIGHT, WIDTH, HEADS, KEYS = 3, 4, 5, 2, 3
GATES = {"P": "share source mark", "D": "right down turn source_r source_d mark_l mark_a"}
GRIDS = [("P", 1), ("P", 4), ("D", 1), ("D", 4)]


def drawn(layer, shape, rng):
    """The layer with weights of about unit size, biases and all."""
    layer.build(shape)
    for weight in layer.weights:
        weight.assign(0.8 * rng.standard_normal(weight.shape))
    return layer


def of_sequences(rng, **options):
    layer = layers.PLSTM1D(4, heads=HEADS, key_units=KEYS, return_sequences=True, **options)
    return drawn(layer, (None, None, FEATURES), rng)


def of_grids(rng, mode, corners, **options):
    layer = layers.PLSTM2D(4, heads=HEADS, key_units=KEYS, mode=mode, corners=corners, **options)
    return drawn(layer, (None, HEIGHT, WIDTH, FEATURES), rng)


def numbers(layer):
    return {weight.name: to_numpy(weight).astype("float64") for weight in layer.weights}


def bounded(x):
    return x / np.sqrt(1.0 + np.mean(x**2, axis=-1, keepdims=True))


def read(weights, x):
    """Queries, keys and values `(..., heads, n)`, and sigmoids of all gates, in float64."""
    x, heads = x.astype("float64"), (*x.shape[:-1], HEADS, -1)
    queries, keys = np.split(x @ weights["address"], 2, axis=-1)
    queries, keys = bounded(queries.reshape(heads)), bounded(keys.reshape(heads))
    values = (x @ weights["kernel"]).reshape(heads)
    gates = sigmoid(x @ weights["gates"] + weights["gate_bias"])
    return queries, keys / math.sqrt(KEYS), values, gates


def at_once(weights, queries, keys, values, direct):
    """The part of the outputs that no other step or node has a part in."""
    overlap = (queries * keys).sum(axis=-1, keepdims=True)
    return (direct[..., None] * overlap + weights["feedthrough"].reshape(HEADS, -1)) * values


def test_along_a_sequence_it_is_the_recurrence_step_by_step(rng):
    layer = of_sequences(rng)
    x = sequences(rng, batch=2, steps=100, features=FEATURES)
    queries, keys, values, gates = read(numbers(layer), x)
    source, transition, mark, direct = np.split(gates, 4, axis=-1)
    expected = at_once(numbers(layer), queries, keys, values, direct)
    for row in range(2):
        for head in range(HEADS):
            memory = np.zeros((KEYS, 2))
            for t in range(100):
                at = row, t, head
                expected[at] += mark[at] * queries[at] @ memory
                memory = transition[at] * memory + source[at] * np.outer(keys[at], values[at])
    np.testing.assert_allclose(to_numpy(layer(x)), expected.reshape(2, 100, 4), atol=1e-5)


def grid_loop(weights, mode, corners, x):
    """Node by node, for every head, corner and row of a batch, in float64."""
    queries, keys, values, gates = read(weights, x)
    batch, height, width = x.shape[:3]
    outputs = at_once(weights, queries, keys, values, gates[..., -HEADS:])
    names = GATES[mode].split()
    gates = gates[..., :-HEADS].reshape(*x.shape[:3], len(names), corners, HEADS)
    for row, head, corner in np.ndindex(batch, HEADS, corners):
        down, right = -1 if corner in (1, 3) else 1, -1 if corner in (2, 3) else 1
        to_right, to_below = {}, {}
        for i in range(height)[::down]:
            for j in range(width)[::right]:
                at = row, i, j, head
                gate = dict(zip(names, gates[row, i, j, :, corner, head], strict=True))
                left = to_right.get((i, j - right), np.zeros((KEYS, 2)))
                above = to_below.get((i - down, j), np.zeros((KEYS, 2)))
                written = np.outer(keys[at], values[at])
                if mode == "P":
                    held = left + above + gate["source"] * written
                    to_right[i, j] = gate["share"] * held
                    to_below[i, j] = (1 - gate["share"]) * held
                    memory = gate["mark"] * (left + above)
                else:
                    to_right[i, j] = gate["right"] * left + gate["source_r"] * written
                    to_below[i, j] = gate["down"] * above + gate["turn"] * left
                    to_below[i, j] += gate["source_d"] * written
                    memory = gate["mark_l"] * left + gate["mark_a"] * above
                outputs[at] += queries[at] @ memory / corners
    return outputs.reshape(batch, height, width, -1)


@pytest.mark.parametrize(("mode", "corners"), GRIDS)
def test_over_a_grid_it_is_the_recurrence_node_by_node(mode, corners, rng):
    layer = of_grids(rng, mode, corners)
    x = rng.standard_normal((2, HEIGHT, WIDTH, FEATURES)).astype("float32")
    expected = grid_loop(numbers(layer), mode, corners, x)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "corners"), [("P", 4), pytest.param("D", 1, marks=pytest.mark.once)]
)
def test_gradients_over_a_grid_are_those_of_the_loop(mode, corners, rng):
    """By inputs and by each weight, along a random direction, against differences of the loop."""
    layer = of_grids(rng, mode, corners)
    x = rng.standard_normal((1, HEIGHT, WIDTH, FEATURES)).astype("float32")
    found = gradients(lambda x: ops.sum(ops.sin(layer(x))), layer.trainable_variables, x)
    point = {"x": x.astype("float64"), **numbers(layer)}
    for name, gradient in zip(point, found, strict=True):
        direction = rng.standard_normal(gradient.shape)

        def loss(by, name=name, direction=direction):
            moved = {**point, name: point[name] + by * direction}
            return np.sin(grid_loop(moved, mode, corners, moved["x"])).sum()

        expected = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert abs(expected) > 1e-3, name
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-4, abs=1e-4), name


def test_gradients_along_a_sequence_are_those_of_the_stepped_cell(rng):
    layer = of_sequences(rng)
    x = sequences(rng, batch=2, steps=8, features=FEATURES)

    found, expected = gradients_of_layer_and_steps(layer, x)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 1e-2
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1.0, np.abs(other).max()))


def handed_on(mode, biases, size, rng=None):
    """How much of what the first node writes arrives at each: all gates constant, or drawn.

    The first feature is what queries read, the second what is written, the third opens the gates.
    """
    layer = layers.PLSTM2D(1, key_units=1, mode=mode, corners=1)
    layer.build((None, size, size, 3))
    cell = {weight.name: weight for weight in layer.weights}
    cell["kernel"].assign([[0.0], [1.0], [0.0]])
    cell["address"].assign([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    gates = np.zeros((3, len(biases)))
    x = np.zeros((1, size, size, 3), "float32")
    if rng is not None:
        gates[2], x[..., 2] = 1.0, 2 * rng.standard_normal((1, size, size))
    cell["gates"].assign(gates)
    cell["gate_bias"].assign(biases)
    x[..., 0], x[0, 0, 0, 1] = 1.0, 1.0
    gates = {
        name: sigmoid(x[0, ..., 2] + bias)
        for name, bias in zip(GATES[mode].split(), biases, strict=False)
    }
    # A query and a key of one number 1 are 1 / sqrt(2) each.
    return to_numpy(layer(x))[0, ..., 0] / 0.5, gates


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_what_is_shared_out_is_a_random_walk(share):
    """At a constant share the weight of all paths to (i, j) is that of a binomial distribution."""
    size = 7
    logit = math.log(share / (1 - share))
    # Sources and marks open: 1 - sigmoid(20) is below the rounding.
    arrived, _ = handed_on("P", [logit, 20.0, 20.0, 0.0], size)
    for i, j in np.ndindex(size, size):
        if i + j:
            expected = math.comb(i + j, i) * share**j * (1 - share) ** i
            assert arrived[i, j] == pytest.approx(expected, abs=1e-6)


def test_nothing_is_lost_or_gained_in_mode_p(rng):
    """Whatever the inputs say, the weights of all paths sum to one at every distance."""
    size = 12
    arrived, gates = handed_on("P", [0.3, 20.0, 20.0, 0.0], size, rng)
    assert np.ptp(gates["share"]) > 0.5
    arrived = arrived / gates["mark"] / gates["source"][0, 0]
    for distance in range(1, size):
        total = sum(arrived[i, distance - i] for i in range(distance + 1))
        assert total == pytest.approx(1.0, abs=2e-6)


def test_signals_decay_in_mode_d():
    """At most one turn: t_r^(j-1) along the first row, t_r^(j-1) c t_d^(i-1) below it."""
    size, right, down, turn = 6, 0.8, 0.7, 0.4
    logits = [math.log(p / (1 - p)) for p in (right, down, turn)]
    arrived, _ = handed_on("D", [*logits, 20.0, 20.0, 20.0, 20.0, 0.0], size)
    for i, j in np.ndindex(size, size):
        if j == 0:
            expected = down ** (i - 1)
        elif i == 0:
            expected = right ** (j - 1)
        else:
            expected = right ** (j - 1) * turn * down ** (i - 1)
        if i + j:
            assert arrived[i, j] == pytest.approx(expected, abs=1e-6)


def test_the_radius_in_time_is_the_largest_transition(rng):
    """Along a sequence the Jacobian is a diagonal of transition gates."""
    model = keras.Sequential([keras.Input((12, FEATURES)), of_sequences(rng)])
    x = sequences(rng, batch=16, steps=12, features=FEATURES)
    *_, gates = read(numbers(model.layers[0]), x)
    largest = gates[..., HEADS : 2 * HEADS].max(axis=-1)
    report = keras_lsc.measure(model, x, samples=16 * 12)
    # Points are drawn among all steps: five standard errors of a mean over them.
    bound = float(5 * largest.std() / math.sqrt(16 * 12))
    assert report.time[0] == pytest.approx(float(largest.mean()), abs=bound)


@pytest.mark.once
@pytest.mark.parametrize("mode", ["along", *GATES])
def test_every_layer_is_levelled(mode, rng):
    size = {"heads": 2, "key_units": 3}
    if mode == "along":
        shape = (12, 4)
        stack = [layers.PLSTM1D(4, return_sequences=True, seed=k, **size) for k in range(3)]
    else:
        shape = (4, 5, 4)
        stack = [layers.PLSTM2D(4, mode=mode, seed=k, **size) for k in range(3)]
    model = keras.Sequential([keras.Input(shape), *stack])
    # Far from even, because as drawn the layers nearly are.
    for layer, scale in zip(stack, (1.0, 3.0, 0.3), strict=True):
        (kernel,) = getattr(layer, "cell", layer).input_weights
        kernel.assign(scale * to_numpy(kernel))
    x = rng.standard_normal((64, *shape)).astype("float32")
    before = keras_lsc.measure(model, x).energy
    report = keras_lsc.stabilize(model, x, method="level", tolerance=0.2, verbose=0)
    assert before.max() / before.min() > 4.0
    assert report.energy.max() / report.energy.min() < 1.6


@pytest.mark.parametrize("mode", mostly_once(GATES, {"P"}))
def test_a_grid_layer_is_saved_and_trains(mode, rng, tmp_path):
    x = rng.standard_normal((8, HEIGHT, WIDTH, FEATURES)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.PLSTM2D(4, heads=2, key_units=3, mode=mode, seed=1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    losses = model.fit(x, x.mean(axis=(1, 2, 3)), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.once
def test_states_over_a_grid_stay_in_float32(rng):
    exact = of_grids(rng, "P", 4)
    lower = layers.PLSTM2D.from_config({**exact.get_config(), "dtype": "mixed_bfloat16"})
    lower.build((None, HEIGHT, WIDTH, FEATURES))
    lower.set_weights(exact.get_weights())
    x = rng.standard_normal((2, HEIGHT, WIDTH, FEATURES)).astype("float32")
    found = lower(x)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    # Products are rounded to 8 bits; what is handed on is not.
    found, expected = to_numpy(ops.cast(found, "float32")), to_numpy(exact(x))
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.once
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.PLSTM1D(5, heads=2), "units must be a multiple of heads"),
        (lambda: layers.PLSTM1D(4, key_units=0), "key_units must be a positive integer, got 0"),
        (lambda: layers.PLSTM2D(4, mode="p"), "mode must be one of 'P', 'D'"),
        (lambda: layers.PLSTM2D(4, corners=2), "corners must be 1 or 4, got 2"),
        (
            lambda: layers.PLSTM2D(4)(keras.Input((None, 5, 3))),
            "takes grids of known size",
        ),
    ],
)
def test_wrong_use_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
