"""LIF neurons against an independent loop in NumPy, other libraries, and back-propagation."""

import importlib.metadata

import keras
import numpy as np
import pytest
from harness import gradients, to_numpy
from keras import ops

from keras_lsc import backend, layers

RESETS = ("subtractive", "multiplicative-1", "multiplicative-2")
UNITS, FEATURES, STEPS, BATCH = 6, 4, 25, 3


def values(layer):
    return {weight.name: to_numpy(weight).astype("float64") for weight in layer.weights}


def numpy_lif(layer, x):
    """Spikes and voltages of a LIF or ALIF layer, step by step, as the paper writes them."""
    cell, weights = layer.cell, values(layer)
    alpha = np.exp(-1 / np.exp(weights["log_tau"]))
    theta = np.exp(weights["log_threshold"])
    recurrent = weights.get("recurrent_kernel", np.zeros((UNITS, UNITS))).copy()
    np.fill_diagonal(recurrent, 0.0)
    beta = weights.get("beta", 0.0)
    rho = np.exp(-1 / np.exp(weights["log_tau_adaptation"])) if "beta" in weights else 0.0
    v, a, z = (np.zeros((len(x), UNITS)) for _ in range(3))
    last_spike = np.full((len(x), UNITS), -np.inf)
    spikes, voltages = [], []
    for t in range(x.shape[1]):
        current = x[:, t] @ weights["kernel"] + z @ recurrent + weights.get("bias", 0.0)
        if cell.reset == "subtractive":
            v = alpha * v + current - theta * z
        elif cell.reset == "multiplicative-1":
            v = (alpha * v + current) * (1 - z)
        else:
            v = alpha * v * (1 - z) + current
        a = rho * a + (1 - rho) * z
        z = ((v > theta + beta * a) & (t - last_spike > cell.refractory)).astype("float64")
        last_spike = np.where(z > 0, t, last_spike)
        spikes.append(z)
        voltages.append(v)
    return np.stack(spikes, axis=1), np.stack(voltages, axis=1)


def draw(rng, scale=2.0):
    return (scale * rng.standard_normal((BATCH, STEPS, FEATURES))).astype("float32")


def randomized(layer, rng):
    layer.build((None, STEPS, FEATURES))
    for weight in layer.weights:
        weight.assign(to_numpy(weight) + 0.3 * rng.standard_normal(weight.shape))
    return layer


@pytest.mark.parametrize("refractory", [0, 2])
@pytest.mark.parametrize("recurrent", [True, False], ids=["recurrent", "feedforward"])
@pytest.mark.parametrize("reset", RESETS)
def test_is_the_loop_step_by_step(rng, reset, recurrent, refractory):
    options = {"reset": reset, "recurrent": recurrent, "refractory": refractory}
    spiking = randomized(layers.LIF(UNITS, return_sequences=True, **options), rng)
    voltage = layers.LIF(UNITS, return_sequences=True, output="voltage", **options)
    x = draw(rng)
    voltage.build(x.shape)
    voltage.set_weights(spiking.get_weights())
    spikes, voltages = numpy_lif(spiking, x)
    assert 0.05 < spikes.mean() < 0.9
    np.testing.assert_array_equal(to_numpy(spiking(x)), spikes)
    np.testing.assert_allclose(to_numpy(voltage(x)), voltages, atol=2e-5)
    if refractory:
        gaps = [
            np.diff(np.flatnonzero(row)) for row in spikes.transpose(0, 2, 1).reshape(-1, STEPS)
        ]
        assert min(gap.min() for gap in gaps if gap.size) == refractory + 1


def test_recurrent_weights_have_no_diagonal(rng):
    layer = randomized(layers.LIF(UNITS, return_sequences=True), rng)
    x = draw(rng)
    before = to_numpy(layer(x))
    kernel = layer.cell.recurrent_kernel
    kernel.assign(to_numpy(kernel) + 10.0 * np.eye(UNITS))
    np.testing.assert_array_equal(to_numpy(layer(x)), before)
    (by_kernel,) = gradients(lambda: ops.sum(layer(x)), [kernel])
    np.testing.assert_array_equal(np.diag(by_kernel), 0.0)
    assert np.count_nonzero(by_kernel) > UNITS


def by_back_propagation(layer, cell_class):
    """The same network, stepped by Keras and differentiated through every step."""
    config = {**layer.cell.get_config(), "name": None}
    return keras.layers.RNN(cell_class.from_config(config), return_sequences=True)


def check_gradients(layer, cell_class, rng, rtol):
    stepped = by_back_propagation(layer, cell_class)
    x = draw(rng)
    stepped.build(x.shape)
    stepped.set_weights(layer.get_weights())
    weight = rng.standard_normal((STEPS, UNITS)).astype("float32")
    found, expected = (
        gradients(
            lambda x, model=model: ops.sum(ops.sin(model(x)) * ops.convert_to_tensor(weight)),
            model.trainable_variables,
            x,
        )
        for model in (layer, stepped)
    )
    names = ["input", *(w.name for w in layer.trainable_variables)]
    for name, one, other in zip(names, found, expected, strict=True):
        scale = np.abs(other).max()
        if layer.cell.is_spiking or name != "log_threshold":
            assert scale > 1e-4, name
        np.testing.assert_allclose(one, other, atol=rtol * max(scale, 1e-2), err_msg=name)


@pytest.mark.parametrize("reset_gradient", [True, False], ids=["through-reset", "past-reset"])
@pytest.mark.parametrize("reset", RESETS)
def test_scan_without_recurrent_weights_is_back_propagation(rng, reset, reset_gradient):
    """EXODUS: one reverse scan, the same gradients to float precision."""
    layer = layers.LIF(
        UNITS,
        return_sequences=True,
        recurrent=False,
        reset=reset,
        reset_gradient=reset_gradient,
        trainable_threshold=True,
    )
    check_gradients(randomized(layer, rng), layers.LIFCell, rng, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"reset": "subtractive"},
        {"reset": "subtractive", "reset_gradient": False, "refractory": 2},
        {"reset": "multiplicative-1", "output": "voltage"},
        {"reset": "multiplicative-2", "surrogate": "triangular"},
    ],
    ids=str,
)
def test_gradients_with_recurrent_weights_are_back_propagation(rng, options):
    layer = layers.LIF(UNITS, return_sequences=True, trainable_threshold=True, **options)
    check_gradients(randomized(layer, rng), layers.LIFCell, rng, rtol=1e-5)


def test_gradient_by_initial_state_and_of_last_state(rng):
    layer = randomized(layers.LIF(UNITS, return_state=True), rng)
    cell = layer.cell
    x, start = draw(rng), rng.standard_normal((BATCH, UNITS)).astype("float32")

    def whole(x, start):
        output, state = layer(x, initial_state=[start])
        return ops.sum(output) + ops.sum(ops.sin(state))

    def stepped(x, start):
        states = [start]
        for t in range(STEPS):
            output, states = cell(x[:, t], states)
        return ops.sum(output) + ops.sum(ops.sin(states[0]))

    for one, other in zip(
        gradients(whole, layer.trainable_variables, x, start),
        gradients(stepped, layer.trainable_variables, x, start),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, np.abs(other).max()))


def test_gradient_through_masked_steps(rng):
    """Masked steps are as if they were not there, for gradients too."""
    layer = randomized(layers.LIF(UNITS), rng)
    x = draw(rng)
    mask = np.ones((BATCH, STEPS), bool)
    mask[:, [3, 4, 11, 24]] = False
    masked = gradients(
        lambda x: ops.sum(layer(x, mask=ops.convert_to_tensor(mask))), layer.trainable_variables, x
    )
    alone = gradients(
        lambda x: ops.sum(layer(x)), layer.trainable_variables, np.ascontiguousarray(x[:, mask[0]])
    )
    np.testing.assert_array_equal(masked[0][:, ~mask[0]], 0.0)
    masked[0] = masked[0][:, mask[0]]
    for one, other in zip(masked, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, np.abs(other).max()))


def test_fixed_constants_are_not_trained():
    layer = layers.LIF(3, trainable_tau=False, tau=keras.initializers.RandomUniform(2.0, 30.0))
    layer.build((None, 5, 2))
    assert {w.name for w in layer.non_trainable_weights} == {
        "log_tau",
        "log_threshold",
        "log_slope",
    }
    tau = np.exp(values(layer)["log_tau"])
    assert ((tau > 2) & (tau < 30)).all()
    assert tau.std() > 0


def feedforward(units, reset, alpha, threshold=1.0):
    tau = -1.0 / np.log(alpha)
    return layers.LIF(
        units,
        reset=reset,
        recurrent=False,
        use_bias=False,
        tau=float(tau),
        threshold=threshold,
        return_sequences=True,
    )


def test_reproduces_snntorch_leaky(rng):
    import snntorch
    import torch

    weight = rng.standard_normal((FEATURES, UNITS)).astype("float32")
    x = draw(rng)
    for reset, name in (("subtractive", "subtract"), ("multiplicative-2", "zero")):
        layer = feedforward(UNITS, reset, 0.9, threshold=0.8)
        layer.build(x.shape)
        layer.cell.kernel.assign(weight)
        neuron = snntorch.Leaky(beta=0.9, threshold=0.8, reset_mechanism=name)
        membrane, theirs = neuron.init_leaky(), []
        for t in range(STEPS):
            spikes, membrane = neuron(torch.as_tensor(x[:, t] @ weight), membrane)
            theirs.append(spikes.detach().cpu().numpy())
        theirs = np.stack(theirs, axis=1)
        assert 0.05 < theirs.mean() < 0.95
        np.testing.assert_array_equal(to_numpy(layer(x)), theirs)


def test_reproduces_norse_lif(rng):
    """Norse's LIF has a current that decays: a leaky integrator before our neuron."""
    import norse.torch.functional.lif as norse_lif
    import torch

    parameters = norse_lif.LIFParameters(
        tau_syn_inv=torch.tensor(200.0), tau_mem_inv=torch.tensor(100.0), v_th=torch.tensor(0.3)
    )
    dt = 0.001
    x = np.abs(draw(rng, scale=1.5))[..., :1] * np.ones(UNITS, "float32")
    x = (x * rng.uniform(0.3, 1.2, (BATCH, 1, UNITS))).astype("float32")
    nothing = torch.zeros(BATCH, UNITS)
    state, theirs = norse_lif.LIFFeedForwardState(v=nothing, i=nothing), []
    for t in range(STEPS):
        spikes, state = norse_lif.lif_feed_forward_step(
            torch.as_tensor(x[:, t]), state, parameters, dt
        )
        theirs.append(spikes.detach().cpu().numpy())
    theirs = np.stack(theirs, axis=1)
    assert 0.02 < theirs.mean() < 0.95
    keep_current, keep_voltage = 1 - 0.2, 1 - 0.1
    current = layers.LeakyReadout(
        UNITS,
        tau=float(-1 / np.log(keep_current)),
        use_bias=False,
        kernel_initializer="identity",
        return_sequences=True,
    )
    # The voltage moves by dt/tau_mem times the current.
    neuron = feedforward(UNITS, "multiplicative-2", keep_voltage, threshold=0.3)
    neuron.build(x.shape)
    neuron.cell.kernel.assign(0.1 * np.eye(UNITS))
    np.testing.assert_array_equal(to_numpy(neuron(current(x))), theirs)


def test_the_libraries_compared_with_are_those_of_the_requirements():
    assert importlib.metadata.version("snntorch")
    assert importlib.metadata.version("norse")


def test_the_gradient_that_is_written_out_has_a_gradient(rng):
    """As GradInit needs it: the derivative by the weights of a squared gradient."""
    layer = randomized(layers.LIF(UNITS, return_sequences=True, surrogate="gaussian"), rng)
    stepped = by_back_propagation(layer, layers.LIFCell)
    x = draw(rng)[:, :8]
    stepped.build(x.shape)
    stepped.set_weights(layer.get_weights())

    def energy(model):
        y, pullback = backend.vjp(lambda x: ops.sin(model(x)), ops.convert_to_tensor(x))
        return ops.sum(ops.square(pullback(ops.ones_like(y))))

    found, expected = (
        gradients(lambda model=model: energy(model), model.trainable_variables)
        for model in (layer, stepped)
    )
    for variable, one, other in zip(layer.trainable_variables, found, expected, strict=True):
        scale = np.abs(other).max()
        assert scale > 1e-3, variable.name
        np.testing.assert_allclose(one, other, atol=1e-4 * scale, err_msg=variable.name)
