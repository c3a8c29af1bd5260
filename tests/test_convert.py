"""Weights of torch and Flax: the same outputs on either side, in both directions."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc import convert

torch = pytest.importorskip("torch", reason="torch is not installed")

FEATURES, UNITS, STEPS = 3, 4, 6
MODULES = {
    "lstm": lambda **o: torch.nn.LSTM(FEATURES, UNITS, **o),
    "gru": lambda **o: torch.nn.GRU(FEATURES, UNITS, **o),
    "tanh": lambda **o: torch.nn.RNN(FEATURES, UNITS, **o),
    "relu": lambda **o: torch.nn.RNN(FEATURES, UNITS, nonlinearity="relu", **o),
}
LAYERS = {
    "lstm": lambda **o: layers.LSTM(UNITS, **o),
    "gru": lambda **o: layers.GRU(UNITS, **o),
    "tanh": lambda **o: layers.SimpleRNN(UNITS, **o),
    "relu": lambda **o: layers.SimpleRNN(UNITS, activation="relu", **o),
}


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, STEPS, FEATURES)).astype("float32")


def outputs_of(module, x):
    module = module.to("cpu")
    with torch.no_grad():
        return module(torch.as_tensor(x, device="cpu"))[0].numpy()


def arrays_of(module):
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def stack(kind, rng, depth=2, **options):
    """Keras layers with every weight drawn, biases too, and with their outputs of all steps."""
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            *(LAYERS[kind](return_sequences=True, **options) for _ in range(depth)),
        ]
    )
    model.set_weights([0.5 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("kind", MODULES)
def test_what_comes_from_torch_computes_the_same(kind, x):
    torch.manual_seed(1)
    module = MODULES[kind](num_layers=2, batch_first=True).to("cpu")
    model = convert.from_torch(module)
    assert [layer.name[-3:] for layer in model.layers] == ["_l0", "_l1"]
    np.testing.assert_allclose(to_numpy(model(x)), outputs_of(module, x), atol=2e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_what_goes_to_torch_computes_the_same_and_comes_back_equal(kind, rng, x):
    model = stack(kind, rng)
    module = convert.to_torch(model)
    assert module.num_layers == 2
    np.testing.assert_allclose(outputs_of(module, x), to_numpy(model(x)), atol=2e-6)
    again = convert.from_torch(module)
    for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    alone = convert.to_torch(model.layers[0])
    np.testing.assert_allclose(outputs_of(alone, x), to_numpy(model.layers[0](x)), atol=2e-6)


def test_without_bias_in_two_directions_and_in_float64(rng, x):
    # JAX has it only where it was asked for at its start.
    dtype = "float32" if keras.backend.backend() == "jax" else "float64"
    x = x.astype(dtype)
    torch.manual_seed(2)
    module = MODULES["gru"](
        bias=False, bidirectional=True, num_layers=2, batch_first=True, dtype=getattr(torch, dtype)
    ).to("cpu")
    model = convert.from_torch(module, dtype=dtype)
    assert {weight.dtype for weight in model.weights} == {dtype}
    assert len(model.get_weights()) == 8
    np.testing.assert_allclose(
        to_numpy(model(x)), outputs_of(module, x), atol={"float32": 2e-6, "float64": 1e-12}[dtype]
    )
    again = convert.to_torch(model)
    for name, value in arrays_of(module).items():
        np.testing.assert_array_equal(arrays_of(again)[name], value)


def test_a_dictionary_of_arrays_under_a_prefix_is_enough_and_can_be_measured(rng, x):
    torch.manual_seed(3)
    module = MODULES["lstm"](num_layers=2, batch_first=True).to("cpu")
    state = {f"encoder.{name}": value for name, value in arrays_of(module).items()}
    state["head.weight"] = np.ones((2, UNITS))
    model = convert.from_torch(state, prefix="encoder.", return_sequences=False)
    np.testing.assert_allclose(to_numpy(model(x)), outputs_of(module, x)[:, -1], atol=2e-6)
    report = keras_lsc.measure(model, x, samples=2)
    assert len(report.time) == 2
    with pytest.raises(ValueError, match=r"under prefix='encoder\.'\."):
        convert.from_torch(state)


def test_bfloat16_is_read():
    module = torch.nn.RNN(FEATURES, UNITS, dtype=torch.bfloat16)
    (layer,) = convert.from_torch(module).layers
    expected = module.weight_ih_l0.detach().cpu().float().numpy().T
    np.testing.assert_array_equal(to_numpy(layer.cell.kernel), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_what_goes_to_flax_computes_the_same_and_comes_back_equal(kind, rng, x):
    pytest.importorskip("flax", reason="flax is not installed")
    model = stack(kind, rng)
    module, variables = convert.to_flax(model)
    np.testing.assert_allclose(module.apply(variables, x), to_numpy(model(x)), atol=2e-6)
    activation = "relu" if kind == "relu" else "tanh"
    again = convert.from_flax(variables, activation=activation)
    np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), atol=2e-6)
    if kind != "gru":
        # In a GRU two biases of Keras are one of Flax.
        for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"])
@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_what_comes_from_flax_computes_the_same(name, api, rng, x):
    pytest.importorskip("flax", reason="flax is not installed")
    import jax
    from flax import linen, nnx

    def drawn(value):
        return 0.5 * rng.standard_normal(value.shape).astype("float32")

    if api == "linen":
        module = linen.RNN(getattr(linen, name)(UNITS))
        given = jax.tree.map(drawn, module.init(jax.random.key(0), x))
        expected = module.apply(given, x)
    else:
        given = nnx.RNN(getattr(nnx, name)(FEATURES, UNITS, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
        nnx.update(given, jax.tree.map(drawn, nnx.state(given, nnx.Param)))
        expected = given(x)
    np.testing.assert_allclose(to_numpy(convert.from_flax(given)(x)), expected, atol=2e-6)


def test_what_another_framework_cannot_say_is_refused():
    def built(layer):
        layer.build((None, STEPS, FEATURES))
        return layer

    refused = {
        "reset_after=False": built(layers.GRU(2, reset_after=False)),
        "activation 'elu'": built(layers.LSTM(2, activation="elu")),
        "recurrent activation 'hard_sigmoid'": built(
            layers.LSTM(2, recurrent_activation="hard_sigmoid")
        ),
        "goes backwards": built(layers.SimpleRNN(2, go_backwards=True)),
        "got Dense 'head'": layers.Dense(2, name="head"),
        "has no weights yet": layers.LSTM(2),
    }
    for message, layer in refused.items():
        for to in (convert.to_torch, convert.to_flax):
            with pytest.raises(ValueError, match=message):
                to(layer)
    two = [built(layers.GRU(2)), layers.GRU(4)]
    two[1].build((None, STEPS, 2))
    with pytest.raises(ValueError, match="alike in kind, units"):
        convert.to_torch(two)
    both = built(layers.Bidirectional(layers.GRU(2), merge_mode="sum"))
    with pytest.raises(ValueError, match="merge_mode='sum'"):
        convert.to_torch(both)


def test_wrong_weights_are_told_which():
    state = arrays_of(MODULES["lstm"](num_layers=2))
    missing = {name: value for name, value in state.items() if name != "bias_hh_l1"}
    with pytest.raises(ValueError, match=r"missing or left over: bias_hh_l1\."):
        convert.from_torch(missing)
    with pytest.raises(ValueError, match=r"head\.weight: no weights"):
        convert.from_torch({**state, "head.weight": np.ones(3)})
    with pytest.raises(ValueError, match="proj_size"):
        convert.from_torch(MODULES["lstm"](proj_size=2))
    with pytest.raises(ValueError, match=r"has the shape \(5, 4\)"):
        convert.from_torch({"weight_ih_l0": np.ones((5, 3)), "weight_hh_l0": np.ones((5, 4))})
    with pytest.raises(ValueError, match="source must be a module of torch"):
        convert.from_torch(3)
    with pytest.raises(ValueError, match="head/kernel is no weight of an LSTM"):
        convert.from_flax({"params": {"head": {"kernel": np.ones((2, 2))}}})
    gates = {side + gate: {"kernel": np.eye(2)} for side in "ih" for gate in "zr"}
    with pytest.raises(ValueError, match=r"missing or unknown in a GRU cell: in/kernel"):
        convert.from_flax({"cell": {**gates, "hn": {"kernel": np.eye(2)}}})


def test_named_arrays_come_back_and_a_model_that_does_not_fit_is_left_alone(tmp_path, rng):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

    def model(name="deep", units=UNITS):
        return keras.Sequential(
            [keras.Input((None, FEATURES)), layers.GRU(units, name=name), layers.Dense(2, name="o")]
        )

    one, path = model(), tmp_path / "weights.safetensors"
    convert.save_safetensors(one, path)
    stored = safetensors.load_file(path)
    assert set(stored) == {
        *(f"deep/gru_cell/{part}" for part in ("kernel", "recurrent_kernel", "bias")),
        *(f"o/{part}" for part in ("kernel", "bias")),
    }
    np.testing.assert_array_equal(stored["o/kernel"], to_numpy(one.layers[-1].kernel))
    other = model()
    convert.load_safetensors(other, path)
    for expected, found in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for unlike, message in ((model("wide"), "differ in names"), (model(units=5), "of the shape")):
        before = unlike.get_weights()
        with pytest.raises(ValueError, match=message):
            convert.load_safetensors(unlike, path)
        for expected, found in zip(before, unlike.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="no file of safetensors"):
        convert.load_safetensors(one, path)
