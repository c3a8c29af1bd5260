"""Linear recurrent units: the convolution they are, the ring they start on, and the block."""

import keras
import numpy as np
import pytest
from harness import ROOT, gradients_of_layer_and_steps, run_python, sequences, to_numpy
from keras import ops

from keras_lsc import layers
from keras_lsc.layers.scan import complex_scan

_CONVOLUTION = """
import keras, numpy as np
keras.backend.set_floatx("float64")
from keras import ops
from keras_lsc import layers
rng = np.random.default_rng(0)
worst = 0.0
for features, units, state in ((4, 4, 7), (3, 5, 6)):
    layer = layers.LRU(units, state_units=state, return_sequences=True, dtype="float64", seed=1)
    x = rng.standard_normal((2, 60, features))
    found = ops.convert_to_numpy(layer(x))
    assert found.dtype == "float64", found.dtype
    w = {v.name: np.asarray(ops.convert_to_numpy(v), "float64") for v in layer.weights}
    rate = np.exp(w["log_nu"]) + np.exp(w["log_damping"])
    decay = np.exp(-rate + 1j * np.exp(w["log_theta"]))
    into = (w["input_real"] + 1j * w["input_imag"]) * np.exp(w["log_gamma"])
    out = w["output_real"] + 1j * w["output_imag"]
    # y_t = sum over k of Re(C lambda^k B) x_{t-k}, and D x_t: a causal convolution.
    kernel = np.einsum("fn,kn,nu->kfu", into, decay ** np.arange(60)[:, None], out).real
    expected = np.stack(
        [sum(x[:, t - k] @ kernel[k] for k in range(t + 1)) for t in range(60)], axis=1
    )
    D = w["feedthrough"]
    expected += x * D if D.ndim == 1 else x @ D
    worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
print(worst)
"""


def test_is_its_convolution_in_float64():
    worst = run_python(_CONVOLUTION, backend=keras.backend.backend(), JAX_ENABLE_X64="1")
    assert float(worst.strip().splitlines()[-1]) < 1e-12


@pytest.mark.parametrize("layer_class", [layers.LRU, layers.LRUBlock])
def test_streaming_equals_the_scan(rng, layer_class):
    layer = layer_class(8, return_sequences=True, seed=2)
    x = sequences(rng, batch=2, steps=200, features=8)
    whole = to_numpy(layer(x))
    states, streamed = layer.cell.get_initial_state(2), []
    for t in range(200):
        output, states = layer.cell(ops.convert_to_tensor(x[:, t]), states)
        streamed.append(to_numpy(output))
    np.testing.assert_allclose(np.stack(streamed, axis=1), whole, atol=1e-5)


def test_gradients_are_those_of_the_stepped_cell(rng):
    layer = layers.LRUBlock(5, return_sequences=True, seed=3)
    x = sequences(rng, batch=2, steps=6, features=5)
    layer.build(x.shape)

    names = ["input", *(w.name for w in layer.trainable_variables)]
    found, expected = gradients_of_layer_and_steps(layer, x)
    for name, one, other in zip(names, found, expected, strict=True):
        scale = np.abs(other).max()
        assert scale > 1e-4, name
        np.testing.assert_allclose(one, other, atol=2e-5 * max(scale, 1.0), err_msg=name)


def test_eigenvalues_fill_the_ring_evenly():
    """Uniform on the ring: |lambda|^2 and the angle are uniform."""
    layer = layers.LRU(2, state_units=4000, min_radius=0.4, max_radius=0.9, max_phase=3.0, seed=4)
    layer.build((None, 3, 3))
    real, imag = map(to_numpy, layer.cell.eigenvalues())
    squared, angle = real**2 + imag**2, np.arctan2(imag, real)
    for values, low, high in ((squared, 0.16, 0.81), (angle, 0.0, 3.0)):
        assert values.min() > low - 1e-4
        assert values.max() < high + 1e-4
        # Four standard errors of the mean of 4,000 uniform numbers.
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 12**0.5 / 63)


def test_damping_scales_the_whole_ring():
    layer = layers.LRU(2, state_units=50, seed=4)
    layer.build((None, 3, 3))
    before = np.hypot(*map(to_numpy, layer.cell.eigenvalues()))
    damping = np.exp(to_numpy(layer.cell.log_damping))
    layer.cell.log_damping.assign(np.log(damping + 0.3))
    after = np.hypot(*map(to_numpy, layer.cell.eigenvalues()))
    np.testing.assert_allclose(after, np.exp(-0.3) * before, rtol=1e-5)


def test_gamma_keeps_the_state_at_the_size_of_its_input():
    """For white input, gamma = sqrt(1 - |lambda|^2) makes E|h|^2 that of B x."""
    rng = np.random.default_rng(5)
    layer = layers.LRU(
        2, state_units=64, min_radius=0.5, max_radius=0.95, return_state=True, seed=5
    )
    x = rng.standard_normal((400, 200, 16)).astype("float32")
    _, real, imag = map(to_numpy, layer(x))
    energy = (real**2 + imag**2).mean(axis=0)
    into = {w.name: to_numpy(w) for w in layer.weights}
    expected = (into["input_real"] ** 2 + into["input_imag"] ** 2).sum(axis=0)
    # A mean over 400 samples of an exponentially distributed energy.
    np.testing.assert_allclose(energy / expected, 1.0, atol=5 / 400**0.5)
    # B ~ N/sqrt(2 n_in): the drive has unit energy.
    assert expected.mean() == pytest.approx(1.0, abs=0.1)


def test_weights_are_drawn_with_the_published_deviations():
    layer = layers.LRU(300, state_units=200, seed=6)
    layer.build((None, 3, 300))
    weights = {w.name: to_numpy(w) for w in layer.weights}
    for name, deviation in (
        ("input_real", 1 / 600**0.5),
        ("input_imag", 1 / 600**0.5),
        ("output_real", 1 / 200**0.5),
        ("output_imag", 1 / 200**0.5),
        ("feedthrough", 1.0),
    ):
        assert weights[name].std() == pytest.approx(deviation, rel=0.2), name
    assert not np.allclose(weights["input_real"], weights["input_imag"])


def test_a_hundred_thousand_steps():
    length = 100_000
    phase = 2 * np.pi * 0.01
    decay = tuple(np.float32([part]) for part in (np.cos(phase), np.sin(phase)))
    impulse = np.zeros((length, 1), "float32")
    impulse[0] = 1.0
    real, imag = (to_numpy(x)[:, 0] for x in complex_scan(decay, (impulse, 0.0 * impulse)))
    # A turn of a hundred steps, a thousand times; float32 keeps the modulus to 6e-8 a step.
    np.testing.assert_allclose(np.hypot(real, imag), 1.0, atol=2e-2)
    np.testing.assert_allclose(real[:1000], np.cos(phase * np.arange(1000)), atol=1e-3)


def test_a_block_at_the_start_passes_its_input_on(rng):
    """y = x + branch: with the branch's last product at zero, what is left is x itself."""
    layer = layers.LRUBlock(6, return_sequences=True)
    x = sequences(rng, features=6)
    layer.build(x.shape)
    gate = layer.cell.gate
    gate.kernel.assign(np.zeros(gate.kernel.shape))
    np.testing.assert_allclose(to_numpy(layer(x)), x, atol=1e-6)
    layer.cell.skip.assign([0.5])
    np.testing.assert_allclose(to_numpy(layer(x)), 0.5 * x, atol=1e-6)


def test_dropout_drops_in_training_only(rng):
    layer = layers.LRUBlock(6, dropout=0.5, seed=1, return_sequences=True)
    x = sequences(rng, features=6)
    quiet = to_numpy(layer(x))
    np.testing.assert_array_equal(quiet, to_numpy(layer(x, training=False)))
    assert np.abs(to_numpy(layer(x, training=True)) - quiet).max() > 0.01


def test_the_same_seed_gives_the_same_weights():
    first, second, other = (layers.LRU(4, seed=seed) for seed in (1, 1, 2))
    for layer in (first, second, other):
        layer.build((None, 3, 4))
    for one, same, different in zip(first.weights, second.weights, other.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(same))
        is_drawn = one.name != "log_damping"
        assert np.allclose(to_numpy(one), to_numpy(different)) != is_drawn


def test_no_framework_outside_the_backend():
    text = (ROOT / "keras_lsc" / "layers" / "lru.py").read_text()
    assert "keras.src" not in text
