"""Exported graphs give what the layers give; spikes are exactly 0 or 1 in them."""

import keras
import numpy as np
import pytest
from harness import to_numpy

from keras_lsc import layers

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
if keras.backend.backend() == "tensorflow":
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
if keras.backend.backend() == "torch":
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras exports JAX models by another converter"
)

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
    "voltage": lambda: layers.LIF(5, output="voltage"),
    "readout": lambda: layers.LeakyReadout(5, return_sequences=True),
    "lru": lambda: layers.LRU(5, state_units=7, seed=1, return_sequences=True),
    "block": lambda: layers.LRUBlock(FEATURES, seed=1, return_sequences=True),
}


def check(layer, rng, tmp_path, masked=False):
    before = [keras.layers.Masking()] if masked else []
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), *before, layer])
    model.save(tmp_path / "model.keras")
    # Fresh from its file, never called: the signature is then to be said.
    model = keras.models.load_model(tmp_path / "model.keras")
    signature = [keras.InputSpec(shape=(None, STEPS, FEATURES), dtype="float32", name="x")]
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False, input_signature=signature)
    session = onnxruntime.InferenceSession(path)
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


@pytest.mark.parametrize("name", SPIKING)
def test_spikes_in_onnx_are_those_of_the_layer(name, rng, tmp_path):
    rates = []
    for spikes in check(SPIKING[name](), rng, tmp_path):
        assert set(np.unique(spikes)) <= {0.0, 1.0}
        rates.append(spikes.mean())
    assert max(rates) > 0.05


@pytest.mark.parametrize("name", GRADED)
def test_outputs_in_onnx_are_those_of_the_layer(name, rng, tmp_path):
    assert max(np.abs(outputs).max() for outputs in check(GRADED[name](), rng, tmp_path)) > 0.1


@pytest.mark.parametrize("name", ["lif", "readout"])
def test_masked_steps_in_onnx_repeat_the_output_before_them(name, rng, tmp_path):
    make = {**SPIKING, **GRADED}[name]
    *_, outputs = check(make(), rng, tmp_path, masked=True)
    np.testing.assert_array_equal(outputs[:, 12:], np.repeat(outputs[:, 11:12], STEPS - 12, axis=1))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a format of torch's own")
@pytest.mark.parametrize("name", ["lif", "block"])
def test_torch_export(name, rng, tmp_path):
    import torch

    layer = {**SPIKING, **GRADED}[name]()
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer])
    x = (2 * rng.standard_normal((2, STEPS, FEATURES))).astype("float32")
    expected = to_numpy(model(x))
    path = str(tmp_path / "model.pt2")
    signature = [keras.InputSpec(shape=x.shape, dtype="float32", name="x")]
    model.export(path, format="torch", verbose=False, input_signature=signature)
    found = torch.export.load(path).module()(torch.as_tensor(x))
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected, atol=1e-5)
