"""Exported graphs give what the layers give; spikes are exactly 0 or 1 in them."""

import keras
import numpy as np
import pytest
from harness import mostly_once, to_numpy

from keras_lsc import export, layers

BACKEND = keras.backend.backend()
to_onnx = pytest.mark.skipif(BACKEND == "jax", reason="JAX writes no ONNX here")

FEATURES, STEPS = 4, 20


def lif(**options):
    return lambda **o: layers.LIF(5, return_sequences=True, **options, **o)


def alif(**options):
    return lambda **o: layers.ALIF(5, return_sequences=True, tau_adaptation=5.0, **options, **o)


SPIKING = {
    "lif": lif(),
    "lif-feedforward-1": lif(recurrent=False, reset="multiplicative-1"),
    "lif-2-refractory": lif(reset="multiplicative-2", refractory=2),
    "alif-feedforward": alif(recurrent=False),
    "alif-1": alif(reset="multiplicative-1"),
    "alif-2-backwards": alif(reset="multiplicative-2", go_backwards=True),
    "stepped": lambda: keras.layers.RNN(layers.LIFCell(5), return_sequences=True),
}
GRADED = {
    "lstm": lambda: keras.layers.LSTM(5, return_sequences=True),
    "gru": lambda: keras.layers.GRU(5),
    "simple": lambda: keras.layers.SimpleRNN(5, return_sequences=True),
    "voltage": lambda: layers.LIF(5, output="voltage"),
    "readout": lambda: layers.LeakyReadout(5, return_sequences=True),
    "leaky": lambda: layers.LeakyRNN(5, return_sequences=True),
    "lru": lambda: layers.LRU(5, state_units=7, seed=1, return_sequences=True),
    "block": lambda: layers.LRUBlock(FEATURES, seed=1, return_sequences=True),
    "min-gru": lambda: layers.MinGRU(5, seed=1, return_sequences=True),
    "min-lstm": lambda: layers.MinLSTM(5, seed=1),
    "para-gru": lambda: layers.ParaGRU(5, seed=1, solver="newton", return_sequences=True),
    "para-lstm": lambda: layers.ParaLSTM(5, seed=1, solver="newton"),
    "para-leaky": lambda: layers.ParaLeaky(5, seed=1, solver="newton", return_sequences=True),
    "selective": lambda: layers.SelectiveSSM(5, state_units=3, seed=1, return_sequences=True),
    "oscillators": lambda: layers.LinOSS(5, state_units=3, seed=1, return_sequences=True),
    "plstm": lambda: layers.PLSTM1D(4, heads=2, key_units=3, seed=1, return_sequences=True),
}


def onnxruntime():
    """What runs ONNX, where the backend's writer is installed too."""
    writer = {"tensorflow": "tf2onnx", "torch": "onnxscript"}[BACKEND]
    pytest.importorskip(writer, reason=f"{writer} is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def check(layer, rng, tmp_path, masked=False):
    before = [keras.layers.Masking()] if masked else []
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *before, layer])
    model.save(tmp_path / "model.keras")
    # Fresh from its file, never called.
    model = keras.models.load_model(tmp_path / "model.keras")
    session = onnxruntime().InferenceSession(str(export(model, tmp_path / "model.onnx")))
    counts = rng.integers(0, 3, (3, STEPS, FEATURES))
    counts[:, 12:] = 0
    for x in (
        np.zeros((2, STEPS, FEATURES)),
        2 * rng.standard_normal((3, STEPS, FEATURES)),
        counts,
    ):
        x = x.astype("float32")
        (found,) = session.run(None, {session.get_inputs()[0].name: x})
        expected = to_numpy(model(x))
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
        yield found


@to_onnx
@pytest.mark.parametrize("name", SPIKING)
def test_spikes_in_onnx_are_those_of_the_layer(name, rng, tmp_path):
    rates = []
    for spikes in check(SPIKING[name](), rng, tmp_path):
        assert set(np.unique(spikes)) <= {0.0, 1.0}
        rates.append(spikes.mean())
    assert max(rates) > 0.05


@to_onnx
@pytest.mark.parametrize("name", mostly_once(GRADED, GRADED.keys() - {"min-lstm", "para-leaky"}))
def test_outputs_in_onnx_are_those_of_the_layer(name, rng, tmp_path):
    assert max(np.abs(outputs).max() for outputs in check(GRADED[name](), rng, tmp_path)) > 0.1


@to_onnx
@pytest.mark.parametrize("mode", ["P", "D"])
def test_a_layer_over_a_grid_in_onnx_is_the_layer(mode, rng, tmp_path):
    layer = layers.PLSTM2D(4, heads=2, key_units=3, mode=mode, seed=1)
    model = keras.Sequential([keras.Input((5, 6, FEATURES)), layer])
    session = onnxruntime().InferenceSession(str(export(model, tmp_path / "model.onnx")))
    x = (2 * rng.standard_normal((3, 5, 6, FEATURES))).astype("float32")
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, to_numpy(model(x)), atol=1e-5)


@to_onnx
@pytest.mark.parametrize("name", ["lif", "readout"])
def test_masked_steps_in_onnx_repeat_the_output_before_them(name, rng, tmp_path):
    make = {**SPIKING, **GRADED}[name]
    *_, outputs = check(make(), rng, tmp_path, masked=True)
    np.testing.assert_array_equal(outputs[:, 12:], np.repeat(outputs[:, 11:12], STEPS - 12, axis=1))


@pytest.mark.skipif(BACKEND != "torch", reason="a format of torch's own")
@pytest.mark.parametrize("name", ["lif", "readout"])
def test_torch_export(name, rng, tmp_path):
    import torch

    layer = {**SPIKING, **GRADED}[name]()
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer])
    path = export(model, tmp_path / "model.pt2", format="torch")
    module = torch.export.load(str(path)).module()
    for batch in (1, 3):
        x = (2 * rng.standard_normal((batch, STEPS, FEATURES))).astype("float32")
        found = module(torch.as_tensor(x)).detach().cpu().numpy()
        np.testing.assert_allclose(found, to_numpy(model(x)), atol=1e-5)


@pytest.mark.skipif(
    BACKEND == "torch", reason="a format of TensorFlow's, which torch does not write"
)
@pytest.mark.parametrize("name", ["alif-1", "gru", "readout"])
def test_saved_model_of_any_batch_and_length(name, rng, tmp_path):
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    layer = {**SPIKING, **GRADED}[name]()
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    export(model, tmp_path / "model", format="tf_saved_model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for shape in ((1, 7, FEATURES), (3, STEPS, FEATURES)):
        x = (2 * rng.standard_normal(shape)).astype("float32")
        np.testing.assert_allclose(
            np.asarray(loaded.serve(tf.constant(x))), to_numpy(model(x)), atol=1e-5
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a format that TensorFlow alone writes here")
@pytest.mark.parametrize("name", ["lif", "gru"])
def test_tflite_of_one_sequence(name, rng, tmp_path):
    import tensorflow as tf

    layer = {**SPIKING, **GRADED}[name]()
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    with pytest.raises(ValueError, match="Give steps="):
        export(model, tmp_path / "model.tflite", format="litert")
    path = export(model, tmp_path / "model.tflite", format="litert", steps=7)
    interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    x = (2 * rng.standard_normal((1, 7, FEATURES))).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, to_numpy(model(x)), atol=1e-5)


def test_what_cannot_be_exported_is_told_before_anything_is_written(tmp_path):
    model = keras.Sequential([keras.Input((None, FEATURES)), layers.LIF(2)])
    known = {"jax": "tf_saved_model", "tensorflow": "onnx", "torch": "onnx"}[BACKEND]
    other = {"jax": "onnx", "tensorflow": "torch", "torch": "tf_saved_model"}[BACKEND]
    with pytest.raises(ValueError, match=r"format must be one of .* writes\. Load the model on"):
        export(model, tmp_path / "model.onnx", format=other)
    with pytest.raises(ValueError, match="Give it a keras"):
        export(layers.LIF(2), tmp_path / "model.onnx", format=known)
    half = keras.Sequential([keras.Input((5, FEATURES)), layers.LIF(2, dtype="mixed_bfloat16")])
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        export(half, tmp_path / "model.onnx", format=known)
    if BACKEND != "jax":
        with pytest.raises(ValueError, match=r"ends in \.onnx"):
            export(model, tmp_path / "model.h5")
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="Give steps="):
            export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
