"""What Newton's method does while a network trains: counted, told, and without a trace in it."""

import json

import keras
import numpy as np
import pytest
from harness import sequences, to_numpy

import keras_lsc
from keras_lsc import layers
from keras_lsc.callbacks import StabilityMonitor, StabilityWarning
from keras_lsc.layers.parallel import SolverCounts, predicted_iterations
from keras_lsc.stability.report import StabilityReport

STEPS, FEATURES, BATCH = 40, 3, 8


def model_of(layer, steps=STEPS, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((steps, FEATURES)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", **options)
    return model


def data(rng, steps=STEPS):
    x = sequences(rng, batch=4 * BATCH, steps=steps, features=FEATURES)
    return x, np.zeros((4 * BATCH, 1))


def made_chaotic(layer):
    """Weights at which Newton's method does not converge within its 50 iterations."""
    layer.build((None, None, FEATURES))
    generator = np.random.default_rng(0)
    for weight in layer.weights:
        if weight.name in ("recurrent", "kernel"):
            size = 5.0 if weight.name == "recurrent" else 0.5
            weight.assign(size * generator.standard_normal(weight.shape))
    return layer


@pytest.mark.parametrize("compiled", [True, False])
def test_batches_of_a_training_are_counted(compiled, rng):
    layer = layers.ParaGRU(4, solver="newton", seed=0)
    model = model_of(layer, run_eagerly=not compiled)
    x, y = data(rng)
    assert layer.solver_counts == SolverCounts(0, 0, 0)
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)
    seen = layer.solver_counts
    assert seen.solves == 8
    # At least one scan and one that finds nothing left to do, and no more than contraction needs.
    assert 2 * 8 <= seen.iterations <= 12 * 8
    assert seen.loops == 0
    # Whoever looks at the network leaves nothing behind.
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    keras_lsc.measure(model, x)
    layer(x)
    assert layer.solver_counts == seen


@pytest.mark.once
def test_the_loop_is_not_counted(rng):
    layer = layers.ParaLSTM(4, solver="loop", seed=0)
    model_of(layer).fit(*data(rng), batch_size=BATCH, verbose=0)
    assert layer.solver_counts == SolverCounts(0, 0, 0)


def test_the_monitor_tells_of_iterations_and_changes_nothing(rng):
    x, y = data(rng)
    trained = []
    monitor = StabilityMonitor(x, every=2, radii=False)
    for callbacks in ([], [monitor]):
        layer = layers.ParaLeaky(4, solver="newton", seed=0, tau=3.0, name="leaky")
        model = model_of(layer)
        history = model.fit(
            x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, callbacks=callbacks
        )
        trained.append([to_numpy(weight) for weight in model.weights])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)
    per_batch = layer.solver_counts.iterations / layer.solver_counts.solves
    assert np.mean(history.history["iterations/leaky"]) == pytest.approx(per_batch)
    assert history.history["loops/leaky"] == [0.0, 0.0]
    # Before the first update nothing was solved; from then on two batches a look.
    assert "iterations/leaky" not in monitor.history[0]
    looks = [seen["iterations/leaky"] for seen in monitor.history[1:]]
    assert len(looks) == 4
    assert np.mean(looks) == pytest.approx(per_batch)


def test_a_fallback_in_compiled_training_is_told(rng):
    # So long that the loop's way, a step an iteration, does not end within them.
    x, y = data(rng, steps=200)
    layer = made_chaotic(layers.ParaGRU(4, solver="newton", seed=0, name="wild"))
    model = model_of(layer, steps=200)
    monitor = StabilityMonitor(x, radii=False)
    with pytest.warns() as told:
        history = model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[monitor])
    # On torch nothing is compiled, and the layer warns as well.
    (of_epoch,) = [str(one.message) for one in told if one.category is StabilityWarning]
    assert of_epoch.startswith(
        "epoch 1: Newton's method has not converged in 4 of 4 batches of 'wild'"
    )
    assert history.history["loops/wild"] == [1.0]
    assert layer.solver_counts.loops == layer.solver_counts.solves == 4
    assert layer.solver_counts.iterations == 4 * 50


@pytest.mark.once
def test_a_copy_counts_for_itself(rng):
    layer = layers.ParaGRU(4, solver="newton", seed=0)
    model = model_of(layer)
    model.fit(*data(rng), batch_size=BATCH, verbose=0)
    twin = keras.models.clone_model(model)
    twin.compile("sgd", "mse")
    assert twin.layers[0].solver_counts == SolverCounts(0, 0, 0)
    twin.fit(*data(rng), batch_size=BATCH, verbose=0)
    assert twin.layers[0].solver_counts.solves == layer.solver_counts.solves == 4


@pytest.mark.parametrize("exponents", [0, pytest.param(1, marks=pytest.mark.once)])
def test_a_report_says_how_many_iterations_to_expect(exponents, rng):
    inputs = keras.Input((STEPS, FEATURES))
    both = keras.layers.Bidirectional(
        layers.ParaLeaky(4, seed=0, name="leaky", return_sequences=True), name="both"
    )(inputs)
    looped = layers.ParaLSTM(4, seed=0, solver="loop", return_sequences=True)(both)
    outputs = layers.ParaGRU(4, seed=0, name="gru")(looped)
    model = keras.Model(inputs, outputs)
    x, _ = data(rng)
    report = keras_lsc.measure(model, x, exponents=exponents)
    named = {forecast.layer: forecast for forecast in report.newton}
    assert set(named) == {"both.forward", "both.backward", "gru"}
    for name, forecast in named.items():
        if exponents:
            index = report.exponents.layers.index(name)
            expected = report.exponents.exponents[index][0]
        else:
            (row,) = [row for row in report.transitions if row.name == f"{name}.time"]
            expected = np.log(row.radius)
        assert forecast.is_measured == bool(exponents)
        assert forecast.exponent == pytest.approx(expected)
        assert forecast.iterations == predicted_iterations(forecast.exponent, STEPS)
        assert forecast.note in str(report)
    again = StabilityReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again.newton == report.newton


@pytest.mark.once
def test_what_is_predicted_is_near_what_a_training_takes(rng):
    """Within a factor of two of gated units; leaky ones, nearly linear, may take fewer."""
    x, y = data(rng)
    for make, least in ((layers.ParaGRU, 0.5), (layers.ParaLeaky, 0.0)):
        layer = make(4, solver="newton", seed=0)
        model = model_of(layer)
        (forecast,) = keras_lsc.measure(model, x, exponents=1).newton
        model.optimizer.learning_rate = 0.0
        model.fit(x, y, batch_size=BATCH, verbose=0)
        taken = layer.solver_counts.iterations / layer.solver_counts.solves
        assert least * forecast.iterations <= taken <= 2 * forecast.iterations
