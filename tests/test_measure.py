"""measure() and its report: seeds, kinds of data, and the same numbers on every backend."""

import importlib.util
import json
from functools import partial
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from harness import (
    largest_modulus,
    mostly_once,
    randomized,
    recurrent_layer,
    recurrent_model,
    run_python,
    sequences,
)
from keras import layers

import keras_lsc
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.measure import Probe

# What does not look at the gradient does not measure it.
measure_radii = partial(keras_lsc.measure, gradient=False)

_PROGRAM = """
import json, sys, keras, numpy as np, keras_lsc
model = keras.saving.load_model(sys.argv[1])
report = keras_lsc.measure(model, np.load(sys.argv[2]), samples=48, seed=3)
print(json.dumps([[row.name, row.radius, row.gain] for row in report.transitions]))
"""


def radii(report):
    return np.array([row.radius for row in report.transitions])


@pytest.fixture
def model():
    return recurrent_model("gru")


@pytest.fixture
def x(rng):
    return sequences(rng, batch=40)


@pytest.mark.once
def test_same_radii_on_every_backend(tmp_path, mnist_rows):
    model = randomized(
        keras.Sequential(
            [
                keras.Input((28, 28)),
                recurrent_layer("lstm", 8, return_sequences=True),
                layers.Dense(6, activation="tanh"),
                layers.LayerNormalization(),
                layers.Bidirectional(recurrent_layer("gru", 5, return_sequences=True)),
                recurrent_layer("tanh", 7),
            ]
        ),
        spread=0.4,
    )
    here = keras_lsc.measure(model, mnist_rows, samples=48, seed=3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", mnist_rows)
    rows = {}
    for backend in ("jax", "tensorflow", "torch"):
        if importlib.util.find_spec(backend) is None or backend == keras.backend.backend():
            continue
        printed = run_python(
            _PROGRAM, tmp_path / "model.keras", tmp_path / "x.npy", backend=backend
        )
        rows[backend] = json.loads(printed.splitlines()[-1])
    names = [row.name for row in here.transitions]
    numbers = [[row.radius, row.gain] for row in here.transitions]
    for found in rows.values():
        assert [row[0] for row in found] == names
        np.testing.assert_allclose([row[1:] for row in found], numbers, atol=1e-4)
    assert rows


@pytest.mark.once
def test_seed_decides_the_points(model, x):
    first, again, other = (measure_radii(model, x, samples=16, seed=s) for s in (1, 1, 2))
    assert first == again
    assert (radii(first) != radii(other)).all()
    assert (first.seed, first.samples, first.steps, first.layers) == (1, 16, 5, 2)


@pytest.mark.parametrize("samples", [1, 33, 100])
def test_any_number_of_samples(model, x, samples):
    report = measure_radii(model, x, samples=samples)
    assert report.samples == samples
    assert np.isfinite(radii(report)).all()
    assert all((row.radius_std == 0.0) == (samples == 1) for row in report.transitions)


@pytest.mark.once
def test_more_samples_than_rows_see_more_steps(model, x):
    """One row gives many points, at different steps of it."""
    report = measure_radii(model, x[:1], samples=64)
    assert all(row.radius_std > 0 for row in report.transitions)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, size=7):
        super().__init__()
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        part = self.x[index * self.size : (index + 1) * self.size]
        return part, np.full(len(part), np.nan)


def of_tensorflow(x, count=None):
    import tensorflow as tf

    labels = np.full(count or len(x), np.nan)
    return tf.data.Dataset.from_tensor_slices((x, labels)).batch(7)


def of_torch(x):
    import torch

    rows = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.full((len(x),), float("nan")))
    return torch.utils.data.DataLoader(rows, batch_size=7)


DATA = {
    "array": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "list of lists": lambda x: [x],
    "tensor": keras.ops.convert_to_tensor,
    "py_dataset": Batches,
    "generator": lambda x: (x[k : k + 5] for k in range(0, len(x), 5)),
    "generator with labels": lambda x: ((x[k : k + 5], np.nan) for k in range(0, len(x), 5)),
    "tensorflow": of_tensorflow,
    "torch": of_torch,
}


@pytest.mark.parametrize("kind", mostly_once(DATA, ("tensor", "tensorflow", "torch")))
def test_every_kind_of_data_gives_its_rows(kind, model, x):
    if kind in ("tensorflow", "torch") and keras.backend.backend() != kind:
        pytest.skip(f"a dataset of {kind} is tested on the {kind} backend")
    (rows,) = draw_rows(DATA[kind](x), 30, 0, model.inputs)
    assert rows.shape == (30, 5, 4)
    known = {row.tobytes() for row in x}
    drawn = [row.astype("float32").tobytes() for row in rows]
    assert set(drawn) <= known
    assert len(set(drawn)) == 30
    report = measure_radii(model, DATA[kind](x), samples=20)
    assert np.isfinite(radii(report)).all()


def test_drawn_rows_are_not_the_first_ones(model, x):
    (rows,) = draw_rows(x, 10, 0, model.inputs)
    (other,) = draw_rows(x, 10, 1, model.inputs)
    assert not np.array_equal(rows, x[:10])
    assert not np.array_equal(rows, other)


def two_input_model():
    """Its inputs are declared in another order than that of their names."""
    sequence, start = keras.Input((5, 4), name="sequence"), keras.Input((6,), name="a_start")
    layer = recurrent_layer("gru", 6, return_sequences=True, name="gru")
    return randomized(keras.Model([sequence, start], layer(sequence, initial_state=start)))


@pytest.fixture
def two_inputs(rng):
    return sequences(rng, batch=40), 3 * rng.standard_normal((40, 6)).astype("float32")


def test_inputs_stay_aligned(two_inputs):
    drawn = draw_rows(list(two_inputs), 12, 0, two_input_model().inputs)
    sequence_of = {row.tobytes(): k for k, row in enumerate(two_inputs[0])}
    start_of = {row.tobytes(): k for k, row in enumerate(two_inputs[1])}
    assert [sequence_of[row.tobytes()] for row in drawn[0]] == [
        start_of[row.tobytes()] for row in drawn[1]
    ]


@pytest.mark.once
def test_list_and_dictionary_of_inputs_are_the_same(two_inputs):
    model = two_input_model()
    expected = measure_radii(model, list(two_inputs), samples=16)
    by_name = {"sequence": two_inputs[0], "a_start": two_inputs[1]}
    assert measure_radii(model, by_name, samples=16) == expected


@pytest.mark.once
def test_model_made_with_a_dictionary_of_inputs(two_inputs):
    inputs = {
        "sequence": keras.Input((5, 4), name="sequence"),
        "a_start": keras.Input((6,), name="a_start"),
    }
    layer = recurrent_layer("gru", 6, return_sequences=True, name="gru")
    outputs = layer(inputs["sequence"], initial_state=inputs["a_start"])
    model = randomized(keras.Model(inputs, outputs))
    by_name = {"sequence": two_inputs[0], "a_start": two_inputs[1]}
    report = measure_radii(model, by_name, samples=16)
    as_list = measure_radii(two_input_model(), list(two_inputs), samples=16)
    np.testing.assert_allclose(radii(report), radii(as_list), rtol=1e-5)


def keyed_model(name="sequence_input"):
    """Takes its inputs by keys that are not the names of the tensors."""
    sequence, start = keras.Input((5, 4), name=name), keras.Input((6,), name="start_input")
    layer = recurrent_layer("gru", 6, return_sequences=True, name="gru")
    return randomized(
        keras.Model({"x": sequence, "a": start}, layer(sequence, initial_state=start))
    )


@pytest.mark.parametrize("kind", ["arrays", "py_dataset", "generator", "tensorflow", "torch"])
def test_inputs_by_the_keys_of_the_model(kind, two_inputs):
    if kind in ("tensorflow", "torch") and keras.backend.backend() != kind:
        pytest.skip(f"a dataset of {kind} is tested on the {kind} backend")
    x, start = two_inputs
    # Keys that are no inputs, before and after the others, are left out, as labels are.
    given = {"0": x[:, 0], "a": start, "x": x, "z": start[:, :2]}
    data = {
        "arrays": lambda: given,
        "py_dataset": lambda: DictionaryBatches(given),
        "generator": lambda: (
            ({k: v[i : i + 8] for k, v in given.items()}, start[i : i + 8]) for i in (0, 8, 16)
        ),
        "tensorflow": lambda: of_tensorflow(given, len(x)),
        "torch": lambda: of_torch_rows([({k: v[i] for k, v in given.items()}, 0.0)
                                        for i in range(len(x))]),
    }[kind]()  # fmt: skip
    rows = draw_rows(data, 24, 0, input_structure(keyed_model()))
    assert [row.shape for row in rows] == [(24, 6), (24, 5, 4)]
    start_of = {row.tobytes(): k for k, row in enumerate(start)}
    assert [start_of[row.tobytes()] for row in rows[0]] == [
        np.flatnonzero((x == row).all(axis=(1, 2)))[0] for row in rows[1]
    ]


class DictionaryBatches(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(10 * index, 10 * index + 10)
        return {k: v[part] for k, v in self.arrays.items()}, np.zeros(10)


def of_torch_rows(rows):
    import torch

    return torch.utils.data.DataLoader(rows, batch_size=7)


@pytest.mark.once
def test_keys_names_and_order_give_one_report(two_inputs):
    model = keyed_model()
    x, start = two_inputs
    expected = measure_radii(model, {"x": x, "a": start}, samples=16)
    by_name = {"sequence_input": x, "start_input": start}
    assert measure_radii(model, by_name, samples=16) == expected
    assert measure_radii(model, [start, x], samples=16) == expected
    with pytest.raises(ValueError, match="keys"):
        measure_radii(model, {"x": x, "b": start})


@pytest.mark.once
def test_nested_inputs_and_an_axis_of_one(rng):
    x, start = keras.Input((5, 1)), keras.Input((6,))
    layer = recurrent_layer("gru", 6, return_sequences=True)
    model = randomized(keras.Model({"b": [x], "a": (start,)}, layer(x, initial_state=start)))
    data = sequences(rng, features=1), rng.standard_normal((8, 6)).astype("float32")
    expected = measure_radii(model, {"a": (data[1],), "b": [data[0]]}, samples=8)
    squeezed = {"a": [data[1]], "b": (data[0][..., 0],), "c": data[1]}
    assert measure_radii(model, squeezed, samples=8) == expected


KINDS = ("uint8", "int64", "bool", "float16", "float64")


@pytest.mark.parametrize(
    ("layer", "kinds"),
    [
        ("LIF", KINDS),
        *((layer, KINDS[:1]) for layer in ("LRUBlock", "GRU")),
        *(pytest.param(layer, KINDS[1:], marks=pytest.mark.once) for layer in ("LRUBlock", "GRU")),
    ],
)
def test_every_dtype_is_cast_as_the_model_casts_it(layer, kinds, rng):
    model = keras.Sequential(
        [keras.Input((6, 4)), getattr(keras_lsc.layers, layer)(4, name="layer")]
    )
    x = rng.integers(0, 2, (16, 6, 4))
    expected = measure_radii(model, x.astype("float32"), samples=8)
    for dtype in kinds:
        assert measure_radii(model, x.astype(dtype), samples=8) == expected


def test_inputs_are_not_rounded_to_the_global_policy(rng):
    """Only the layers' own policy decides, as it does in the model."""
    model, x = recurrent_model("gru"), sequences(rng)
    expected = measure_radii(model, x, samples=8)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert measure_radii(model, x, samples=8) == expected
    finally:
        keras.config.set_dtype_policy("float32")


def padded_model():
    return randomized(
        keras.Sequential(
            [
                keras.Input((6, 4)),
                layers.Masking(),
                recurrent_layer("gru", 4, return_sequences=True),
                keras_lsc.layers.LIF(4, name="spiking"),
            ]
        )
    )


def test_padding_from_end_to_end_is_left_out(rng):
    """Rows are drawn without regard to what they hold, so every second of 32 points counts."""
    model, x = padded_model(), np.tile(sequences(rng, batch=1, steps=6), (16, 1, 1))
    x[:, 5] = 0.0
    expected = measure_radii(model, x[:1, :], samples=300, seed=1)
    x[::2] = 0.0
    report = measure_radii(model, x, samples=300, seed=1)
    for row, same in zip(report.transitions, expected.transitions, strict=True):
        # Other steps are looked at; those of the padding, as they were, halved the spread below.
        assert row.radius == pytest.approx(same.radius, abs=6 * same.radius_std / 150**0.5 + 1e-4)
    assert report.firing_rates == pytest.approx(expected.firing_rates, abs=1e-5)


def test_nothing_but_padding_is_refused():
    model, x = padded_model(), np.zeros((4, 6, 4))
    with pytest.raises(ValueError, match="padding from end to end"):
        measure_radii(model, x, samples=4)
    with pytest.raises(ValueError, match="padding from end to end"):
        keras_lsc.eigenvalues(model, x, samples=4)


MEASURES = {
    "measure": keras_lsc.measure,
    "eigenvalues": keras_lsc.eigenvalues,
    "gradient_grid": keras_lsc.gradient_grid,
}


@pytest.mark.parametrize("function", MEASURES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "samples must be a positive integer, got 0"),
        ({"samples": 2.5}, "samples must be a positive integer, got 2.5"),
        ({"samples": True}, "samples must be a positive integer, got True"),
        ({"seed": None}, "seed must be an integer of 0 or more, got None"),
        ({"seed": -1}, "seed must be an integer of 0 or more, got -1"),
    ],
)
@pytest.mark.once
def test_arguments_are_checked(function, arguments, message, model, x):
    with pytest.raises(ValueError, match=message):
        MEASURES[function](model, x, **arguments)


@pytest.mark.once
def test_options_are_checked(model, x):
    with pytest.raises(ValueError, match="Did you mean 'spectral'"):
        measure_radii(model, x, radius="spektral")
    with pytest.raises(ValueError, match="by must be one of 'gain', 'radius'"):
        keras_lsc.gradient_grid(model, x, by=["gain"])


@pytest.mark.once
def test_integers_of_numpy(model, x):
    expected = measure_radii(model, x, samples=4, seed=3)
    assert measure_radii(model, x, samples=np.int64(4), seed=np.uint8(3)) == expected


@pytest.mark.parametrize("function", MEASURES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(function, value, model, x):
    broken = model.layers[1].weights[1]
    values = keras.ops.convert_to_numpy(broken).copy()
    values[0, :2] = value
    broken.assign(values)
    with pytest.raises(ValueError, match=f"{broken.path}.* has 2 NaN or infinite"):
        MEASURES[function](model, x, samples=4)


def test_radii_that_overflow_are_never_silent(rng):
    square = layers.SimpleRNN(3, activation=keras.ops.square, name="layer")
    model = keras.Sequential([keras.Input((5, 3)), square])
    model.set_weights([1e12 * np.ones(w.shape) for w in model.get_weights()])
    x = 1.0 + rng.random((4, 5, 3))
    with pytest.raises(ValueError, match=r"'layer\.time'"):
        measure_radii(model, x, samples=8)
    with pytest.raises(ValueError, match=r"'layer\.time'"):
        keras_lsc.eigenvalues(model, x, samples=8)
    report = Probe(model).report([x], 8, 0)
    assert report.non_finite
    assert "not finite" in str(report)


def test_gradient_grids_need_one_number_of_steps(rng):
    x = keras.Input((8, 3))
    y = layers.GRU(4, return_sequences=True, name="low")(x)
    pooled = layers.GRU(4, name="high")(layers.MaxPooling1D(2)(y))
    data = sequences(rng, steps=8, features=3)
    assert np.isfinite(radii(measure_radii(keras.Model(x, pooled), data, samples=8))).all()
    with pytest.raises(ValueError, match="'high' takes 4 steps, and 'low' takes 8"):
        keras_lsc.gradient_grid(keras.Model(x, pooled), data, samples=4)
    both = keras.Sequential([keras.Input((8, 3)), layers.Bidirectional(layers.GRU(4))])
    with pytest.raises(ValueError, match="runs backwards"):
        keras_lsc.gradient_grid(both, data, samples=4)


def test_gradient_grid_of_sequence_to_sequence(rng):
    """Equally long: the gradient reaches the encoder through the state alone."""
    source, target = keras.Input((5, 4)), keras.Input((None, 2))
    _, h = layers.GRU(3, return_state=True, name="encoder")(source)
    decoded = layers.GRU(3, return_sequences=True, name="decoder")(target, initial_state=h)
    model = keras.Model([source, target], decoded)
    data = [sequences(rng), sequences(rng, features=2)]
    grid = keras_lsc.gradient_grid(model, data, samples=4)
    assert grid.measured.shape == (5, 2)
    assert (grid.measured > 0).all()
    with pytest.raises(ValueError, match="'decoder' takes 7 steps, and 'encoder' takes 5"):
        keras_lsc.gradient_grid(model, [data[0], sequences(rng, steps=7, features=2)], samples=4)


def test_integer_inputs(rng):
    model = keras.Sequential(
        [
            keras.Input((9,), dtype="int32"),
            layers.Embedding(20, 4),
            recurrent_layer("lstm", 5, return_sequences=True),
            recurrent_layer("lstm", 5),
        ]
    )
    tokens = rng.integers(0, 20, (30, 9))
    report = measure_radii(model, tokens, samples=16)
    assert np.isfinite(radii(report)).all()
    assert measure_radii(model, tokens.astype("int32"), samples=16) == report


def test_sequences_of_any_length(rng):
    model = recurrent_model("tanh", steps=None)
    assert measure_radii(model, sequences(rng, steps=11), samples=8).steps == 11


def test_rms_kind_reports_the_gain_and_norm_the_largest_of_all(model, x):
    spectral, rms, norm = (
        measure_radii(model, x, samples=16, radius=kind) for kind in ("spectral", "rms", "norm")
    )
    gains = [row.gain for row in spectral.transitions]
    # The gain is a root mean square over points, a radius a mean over them.
    assert [row.gain for row in rms.transitions] == pytest.approx(gains, rel=1e-5)
    assert (radii(rms) <= np.array(gains) * (1 + 1e-6)).all()
    assert (radii(norm) >= radii(spectral) * (1 - 1e-3)).all()
    assert (spectral.radius_kind, rms.radius_kind, norm.radius_kind) == ("spectral", "rms", "norm")


@pytest.fixture(scope="module")
def report():
    x = sequences(np.random.default_rng(7), batch=40)
    return keras_lsc.measure(recurrent_model("gru"), x, samples=16)


def test_report_per_layer(report):
    by_name = {row.name: row.radius for row in report.transitions}
    time, depth = (
        [radius for name, radius in by_name.items() if name.endswith(kind)]
        for kind in (".time", ".depth")
    )
    assert report.time.tolist() == time
    assert np.isnan(report.depth[0])
    assert report.depth[1:].tolist() == depth
    assert [report.input] == [r for name, r in by_name.items() if name.endswith(".input")]


def test_report_of_a_bidirectional_averages_its_directions(rng):
    model = randomized(
        keras.Sequential([keras.Input((5, 4)), layers.Bidirectional(layers.GRU(3), name="both")])
    )
    report = keras_lsc.measure(model, sequences(rng), samples=8)
    pair = [row.radius for row in report.transitions if row.kind == "time"]
    assert len(pair) == 2
    assert pair[0] != pair[1]
    assert report.time == pytest.approx([np.mean(pair)])


def test_report_of_a_feed_forward_model(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    report = keras_lsc.measure(model, rng.standard_normal((9, 4)), samples=8)
    assert report.steps == 0
    assert report.time.shape == (0,)
    first, second = (largest_modulus(w) for w in model.get_weights()[::2])
    assert report.input == pytest.approx(first, rel=2e-3)
    assert np.isnan(report.depth[0])
    assert report.depth[1] == pytest.approx(second, rel=2e-3)


@pytest.mark.parametrize("target", ["variance", 1.0, 0.5, (0.9, 0.3), "unbalanced"])
def test_max_deviation(report, target):
    time, depth = {
        "variance": (0.5**0.5, 0.5**0.5),
        1.0: (1.0, 1.0),
        0.5: (0.5, 0.5),
        (0.9, 0.3): (0.9, 0.3),
        "unbalanced": (5 / 7, 2 / 7),
    }[target]
    distances = np.concatenate([report.time - time, report.depth[1:] - depth])
    assert report.max_deviation(target) == pytest.approx(np.abs(distances).max())


def test_report_is_json_and_says_all(report):
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [row["name"] for row in content["transitions"]] == [r.name for r in report.transitions]
    assert content["transitions"][0]["radius"] == report.transitions[0].radius
    assert content["samples"] == 16
    # The input transition is rectangular: it has a gain and no isotropy.
    input_row = next(row for row in content["transitions"] if row["kind"] == "input")
    assert input_row["shape"] == [6, 4]
    assert input_row["isotropy"] is None


def test_table_has_a_line_for_every_transition(report):
    lines = str(report).splitlines()
    for row in report.transitions:
        (line,) = [line for line in lines if line.startswith(f"{row.name} ")]
        assert f"{row.radius:.3f}" in line
        assert f"{row.gain:.3f}" in line
        assert f"{row.shape[0]}x{row.shape[1]}" in line
    assert sum("16 points" in line for line in lines) == 1


def test_a_notebook_shows_the_same_table(report):
    table = ElementTree.fromstring(f"<div>{report._repr_html_().replace('<br>', ' ')}</div>")
    rows = [[cell.text for cell in row] for row in table.iter("tr")]
    lines = str(report).splitlines()
    assert [" ".join(cells) for cells in rows] == [
        " ".join(line.split()) for line in lines[: len(rows)]
    ]
    assert table.find("p").text == " ".join(report.notes)


@pytest.mark.parametrize(
    ("time", "depth", "meaning"),
    [(0.3, 0.2, "vanish fast"), (0.5, 0.4, "may help"), (0.8, 0.6, "kept"), (1.2, 1.0, "grow")],
)
def test_the_energy_sum_is_that_of_linear_layers(time, depth, meaning, rng):
    orthogonal = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    stack = [layers.SimpleRNN(6, "linear", use_bias=False, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((3, 6)), *stack])
    model.set_weights([depth * orthogonal, time * orthogonal] * 2)
    report = keras_lsc.measure(model, sequences(rng, steps=3, features=6), samples=4)
    assert report.energy_sum == pytest.approx(time**2 + depth**2, rel=1e-4)
    assert meaning in str(report)


def test_a_network_without_depth_has_no_energy_sum(rng):
    report = keras_lsc.measure(linear_rnn(np.eye(3)), sequences(rng, steps=3, features=3))
    assert report.energy_sum is None
    assert "gain_t" not in str(report)


def linear_rnn(recurrent):
    n = len(recurrent)
    model = keras.Sequential(
        [keras.Input((3, n)), layers.SimpleRNN(n, activation="linear", use_bias=False)]
    )
    model.set_weights([np.eye(n), recurrent])
    return model


@pytest.mark.once
def test_lists_of_numbers_are_arrays(rng):
    stack = [layers.SimpleRNN(4, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((5, 3)), *stack])
    x = rng.standard_normal((6, 5, 3)).astype("float32")
    listed = keras_lsc.measure(model, x.tolist(), samples=4)
    np.testing.assert_allclose(listed.time, keras_lsc.measure(model, x, samples=4).time, rtol=1e-5)
    with pytest.raises(ValueError, match="unequal lengths"):
        keras_lsc.measure(model, [x[0].tolist(), x[0, :2].tolist()])


def test_outlier_spectrum_is_flagged(rng):
    n = 20
    outlier = 0.05 * np.linalg.qr(rng.standard_normal((n, n)))[0]
    outlier[0, 0] += 1.0
    x = sequences(rng, steps=3, features=n)
    flagged = keras_lsc.measure(linear_rnn(outlier), x, samples=4)
    assert [row.kind for row in flagged.outliers] == ["time"]
    row = flagged.outliers[0]
    exact = np.sqrt(np.square(outlier).sum() / n) / largest_modulus(outlier)
    assert row.isotropy == pytest.approx(exact, rel=2e-3)
    assert any(
        line.startswith(row.name) and line.endswith("!") for line in str(flagged).split("\n")
    )
    assert "outlier" in str(flagged)
    calm = keras_lsc.measure(linear_rnn(np.linalg.qr(outlier)[0]), x, samples=4)
    assert calm.outliers == []
    assert "!" not in str(calm)
    assert calm.transitions[0].isotropy == pytest.approx(1.0, abs=2e-3)


def test_zero_radius_has_no_isotropy(rng):
    report = keras_lsc.measure(
        linear_rnn(np.zeros((4, 4))), sequences(rng, steps=3, features=4), samples=4
    )
    assert report.time[0] == 0.0
    assert np.isnan(report.transitions[0].isotropy)
    assert report.outliers == []
    json.dumps(report.to_dict(), allow_nan=False)


def test_real_digits(mnist_rows):
    """The measured time radius of a relu RNN can be read off its matrix and active units."""
    model = recurrent_model("relu", depth=1, units=16, features=28, steps=28, spread=0.2)
    report = keras_lsc.measure(model, mnist_rows, samples=32)
    recurrent = model.get_weights()[1]
    assert report.time[0] > 0
    assert report.time[0] <= np.linalg.norm(recurrent, ord=2)
