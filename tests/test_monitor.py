"""The monitor sees what happens to a network, in time, and changes nothing of its training."""

import math
import warnings

import broken
import keras
import numpy as np
import pytest
from keras import layers

import keras_lsc
from keras_lsc.callbacks import StabilityMonitor, StabilityWarning
from keras_lsc.stability.data import draw_rows
from keras_lsc.stability.measure import Probe


def trained(*callbacks, depth=2, epochs=2, rate=1e-2):
    keras.utils.set_random_seed(0)
    options = {"return_sequences": True, "dropout": 0.3}
    parts = [layers.GRU(8, name=f"gru_{k}", **options) for k in range(depth)]
    model = keras.Sequential([keras.Input((broken.STEPS, broken.FEATURES)), *parts])
    model.add(layers.BatchNormalization())
    model.add(layers.LSTM(8, dropout=0.3, name="lstm"))
    model.add(layers.Dense(broken.CLASSES))
    broken.compiled(broken.start(model), rate)
    x, y = broken.noise(), broken.labels()
    history = model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model, history


def test_training_is_the_same_with_and_without_it():
    without, _ = trained(depth=1)
    monitor = StabilityMonitor(broken.noise(), every=3)
    model, history = trained(monitor, depth=1)
    for one, other in zip(model.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [seen["update"] for seen in monitor.history] == [0, 3, 6]
    assert monitor.updates == 8
    first, second, last = monitor.history
    assert history.history["energy/gru_0"][-1] == last["energy/gru_0"] != first["energy/gru_0"]
    report = keras_lsc.measure(model, broken.noise(), samples=4)
    for row in report.transitions:
        for name in (f"radius/{row.name}", f"gain/{row.name}"):
            assert name not in second
            assert history.history[name][-1] == last[name] != first[name]


def test_radii_are_within_a_percent_of_those_that_measure_finds_at_the_same_points():
    keras.utils.set_random_seed(0)
    parts = [layers.LSTM(40, return_sequences=True), layers.GRU(70), layers.Dense(1)]
    model = broken.start(keras.Sequential([keras.Input((broken.STEPS, broken.FEATURES)), *parts]))
    model.compile("sgd", "mse")
    monitor = StabilityMonitor(broken.noise(), every=100)
    model.fit(broken.noise()[:2], np.zeros((2, 1)), callbacks=[monitor], verbose=0, batch_size=2)
    fresh = Probe(broken.start(keras.models.clone_model(model)))
    rows = draw_rows(broken.noise(), 16, 0, model.inputs)
    expected = {row.name: row for row in fresh.report(rows, 8, 0).transitions}
    seen = monitor.history[0]
    assert len(expected) == 4
    for name, row in expected.items():
        assert seen[f"radius/{name}"] == pytest.approx(row.radius, rel=0.01)
        assert seen[f"gain/{name}"] == pytest.approx(row.gain, rel=0.01)


def diverging(callback, rate=1.0):
    """An LSTM that learns to say 10, with steps that pass it by ever more."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((broken.STEPS, broken.FEATURES)),
            layers.LSTM(broken.UNITS),
            layers.Dense(1),
        ]
    )
    broken.start(model).compile(keras.optimizers.SGD(rate), "mse")
    y = 10 * np.ones((broken.ROWS, 1), "float32")
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    model.fit(
        broken.noise(),
        y,
        batch_size=broken.ROWS,
        epochs=100,
        verbose=0,
        callbacks=[callback, Losses()],
    )
    return losses


@pytest.mark.once
def test_the_alarm_comes_before_the_loss_is_no_number():
    told = []
    monitor = StabilityMonitor(broken.noise(), every=5, radii=False, on_alarm=told.append)
    losses = diverging(monitor)
    bad = next(k for k, loss in enumerate(losses) if not math.isfinite(loss))
    update, finding = monitor.alarms[0]
    assert finding.kind != "overflow"
    assert update <= bad - 20, (monitor.alarms, bad)
    assert [finding.kind for _, finding in monitor.alarms] == [finding.kind for finding in told]


@pytest.mark.once
def test_it_stops_if_it_is_asked_to():
    monitor = StabilityMonitor(broken.noise(), every=5, radii=False, on_alarm="stop")
    with pytest.warns(StabilityWarning, match="update"):
        losses = diverging(monitor)
    assert len(losses) == monitor.alarms[0][0]
    assert math.isfinite(losses[-1])


@pytest.mark.once
def test_a_calm_training_has_no_alarm_and_what_was_so_before_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        monitor = StabilityMonitor(broken.noise(), every=2)
        trained(monitor)
        assert monitor.alarms == []
        model, x, _, _ = broken.forget_bias_of_minus_five()
        known = StabilityMonitor(x, every=1)
        broken.compiled(model).fit(x, broken.labels(), verbose=0, callbacks=[known])
    assert known.alarms == []
    assert known.history[0]["gradient/early"] < 1e-14


@pytest.mark.once
def test_layers_of_every_kind_are_seen():
    model, x, _, _ = broken.healthy_spiking()
    model.compile("sgd", "mse")
    monitor = StabilityMonitor(x, every=1)
    y = np.zeros((broken.ROWS, broken.UNITS), "float32")
    history = model.fit(x, y, verbose=0, epochs=2, callbacks=[monitor]).history
    assert 0 < history[f"rate/{model.layers[0].name}"][0] < 1
    subclassed, x, y, _ = broken.healthy_subclassed()
    monitor = StabilityMonitor(x, every=1)
    seen = subclassed.fit(x, y, verbose=0, callbacks=[monitor]).history
    assert f"energy/{subclassed.second.name}" in seen
    assert [name for name in seen if name.startswith("radius/")] == [
        f"radius/{layer.name}.time" for layer in (subclassed.first, subclassed.last)
    ]


@pytest.mark.once
def test_callbacks_behind_it_see_what_it_saw(tmp_path):
    path = tmp_path / "log.csv"
    trained(StabilityMonitor(broken.noise(), every=2), keras.callbacks.CSVLogger(path))
    header = path.read_text().splitlines()[0].split(",")
    assert {"energy/gru_0", "saturated_gates/lstm", "gradient/memory"} <= set(header)


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"samples": 0}, {"radii": 1}, {"on_alarm": "shout"}, {"seed": -1}],
    ids=lambda options: next(iter(options)),
)
def test_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        StabilityMonitor(broken.noise(), **options)


@pytest.mark.once
def test_what_does_not_fit_is_refused_as_training_begins():
    with pytest.raises(ValueError, match="rows of shape"):
        trained(StabilityMonitor(np.zeros((8, 3, 1), "float32")))
