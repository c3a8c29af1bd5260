"""Operations of spiking networks: counted event by event, in loops."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

from keras_lsc import spiking
from keras_lsc.layers import LIF, LeakyReadout

ROWS, STEPS, FEATURES, UNITS = 3, 7, 4, 5


@pytest.fixture
def x(rng):
    return (rng.random((ROWS, STEPS, FEATURES)) < 0.4).astype("float32")


def test_every_event_is_counted_once_for_each_neuron_that_it_reaches(x):
    hidden = LIF(UNITS, kernel_initializer=keras.initializers.RandomNormal(0.4, 1.0, seed=4))
    hidden.return_sequences = True
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), hidden, LeakyReadout(2)])
    spikes = to_numpy(hidden(x))
    assert 0.05 < spikes.mean() < 0.9
    first = second = 0
    for row in range(ROWS):
        for t in range(STEPS):
            first += sum(UNITS for event in x[row, t] if event)
            second += sum(2 for event in spikes[row, t] if event)
            if t > 0:
                first += sum(UNITS - 1 for event in spikes[row, t - 1] if event)
    found = spiking.operations(model, x)
    one, two = found.layers
    assert one.synaptic == pytest.approx(first / ROWS)
    assert two.synaptic == pytest.approx(second / ROWS)
    assert one.dense == STEPS * (FEATURES * UNITS + UNITS * (UNITS - 1))
    assert two.dense == STEPS * UNITS * 2
    assert (one.updates, two.updates) == (STEPS * UNITS, STEPS * 2)
    assert one.firing_rate == pytest.approx(spikes.mean())
    assert (one.additions_only, two.additions_only) == (True, True)
    assert found.synaptic == pytest.approx((first + second) / ROWS)
    assert "in all" in str(found)
    assert found.activation_sparsity == pytest.approx((spikes == 0).mean())
    assert found.to_dict()["dense"] == found.dense
    # Whichever steps the layer returns, it computes them all.
    last = LIF.from_config({**hidden.get_config(), "return_sequences": False})
    alone = keras.Sequential([keras.Input((STEPS, FEATURES)), last])
    last.set_weights(hidden.get_weights())
    assert spiking.operations(alone, x).layers[0] == one


def test_layers_without_spikes_compute_what_their_inputs_leave(x):
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.GRU(UNITS, return_sequences=True),
            layers.Reshape((STEPS, UNITS, 1)),
            layers.Conv2D(2, 3),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    gru, conv, dense = spiking.operations(model, 2 * x).layers
    by_input, by_state = STEPS * FEATURES * 3 * UNITS, STEPS * UNITS * 3 * UNITS
    assert gru.dense == by_input + by_state
    assert gru.synaptic == pytest.approx(by_input * (x != 0).mean() + by_state)
    outputs = (STEPS - 2) * (UNITS - 2) * 2
    assert (conv.dense, conv.synaptic) == (9 * outputs, 9 * outputs)
    assert dense.dense == outputs * 3
    assert [row.firing_rate for row in (gru, conv, dense)] == [None] * 3
    assert [row.additions_only for row in (gru, conv, dense)] == [False] * 3


def test_zeros_are_counted_among_the_connections_and_bytes_as_they_are_held():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4, dtype="bfloat16")])
    kernel = np.ones((2, 4), "float32")
    kernel[0, :3] = 0.0
    model.set_weights([kernel, np.zeros(4, "float32")])
    found = spiking.operations(model, np.ones((3, 2), "float32"))
    assert found.connection_sparsity == 3 / 8
    assert found.footprint == 2 * (8 + 4)
    assert found.activation_sparsity is None
    assert found.to_dict()["footprint"] == 24
    assert "24 bytes, 37.5 % of connections zero" in str(found)


def test_a_connection_of_weight_zero_costs_nothing(rng, x):
    model = keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Dense(UNITS),
            LIF(UNITS, return_sequences=True),
            layers.Reshape((STEPS, UNITS, 1)),
            layers.Conv2D(2, 2, padding="same"),
        ]
    )
    model.set_weights([w * (rng.random(w.shape) < 0.5) for w in model.get_weights()])
    dense, hidden, conv = spiking.operations(model, x).layers
    kernel = to_numpy(model.layers[0].kernel)
    assert dense.synaptic == pytest.approx(((x != 0).mean(axis=0) @ (kernel != 0)).sum())
    before = to_numpy(model.layers[0](x))
    spikes = to_numpy(model.layers[1](before))
    cell = model.layers[1].cell
    others = to_numpy(cell.recurrent_kernel) * (1 - np.eye(UNITS))
    events = ((before != 0).astype(float) @ (to_numpy(cell.kernel) != 0)).sum()
    events += (spikes[:, :-1] @ (others != 0)).sum()
    assert hidden.synaptic == pytest.approx(events / ROWS)
    nonzero = np.count_nonzero(to_numpy(model.layers[3].kernel))
    assert conv.synaptic == pytest.approx(STEPS * UNITS * nonzero * (spikes != 0).mean())
    assert dense.dense == STEPS * FEATURES * UNITS


def test_silence_costs_updates_alone(x):
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), LIF(UNITS)])
    found = spiking.operations(model, 0 * x)
    assert (found.synaptic, found.updates) == (0.0, STEPS * UNITS)
    with pytest.raises(ValueError, match="must be a built"):
        spiking.operations(layers.Dense(2), x)
