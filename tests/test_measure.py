"""measure() and its report: seeds, kinds of data, and the same numbers on every backend."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from harness import (
    largest_modulus,
    randomized,
    recurrent_layer,
    recurrent_model,
    run_python,
    sequences,
)
from keras import layers

import keras_lsc
from keras_lsc.stability.data import draw_rows

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


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="started once, from JAX: it runs every backend itself"
)
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
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", mnist_rows)
    rows = {}
    for backend in ("jax", "tensorflow", "torch"):
        if importlib.util.find_spec(backend) is None:
            continue
        printed = run_python(
            _PROGRAM, tmp_path / "model.keras", tmp_path / "x.npy", backend=backend
        )
        rows[backend] = json.loads(printed.splitlines()[-1])
    here = keras_lsc.measure(model, mnist_rows, samples=48, seed=3)
    rows["this process"] = [[r.name, r.radius, r.gain] for r in here.transitions]
    for found in rows.values():
        assert [row[0] for row in found] == [row[0] for row in rows["jax"]]
        numbers = [row[1:] for row in found]
        np.testing.assert_allclose(numbers, [row[1:] for row in rows["jax"]], atol=1e-4)
    assert len(rows) >= 2


def test_seed_decides_the_points(model, x):
    first, again, other = (keras_lsc.measure(model, x, samples=16, seed=s) for s in (1, 1, 2))
    assert first == again
    assert (radii(first) != radii(other)).all()
    assert (first.seed, first.samples, first.steps, first.layers) == (1, 16, 5, 2)


@pytest.mark.parametrize("samples", [1, 33, 100])
def test_any_number_of_samples(model, x, samples):
    report = keras_lsc.measure(model, x, samples=samples)
    assert report.samples == samples
    assert np.isfinite(radii(report)).all()
    assert all((row.radius_std == 0.0) == (samples == 1) for row in report.transitions)


def test_more_samples_than_rows_see_more_steps(model, x):
    """One row gives many points, at different steps of it."""
    report = keras_lsc.measure(model, x[:1], samples=64)
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


def of_tensorflow(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, np.full(len(x), np.nan))).batch(7)


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


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_gives_its_rows(kind, model, x):
    if kind in ("tensorflow", "torch") and keras.backend.backend() != kind:
        pytest.skip(f"a dataset of {kind} is tested on the {kind} backend")
    (rows,) = draw_rows(DATA[kind](x), 30, 0, model.inputs)
    assert rows.shape == (30, 5, 4)
    known = {row.tobytes() for row in x}
    drawn = [row.astype("float32").tobytes() for row in rows]
    assert set(drawn) <= known
    assert len(set(drawn)) == 30
    report = keras_lsc.measure(model, DATA[kind](x), samples=20)
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


def test_list_and_dictionary_of_inputs_are_the_same(two_inputs):
    model = two_input_model()
    expected = keras_lsc.measure(model, list(two_inputs), samples=16)
    by_name = {"sequence": two_inputs[0], "a_start": two_inputs[1]}
    assert keras_lsc.measure(model, by_name, samples=16) == expected


def test_model_made_with_a_dictionary_of_inputs(two_inputs):
    inputs = {
        "sequence": keras.Input((5, 4), name="sequence"),
        "a_start": keras.Input((6,), name="a_start"),
    }
    layer = recurrent_layer("gru", 6, return_sequences=True, name="gru")
    outputs = layer(inputs["sequence"], initial_state=inputs["a_start"])
    model = randomized(keras.Model(inputs, outputs))
    by_name = {"sequence": two_inputs[0], "a_start": two_inputs[1]}
    report = keras_lsc.measure(model, by_name, samples=16)
    as_list = keras_lsc.measure(two_input_model(), list(two_inputs), samples=16)
    np.testing.assert_allclose(radii(report), radii(as_list), rtol=1e-5)


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
    report = keras_lsc.measure(model, tokens, samples=16)
    assert np.isfinite(radii(report)).all()
    assert keras_lsc.measure(model, tokens.astype("int32"), samples=16) == report


def test_sequences_of_any_length(rng):
    model = recurrent_model("tanh", steps=None)
    assert keras_lsc.measure(model, sequences(rng, steps=11), samples=8).steps == 11


def test_rms_kind_reports_the_gain_and_norm_the_largest_of_all(model, x):
    spectral, rms, norm = (
        keras_lsc.measure(model, x, samples=16, radius=kind) for kind in ("spectral", "rms", "norm")
    )
    gains = [row.gain for row in spectral.transitions]
    # The gain is a root mean square over points, a radius a mean over them.
    assert [row.gain for row in rms.transitions] == pytest.approx(gains, rel=1e-5)
    assert (radii(rms) <= np.array(gains) * (1 + 1e-6)).all()
    assert (radii(norm) >= radii(spectral) * (1 - 1e-3)).all()
    assert (spectral.radius_kind, rms.radius_kind, norm.radius_kind) == ("spectral", "rms", "norm")


@pytest.fixture
def report(model, x):
    return keras_lsc.measure(model, x, samples=16)


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
    assert "16 points" in lines[-1] or "16 points" in lines[-2]


def linear_rnn(recurrent):
    n = len(recurrent)
    model = keras.Sequential(
        [keras.Input((3, n)), layers.SimpleRNN(n, activation="linear", use_bias=False)]
    )
    model.set_weights([np.eye(n), recurrent])
    return model


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
