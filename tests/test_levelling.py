"""Levelled starts, judged by plain gradients of the backend and by closed forms."""

import json

import keras
import numpy as np
import pytest
from harness import run_python, to_numpy
from keras import layers, ops

import keras_lsc
from keras_lsc.choosing import choose
from keras_lsc.layers import ALIF, LIF, LRUBlock
from keras_lsc.levelling import Leveller
from keras_lsc.stability import taps
from keras_lsc.stability.energies import draw
from keras_lsc.stability.levers import bias_beside, has_flat_activation, read_through

BACKENDS = ("jax", "tensorflow", "torch")


def gradient(function, x):
    """The gradient of a scalar, by the backend alone."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x).numpy()
    import torch

    x = torch.tensor(np.asarray(ops.convert_to_numpy(x)), requires_grad=True)
    return torch.autograd.grad(function(x), x)[0].numpy()


def applied(stack, x):
    for layer in stack:
        x = layer(x)
    return x


def normal(shape, seed=0):
    return ops.convert_to_tensor(np.random.default_rng(seed).standard_normal(shape), "float32")


def plain_energies(stack, stages, x, seed=0):
    """Energies at the outputs of `stack[k]`, k in `stages`, of a functional of all its outputs."""
    shape = applied(stack, x).shape
    cotangent = normal(shape, seed)
    found = []
    for k in stages:
        above = stack[k + 1 :]
        hidden = ops.convert_to_tensor(to_numpy(applied(stack[: k + 1], x)))
        by_hidden = gradient(lambda h, above=above: ops.sum(applied(above, h) * cotangent), hidden)
        found.append(np.square(by_hidden.astype("float64")).sum() / len(x))
    return np.array(found)


def sequences(count, steps=12, features=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, steps, features)).astype("float32")


def spread(energies):
    return energies.max() / energies.min()


def recurrent(make, depth, last=False):
    return [make(return_sequences=last or k < depth - 1) for k in range(depth)]


def gru(**kwargs):
    return layers.GRU(16, **kwargs)


def lstm(**kwargs):
    return layers.LSTM(16, **kwargs)


def simple(activation):
    return lambda **kwargs: layers.SimpleRNN(16, activation=activation, **kwargs)


def bidirectional(**kwargs):
    return layers.Bidirectional(layers.GRU(8, **kwargs))


def with_norms(depth):
    stack = []
    for layer in recurrent(lstm, depth):
        stack += [layer, layers.LayerNormalization()]
    return stack[:-1]


STACKS = {
    "gru 2": lambda: recurrent(gru, 2),
    "tanh 5, all steps": lambda: recurrent(simple("tanh"), 5, last=True),
    "lif 2": lambda: recurrent(lambda **kwargs: LIF(64, **kwargs), 2),
}
DEEP = {
    "lstm 10": lambda: recurrent(lstm, 10),
    "gru 20": lambda: recurrent(lambda **k: layers.GRU(32, **k), 20),
    "relu 10": lambda: recurrent(simple("relu"), 10),
    "sigmoid 10": lambda: recurrent(simple("sigmoid"), 10),
    "alif 5": lambda: recurrent(lambda **kwargs: ALIF(64, **kwargs), 5),
    "bidirectional 5": lambda: recurrent(bidirectional, 5),
    "lru block 3": lambda: recurrent(lambda **kwargs: LRUBlock(8, seed=1, **kwargs), 3),
    "norms between 5": lambda: with_norms(5),
    "dense 30": lambda: [layers.Flatten(), *(layers.Dense(128, "tanh") for _ in range(30))],
    "convolutions 6": lambda: [
        layers.Conv1D(16, 3, padding="same", activation="relu") for _ in range(6)
    ],
}


def is_level(make):
    keras.utils.set_random_seed(1)
    stack = make()
    features = 8
    model = keras.Sequential([keras.Input((12, features)), *stack, layers.Dense(3)])
    x, fresh = sequences(2400), sequences(1024, seed=1)
    stages = [k for k, layer in enumerate(stack) if read_through(layer)]
    before = spread(plain_energies(stack, stages, fresh))
    report = keras_lsc.stabilize(model, x, method="level")
    assert "vanish" not in str(report)
    after = plain_energies(stack, stages, fresh)
    assert spread(after) <= 1.3
    assert spread(after) < before
    np.testing.assert_allclose(report.energy, after / after[-1], rtol=0.25)


@pytest.mark.parametrize("name", STACKS)
def test_the_gradient_is_even_on_fresh_sequences(name):
    is_level(STACKS[name])


@pytest.mark.parametrize(
    "name",
    [
        # Pre-trained first, in many updates.
        pytest.param(name, marks=pytest.mark.once(on="jax" if "sigmoid" in name else "torch"))
        for name in DEEP
    ],
)
def test_the_gradient_of_deep_networks_is_even(name):
    is_level(DEEP[name])


class Own(keras.Model):
    """A model with a call of its own, layers in a list, and attention between."""

    def __init__(self):
        super().__init__()
        self.stack = recurrent(lstm, 4, last=True)
        self.attention = layers.MultiHeadAttention(2, 8)
        self.readout = layers.Dense(3)

    def top(self, x, begin):
        for k in range(begin, 4):
            x = self.stack[k](x)
            if k == 1:
                x = self.attention(x, x)
        return x

    def call(self, x):
        return self.readout(self.top(x, 0)[:, -1])


def test_a_model_with_a_call_of_its_own_is_levelled():
    keras.utils.set_random_seed(1)
    model, x, fresh = Own(), sequences(1200), sequences(512, seed=1)
    model(x[:2])
    report = keras_lsc.stabilize(model, x, method="level")
    assert len(report.gradient.layers) == 5
    cotangent = normal((512, 16))
    found, hidden = [], ops.convert_to_tensor(fresh)
    for k in range(4):
        hidden = ops.convert_to_tensor(to_numpy(model.stack[k](hidden)))

        def functional(h, k=k):
            h = model.attention(h, h) if k == 1 else h
            return ops.sum(model.top(h, k + 1)[:, -1] * cotangent)

        found.append(np.square(gradient(functional, hidden)).sum())
        hidden = model.attention(hidden, hidden) if k == 1 else hidden
    assert spread(np.array(found)) <= 1.3


def test_the_gain_of_a_linear_layer_is_the_norm_of_its_whole_jacobian():
    """E_1 / E_2 = |J|_F^2 / (T n), J from all steps of layer 1 to all of layer 2."""
    steps, units = 6, 5
    linear = {"activation": None, "use_bias": False, "return_sequences": True}
    stack = [layers.SimpleRNN(units, **linear) for _ in range(2)]
    model = keras.Sequential([keras.Input((steps, 3)), *stack])
    kernel, recurrent_kernel = (to_numpy(w).astype("float64") for w in model.layers[1].weights)
    powers = [np.linalg.matrix_power(recurrent_kernel, k) for k in range(steps)]
    expected = sum(
        np.square(kernel @ powers[t - s]).sum() for t in range(steps) for s in range(t + 1)
    ) / (steps * units)
    found = keras_lsc.gradient_energies(model, sequences(4000, steps, 3), samples=4000)
    assert found.energy[0] == pytest.approx(expected, rel=0.05)


def test_with_an_orthogonal_recurrence_the_gain_is_that_of_the_law():
    """rho_l^2 / (1 - rho_t^2) for long sequences."""
    rho_time, rho_depth, units, steps = 0.7, 0.5, 8, 60
    generator = np.random.default_rng(3)
    model = keras.Sequential(
        [keras.Input((steps, units)), *recurrent(lambda **k: layers.SimpleRNN(units, **k), 2, True)]
    )
    for layer in model.layers:
        first, second = (np.linalg.qr(generator.standard_normal((units, units)))[0] for _ in "ab")
        layer.set_weights([rho_depth * first, rho_time * second, np.zeros(units)])
    # So small that tanh is linear.
    x = 1e-3 * sequences(1000, steps, units)
    found = keras_lsc.gradient_energies(model, x, samples=1000)
    law = rho_depth**2 / (1 - rho_time**2)
    # The last steps have fewer later ones.
    ends = sum(1 - rho_time ** (2 * (steps - s)) for s in range(steps)) / steps
    assert found.energy[0] == pytest.approx(law * ends, rel=0.03)


def test_levelling_a_linear_stack_gives_glorots_variance():
    stack = [
        layers.Dense(24, kernel_initializer=keras.initializers.Orthogonal(gain=0.3, seed=k))
        for k in range(6)
    ]
    model = keras.Sequential([keras.Input((24,)), *stack])
    keras_lsc.stabilize(model, np.random.default_rng(0).standard_normal((900, 24)), method="level")
    variances = [
        float(np.mean(np.square(to_numpy(layer.kernel)))) for layer in stack[1:-1]
    ]  # the last is a head
    np.testing.assert_allclose(variances, 2 / (24 + 24), rtol=0.02)


@pytest.mark.once
def test_growth_is_what_is_asked_for():
    keras.utils.set_random_seed(1)
    stack = recurrent(gru, 4)
    model = keras.Sequential([keras.Input((12, 8)), *stack])
    keras_lsc.stabilize(model, sequences(1200), method="level", growth=2.0)
    found = plain_energies(stack, range(4), sequences(512, seed=1))
    np.testing.assert_allclose(found[:-1] / found[1:], 2.0, rtol=0.15)


def test_only_input_kernels_change_and_by_one_scale_each():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(lstm, 3), layers.Dense(2)])
    before = [to_numpy(weight) for weight in model.weights]
    keras_lsc.stabilize(model, sequences(600), method="level")
    changed = {}
    for weight, old in zip(model.weights, before, strict=True):
        new = to_numpy(weight)
        if not np.array_equal(new, old):
            ratios = new[old != 0] / old[old != 0]
            assert np.ptp(ratios) < 1e-4 * ratios.mean()
            changed[weight.path] = ratios.mean()
    kernels = [layer.cell.kernel.path for layer in model.layers[1:3]]
    assert sorted(changed) == sorted(kernels)


def test_spiking_layers_are_levelled_by_their_surrogates_and_spike_as_before():
    keras.utils.set_random_seed(1)
    stack = recurrent(lambda **kwargs: LIF(64, **kwargs), 3)
    model = keras.Sequential([keras.Input((12, 8)), *stack])
    x = 3 * sequences(900)  # all layers fire without help
    assert min(keras_lsc.measure(model, x).firing_rates.values()) > 0.02
    before, outputs = [to_numpy(weight) for weight in model.weights], to_numpy(model(x[:64]))
    keras_lsc.stabilize(model, x, method="level")
    changed = [
        weight.path
        for weight, old in zip(model.weights, before, strict=True)
        if not np.array_equal(to_numpy(weight), old)
    ]
    assert changed == [layer.cell.log_slope.path for layer in stack[1:]]
    np.testing.assert_array_equal(to_numpy(model(x[:64])), outputs)


def test_silent_layers_fire_before_they_are_levelled():
    keras.utils.set_random_seed(1)
    stack = recurrent(lambda **kwargs: LIF(64, **kwargs), 3)
    model = keras.Sequential([keras.Input((12, 8)), *stack])
    x = sequences(900)
    assert min(keras_lsc.measure(model, x).firing_rates.values()) < 0.01
    keras_lsc.stabilize(model, x, method="level")
    assert min(keras_lsc.measure(model, x).firing_rates.values()) > 0.02


@pytest.mark.parametrize("make", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_a_bias_holds_the_mean_of_what_is_read_through_a_scaled_kernel(make):
    keras.utils.set_random_seed(1)
    stack = [make(6, return_sequences=True) for _ in range(3)]
    model = keras.Sequential([keras.Input((12, 8)), *stack])
    x = sequences(96)
    rows, structure = draw(model, x, 96, 0)
    leveller = Leveller(model, rows, structure, 1.0, 0)
    leveller.holds_means = True
    read = [to_numpy(applied(stack[:k], x)).mean(axis=(0, 1)) for k in (1, 2)]

    def means():
        """Kernel and bias times what is read, of the default start."""
        found = []
        for layer, mean in zip(stack[1:], read, strict=True):
            bias = to_numpy(layer.cell.bias)
            found.append(mean @ to_numpy(layer.cell.kernel) + bias.reshape(-1, bias.shape[-1])[0])
        return found

    before, kernels = means(), [to_numpy(layer.cell.kernel) for layer in stack]
    leveller._move(np.array([0.5, -0.3]))
    for new, old in zip(means(), before, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5)
    for layer, kernel, step in zip(stack, kernels, (0.0, 0.5, -0.3), strict=True):
        np.testing.assert_allclose(to_numpy(layer.cell.kernel), np.exp(step) * kernel, rtol=1e-5)


def test_a_bias_is_held_beside_one_matrix_alone():
    def of(layer, shape):
        layer.build((None, *shape))
        return bias_beside(layer)

    dense, stacked = layers.Dense(3), layers.RNN([layers.LSTMCell(4), layers.LSTMCell(5)])
    assert of(dense, (7,)) is dense.bias
    assert of(stacked, (5, 7)) is stacked.cell.cells[0].bias
    assert of(layers.Dense(3, use_bias=False), (7,)) is None
    assert of(layers.Conv1D(3, 2), (5, 7)) is None
    assert of(layers.ConvLSTM1D(3, 2), (5, 6, 7)) is None
    assert of(layers.Bidirectional(layers.GRU(3)), (5, 7)) is None


def test_which_activations_are_flat():
    """The slope of the sigmoid is at most 1/4, of tanh and relu 1."""
    flat = {"sigmoid": True, "hard_sigmoid": True, "tanh": False, "relu": False, "linear": False}
    for name, expected in flat.items():
        assert has_flat_activation(layers.Dense(2, activation=name)) is expected
        assert has_flat_activation(layers.SimpleRNN(2, activation=name)) is expected
    assert not has_flat_activation(layers.LSTM(2))  # its gates are, what it remembers is not
    assert has_flat_activation(layers.Bidirectional(layers.SimpleRNN(2, activation="sigmoid")))


def scaled(stack, scale):
    """Input kernels of this size: by it a gradient vanishes or grows from layer to layer."""
    for layer in stack[1:]:
        layer.cell.kernel.assign(scale * layer.cell.kernel.value)


@pytest.mark.once
@pytest.mark.parametrize(
    ("make", "scale", "expected"),
    [
        (gru, 0.1, "level"),
        (gru, 1.0, None),
        (simple("linear"), 40.0, "level"),
        (simple("sigmoid"), 1.0, "lsc"),
        (lambda **kwargs: LIF(16, **kwargs), 1.0, "lsc"),
    ],
    ids=["vanishing", "healthy", "exploding", "flat", "spiking"],
)
def test_auto_chooses_by_the_gradient(make, scale, expected):
    keras.utils.set_random_seed(1)
    stack = recurrent(make, 4)
    model = keras.Sequential([keras.Input((12, 8)), *stack, layers.Dense(2)])
    scaled(stack, scale)
    before = [to_numpy(weight) for weight in model.weights]
    method, why = choose(model, sequences(600), 0)
    assert method == expected, why
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)


@pytest.mark.once
def test_auto_leaves_a_healthy_network_alone_and_levels_one_that_vanishes():
    keras.utils.set_random_seed(1)
    stack = recurrent(gru, 3)
    model = keras.Sequential([keras.Input((12, 8)), *stack, layers.Dense(2)])
    before, x = [to_numpy(weight) for weight in model.weights], sequences(600)
    report = keras_lsc.stabilize(model, x, method="auto", samples=8)
    assert report.chosen.startswith("left alone")
    assert report.chosen in str(report)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)
    scaled(stack, 0.01)
    report = keras_lsc.stabilize(model, x, method="auto")
    assert report.chosen.startswith('method "level"')
    assert report.gradient.spread < 1.3
    again = type(report).from_dict(json.loads(json.dumps(report.to_dict())))
    assert again.chosen == report.chosen


def test_auto_takes_no_option_of_pretraining():
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(gru, 2)])
    with pytest.raises(ValueError, match="target"):
        keras_lsc.stabilize(model, sequences(64), 1.0, method="auto")


def test_with_targets_it_is_the_gradient_of_the_loss():
    keras.utils.set_random_seed(1)
    stack = [*recurrent(gru, 2), layers.Dense(3)]
    model = keras.Sequential([keras.Input((12, 8)), *stack])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = sequences(40), np.random.default_rng(2).integers(0, 3, 40)
    found = keras_lsc.gradient_energies(model, x, y, samples=40)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    expected = []
    for k in range(3):
        hidden = ops.convert_to_tensor(to_numpy(applied(stack[: k + 1], x)))
        above = stack[k + 1 :]
        of_loss = gradient(lambda h, above=above: loss(y, applied(above, h)), hidden)
        expected.append(np.square(of_loss).sum() / 40)
    np.testing.assert_allclose(found.energies, expected, rtol=1e-3)
    np.testing.assert_allclose(found.energy, np.array(expected) / expected[-1], rtol=1e-3)


def test_a_difference_grows_by_the_squared_norm_of_the_map_to_each_layer():
    keras.utils.set_random_seed(1)
    stack = [layers.Dense(32), layers.Dense(24), layers.Dense(16), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    x = np.random.default_rng(0).standard_normal((1000, 8))
    found = keras_lsc.gradient_energies(model, x, samples=1000)
    assert found.layers[0] == stack[0].name
    product, expected = np.eye(32), [1.0]
    for layer in stack[1:]:
        product = product @ to_numpy(layer.kernel)
        expected.append(np.square(product).sum() / 32)
    np.testing.assert_allclose(found.forward, expected, rtol=0.15)
    measured = keras_lsc.measure(model, x, samples=1000).gradient  # without the head
    np.testing.assert_allclose(measured.forward, expected[:3], rtol=0.15)


def test_differences_of_recurrent_layers_are_those_of_two_signals():
    keras.utils.set_random_seed(1)
    stack = recurrent(gru, 3)
    model = keras.Sequential([keras.Input((12, 8)), *stack, layers.Dense(2)])
    x = sequences(256)
    found = keras_lsc.measure(model, x, samples=256).gradient
    signal = to_numpy(stack[0](x))
    noise = 1e-2 * np.random.default_rng(5).standard_normal(signal.shape).astype("float32")
    other, one, expected = signal + noise, signal, [1.0]
    for layer in stack[1:]:
        one, other = to_numpy(layer(one)), to_numpy(layer(other))
        expected.append(np.square(other - one).sum() / np.square(noise).sum())
    np.testing.assert_allclose(found.forward, expected, rtol=0.2)


def test_a_difference_ends_where_units_are_dead():
    stack = [layers.Dense(8, activation="relu") for _ in range(4)]
    model = keras.Sequential([keras.Input((8,)), *stack, layers.Dense(2)])
    stack[2].bias.assign(np.full(8, -100.0))
    found = keras_lsc.gradient_energies(model, np.random.default_rng(0).standard_normal((64, 8)))
    assert found.forward[1] > 0
    assert found.forward[2:] == (0.0, 0.0, 0.0)


def test_padding_has_no_gradient_and_calls_of_a_shared_layer_are_told_apart():
    shared = layers.GRU(8, return_sequences=True, name="shared")
    inputs = keras.Input((12, 8))
    outputs = shared(shared(layers.Masking()(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(8, name="top")(outputs)))
    x = sequences(32)
    x[:, 3:] = 0.0  # all but the first quarter
    report = keras_lsc.measure(model, x)
    assert report.gradient.layers == ("shared", "shared[2]", "top")
    np.testing.assert_allclose(report.reach[:2], 1.0, rtol=1e-6)
    assert np.isnan(report.reach[2])  # it has no axis of steps


def test_branches_are_levelled_at_the_mean_of_what_is_read():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 8))
    first = layers.GRU(8, return_sequences=True, name="first")(inputs)
    left = layers.GRU(8, return_sequences=True, name="left")(first)
    right = layers.LSTM(8, return_sequences=True, name="right")(inputs)
    both = layers.GRU(8, name="both")(layers.Concatenate()([left, right]))
    model = keras.Model(inputs, [layers.Dense(2)(both), layers.Dense(1)(both)])
    rows, structure = draw(model, sequences(8), 8, 0)
    leveller = Leveller(model, rows, structure, 1.0, 0)
    names = [call.name for call in leveller._stages.calls]
    below = dict(zip(names, leveller._stages.below, strict=True))
    assert {names[k] for k in below["both"]} == {"left", "right"}
    assert {names[k] for k in below["left"]} == {"first"}
    assert below["right"] == below["first"] == set()
    report = keras_lsc.stabilize(model, sequences(1200), method="level")
    energy = dict(zip(report.gradient.layers, report.energy, strict=True))
    assert energy["first"] == pytest.approx(energy["left"], rel=0.2)
    assert energy["left"] * energy["right"] == pytest.approx(energy["both"] ** 2, rel=0.3)


def test_what_is_frozen_stays_and_is_named():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(gru, 4)])
    held = model.layers[2]
    held.trainable = False
    before = [to_numpy(weight) for weight in held.weights]
    report = keras_lsc.stabilize(model, sequences(600), method="level")
    assert report.not_levelled == (held.name,)
    assert held.name in str(report)
    for weight, old in zip(held.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)
    # The layers on either side of it are level with each other.
    assert report.energy[0] == pytest.approx(report.energy[1], rel=0.2)
    assert report.energy[2] == pytest.approx(report.energy[3], rel=0.2)


def test_a_failure_names_the_layer_and_gives_everything_back():
    keras.utils.set_random_seed(1)
    held = layers.GRU(8, name="held", kernel_constraint=keras.constraints.MaxNorm(0.1))
    model = keras.Sequential([keras.Input((12, 8)), gru(return_sequences=True), held])
    before = [to_numpy(weight) for weight in model.weights]
    with pytest.raises(
        keras_lsc.NotLevelledError, match=r"Constraints hold.*held.*kernel"
    ) as error:
        keras_lsc.stabilize(model, sequences(600), method="level")
    assert error.value.energies.spread > 1.5
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), old)
    assert not [layer for layer in model.layers if "call" in vars(layer)]


def test_a_model_that_raises_is_left_as_it_was():
    class Broken(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.breaks = layers.Dense(4), False

        def call(self, x):
            x = self.inner(x)
            if self.breaks:
                raise RuntimeError("broken on purpose")
            return x

    model, x = Broken(), np.ones((8, 3), "float32")
    model(x)
    model.breaks = True
    with pytest.raises(RuntimeError, match="broken on purpose"):
        keras_lsc.gradient_energies(model, x)
    assert "call" not in vars(model.inner)


def test_a_layer_that_is_never_called_is_no_stage():
    class Spare(keras.Model):
        def __init__(self):
            super().__init__()
            self.stack, self.spare = recurrent(gru, 2, last=True), layers.SeparableConv1D(4, 3)

        def call(self, x):
            return applied(self.stack, x)

    model, x = Spare(), sequences(300)
    model(x[:2])
    report = keras_lsc.stabilize(model, x, method="level")
    assert len(report.gradient.layers) == 2


def test_dead_units_are_refused():
    model = keras.Sequential(
        [keras.Input((5,)), *(layers.Dense(4, "relu", bias_initializer="ones") for _ in range(3))]
    )
    model.layers[1].bias.assign(-1e3 * np.ones(4))
    with pytest.raises(FloatingPointError, match="is zero or not finite"):
        keras_lsc.stabilize(model, np.ones((64, 5)), method="level")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"method": "levels"}, "method must be one of 'lsc', 'level'"),
        ({"growth": 1.5}, r'growth=1.5 is of method="level"'),
        ({"method": "level", "growth": 0}, "growth must be a positive finite number"),
        ({"method": "level", "target": 1.0}, r'target=1.0 is of method="lsc"'),
        ({"method": "level", "max_updates": 3}, r'max_updates=3 is of method="lsc"'),
    ],
)
def test_arguments_are_checked(arguments, expected):
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(gru, 2)])
    with pytest.raises(ValueError, match=expected):
        keras_lsc.stabilize(model, sequences(8), **arguments)


def test_a_single_layer_has_nothing_to_level():
    model = keras.Sequential([keras.Input((12, 8)), gru(), layers.Dense(2)])
    with pytest.raises(ValueError, match="no layer with weights reads another one"):
        keras_lsc.stabilize(model, sequences(8), method="level")


def test_targets_need_a_loss():
    model = keras.Sequential([keras.Input((12, 8)), gru()])
    with pytest.raises(ValueError, match="is not compiled"):
        keras_lsc.gradient_energies(model, sequences(8), np.zeros(8))


# By then the report is of Python's numbers and NumPy's arrays.
@pytest.mark.once
def test_a_report_goes_through_json():
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(gru, 2)])
    report = keras_lsc.measure(model, sequences(16))
    again = keras_lsc.StabilityReport.from_dict(json.loads(json.dumps(report.to_dict())))
    np.testing.assert_array_equal(again.energy, report.energy)
    np.testing.assert_array_equal(again.reach, report.reach)
    assert again == report
    assert keras_lsc.measure(model, sequences(16), gradient=False).energy is None


_LEVELLED = """
import sys, keras, numpy as np, keras_lsc
model = keras.saving.load_model(sys.argv[1])
x = np.load(sys.argv[2])
keras_lsc.stabilize(model, x, method="level")
print([float(np.linalg.norm(keras.ops.convert_to_numpy(w))) for w in model.weights])
"""


@pytest.mark.once
def test_the_same_start_on_every_backend(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((12, 8)), *recurrent(gru, 3), layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", sequences(600))
    given = (tmp_path / "model.keras", tmp_path / "x.npy")
    keras_lsc.stabilize(model, sequences(600), method="level")
    here = [float(np.linalg.norm(to_numpy(weight))) for weight in model.weights]
    for backend in BACKENDS:
        if backend != keras.backend.backend():
            printed = run_python(_LEVELLED, *given, backend=backend)
            there = json.loads(printed.splitlines()[-1])
            np.testing.assert_allclose(there, here, rtol=1e-3)


def test_a_few_sequences_at_once_have_the_energies_of_all(monkeypatch):
    model = keras.Sequential([keras.Input((5, 3)), layers.GRU(4, return_sequences=True)])
    model.add(layers.SimpleRNN(4))
    x = np.random.default_rng(0).standard_normal((8, 5, 3))
    sizes = []

    def counted(self, arrays):
        sizes.append(len(arrays[0]))
        return predict_on_batch(self, arrays)

    predict_on_batch = taps.TapsProbe.predict_on_batch
    monkeypatch.setattr(taps.TapsProbe, "predict_on_batch", counted)
    whole = keras_lsc.gradient_energies(model, x)
    assert set(sizes) == {8}
    # A sequence of the two layers is 24 floats, in six copies.
    monkeypatch.setattr(taps, "_BYTES", 3 * 6 * 4 * 24)
    sizes.clear()
    parts = keras_lsc.gradient_energies(model, x)
    # The differences are of a noise that is as large as all sequences say.
    assert sizes == [3, 3, 3, 8]
    np.testing.assert_allclose(parts.energy, whole.energy, rtol=1e-5)
    np.testing.assert_allclose(parts.forward, whole.forward, rtol=1e-5)
