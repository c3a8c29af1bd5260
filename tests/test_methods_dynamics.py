"""Methods that go by what a layer does in time: mean field of gates, fluctuations of voltages."""

import keras
import numpy as np
import pytest
from harness import NumpyCell, difference_jacobian, to_numpy
from keras import layers

import keras_lsc
from keras_lsc import methods

STEPS = 60


def analog(rows=32, features=8):
    drawn = np.random.default_rng(0).standard_normal((rows, STEPS, features))
    return drawn.astype("float32")


def spikes(rows=48, features=40, rate=0.1):
    return (np.random.default_rng(1).random((rows, STEPS, features)) < rate).astype("float32")


def network(x, *stack):
    return keras.Sequential([keras.Input(x.shape[1:]), *stack])


def energy_growth(cell, sequences):
    """The leading eigenvalue of how energies of random differences in each state are carried on."""
    numpy_cell, units = NumpyCell(cell), cell.units
    energies = []
    for x in sequences.astype("float64"):
        state = np.zeros(numpy_cell.size)
        for t in range(STEPS - 1):
            _, state = numpy_cell.step(x[t], state)
        jacobian = difference_jacobian(lambda s, now=x[-1]: numpy_cell.step(now, s)[1], state)
        blocks = jacobian.reshape(-1, units, numpy_cell.size // units, units)
        energies.append(np.square(blocks).sum(axis=(1, 3)) / units)
    return np.abs(np.linalg.eigvals(np.mean(energies, axis=0))).max()


@pytest.mark.once
@pytest.mark.parametrize("make", [layers.LSTM, layers.GRU])
def test_a_mean_field_start_neither_grows_nor_shrinks_differences(make):
    x = analog()
    model = network(x, make(100), layers.Dense(2))
    cell = model.layers[0].cell
    # What is tested are other states than those that the matrix was found on.
    before = energy_growth(cell, analog(40)[-8:])
    methods.MeanField(keep=2.0).apply(model, x)
    after = energy_growth(cell, analog(40)[-8:])
    assert after == pytest.approx(1.0, abs=0.1) != before
    kept = slice(100, 200) if make is layers.LSTM else slice(0, 100)
    assert set(to_numpy(cell.bias).reshape(-1, 3 * 100 + 100 * (make is layers.LSTM))[0, kept]) == {
        2.0
    }


@pytest.mark.once
def test_mean_field_theory_of_a_gru_that_resets_before_its_product():
    """The formula against the Jacobian of differences, which knows nothing of it."""
    from keras_lsc.methods.gate_theory import Gates, gru_growth

    generator = np.random.default_rng(0)
    units, sigma = 120, 1.5
    drawn = generator.standard_normal((units, 3 * units)) / np.sqrt(units)
    read = generator.standard_normal((40, 12, 3 * units))
    found = gru_growth(Gates(read, drawn, np.zeros(3 * units)), sigma, reset_after=False)

    def step(now, h):
        z, r = (1 / (1 + np.exp(-(now[k] + sigma * h @ drawn[:, k]))) for k in (first, second))
        n = np.tanh(now[third] + sigma * (r * h) @ drawn[:, third])
        return z * h + (1 - z) * n

    first, second, third = (slice(k * units, (k + 1) * units) for k in range(3))
    gains = []
    for row in range(12):
        h = np.zeros(units)
        for t in range(39):
            h = step(read[t, row], h)
        jacobian = difference_jacobian(lambda s, now=read[39, row]: step(now, s), h)
        gains.append(np.square(jacobian).sum() / units)
    assert found == pytest.approx(np.mean(gains), rel=0.08)


def free_voltage(x, z, cell):
    """The voltage without resets, by an independent loop; the steps after it forgot its start."""
    alpha = np.exp(-np.exp(-to_numpy(cell.log_tau.value).astype("float64")))
    weights = to_numpy(cell.kernel.value).astype("float64")
    among = np.zeros((cell.units, cell.units))
    if cell.recurrent:
        among = to_numpy(cell.recurrent_kernel.value) * (1 - np.eye(cell.units))
    v = np.zeros((len(x), cell.units))
    before, found = np.zeros_like(v), []
    for t in range(x.shape[1]):
        v = alpha * v + x[:, t] @ weights + before @ among
        before = z[:, t]
        found.append(v)
    return np.stack(found[x.shape[1] // 2 :], axis=1).reshape(-1, cell.units)


@pytest.mark.parametrize(
    ("options", "mean", "z", "is_recurrent"),
    [({}, 0.0, 2.0, True), ({"reset": "multiplicative-2", "threshold": 2.0}, 0.3, 1.5, False)],
)
def test_fluctuations_have_the_mean_and_variance_that_are_asked_for(options, mean, z, is_recurrent):
    x = spikes()
    layer = keras_lsc.layers.LIF(
        60, tau=5.0, recurrent=is_recurrent, return_sequences=True, **options
    )
    model = network(x, layer, keras_lsc.layers.LIF(50, tau=4.0))
    methods.Fluctuation(mean=mean, z=z).apply(model, x)
    below = x
    for layer in model.layers:
        theta = options.get("threshold", 1.0) if layer is model.layers[0] else 1.0
        cell = layer.cell
        fired, _ = cell.run(
            keras.ops.convert_to_tensor(below), cell.get_initial_state(48), None, False
        )
        fired = to_numpy(fired)
        voltage = free_voltage(below, fired, cell)
        deviation = (1 - mean) * theta / z
        assert np.mean(voltage) == pytest.approx(mean * theta, abs=0.05 * deviation)
        assert np.mean(voltage.var(axis=0)) == pytest.approx(deviation**2, rel=0.05)
        below = fired


@pytest.mark.once
def test_neurons_of_different_decays_have_the_variance_too():
    x = spikes()
    drawn = np.random.default_rng(0).uniform(2.0, 8.0, 60)
    model = network(x, keras_lsc.layers.LIF(60, recurrent=False, return_sequences=True))
    cell = model.layers[0].cell
    cell.log_tau.assign(np.log(drawn))
    methods.Fluctuation().apply(model, x)
    voltage = free_voltage(x, np.zeros((48, STEPS, 60)), cell)
    assert np.mean(voltage.var(axis=0)) == pytest.approx(0.25, rel=0.05)


@pytest.mark.once
@pytest.mark.parametrize(
    ("layer", "method", "match"),
    [
        (layers.LSTM(3), "fluctuation", "about the voltage"),
        (keras_lsc.layers.LIF(3, output="voltage"), "fluctuation", "are voltages, not spikes"),
        (keras_lsc.layers.LIF(3, trainable=False), "fluctuation", "frozen"),
        (layers.SimpleRNN(3), "mean-field", "theory of the gates"),
        (layers.GRU(3, activation="relu"), "mean-field", "'relu'"),
        (layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)]), "mean-field", "a stack of cells"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(layer, method, match):
    x = spikes(8)
    with pytest.raises(ValueError, match=match):
        keras_lsc.stabilize(network(x, layer, layers.Dense(1)), x, method=method)


@pytest.mark.once
def test_silent_inputs_and_a_mean_that_no_weights_have_are_refused():
    x = spikes(16)
    model = network(x, keras_lsc.layers.LIF(10))
    before = to_numpy(model.layers[0].cell.kernel.value)
    with pytest.raises(ValueError, match="its inputs do not vary"):
        keras_lsc.stabilize(model, np.zeros_like(x), method="fluctuation")
    slow = np.repeat(np.arange(16.0)[:, None, None], STEPS, axis=1) * np.ones(40)
    with pytest.raises(ValueError, match="ask for mean=0"):
        keras_lsc.stabilize(model, slow, method=methods.Fluctuation(mean=0.9))
    np.testing.assert_array_equal(to_numpy(model.layers[0].cell.kernel.value), before)
