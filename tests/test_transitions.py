"""Which transitions a model has, and whether each is the Jacobian it claims to be."""

import keras
import numpy as np
import pytest
from harness import (
    CELLS,
    UNITS,
    NumpyCell,
    OscillatorCell,
    difference_jacobian,
    largest_modulus,
    mostly_once,
    randomized,
    recurrent_layer,
    recurrent_model,
    sequences,
    sigmoid,
    to_numpy,
)
from keras import layers, ops

import keras_lsc
from keras_lsc import backend, measure
from keras_lsc.stability.radius import radius_and_gain
from keras_lsc.stability.recorder import Recorder
from keras_lsc.stability.transitions import TransitionMap, recurrent

POSITION = np.array([0.0, 0.1, 0.3, 0.45, 0.6, 0.7, 0.85, 0.999], dtype="float32")


def sampled(model, x, position=POSITION):
    transition_map = TransitionMap(model)
    inputs = [ops.convert_to_tensor(part) for part in (x if isinstance(x, list) else [x])]
    return transition_map, transition_map.sample(inputs, ops.convert_to_tensor(position))


def jacobians(model, x, position=POSITION):
    """Name -> (points, n_out, n_in) of every transition."""
    transition_map, points = sampled(model, x, position)
    return {
        row.name: to_numpy(backend.jacobian(*row.linearize(points)))
        for row in transition_map.transitions
    }


def described(model):
    return [(row.name, row.kind, row.layer) for row in TransitionMap(model).transitions]


def steps_at(length, position=POSITION):
    return np.floor(position * length).astype(int)


def assert_close(measured, expected, tolerance=1e-3):
    """Largest error relative to the largest entry."""
    expected = np.stack(expected) if isinstance(expected, list) else expected
    assert measured.shape == expected.shape
    assert np.abs(measured - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_equal_float64_finite_differences(cell, rng):
    model, x = recurrent_model(cell), sequences(rng)
    transition_map, points = sampled(model, x)
    below, first, second = x, *(NumpyCell(layer.cell) for layer in model.layers)
    outputs, before = zip(*(first.run(row) for row in below), strict=True)
    _, before_second = zip(*(second.run(row) for row in outputs), strict=True)
    at = list(enumerate(steps_at(5)))

    def by_state(cell, inputs, states):
        return [
            difference_jacobian(lambda s, b=b, t=t: cell.step(inputs[b][t], s)[1], states[b][t])
            for b, t in at
        ]

    def by_input(cell, inputs, states):
        return [
            difference_jacobian(lambda v, b=b, t=t: cell.step(v, states[b][t])[0], inputs[b][t])
            for b, t in at
        ]

    expected = {
        ("time", 0): by_state(first, below, before),
        ("input", 0): by_input(first, below, before),
        ("time", 1): by_state(second, outputs, before_second),
        ("depth", 1): by_input(second, outputs, before_second),
    }
    assert [(row.kind, row.layer) for row in transition_map.transitions] == list(expected)
    for row in transition_map.transitions:
        exact = np.stack(expected[row.kind, row.layer])
        function, at_point = row.linearize(points)
        assert_close(to_numpy(backend.jacobian(function, at_point)), exact)
        if row.kind != "input":
            radius = to_numpy(radius_and_gain(function, at_point).radius)
            np.testing.assert_allclose(radius, largest_modulus(exact), rtol=1e-3, atol=1e-5)


def test_states_of_two_sizes_are_one_state(rng):
    model = recurrent_model("oscillator", depth=1)
    transition_map, points = sampled(model, sequences(rng))
    time = transition_map.transitions[0]
    assert time.state == "state 6+3"
    assert backend.jacobian(*time.linearize(points)).shape == (8, 9, 9)


def test_linear_rnn_is_its_recurrent_matrix(rng):
    model = keras.Sequential(
        [keras.Input((9, 3)), layers.SimpleRNN(5, activation="linear", return_sequences=True)]
    )
    randomized(model)
    found = jacobians(model, sequences(rng, steps=9, features=3))
    name = model.layers[0].name
    kernel, recurrent, _ = model.get_weights()
    assert_close(found[f"{name}.time"], [recurrent.T] * 8, 1e-5)
    assert_close(found[f"{name}.input"], [kernel.T] * 8, 1e-5)
    report = measure(model, sequences(rng, steps=9, features=3), samples=8, gradient=False)
    assert report.time[0] == pytest.approx(largest_modulus(recurrent), rel=1e-3)
    assert report.transitions[0].radius_std < 1e-3


def test_stacked_orthogonal_linear_nets_have_radius_one(rng):
    model = keras.Sequential([keras.Input((None, 16))])
    for _ in range(4):
        model.add(
            layers.SimpleRNN(
                16,
                activation="linear",
                kernel_initializer="orthogonal",
                recurrent_initializer="orthogonal",
                return_sequences=True,
            )
        )
    report = measure(model, sequences(rng, steps=7, features=16), samples=8, gradient=False)
    np.testing.assert_allclose(report.time, 1.0, atol=1e-3)
    np.testing.assert_allclose(report.depth[1:], 1.0, atol=1e-3)
    assert report.input == pytest.approx(1.0, abs=1e-3)


def layer_norm(x, gamma, beta, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return gamma * centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon) + (
        beta
    )


def dense(x, weights):
    return x @ weights[0] + weights[1]


def causal_convolution(x, weights):
    kernel, bias = weights
    padded = np.concatenate([np.zeros((2, x.shape[1])), x])
    return sum(padded[k : k + len(x)] @ kernel[k] for k in range(3)) + bias


def centred_convolution(x, weights):
    kernel, bias = weights
    padded = np.pad(x, ((1, 1), (0, 0)))
    return sum(padded[k : k + len(x)] @ kernel[k] for k in range(3)) + bias


# A Keras layer, and the same map of a whole sequence (T, features) in NumPy.
STAGES = {
    "dense": (lambda: layers.Dense(UNITS), lambda x, w, _: dense(x, w)),
    "dense tanh": (
        lambda: layers.Dense(9, activation="tanh"),
        lambda x, w, _: np.tanh(dense(x, w)),
    ),
    "time distributed": (
        lambda: layers.TimeDistributed(layers.Dense(4)),
        lambda x, w, _: dense(x, w),
    ),
    "activation": (lambda: layers.Activation("sigmoid"), lambda x, w, _: sigmoid(x)),
    "dropout": (lambda: layers.Dropout(0.9), lambda x, w, _: x),
    "layer norm": (
        layers.LayerNormalization,
        lambda x, w, layer: layer_norm(x, *w, layer.epsilon),
    ),
    "batch norm": (
        layers.BatchNormalization,
        lambda x, w, layer: w[0] * (x - w[2]) / np.sqrt(w[3] + layer.epsilon) + w[1],
    ),
    "causal convolution": (
        lambda: layers.Conv1D(7, 3, padding="causal"),
        lambda x, w, _: causal_convolution(x, w),
    ),
    "centred convolution": (
        lambda: layers.Conv1D(7, 3, padding="same"),
        lambda x, w, _: centred_convolution(x, w),
    ),
    "norm over time": (
        lambda: layers.GroupNormalization(groups=1),
        lambda x, w, layer: w[0] * (x - x.mean()) / np.sqrt(x.var() + layer.epsilon) + w[1],
    ),
}


@pytest.mark.parametrize("stage", mostly_once(STAGES, ["centred convolution", "norm over time"]))
def test_depth_transition_includes_the_stage_between(stage, rng):
    make, reference = STAGES[stage]
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            below := recurrent_layer("tanh", return_sequences=True),
            between := make(),
            above := recurrent_layer("gru", return_sequences=True),
        ]
    )
    randomized(model)
    x = sequences(rng)
    weights = [to_numpy(w).astype("float64") for w in between.weights]
    first, second = NumpyCell(below.cell), NumpyCell(above.cell)
    expected = []
    for row, t in zip(x, steps_at(5), strict=True):
        outputs, _ = first.run(row)
        _, before = second.run(reference(outputs, weights, between))

        def at_step(y, outputs=outputs, before=before, t=t):
            changed = np.concatenate([outputs[:t], y[None], outputs[t + 1 :]])
            return second.step(reference(changed, weights, between)[t], before[t])[0]

        expected.append(difference_jacobian(at_step, outputs[t]))
    found = jacobians(model, x)
    assert_close(found[f"{above.name}.depth"], expected)


@pytest.mark.parametrize(
    "stage", ["dense tanh", "time distributed", "layer norm", "batch norm", "dropout"]
)
def test_a_step_alone_equals_the_step_in_its_sequence(stage, rng, monkeypatch):
    model, x = recurrent_model("lstm", between=lambda: [STAGES[stage][0]()]), sequences(rng)
    alone = jacobians(model, x)
    assert all(recurrent.acts_per_step(layer) for layer in model.layers[1:-1])
    monkeypatch.setattr(recurrent, "acts_per_step", lambda layer: False)
    for name, matrices in jacobians(model, x).items():
        assert_close(alone[name], matrices, 1e-5)


def test_residual_connection_is_part_of_the_transition(rng):
    inputs = keras.Input((5, 4))
    below, above = (recurrent_layer("tanh", return_sequences=True) for _ in range(2))
    middle = layers.Dense(UNITS)
    y = below(inputs)
    model = randomized(keras.Model(inputs, above(layers.Add()([y, middle(y)]))))
    x = sequences(rng)
    first, second = NumpyCell(below.cell), NumpyCell(above.cell)
    weights = [to_numpy(w).astype("float64") for w in middle.weights]
    expected = []
    for row, t in zip(x, steps_at(5), strict=True):
        outputs, _ = first.run(row)
        _, before = second.run(outputs + dense(outputs, weights))
        expected.append(
            difference_jacobian(
                lambda y, s=before[t]: second.step(y + dense(y, weights), s)[0], outputs[t]
            )
        )
    assert_close(jacobians(model, x)[f"{above.name}.depth"], expected)


@pytest.mark.once
def test_a_layer_above_two_has_a_transition_from_each(rng):
    inputs = keras.Input((5, 4))
    left = layers.GRU(3, return_sequences=True, name="left")(inputs)
    right = layers.LSTM(2, return_sequences=True, name="right")(inputs)
    top = layers.GRU(4, name="top")(layers.Concatenate()([left, right]))
    model = keras.Model(inputs, top)
    # Left and right stand side by side, in either order.
    assert {(name, kind) for name, kind, _ in described(model)} == {
        ("left.time", "time"),
        ("left.input", "input"),
        ("right.time", "time"),
        ("right.input", "input"),
        ("top.time", "time"),
        ("top.depth[left]", "depth"),
        ("top.depth[right]", "depth"),
    }
    found = jacobians(model, sequences(rng))
    assert found["top.depth[left]"].shape == (8, 4, 3)
    assert found["top.depth[right]"].shape == (8, 4, 2)


def test_nested_models_are_looked_into(rng):
    block = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.GRU(4, return_sequences=True, name="low"),
            layers.Dense(3, name="mix"),
            layers.GRU(4, return_sequences=True, name="high"),
        ],
        name="block",
    )
    inputs = keras.Input((5, 3))
    nested = keras.Model(inputs, layers.LSTM(2, name="top")(block(inputs)))
    assert described(nested) == [
        ("low.time", "time", 0),
        ("low.input", "input", 0),
        ("high.time", "time", 1),
        ("high.depth", "depth", 1),
        ("top.time", "time", 2),
        ("top.depth", "depth", 2),
    ]
    x = sequences(rng, features=3)
    flat = keras.Model(block.inputs, nested.get_layer("top")(block.outputs[0]))
    expected = jacobians(flat, x)
    for name, matrices in jacobians(nested, x).items():
        np.testing.assert_allclose(matrices, expected[name], rtol=1e-6)


def test_layers_shared_by_two_models(rng):
    shared = layers.GRU(4, return_sequences=True, name="shared")
    one = keras.Sequential([keras.Input((5, 4)), shared, layers.GRU(4, name="above")])
    inputs = keras.Input((5, 4))
    first = layers.LSTM(4, return_sequences=True, name="first")(inputs)
    two = keras.Model(inputs, shared(first))
    assert [name for name, _, _ in described(one)] == [
        "shared.time", "shared.input", "above.time", "above.depth",
    ]  # fmt: skip
    assert [name for name, _, _ in described(two)] == [
        "first.time", "first.input", "shared.time", "shared.depth",
    ]  # fmt: skip
    # The same weights at other states: the transitions of the two models differ.
    x = sequences(rng)
    assert not np.allclose(jacobians(one, x)["shared.time"], jacobians(two, x)["shared.time"])


def test_go_backwards_takes_the_state_from_the_other_end(rng):
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.LSTM(UNITS, go_backwards=True, return_sequences=True)]
    )
    randomized(model)
    x = sequences(rng)
    cell = NumpyCell(model.layers[0].cell)
    expected = []
    for row, t in zip(x, steps_at(5), strict=True):
        _, before = cell.run(row[::-1])
        state = before[4 - t]
        expected.append(difference_jacobian(lambda s, v=row[t]: cell.step(v, s)[1], state))
    assert_close(jacobians(model, x)[f"{model.layers[0].name}.time"], expected)


MERGES = {
    "concat": lambda f, b: np.concatenate([f, b]),
    "sum": lambda f, b: f + b,
    "ave": lambda f, b: (f + b) / 2,
    "mul": lambda f, b: f * b,
}


@pytest.mark.parametrize("merge_mode", MERGES)
def test_bidirectional(merge_mode, rng):
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.GRU(3, return_sequences=True, name="below"),
            layers.Bidirectional(
                layers.LSTM(2, return_sequences=True), merge_mode=merge_mode, name="both"
            ),
        ]
    )
    randomized(model)
    assert [name for name, _, _ in described(model)] == [
        "below.time", "below.input", "both.forward.time", "both.backward.time", "both.depth",
    ]  # fmt: skip
    x, both = sequences(rng), model.get_layer("both")
    below = NumpyCell(model.get_layer("below").cell)
    forward, backward = (NumpyCell(d.cell) for d in (both.forward_layer, both.backward_layer))
    time_back, depth = [], []
    for row, t in zip(x, steps_at(5), strict=True):
        outputs, _ = below.run(row)
        ahead = forward.run(outputs)[1][t]
        back = backward.run(outputs[::-1])[1][4 - t]
        time_back.append(difference_jacobian(lambda s, v=outputs[t]: backward.step(v, s)[1], back))
        depth.append(
            difference_jacobian(
                lambda v, ahead=ahead, back=back: MERGES[merge_mode](
                    forward.step(v, ahead)[0], backward.step(v, back)[0]
                ),
                outputs[t],
            )
        )
    found = jacobians(model, x)
    assert_close(found["both.backward.time"], time_back)
    assert_close(found["both.depth"], depth)


def test_stacked_cells_are_layers_of_their_own(rng):
    cells = [layers.GRUCell(3), layers.LSTMCell(4), layers.SimpleRNNCell(3)]
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.RNN(cells, return_sequences=True, name="stack")]
    )
    randomized(model)
    names = [cell.name for cell in cells]
    assert described(model) == [
        (f"stack.{names[0]}.time", "time", 0),
        ("stack.input", "input", 0),
        (f"stack.{names[1]}.time", "time", 1),
        (f"stack.{names[1]}.depth", "depth", 1),
        (f"stack.{names[2]}.time", "time", 2),
        (f"stack.{names[2]}.depth", "depth", 2),
    ]
    x = sequences(rng)
    references = [NumpyCell(cell) for cell in cells]
    expected = {name: [] for name, _, _ in described(model)}
    for row, t in zip(x, steps_at(5), strict=True):
        below = row.astype("float64")
        for k, reference in enumerate(references):
            outputs, before = reference.run(below)
            state, inputs = before[t], below[t]
            expected[f"stack.{names[k]}.time"].append(
                difference_jacobian(lambda s, r=reference, v=inputs: r.step(v, s)[1], state)
            )
            expected[f"stack.{names[k]}.depth" if k else "stack.input"].append(
                difference_jacobian(lambda v, r=reference, s=state: r.step(v, s)[0], inputs)
            )
            below = outputs
    found = jacobians(model, x)
    for name, matrices in expected.items():
        assert_close(found[name], matrices)


@pytest.mark.once
def test_initial_state_from_another_tensor(rng):
    inputs, other = keras.Input((5, 4)), keras.Input((3,))
    layer = layers.LSTM(UNITS, return_sequences=True, name="lstm")
    h, c = layers.Dense(UNITS, name="h")(other), layers.Dense(UNITS, name="c")(other)
    model = randomized(keras.Model([inputs, other], layer(inputs, initial_state=[h, c])))
    x, extra = sequences(rng), rng.standard_normal((8, 3)).astype("float32")
    start = np.concatenate(
        [dense(extra, model.get_layer(name).get_weights()) for name in "hc"], axis=1
    )
    cell, expected = NumpyCell(layer.cell), []
    for row, first, t in zip(x, start, steps_at(5), strict=True):
        _, before = cell.run(row, first.astype("float64"))
        expected.append(difference_jacobian(lambda s, v=row[t]: cell.step(v, s)[1], before[t]))
    assert_close(jacobians(model, [x, extra])["lstm.time"], expected)


def test_encoder_state_feeds_a_decoder(rng):
    source, target = keras.Input((5, 4)), keras.Input((7, 2))
    _, h = layers.GRU(3, return_state=True, name="encoder")(source)
    decoded = layers.GRU(3, return_sequences=True, name="decoder")(target, initial_state=h)
    model = keras.Model([source, target], decoded)
    assert described(model) == [
        ("encoder.time", "time", 0),
        ("encoder.input", "input", 0),
        ("decoder.time", "time", 1),
        ("decoder.input", "input", 1),
    ]
    found = jacobians(model, [sequences(rng), sequences(rng, steps=7, features=2)])
    assert found["decoder.time"].shape == (8, 3, 3)


@pytest.fixture
def padded(rng):
    """Token sequences with padding at the end, at the start, in the middle, and everywhere."""
    tokens = rng.integers(1, 11, (8, 6))
    tokens[1, 3:] = tokens[2, :4] = tokens[3, 2:4] = tokens[4] = 0
    return tokens.astype("int32")


def embedded_model(**kwargs):
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(11, 4, mask_zero=True),
            layers.GRU(UNITS, return_sequences=True, name="low", **kwargs),
            layers.LSTM(UNITS, name="high", **kwargs),
        ]
    )
    return randomized(model)


def test_padding_is_never_sampled(padded):
    transition_map = TransitionMap(embedded_model())
    position = np.repeat(np.linspace(0, 1, 30, endpoint=False, dtype="float32"), 8)
    repeated = ops.convert_to_tensor(np.tile(padded, (30, 1)))
    points = transition_map.sample([repeated], ops.convert_to_tensor(position))
    hit = np.zeros(padded.shape, dtype=bool)
    for call in transition_map.recurrent_calls:
        hit[np.tile(np.arange(8), 30), to_numpy(points.index(call))] = True
    has_steps = padded.any(axis=1)
    np.testing.assert_array_equal(hit[has_steps], padded[has_steps] != 0)


def test_position_one_half_of_a_padded_sequence_is_its_middle(padded):
    transition_map, points = sampled(embedded_model(), padded, np.full(8, 0.5, "float32"))
    index = to_numpy(points.index(transition_map.recurrent_calls[0]))
    assert index.tolist()[:4] == [3, 1, 5, 4]


@pytest.mark.parametrize("backwards", [False, True])
def test_masked_steps_leave_the_state(padded, backwards):
    model = embedded_model(go_backwards=backwards)
    if backwards:
        model = keras.Model(model.inputs, model.get_layer("low").output)
    table = model.layers[1 if backwards else 0].get_weights()[0].astype("float64")
    cell = NumpyCell(model.get_layer("low").cell)
    transition_map, points = sampled(model, padded)
    index = to_numpy(points.index(transition_map.recurrent_calls[0]))
    found = to_numpy(backend.jacobian(*transition_map.transitions[0].linearize(points)))
    for b in (0, 1, 2, 3, 5, 6, 7):
        order = range(6)[::-1] if backwards else range(6)
        state = np.zeros(UNITS)
        for t in order:
            if t == index[b]:
                break
            if padded[b, t]:
                state = cell.step(table[padded[b, t]], state)[1]
        exact = difference_jacobian(
            lambda s, v=table[padded[b, index[b]]]: cell.step(v, s)[1], state
        )
        assert_close(found[b], exact)


@pytest.mark.parametrize("cell", ["lstm", "oscillator"])
@pytest.mark.parametrize(
    "options",
    mostly_once(
        [
            {},
            {"return_sequences": True},
            {"return_sequences": True, "return_state": True},
            {"return_sequences": True, "go_backwards": True},
            {"go_backwards": True, "return_state": True},
            {"return_sequences": True, "zero_output_for_mask": True},
        ],
        [
            {"go_backwards": True, "return_state": True},
            {"return_sequences": True, "zero_output_for_mask": True},
        ],
    ),
    ids=lambda options: "+".join(options) or "plain",
)
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_recorder_repeats_the_layer(cell, options, masked, rng):
    if cell == "oscillator":
        layer = layers.RNN(OscillatorCell(3), **options)
    else:
        layer = recurrent_layer(cell, 3, **options)
    assert_recorded(layer, masked, rng)


@pytest.mark.parametrize("merge_mode", mostly_once(MERGES, ["concat"]))
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_recorder_repeats_a_bidirectional(merge_mode, return_sequences, masked, rng):
    inner = layers.GRU(3, return_sequences=return_sequences, return_state=True)
    assert_recorded(layers.Bidirectional(inner, merge_mode=merge_mode), masked, rng)


def assert_recorded(layer, masked, rng):
    x = ops.convert_to_tensor(sequences(rng, steps=6))
    mask = np.ones((8, 6), dtype=bool)
    if masked:
        mask[1, 3:] = mask[2, :4] = mask[3, 2:4] = False
    layer.build(x.shape)
    mask = ops.convert_to_tensor(mask) if masked else None
    expected = keras.tree.flatten(layer(x, mask=mask))
    recorded = Recorder(layer)(x, mask=mask)[0]
    outputs = keras.tree.flatten(recorded)
    assert len(outputs) == len(expected)
    for have, want in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(to_numpy(have), to_numpy(want), rtol=1e-4, atol=1e-5)


def same_jacobians(one, x_one, other, x_other, rename=lambda name: name):
    expected = jacobians(other, x_other)
    found = jacobians(one, x_one)
    assert len(found) == len(expected)
    for name, matrices in found.items():
        np.testing.assert_allclose(matrices, expected[rename(name)], rtol=1e-5, atol=1e-6)


def test_masks_of_nested_models_are_those_of_a_flat_one(padded):
    tokens = keras.Input((6,), dtype="int32")
    table, low, high = (embedded_model().layers[k] for k in range(3))
    encoder = keras.Model(tokens, table(tokens))
    x = keras.Input((6,), dtype="int32")
    nested = keras.Model(x, high(low(encoder(x))))
    x = keras.Input((6,), dtype="int32")
    same_jacobians(nested, padded, keras.Model(x, high(low(table(x)))), padded)


@pytest.mark.parametrize("sequential", [False, True], ids=["functional", "sequential"])
def test_a_mask_given_to_a_nested_model_by_name(sequential, padded, rng):
    low, high = (recurrent_layer(c, return_sequences=True, name=c) for c in ("gru", "lstm"))
    inner = keras.Input((6, 4))
    block = keras.Model(inner, high(low(inner)))
    if sequential:
        block = keras.Sequential([keras.Input((6, 4)), low, high])
    x, valid = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    nested = randomized(keras.Model([x, valid], block(inputs=x, mask=valid)))
    flat = keras.Model([x, valid], high(low(x, mask=valid), mask=valid))
    data = [sequences(rng, steps=6), padded != 0]
    same_jacobians(nested, data, flat, data)


def test_a_layer_that_does_not_pass_masks_on_hides_them(padded):
    """As recurrent layers may by default in later releases of Keras."""
    low = layers.GRU(UNITS, return_sequences=True)
    low.supports_masking = False
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(11, 4, mask_zero=True),
            low,
            layers.LSTM(UNITS),
        ]
    )
    transition_map, points = sampled(model, padded, np.full(8, 0.999, "float32"))
    low, high = (to_numpy(points.index(call)) for call in transition_map.recurrent_calls)
    assert low.tolist()[:4] == [5, 2, 5, 5]
    assert high.tolist() == [5] * 8


def test_the_mask_reaches_a_stage_that_needs_it(padded):
    """A softmax over time leaves out the masked steps; below is where it was sampled."""
    x = keras.Input((6,), dtype="int32")
    below = recurrent_layer("gru", return_sequences=True, name="low")
    above = recurrent_layer("tanh", return_sequences=True, name="high")
    table = layers.Embedding(11, 4, mask_zero=True)
    y = below(table(x))
    model = randomized(keras.Model(x, above(layers.Multiply()([y, MaskedMean()(y)]))))
    transition_map, points = sampled(model, padded)
    index = to_numpy(points.index(transition_map.recurrent_calls[0]))
    outputs = to_numpy(below(table(padded))).astype("float64")
    depth = next(row for row in transition_map.transitions if row.kind == "depth")
    found = to_numpy(backend.jacobian(*depth.linearize(points)))
    cell = NumpyCell(above.cell)
    for b in (0, 1, 2, 3, 5):
        t, valid = index[b], padded[b] != 0

        def stage(y, b=b, t=t, valid=valid):
            changed = outputs[b].copy()
            changed[t] = y
            return changed * changed[valid].mean(axis=0)

        state, staged = np.zeros(UNITS), stage(outputs[b, t])
        for k in np.flatnonzero(valid[:t]):
            state = cell.step(staged[k], state)[1]
        exact = difference_jacobian(
            lambda y, s=state, t=t, stage=stage: cell.step(stage(y)[t], s)[0], outputs[b, t]
        )
        assert_close(found[b], exact)


class MaskedMean(layers.Layer):
    """The mean over the steps that are not masked, at every step."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        weight = ops.cast(mask, inputs.dtype)[..., None]
        total = ops.sum(inputs * weight, axis=1, keepdims=True)
        return ops.zeros_like(inputs) + total / ops.maximum(
            ops.sum(weight, axis=1, keepdims=True), 1.0
        )


def test_a_padded_row_has_no_weight(padded):
    transition_map, points = sampled(embedded_model(), padded)
    for row in transition_map.transitions:
        assert to_numpy(row.weight(points)).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]


def test_every_call_of_a_layer_has_names_of_its_own(rng):
    x = keras.Input((5, 4))
    shared = layers.GRU(4, return_sequences=True, name="shared")
    both = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")
    model = keras.Model(x, both(both(shared(shared(x)))))
    assert [name for name, _, _ in described(model)] == [
        "shared.time", "shared.input", "shared.time[2]", "shared.depth[2]",
        "both.forward.time", "both.backward.time", "both.depth",
        "both.forward.time[2]", "both.backward.time[2]", "both.depth[2]",
    ]  # fmt: skip
    cells = [layers.GRUCell(3, name="cell"), layers.GRUCell(3, name="cell")]
    stack = keras.Sequential([keras.Input((5, 4)), layers.RNN(cells, name="stack")])
    assert len({name for name, _, _ in described(stack)}) == 4


def test_names_of_layers_alike_in_different_models():
    def block():
        return keras.Sequential(
            [keras.Input((5, 4)), layers.GRU(4, return_sequences=True, name="gru")]
        )

    x = keras.Input((5, 4))
    names = [name for name, _, _ in described(keras.Model(x, block()(block()(x))))]
    assert names == ["gru.time", "gru.input", "gru.time[2]", "gru.depth[2]"]


def test_dense_layers_called_twice():
    x = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    names = [name for name, _, _ in described(keras.Model(x, shared(shared(x))))]
    assert names == ["shared.input", "shared.depth[2]"]


# A stage that changes the number of steps from 6, the step below for every step above, and the
# share of a step of the input in what it makes of it.
RESAMPLED = {
    "average": (lambda: layers.AveragePooling1D(2), [1, 3, 5], 1 / 2),
    "average same": (
        lambda: layers.AveragePooling1D(4, strides=4, padding="same"), [2, 5], None,
    ),
    "upsampled": (lambda: layers.UpSampling1D(2), np.arange(12) // 2, 1.0),
    "cropped": (lambda: layers.Cropping1D((2, 1)), [2, 3, 4], 1.0),
    "padded": (lambda: layers.ZeroPadding1D((1, 2)), [-1, 0, 1, 2, 3, 4, 5, 6, 7], 1.0),
    # A window that reaches into padding is fed by what else it holds, ...
    "padded average": (
        lambda: keras.Sequential([layers.ZeroPadding1D(1), layers.AveragePooling1D(3, 1)]),
        [1, 2, 3, 4, 5, 5], 1 / 3,
    ),
    "padded dilated": (
        lambda: keras.Sequential([layers.ZeroPadding1D(2), layers.Conv1D(4, 3, dilation_rate=2)]),
        [2, 3, 4, 5, 4, 5], None,
    ),
    # ... and padding by nothing, whatever comes below.
    "average padded": (
        lambda: keras.Sequential([layers.AveragePooling1D(2, 1), layers.ZeroPadding1D(1)]),
        [-1, 1, 2, 3, 4, 5, 6], 1 / 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("stage", mostly_once(RESAMPLED, ["average", "padded dilated"]))
@pytest.mark.parametrize("steps", [6, None], ids=["", "open"])
def test_steps_are_matched_through_resampling(stage, steps, rng):
    make, expected, share = RESAMPLED[stage]
    below = layers.SimpleRNN(4, return_sequences=True, name="below")
    above = layers.SimpleRNN(4, activation="linear", return_sequences=True, name="above")
    model = keras.Sequential([keras.Input((steps, 4)), below, make(), above])
    randomized(model)
    position = np.linspace(0, 0.999, 24, dtype="float32")
    transition_map, points = sampled(model, sequences(rng, batch=24, steps=6), position)
    depth = transition_map.transitions[-1]
    function, y = depth.linearize(points)
    at = np.array(expected)[np.floor(position * len(expected)).astype(int)]
    inside = (at >= 0) & (at < 6)
    weight = depth.weight(points)
    weight = np.ones(24) if weight is None else to_numpy(weight)
    np.testing.assert_array_equal(weight, inside)
    outputs = to_numpy(below(sequences(np.random.default_rng(7), batch=24, steps=6)))
    exact = outputs[np.flatnonzero(inside), at[inside]]
    np.testing.assert_allclose(to_numpy(y)[inside], exact, atol=1e-5)
    if share is not None:
        kernel = to_numpy(above.cell.kernel)
        found = to_numpy(backend.jacobian(function, y))[inside]
        assert_close(found, [share * kernel.T] * int(inside.sum()), 1e-5)


@pytest.mark.once
def test_strided_convolution_between_recurrent_layers(rng):
    below = layers.SimpleRNN(4, return_sequences=True, name="below")
    middle = layers.Conv1D(5, 3, strides=2)
    above = layers.SimpleRNN(3, activation="linear", return_sequences=True, name="above")
    model = randomized(keras.Sequential([keras.Input((9, 4)), below, middle, above]))
    # Step t sees steps 2t to 2t + 2 below; the last of them meets the last matrix of the kernel.
    exact = (to_numpy(middle.kernel)[2] @ to_numpy(above.cell.kernel)).T
    assert_close(jacobians(model, sequences(rng, steps=9))["above.depth"], [exact] * 8, 1e-5)


class NestedCell(keras.Layer):
    """A cell whose states are a nest [[u, u], u], and the same with a flat list of them."""

    def __init__(self, units, nested):
        super().__init__()
        self.units, self.nested = units, nested
        self.state_size = [[units, units], units] if nested else [units] * 3
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.mix = self.add_weight(shape=(3, self.units), name="mix")

    def call(self, inputs, states):
        a, b, c = keras.tree.flatten(states)
        a = ops.tanh(inputs @ self.kernel + self.mix[0] * b)
        b, c = ops.tanh(self.mix[1] * c + a), self.mix[2] * c + a
        return c, ([[a, b], c] if self.nested else [a, b, c])

    def get_initial_state(self, batch_size=None):
        a, b, c = (ops.zeros((batch_size, self.units)) for _ in range(3))
        return [[a, b], c] if self.nested else [a, b, c]


def test_cells_with_nested_states(rng):
    models = [
        keras.Sequential(
            [
                keras.Input((5, 4)),
                layers.RNN(NestedCell(4, nested), return_sequences=True, name="low"),
                layers.RNN(NestedCell(4, nested), name="high"),
            ]
        )
        for nested in (True, False)
    ]
    models[1].set_weights(models[0].get_weights())
    x = sequences(rng)
    assert TransitionMap(models[0]).transitions[0].state == "state 4+4+4"
    np.testing.assert_allclose(
        to_numpy(TransitionMap(models[0]).outputs(x)), to_numpy(models[0](x)), atol=1e-5
    )
    same_jacobians(models[0], x, models[1], x)


class CountingCell(OscillatorCell):
    """The same with a counter of steps, through which no derivative passes."""

    states_without_gradient = (1,)

    def __init__(self, units, inner=3):
        super().__init__(units, inner)
        self.state_size = [units, units, inner]

    def call(self, inputs, states):
        position, counter, velocity = states
        output, (position, velocity) = super().call(inputs, [position, velocity])
        return output, [position, ops.stop_gradient(counter) + 1.0, velocity]


@pytest.mark.once
def test_a_state_without_gradient_is_no_part_of_the_state(rng):
    models = [
        keras.Sequential([keras.Input((5, 4)), layers.RNN(cell(4), name="rnn")])
        for cell in (CountingCell, OscillatorCell)
    ]
    models[1].set_weights(models[0].get_weights())
    assert TransitionMap(models[0]).transitions[0].state == "state 4+3"
    x = sequences(rng)
    same_jacobians(models[0], x, models[1], x)
    CountingCell.states_without_gradient = (0, 1, 2)
    try:
        with pytest.raises(ValueError, match="states_without_gradient"):
            TransitionMap(models[0])
    finally:
        CountingCell.states_without_gradient = (1,)


FREEZE = {
    "the layer": lambda model: setattr(model.get_layer("low"), "trainable", False),
    "the cell": lambda model: setattr(model.get_layer("low").cell, "trainable", False),
    "the model": lambda model: setattr(model, "trainable", False),
}


@pytest.mark.parametrize("frozen", FREEZE)
def test_frozen_layers_take_no_part(frozen):
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            keras_lsc.layers.LIF(4, return_sequences=True, name="low"),
            layers.GRU(4, name="high"),
        ]
    )
    low = {id(variable) for variable in model.get_layer("low").variables}
    assert low & {id(row.variable) for row in TransitionMap(model).variables_taking_part}
    FREEZE[frozen](model)
    found = {id(row.variable) for row in TransitionMap(model).variables_taking_part}
    assert not found & low
    assert bool(found) == (frozen != "the model")


def test_layers_made_frozen_take_no_part():
    """Keras does not tell the cell, nor the layers inside of a wrapper."""
    inner = keras.Sequential([keras.Input((5, 4)), layers.GRU(4, return_sequences=True)])
    inner.trainable = False
    x = keras.Input((5, 4))
    y = layers.RNN(layers.LSTMCell(4), return_sequences=True, trainable=False)(x)
    y = layers.TimeDistributed(layers.Dense(4), trainable=False)(y)
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True), trainable=False)(y)
    last = layers.SimpleRNN(4, name="last")
    taking_part = TransitionMap(keras.Model(x, last(inner(y)))).variables_taking_part
    assert {id(row.variable) for row in taking_part} == {id(v) for v in last.trainable_variables}


def test_arguments_by_name(rng):
    x, start = keras.Input((5, 4)), keras.Input((3,))
    layer = layers.GRU(3, return_sequences=True, name="gru")
    by_name = keras.Model([x, start], layer(sequences=x, initial_state=start))
    by_place = keras.Model([x, start], layer(x, start))
    data = [sequences(rng), rng.standard_normal((8, 3)).astype("float32")]
    same_jacobians(by_name, data, by_place, data)


def test_a_functional_subclass_with_its_own_call_is_refused():
    class Doubled(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    x = keras.Input((5, 4))
    with pytest.raises(TypeError, match="own call"):
        TransitionMap(Doubled(x, layers.GRU(3)(x)))


def test_dense_stack(rng):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="tanh", name="a"),
            layers.Dropout(0.5),
            layers.Dense(6, activation="relu", name="b"),
            layers.Dense(3, activation="softmax", name="c"),
        ]
    )
    randomized(model)
    assert described(model) == [
        ("a.input", "input", 0),
        ("b.depth", "depth", 1),
        ("c.depth", "depth", 2),
    ]
    x = rng.standard_normal((8, 4)).astype("float32")
    a, b, c = (model.get_layer(name).get_weights() for name in "abc")
    hidden = np.tanh(dense(x, a))
    found = jacobians(model, x)
    assert_close(found["a.input"], (1 - hidden**2)[:, :, None] * a[0].T, 1e-4)
    assert_close(found["b.depth"], (dense(hidden, b) > 0)[:, :, None] * b[0].T, 1e-4)
    # At the logits: cross-entropy never sends its gradient through the softmax.
    assert_close(found["c.depth"], [c[0].T] * 8, 1e-5)
    assert model.get_layer("c").activation is keras.activations.softmax
    np.testing.assert_allclose(to_numpy(model(x)).sum(axis=1), 1.0, rtol=1e-5)


def test_activation_comes_back_after_an_error(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(2, "softmax")])
    transition_map, points = sampled(model, rng.standard_normal((8, 4)).astype("float32"))
    function, _ = transition_map.transitions[-1].linearize(points)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each backend has its own
        function(ops.zeros((1, 3)))
    assert model.layers[-1].activation is keras.activations.softmax


def test_softmax_as_a_layer_is_left_out_too(rng):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(3, name="b"), layers.Softmax()]
    )
    found = jacobians(model, rng.standard_normal((8, 4)).astype("float32"))
    assert_close(found["b.depth"], [model.get_layer("b").get_weights()[0].T] * 8, 1e-5)


@pytest.mark.once
def test_convolutional_stack(rng):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu", name="a"),
            layers.MaxPooling2D(2),
            layers.Conv2D(3, 2, name="b"),
            layers.Flatten(),
            layers.Dense(4, name="c"),
        ]
    )
    randomized(model)
    found = jacobians(model, rng.standard_normal((8, 6, 6, 1)).astype("float32"))
    assert {name: matrices.shape for name, matrices in found.items()} == {
        "a.input": (8, 8, 36),
        "b.depth": (8, 3, 8),
        "c.depth": (8, 4, 3),
    }
    kernel = model.get_layer("b").get_weights()[0]
    assert_close(found["b.depth"], [kernel.reshape(8, 3).T] * 8, 1e-5)


def test_measuring_changes_nothing(rng):
    inputs = keras.Input(batch_shape=(32, 5, 4))
    below = layers.GRU(4, return_sequences=True, stateful=True)
    y = layers.Dropout(0.5)(layers.BatchNormalization()(below(inputs)))
    model = randomized(keras.Model(inputs, layers.LSTM(3, stateful=True)(y)))
    for state in keras.tree.flatten(below.states):
        state.assign(rng.standard_normal(state.shape))
    before = [to_numpy(variable).copy() for variable in model.variables]
    states = [to_numpy(s).copy() for s in keras.tree.flatten(below.states)]
    measure(model, sequences(rng, batch=32), samples=32)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value, err_msg=variable.path)
    for state, value in zip(keras.tree.flatten(below.states), states, strict=True):
        np.testing.assert_array_equal(to_numpy(state), value)


def test_variables_taking_part():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 3, name="table"),
            layers.Dense(4, name="below"),
            layers.LSTM(6, return_sequences=True, name="low"),
            layers.Dense(5, name="between"),
            layers.LayerNormalization(name="norm"),
            layers.GRU(4, name="high"),
            layers.Dense(2, name="head"),
        ]
    )
    taking_part = TransitionMap(model).variables_taking_part

    def ids(name):
        return {id(variable) for variable in model.get_layer(name).trainable_variables}

    widths = {id(row.variable): row.gate_width for row in taking_part}
    of_layer = {id(row.variable): row.layer for row in taking_part}
    assert {of_layer[k] for k in ids("low")} == {0}
    assert {of_layer[k] for k in ids("between") | ids("norm") | ids("high")} == {1}
    assert set(widths) == ids("low") | ids("between") | ids("norm") | ids("high")
    assert {widths[k] for k in ids("low")} == {6}
    assert {widths[k] for k in ids("high")} == {4}
    assert {widths[k] for k in ids("between") | ids("norm")} == {None}
    model.get_layer("between").trainable = False
    frozen = TransitionMap(model).variables_taking_part
    assert {id(row.variable) for row in frozen} == ids("low") | ids("norm") | ids("high")


def test_steps_and_depth(rng):
    x = sequences(rng, steps=5)
    assert TransitionMap(recurrent_model("gru", depth=3)).depth == 3
    assert TransitionMap(recurrent_model("gru", depth=3)).steps(x) == 5
    assert TransitionMap(recurrent_model("gru", steps=None)).steps(x) == 5
    start, sequence = keras.Input((3,)), keras.Input((None, 4))
    strided = layers.Conv1D(3, 2, strides=2)(sequence)
    later = keras.Model([start, sequence], layers.GRU(3)(strided, initial_state=start))
    assert TransitionMap(later).steps([np.zeros((2, 3)), np.zeros((2, 11, 4))]) == 5
    feed_forward = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    assert TransitionMap(feed_forward).steps(x) == 0
    assert TransitionMap(feed_forward).depth == 2
