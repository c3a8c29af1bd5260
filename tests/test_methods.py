"""The sibling methods: each does what its equation says, and refuses what it makes no sense for."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc import methods

STEPS, FEATURES = 12, 5


def sequences(rows=96, shift=0.0, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((rows, STEPS, FEATURES))
    return (shift + drawn).astype("float32")


def network(*stack):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((STEPS, FEATURES)), *stack])


def gates(weight, units):
    return np.split(to_numpy(weight.value), weight.shape[-1] // units, axis=-1)


@pytest.mark.once
def test_orthogonal_matrices_are_orthonormal_gate_by_gate():
    model = network(layers.Conv1D(6, 3), layers.LSTM(8), layers.Dense(4), layers.Reshape((4, 1)))
    methods.Orthogonal(gain=2.0).apply(model, None)
    for gate in gates(model.layers[1].cell.recurrent_kernel, 8):
        np.testing.assert_allclose(gate.T @ gate, 4 * np.eye(8), atol=1e-5)
    for gate in gates(model.layers[1].cell.kernel, 8):
        np.testing.assert_allclose(gate @ gate.T, 4 * np.eye(6), atol=1e-5)
    kernel = to_numpy(model.layers[0].kernel).reshape(15, 6)
    np.testing.assert_allclose(kernel.T @ kernel, 4 * np.eye(6), atol=1e-5)


@pytest.mark.once
def test_glorot_and_he_have_their_variances():
    wide = keras.Sequential(
        [
            keras.Input((8, 8, 20)),
            layers.Conv2D(30, 3),
            layers.Conv2DTranspose(10, 3),
            layers.Reshape((64, 10)),
            layers.GRU(100),
            layers.Dense(100),
        ]
    )
    found = {}
    for method in (methods.Glorot(), methods.Glorot("normal"), methods.He()):
        method.apply(wide, None)
        weights = [wide.layers[k].kernel for k in (0, 1, 4)]
        weights.append(wide.layers[3].cell.recurrent_kernel)
        found[method] = [np.var(to_numpy(weight.value)) for weight in weights]
    fans = [(180, 270), (270, 90), (100, 100), (100, 100)]
    for method in (methods.Glorot(), methods.Glorot("normal")):
        np.testing.assert_allclose(found[method], [2 / sum(fan) for fan in fans], rtol=0.07)
    np.testing.assert_allclose(found[methods.He()], [2 / fan for fan, _ in fans], rtol=0.07)


@pytest.mark.once
def test_identity_keeps_a_state_of_relu():
    model = network(layers.SimpleRNN(7, "relu"), layers.Dense(2))
    head = to_numpy(model.layers[1].kernel)
    report = keras_lsc.stabilize(model, sequences(), method="identity")
    cell = model.layers[0].cell
    np.testing.assert_array_equal(to_numpy(cell.recurrent_kernel), np.eye(7))
    assert np.abs(to_numpy(cell.kernel)).max() < 0.005
    np.testing.assert_array_equal(to_numpy(model.layers[1].kernel), head)
    assert 0 < report.time[0] <= 1


@pytest.mark.once
@pytest.mark.parametrize("reset_after", [True, False, None])
def test_chrono_spreads_the_leak_as_one_over_a_uniform_number_of_steps(reset_after):
    units, longest = 4000, 50
    if reset_after is None:
        cell = layers.LSTMCell(units, recurrent_initializer="zeros")
    else:
        cell = layers.GRUCell(units, reset_after=reset_after, recurrent_initializer="zeros")
    model = keras.Sequential([keras.Input((3, 1)), layers.RNN(cell)])
    before = to_numpy(cell.bias)
    methods.Chrono(longest).apply(model, None)
    bias = to_numpy(cell.bias)
    total = bias if bias.ndim == 1 else bias.sum(axis=0)
    kept = total[units : 2 * units] if reset_after is None else total[:units]
    lags = 1 + np.exp(kept.astype("float64"))
    assert lags.min() >= 2 - 1e-4
    assert lags.max() <= longest + 1e-3
    # Kolmogorov's distance to the uniform law: of 4,000 draws 1.95/sqrt(4000) in one of a thousand.
    uniform = (np.sort(lags) - 2) / (longest - 2)
    assert np.abs(uniform - (np.arange(units) + 0.5) / units).max() < 0.031
    if reset_after is None:
        np.testing.assert_array_equal(bias[:units], -kept)
        np.testing.assert_array_equal(bias[2 * units :], before[2 * units :])
    else:
        np.testing.assert_array_equal(bias[..., units:], before[..., units:])


@pytest.mark.once
def test_chrono_takes_the_length_of_the_sequences():
    given, found = (network(layers.LSTM(6)) for _ in range(2))
    methods.Chrono(STEPS).apply(given, None)
    methods.Chrono().apply(found, sequences())
    np.testing.assert_array_equal(
        to_numpy(given.layers[0].cell.bias), to_numpy(found.layers[0].cell.bias)
    )


def mixed():
    return network(
        layers.Masking(0.0),
        layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
        layers.GRU(6, return_sequences=True),
        layers.TimeDistributed(layers.Dense(7, "relu")),
        keras_lsc.layers.LIF(8, return_sequences=True, bias_initializer="ones"),
        layers.LayerNormalization(),
        layers.Dense(4, "tanh"),
    )


def test_lsuv_gives_unit_variance_to_what_every_kernel_reads():
    model = mixed()
    x = sequences(shift=0.5)
    x[:, 9:] = 0.0
    methods.LSUV(tolerance=1e-3).apply(model, x)
    for layer in model.layers[1:]:
        below = to_numpy(keras.tree.flatten(keras.Model(model.inputs, layer.input)(x))[0])
        recurrent = [getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", None)]
        kernels = [
            (part.cell.kernel, part.cell.units) for part in recurrent if hasattr(part, "cell")
        ]
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, layers.Dense):
            kernels = [(inner.kernel, inner.units)]
        valid = below[:, :9].reshape(-1, below.shape[-1])
        for kernel, units in kernels:
            for gate in gates(kernel, units):
                assert (valid @ gate).var() == pytest.approx(1.0, abs=2e-3), layer.name
    recurrent_kernel = to_numpy(model.layers[2].cell.recurrent_kernel)[:, :6]
    np.testing.assert_allclose(recurrent_kernel.T @ recurrent_kernel, np.eye(6), atol=1e-5)


@pytest.mark.once
def test_lsuv_of_convolutions_is_before_bias_and_activation():
    model = keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            layers.Conv2D(5, 3, activation="relu", padding="same", bias_initializer="ones"),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3, activation="relu", padding="same"),
        ]
    )
    x = np.random.default_rng(0).standard_normal((64, 9, 9, 2))
    methods.LSUV().apply(model, x)
    below = x
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            copy = layers.Conv2D(layer.filters, 3, padding="same", use_bias=False)
            copy.build((None, *below.shape[1:]))
            copy.kernel.assign(layer.kernel)
            assert to_numpy(copy(below)).var() == pytest.approx(1.0, abs=0.011)
        below = to_numpy(layer(below))


def test_autoinit_gives_zero_mean_and_unit_variance_before_activations():
    model = network(
        layers.Dense(150, "relu"),
        layers.SimpleRNN(150, "tanh", return_sequences=True),
        layers.GRU(150, return_sequences=True),
        layers.Dense(150),
    )
    x = sequences(shift=2.0)
    methods.AutoInit().apply(model, x)
    below = x
    for layer in model.layers:
        after = to_numpy(layer(below))
        if isinstance(layer, layers.Dense):
            parts = [below @ to_numpy(layer.kernel)]
        else:
            read, kept = layer.cell.kernel, layer.cell.recurrent_kernel
            parts = [
                below @ gate + after @ again
                for gate, again in zip(gates(read, 150), gates(kept, 150), strict=True)
            ]
        for part in parts:
            # What all examples have in common is a chi-squared variable of 150 units.
            assert np.mean(np.square(part)) == pytest.approx(1.0, rel=0.35), layer.name
            assert abs(part.mean()) < 0.2
        below = after


@pytest.mark.once
def test_the_moments_of_a_signal_are_those_of_valid_steps():
    whole, padded = (network(layers.Masking(9.0), layers.GRU(6)) for _ in range(2))
    x = sequences()
    longer = np.concatenate([x, np.full_like(x, 9.0)], axis=1)[:, : STEPS + 4]
    padded = keras.Sequential([keras.Input((STEPS + 4, FEATURES)), *padded.layers])
    for method in (methods.LSUV(), methods.AutoInit()):
        method.apply(whole, x)
        method.apply(padded, longer)
        for one, other in zip(whole.weights, padded.weights, strict=True):
            np.testing.assert_allclose(to_numpy(one.value), to_numpy(other.value), atol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("method", ["orthogonal", "glorot", "he", "lsuv", "autoinit"])
def test_frozen_layers_and_constraints_hold(method):
    model = network(
        layers.Dense(6),
        layers.GRU(6, recurrent_constraint=keras.constraints.NonNeg()),
        layers.Dense(6, trainable=False),
    )
    frozen = [to_numpy(weight.value) for weight in model.layers[2].weights]
    before = to_numpy(model.layers[0].kernel)
    methods.get(method).apply(model, sequences())
    for weight, value in zip(model.layers[2].weights, frozen, strict=True):
        np.testing.assert_array_equal(to_numpy(weight.value), value)
    assert to_numpy(model.layers[1].cell.recurrent_kernel).min() >= 0
    assert np.abs(to_numpy(model.layers[0].kernel) - before).max() > 0.01


@pytest.mark.once
@pytest.mark.parametrize("method", ["orthogonal", "glorot", "he", "lsuv", "autoinit", "chrono"])
def test_the_same_seed_gives_the_same_start_and_another_one_another(method):
    starts = []
    for seed in (1, 1, 2):
        model = network(layers.LSTM(5))
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        methods.get(method).apply(model, sequences(), seed=seed)
        starts.append(np.concatenate([to_numpy(w.value).ravel() for w in model.weights]))
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.abs(starts[0] - starts[2]).max() > 0.01


class Own(keras.Model):
    """A model with a call of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(6, "relu"), layers.Dense(3)

    def call(self, x):
        return self.second(self.first(x))


@pytest.mark.once
def test_a_model_with_a_call_of_its_own_has_energies_and_says_why_it_has_no_radii():
    model, x = Own(), np.random.default_rng(0).standard_normal((64, 4)).astype("float32")
    model(x)
    report = keras_lsc.stabilize(model, x, method="lsuv")
    assert "no recurrent layer was seen to run" in report.unmeasured
    assert report.energy.shape == (2,)
    assert (x @ to_numpy(model.first.kernel)).var() == pytest.approx(1.0, rel=0.2)


@pytest.mark.once
def test_the_report_is_that_of_held_out_sequences():
    model, x = network(layers.GRU(6, return_sequences=True), layers.GRU(6)), sequences()
    report = keras_lsc.stabilize(model, x, method=methods.Orthogonal(gain=0.5), samples=16)
    again = network(layers.GRU(6, return_sequences=True), layers.GRU(6))
    methods.Orthogonal(gain=0.5).apply(again, None)
    assert report.samples == 16
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one.value), to_numpy(other.value))
    # Their radii on other points differ by their standard errors.
    other = keras_lsc.measure(model, x, samples=64)
    np.testing.assert_allclose(report.time, other.time, rtol=0.2)


@pytest.mark.once
@pytest.mark.parametrize(
    ("stack", "method", "match"),
    [
        ([layers.LSTM(3)], "identity", r"recurrent layers are 'lstm' \(LSTMCell\)"),
        ([layers.SimpleRNN(3)], "chrono", "makes no sense"),
        ([layers.Dense(3)], "chrono", "it has no recurrent layer"),
        ([layers.LSTM(3, use_bias=False)], "chrono", "no biases"),
        ([layers.GRU(3, recurrent_activation="tanh")], "chrono", "gates of 'tanh'"),
        ([layers.LSTM(3, trainable=False)], "chrono", "frozen"),
        ([layers.LSTM(3, trainable=False)], "orthogonal", "all of its matrices are frozen"),
        ([keras_lsc.layers.LRU(3)], "lsuv", "draws of their own"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(stack, method, match):
    for layer in stack:
        layer.name = layer.name.split("_")[0]
    model = network(*stack)
    before = [to_numpy(weight.value) for weight in model.weights]
    with pytest.raises(ValueError, match=match):
        keras_lsc.stabilize(model, sequences(), method=method)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight.value), value)


@pytest.mark.once
def test_inputs_that_do_not_vary_leave_the_model_as_it_was():
    model = network(layers.GRU(4), layers.Dense(3))
    before = [to_numpy(weight.value) for weight in model.weights]
    for method in ("lsuv", "autoinit"):
        with pytest.raises(FloatingPointError, match="gru"):
            keras_lsc.stabilize(model, np.zeros((16, STEPS, FEATURES)), method=method)
        for weight, value in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(to_numpy(weight.value), value)


@pytest.mark.once
def test_lsuv_says_that_a_constraint_holds_it():
    model = network(layers.Dense(4, kernel_constraint=keras.constraints.MaxNorm(0.1)))
    with pytest.raises(ValueError, match="A constraint"):
        keras_lsc.stabilize(model, sequences(), method="lsuv")


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "lsvu"}, "Did you mean 'lsuv'"),
        ({"method": methods.LSUV}, "method must be one of"),
        ({"method": "lsuv", "tolerance": 0.1}, r"keras_lsc.methods.LSUV\(\.\.\.\)"),
        ({"method": "lsuv", "growth": 2.0}, 'growth=2.0 is of method="level"'),
        ({"method": "lsuv", "target": 1.0}, 'target=1.0 is of method="lsc"'),
        ({"method": "lsuv", "y": np.zeros(96)}, "uses no labels"),
        ({"method": "level", "y": np.zeros(96)}, "uses no labels"),
        ({"y": np.zeros(96)}, "uses no labels"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_of_no_use_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        keras_lsc.stabilize(network(layers.GRU(3)), sequences(), **options)


@pytest.mark.once
@pytest.mark.parametrize(
    "make",
    [
        lambda: methods.Orthogonal(gain=0),
        lambda: methods.Glorot("cauchy"),
        lambda: methods.Identity(scale=-1),
        lambda: methods.Chrono(2),
        lambda: methods.LSUV(tolerance=0),
        lambda: methods.LSUV(most=0),
    ],
)
def test_options_are_checked(make):
    with pytest.raises(ValueError, match="must be"):
        make()
