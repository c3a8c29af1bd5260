"""What every layer of the package has to pass, and models of them across backends."""

import inspect
import json
import re

import harness
import keras
import numpy as np
import pytest
from keras import ops

from keras_lsc import callbacks, layers

UNITS = 5
# Layer, options, number of input features, number of trainable and of other weights.
LAYERS = {
    "lif": (layers.LIF, {}, 4, (4, 2)),
    "lif-feedforward": (layers.LIF, {"recurrent": False, "reset": "multiplicative-1"}, 4, (3, 2)),
    "lif-refractory": (layers.LIF, {"refractory": 2, "reset": "multiplicative-2"}, 4, (4, 2)),
    "lif-voltage": (layers.LIF, {"output": "voltage", "use_bias": False}, 4, (3, 2)),
    "alif": (layers.ALIF, {"tau_adaptation": 5.0}, 4, (6, 2)),
    "lru": (layers.LRU, {"state_units": 7}, 4, (9, 0)),
    "lru-block": (layers.LRUBlock, {"dropout": 0.1, "seed": 3}, UNITS, (14, 0)),
    "readout": (layers.LeakyReadout, {}, 4, (3, 0)),
    "leaky": (layers.LeakyRNN, {"activation": "tanh"}, 4, (4, 0)),
    "min-gru": (layers.MinGRU, {"seed": 1}, 4, (2, 0)),
    "min-lstm": (layers.MinLSTM, {"seed": 1, "use_bias": False}, 4, (1, 0)),
    "para-gru": (layers.ParaGRU, {"seed": 1, "solver": "newton"}, 4, (3, 0)),
    "para-lstm": (layers.ParaLSTM, {"seed": 1, "solver": "loop"}, 4, (4, 0)),
    "para-leaky": (layers.ParaLeaky, {"seed": 1, "solver": "newton", "tau": 5.0}, 4, (4, 0)),
    "oscillators": (layers.LinOSS, {"seed": 1, "state_units": 3}, 4, (5, 0)),
    "plstm": (layers.PLSTM1D, {"seed": 1, "key_units": 3}, 4, (5, 0)),
    "selective": (layers.SelectiveSSM, {"seed": 1, "state_units": 3}, 4, (5, 0)),
}


EVERY = sorted({layer.__name__ for layer, *_ in LAYERS.values()})
# Options of a cell, or cells that differ from another by a line of arithmetic: no backend changes
# what these do.
VARIANTS = {"lif-feedforward", "lif-refractory", "lif-voltage", "min-lstm", "para-leaky"}


@pytest.mark.parametrize("name", harness.mostly_once(LAYERS, LAYERS.keys() - VARIANTS))
def test_layer(name, rng):
    layer, options, features, weights = LAYERS[name]

    def make(**more):
        return layer(UNITS, **options, **more)

    harness.check_layer(make, features, UNITS, weights, rng)


def every_layer_in_one_model():
    inputs = keras.Input((12, UNITS))
    outputs = [
        layer(UNITS, **options, return_sequences=True, name=name)(inputs)
        for name, (layer, options, _, _) in LAYERS.items()
    ]
    regularized = layers.FiringRateRegularizer(0.2)(outputs[0])
    return keras.Model(inputs, [*outputs, regularized])


_PREDICT = """
import sys, keras, numpy as np
import keras_lsc
model = keras.models.load_model(sys.argv[1])
np.savez(sys.argv[3], *model.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.once
def test_saved_models_give_the_same_on_every_backend(rng, tmp_path):
    model = every_layer_in_one_model()
    x = harness.sequences(rng, batch=3, steps=12, features=UNITS)
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    expected = model.predict(x, verbose=0)
    here = keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    for name, before, after in zip([*LAYERS, "regularized"], expected, here, strict=True):
        np.testing.assert_array_equal(before, after, err_msg=name)
    others = {"jax", "tensorflow", "torch"} - {keras.backend.backend()}
    for backend in sorted(others):
        out = tmp_path / f"{backend}.npz"
        harness.run_python(
            _PREDICT, tmp_path / "model.keras", tmp_path / "x.npy", out, backend=backend
        )
        there = np.load(out)
        for index, (name, values) in enumerate(
            zip([*LAYERS, "regularized"], expected, strict=True)
        ):
            # A spike may fall otherwise where rounding decides; none does here.
            np.testing.assert_allclose(
                there[f"arr_{index}"], values, atol=2e-5, err_msg=f"{name} on {backend}"
            )


def test_config_is_json(rng):
    for layer, options, _, _ in LAYERS.values():
        json.dumps(keras.saving.serialize_keras_object(layer(UNITS, **options)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.LIF(3, reset="hard"), "reset must be one of 'subtractive', 'multiplic"),
        (lambda: layers.LIF(3, reset=["subtractive"]), "reset must be one of"),
        (lambda: layers.LIF(3, output="current"), "output must be one of 'spikes', 'voltage'"),
        (lambda: layers.LIF(3, tau=-1.0), "tau must be a positive finite number, got -1.0"),
        (lambda: layers.LIF(3, tau=float("nan")), "tau must be a positive finite number, got nan"),
        (lambda: layers.LIF(3, tau=True), "tau must be a positive number or an initialiser"),
        (lambda: layers.LIF(3, tau=None), "tau must be a positive number or an initialiser"),
        (lambda: layers.LIF(3, threshold=0), "threshold must be a positive finite number, got 0"),
        (lambda: layers.LIF(3, threshold=1e300), "threshold must be a finite number .* 1e\\+30"),
        (lambda: layers.LIF(3, refractory=-1), "refractory must be an integer of 0 or more"),
        (lambda: layers.LIF(3, refractory=1.5), "refractory must be an integer of 0 or more"),
        (lambda: layers.LIF(3, refractory=True), "refractory must be an integer of 0 or more"),
        (lambda: layers.LIF(3, recurrent=1), "recurrent must be True or False, got 1"),
        (lambda: layers.LIF(3, return_state="no"), "return_state must be True or False"),
        (lambda: layers.LIF(3, surrogate="step"), "shape must be one of 'rectangular'"),
        (lambda: layers.LIF(3, surrogate={}), "Cannot make a surrogate of {}"),
        (lambda: layers.ALIF(3, tau_adaptation=0), "tau_adaptation must be a positive finite"),
        (lambda: layers.ALIF(3, beta=float("inf")), "beta must be a finite number, got inf"),
        (lambda: layers.ALIF(3, trainable_beta=0), "trainable_beta must be True or False"),
        (lambda: layers.LeakyReadout(3, use_bias=None), "use_bias must be True or False"),
        (lambda: layers.LeakyRNN(3, tau=0.5), "tau must be a finite number at least 1, got 0.5"),
        (lambda: layers.LeakyRNN(3, tau=None, use_bias=1), "use_bias must be True or False"),
        (lambda: layers.LRU(3, state_units=0), "state_units must be a positive integer, got 0"),
        (lambda: layers.LRU(3, min_radius=0.9, max_radius=0.5), "ring of eigenvalues"),
        (lambda: layers.LRU(3, min_radius=-0.1), "min_radius must be a finite number at least 0"),
        (lambda: layers.LRU(3, max_radius=1.0), "max_radius must be a finite number above 0 and"),
        (lambda: layers.LRU(3, max_phase=0.0), "max_phase must be a positive finite number"),
        (lambda: layers.LRU(3, seed=-1), "seed must be an integer of 0 or more, got -1"),
        (lambda: layers.LRUBlock(3, dropout=1.5), "dropout must be a finite number at least 0"),
        (lambda: layers.LRUBlock(3, epsilon=0), "epsilon must be a positive finite number"),
        (lambda: layers.LRUBlock(3)(np.zeros((1, 2, 4))), "needs 3 features"),
        (
            lambda: layers.ParaGRU(3, solver="deer"),
            "solver must be one of 'auto', 'loop', 'newton'",
        ),
        (lambda: layers.ParaLeaky(3, tau=0.0), "tau must be a positive finite number, got 0.0"),
        (lambda: layers.LinOSS(3, state_units=-1), "state_units must be a positive integer"),
        (lambda: layers.SelectiveSSM(3, state_units=0), "state_units must be a positive integer"),
        (lambda: layers.FiringRateRegularizer(1.5), "target must be .* at most 1, got 1.5"),
        (lambda: layers.FiringRateRegularizer(strength=-1), "strength must be a finite number at"),
        (lambda: callbacks.FiringRateSchedule(0.5, 0.2), "begin < end"),
        (lambda: callbacks.FiringRateSchedule(float("nan")), "begin must be a finite number"),
    ],
)
def test_wrong_use_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "layer", [layers.LIF, layers.ALIF, layers.LRU, layers.LeakyReadout, layers.LeakyRNN]
)
@pytest.mark.parametrize("units", [0, -2, True, 2.0, "3", None])
def test_units_are_a_positive_integer(layer, units):
    for make in (layer, layer.cell_class):
        with pytest.raises(ValueError, match="units must be a positive integer, got"):
            make(units)
    assert type(layer(np.int64(3)).units) is int


def test_numbers_of_numpy_are_numbers_and_small_ones_stay_what_they_are():
    layer = layers.LIF(2, tau=np.float32(7.0), threshold=1e-5, refractory=np.int32(1))
    layer.build((None, 3, 2))
    weights = {weight.name: harness.to_numpy(weight) for weight in layer.weights}
    np.testing.assert_allclose(np.exp(weights["log_tau"]), 7.0, rtol=1e-6)
    np.testing.assert_allclose(np.exp(weights["log_threshold"]), 1e-5, rtol=1e-5)
    json.dumps(keras.saving.serialize_keras_object(layer))


@pytest.mark.parametrize("layer", [layers.LIF, layers.ALIF])
def test_a_frozen_layer_offers_no_weights_to_pretraining(layer):
    neurons = layer(3)
    neurons.build((None, 4, 2))
    assert neurons.cell.variables_of_gradient == [neurons.cell.log_slope]
    neurons.trainable = False
    assert neurons.cell.variables_of_gradient == []
    neurons.trainable = True
    neurons.cell.trainable = False
    assert neurons.cell.variables_of_gradient == []
    assert layer(3, trainable=False).cell.variables_of_gradient == []


def test_the_firing_rate_counts_beyond_what_lower_dtypes_can():
    """bfloat16 stops counting ones at 256."""
    for dtype in ("bfloat16", "float16", "float32"):
        metric = layers.FiringRate(dtype=dtype)
        for _ in range(20):
            metric.update_state(None, ops.concatenate([ops.ones((150,)), ops.zeros((50,))]))
        assert float(metric.result()) == pytest.approx(0.75)


def test_stateful_layers_refuse_another_batch_size():
    layer = layers.LIF(3, stateful=True)
    layer(np.zeros((4, 5, 2), "float32"))
    with pytest.raises(ValueError, match="keeps the states of 4 sequences; got 3"):
        layer(np.zeros((3, 5, 2), "float32"))


def test_unknown_option_is_refused():
    with pytest.raises((TypeError, ValueError), match="taux"):
        layers.LIF(3, taux=1.0)


def test_firing_rate_of_masked_and_weighted_spikes():
    spikes = ops.convert_to_tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    metric = layers.FiringRate()
    metric.update_state(None, spikes)
    assert float(metric.result()) == pytest.approx(3 / 8)
    metric.reset_state()
    metric.update_state(None, spikes, sample_weight=ops.convert_to_tensor([1.0, 0.0]))
    assert float(metric.result()) == pytest.approx(3 / 4)
    layer = layers.FiringRateRegularizer(target=0.25, strength=2.0)
    mask = ops.convert_to_tensor([[True, False], [False, False]])
    layer(spikes, mask=mask, training=True)
    assert float(layer.losses[0]) == pytest.approx(2.0 * (1 / 2 - 1 / 4) ** 2)


def test_schedule_switches_the_penalty_on_and_the_rate_comes_down(rng):
    """With no other loss to speak of, the penalty alone brings the rate to its target."""
    x = (3.0 * rng.standard_normal((32, 20, 4))).astype("float32")
    neurons = layers.LIF(16, return_sequences=True, recurrent=False, surrogate="sigmoid_derivative")
    model = keras.Sequential(
        [keras.Input((20, 4)), neurons, layers.FiringRateRegularizer(0.02, strength=10.0)]
    )
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rate = float(np.mean(harness.to_numpy(model(x))))
            seen.append((rate, float(harness.to_numpy(model.layers[-1].switch))))

    model.compile(keras.optimizers.Adam(0.03), loss=lambda _, y: 0.0 * ops.sum(y))
    first = float(np.mean(harness.to_numpy(model(x))))
    assert first > 0.1
    model.fit(
        x,
        np.zeros((32, 20, 16), "float32"),
        batch_size=16,
        epochs=20,
        verbose=0,
        callbacks=[callbacks.FiringRateSchedule(), Watch()],
    )
    rates, switches = zip(*seen, strict=True)
    np.testing.assert_allclose(switches, np.clip((np.arange(20) / 20 - 0.2) / 0.4, 0, 1), atol=1e-6)
    assert rates[3] == pytest.approx(first)
    assert abs(rates[-1] - 0.02) < 0.25 * abs(first - 0.02)


def test_schedule_without_a_regularizer_is_refused(rng):
    model = keras.Sequential([keras.Input((5, 4)), layers.LIF(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no FiringRateRegularizer"):
        model.fit(
            np.zeros((2, 5, 4)),
            np.zeros((2, 3)),
            verbose=0,
            callbacks=[callbacks.FiringRateSchedule()],
        )


def test_layers_know_nothing_of_stability():
    for file in (harness.ROOT / "keras_lsc" / "layers").rglob("*.py"):
        text = file.read_text()
        assert "keras_lsc.stability" not in text, file
        assert not any(f"import {name}" in text for name in ("jax", "tensorflow", "torch")), file


@pytest.mark.once
@pytest.mark.parametrize("name", EVERY)
def test_a_layer_names_every_argument_of_its_cell_and_documents_it(name):
    layer, cell = getattr(layers, name), getattr(layers, f"{name}Cell")
    own = inspect.signature(layer).parameters
    for argument, parameter in inspect.signature(cell).parameters.items():
        assert own[argument].default == parameter.default, argument
    for argument in own:
        assert re.search(rf"^ +\**{argument}: ", inspect.getdoc(layer), re.MULTILINE), argument
