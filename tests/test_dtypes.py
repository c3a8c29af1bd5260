"""Layers under every dtype policy: what the dynamics are made of is never less than float32."""

import keras
import numpy as np
import pytest
from harness import mostly_once, run_python, to_numpy
from keras import ops

from keras_lsc import layers

LOWER = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
UNITS = 4
DYNAMICS = {"log_tau", "log_threshold", "log_slope", "beta", "log_tau_adaptation", "tau"}
DYNAMICS |= {"log_nu", "log_damping", "log_theta", "log_gamma"}

LAYERS = {
    "lif": lambda **o: layers.LIF(UNITS, **o),
    "alif": lambda **o: layers.ALIF(UNITS, reset="multiplicative-1", refractory=1, **o),
    "voltage": lambda **o: layers.LIF(UNITS, output="voltage", recurrent=False, **o),
    "readout": lambda **o: layers.LeakyReadout(UNITS, **o),
    "leaky": lambda **o: layers.LeakyRNN(UNITS, tau=5.0, **o),
    "lru": lambda **o: layers.LRU(UNITS, state_units=6, seed=1, **o),
    "block": lambda **o: layers.LRUBlock(UNITS, seed=1, **o),
}


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def floats(tensor):
    return to_numpy(ops.cast(tensor, "float32"))


def built(name, **options):
    layer = LAYERS[name](return_sequences=True, return_state=True, **options)
    layer.build((2, None, UNITS))
    return layer


def copy_of(layer, **changes):
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build((2, None, UNITS))
    copy.set_weights(layer.get_weights())
    return copy


@pytest.mark.parametrize("policy", mostly_once(["mixed_bfloat16", "float16"], ["mixed_bfloat16"]))
@pytest.mark.parametrize("name", LAYERS)
def test_states_and_parameters_of_the_dynamics_are_float32(name, policy, rng):
    layer = built(name, dtype=policy)
    lower = keras.dtype_policies.get(policy).compute_dtype
    for weight in layer.weights:
        is_dynamic = weight.name in DYNAMICS and "/norm/" not in weight.path
        assert weight.dtype == ("float32" if is_dynamic else layer.variable_dtype), weight.path
    x = (2 * rng.standard_normal((2, 20, UNITS))).astype("float32")
    symbolic = layer(keras.Input((20, UNITS)))
    outputs, *last = layer(x)
    assert [dtype_of(t) for t in symbolic] == [dtype_of(t) for t in (outputs, *last)]
    assert dtype_of(outputs) == lower
    assert {dtype_of(state) for state in last} == {"float32"}
    whole = floats(outputs)
    # All of what follows runs the same steps: to the last bit but for the products, whose sums
    # may be taken in another order.
    close = {"atol": 0.0 if name in ("lif", "alif") else 0.05 * np.abs(whole).max()}

    states, steps = layer.cell.get_initial_state(2), []
    for t in range(20):
        output, states = layer.cell(ops.convert_to_tensor(x[:, t]), states)
        assert dtype_of(output) == lower
        assert {dtype_of(state) for state in states} == {"float32"}
        steps.append(floats(output))
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, **close)

    _, *between = layer(x[:, :9])
    for dtype in ("float32", "float64"):
        start = [ops.cast(state, dtype) for state in between]
        np.testing.assert_allclose(
            floats(layer(x[:, 9:], initial_state=start)[0]), whole[:, 9:], **close
        )

    stateful = copy_of(layer, stateful=True)
    parts = [floats(stateful(part)[0]) for part in (x[:, :9], x[:, 9:])]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, **close)
    assert {variable.dtype for variable in stateful.states} == {"float32"}

    cell = type(layer.cell).from_config({**layer.cell.get_config(), "name": None})
    stepped = keras.layers.RNN(cell, return_sequences=True, dtype=policy)
    stepped.build(x.shape)
    stepped.set_weights(layer.get_weights())
    np.testing.assert_allclose(floats(stepped(x)), whole, **close)


@pytest.mark.parametrize("policy", LOWER)
def test_a_slow_membrane_leaks_by_its_closed_form(policy):
    """An impulse decays as alpha^t; in bfloat16 itself alpha = exp(-1/1000) would be 1."""
    impulse = np.zeros((1, 2000, 1), "float32")
    impulse[0, 0] = 1.0
    options = {"tau": 1000.0, "use_bias": False, "kernel_initializer": "ones"}
    expected = np.exp(-np.arange(2000) / 1000.0)
    neuron = {"output": "voltage", "threshold": 2.0, "recurrent": False, **options}
    for layer in (
        layers.LeakyReadout(1, return_sequences=True, dtype=policy, **options),
        layers.LIF(1, return_sequences=True, dtype=policy, **neuron),
    ):
        # What is left is the rounding of the output: half a unit of bfloat16 is 1/256.
        np.testing.assert_allclose(floats(layer(impulse))[0, :, 0], expected, rtol=4e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_slow_linear_units_do_not_explode(policy, rng):
    layer = layers.LRU(
        8, min_radius=0.99, max_radius=0.9999, seed=0, return_sequences=True, dtype=policy
    )
    x = rng.standard_normal((1, 8000, 8)).astype("float32")
    outputs = floats(layer(x))
    modulus = np.hypot(*map(to_numpy, layer.cell.eigenvalues()))
    assert 0.99 < modulus.min() < modulus.max() < 0.9999 + 1e-6
    exact = layers.LRU(8, min_radius=0.99, max_radius=0.9999, seed=0, return_sequences=True)
    assert outputs.std() == pytest.approx(to_numpy(exact(x)).std(), rel=0.02)


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_eigenvalues_stay_inside_the_unit_circle(policy):
    layer = layers.LRU(2, state_units=500, min_radius=0.9999, max_radius=0.999999, dtype=policy)
    layer.build((None, 3, 2))
    real, imag = (to_numpy(part).astype("float64") for part in layer.cell.eigenvalues())
    assert np.hypot(real, imag).max() < 1.0
    # Wherever training moves them: exp(-exp(-40)) rounds to 1.
    for weight in (layer.cell.log_nu, layer.cell.log_damping):
        weight.assign(np.full(weight.shape, -40.0))
    real, imag = (to_numpy(part).astype("float64") for part in layer.cell.eigenvalues())
    assert 0.999999 < np.hypot(real, imag).max() < 1.0
    with pytest.raises(ValueError, match=r"float32 does not tell it from 1; got 0\.9999999"):
        layers.LRU(2, max_radius=0.9999999, dtype=policy)


def test_thresholds_compare_exactly():
    """Three tenths, summed by bfloat16, are not above 0.296875; in float32 they are."""
    layer = layers.LIF(
        1,
        recurrent=False,
        use_bias=False,
        kernel_initializer="ones",
        tau=1e8,
        threshold=0.29998,
        return_sequences=True,
        dtype="mixed_float16",
    )
    spikes = floats(layer(np.full((1, 3, 1), 0.1, "float32")))
    # float16(0.1) = 0.0999756, three times of which is 0.2999268, below the threshold.
    np.testing.assert_array_equal(spikes[0, :, 0], [0.0, 0.0, 0.0])
    layer.cell.log_threshold.assign(np.log([0.29992]))
    np.testing.assert_array_equal(
        floats(layer(np.full((1, 3, 1), 0.1, "float32")))[0, :, 0], [0.0, 0.0, 1.0]
    )


_FLOATX = """
import keras, numpy as np
from keras_lsc import layers
x = np.random.default_rng(0).standard_normal((2, 6, 4))
for floatx in ("float64", "bfloat16", "float16"):
    keras.config.set_floatx(floatx)
    # The policy that Keras takes from it at the first layer, and then keeps.
    keras.config.set_dtype_policy(floatx)
    inputs = keras.Input((6, 4))
    hidden = keras.layers.Masking()(inputs)
    for layer in (
        layers.ALIF(4, reset="multiplicative-2", refractory=1, return_sequences=True),
        layers.FiringRateRegularizer(0.1),
        layers.LRUBlock(4, dropout=0.1, seed=1, return_sequences=True),
        keras.layers.RNN(layers.LIFCell(4), return_sequences=True),
        layers.LeakyReadout(3, zero_output_for_mask=True),
    ):
        hidden = layer(hidden)
        assert keras.backend.standardize_dtype(hidden.dtype) == floatx, layer
    model = keras.Model(inputs, hidden)
    if floatx == "float64":
        has_xla = keras.backend.backend() == "jax"
        model.compile("sgd", "mse", metrics=[layers.FiringRate()], jit_compile=has_xla)
        model.train_on_batch(x, np.zeros((2, 3)))
    for given in ("float32", "int32"):
        outputs = model(keras.ops.convert_to_tensor(x.astype(given)))
        assert keras.backend.standardize_dtype(outputs.dtype) == floatx
        assert np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))).all()
    if floatx == "float64":
        assert {weight.dtype for weight in model.weights} - {"uint32", "int64"} == {"float64"}
"""


def test_every_layer_works_under_every_floatx():
    run_python(_FLOATX, backend=keras.backend.backend(), JAX_ENABLE_X64="1")


def quantizable(dtype):
    inputs = keras.Input((8, UNITS))
    hidden = keras.layers.Dense(UNITS, dtype=dtype)(inputs)
    for make in (
        lambda: layers.LRUBlock(UNITS, seed=1, return_sequences=True, dtype=dtype),
        lambda: keras.layers.Dense(UNITS, dtype=dtype),
        lambda: layers.LIF(UNITS, return_sequences=True, dtype=dtype),
        lambda: layers.ALIF(UNITS, return_sequences=True, dtype=dtype),
        lambda: keras.layers.Bidirectional(
            layers.LRUBlock(UNITS, seed=2, return_sequences=True, dtype=dtype), dtype=dtype
        ),
        lambda: layers.LeakyReadout(3, dtype=dtype),
    ):
        hidden = make()(hidden)
    return keras.Model(inputs, hidden)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [
        pytest.param("int8", "float32", marks=pytest.mark.once),
        ("int8", "mixed_bfloat16"),
        pytest.param("float8", "float32", marks=pytest.mark.once),
    ],
)
def test_quantized_models_load_again(mode, dtype, rng, tmp_path):
    model = quantizable(dtype)
    x = (2 * rng.standard_normal((2, 8, UNITS))).astype("float32")
    model(x)
    model.quantize(mode)
    blocks = [layer for layer in model.layers if isinstance(layer, layers.LRUBlock)]
    assert {block.cell.gate.quantization_mode for block in blocks} == {mode}
    expected = floats(model(x))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(floats(again(x)), expected)
    assert [w.dtype for w in again.weights] == [w.dtype for w in model.weights]


def test_parts_have_the_policies_that_they_are_given():
    block = layers.LRUBlock(UNITS, dtype="mixed_bfloat16", part_dtypes={"norm": "float32"})
    block.build((None, 3, UNITS))
    again = type(block).from_config(block.get_config())
    for layer in (block, again):
        assert layer.cell.norm.dtype_policy.name == "float32"
        assert layer.cell.gate.dtype_policy.name == "mixed_bfloat16"
    assert "part_dtypes" not in layers.LRUBlock(UNITS, dtype="mixed_bfloat16").get_config()
    with pytest.raises(ValueError, match=r"part_dtypes must be a dictionary .* keys among lru"):
        layers.LRUBlock(UNITS, part_dtypes={"head": "float32"})


def test_parts_find_their_policies_in_a_map_of_paths(rng, tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16")
    policies["block/cell/norm"] = keras.dtype_policies.get("float32")
    policies["block/cell/gate"] = keras.dtype_policies.get("int8_from_float32")
    block = layers.LRUBlock(UNITS, seed=1, dtype=policies, name="block")
    block.cell.name = "cell"
    x = rng.standard_normal((2, 6, UNITS)).astype("float32")
    outputs = block(x)
    assert dtype_of(outputs) == "bfloat16"
    assert block.cell.norm.compute_dtype == "float32"
    assert block.cell.gate.quantization_mode == "int8"
    again = type(block).from_config(block.get_config())
    again.cell.name = "cell"
    again.build(x.shape)
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(floats(again(x)), floats(outputs))
