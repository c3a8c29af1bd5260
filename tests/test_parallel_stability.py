"""Parallel layers are measured and levelled as all others are, and what that says of Newton."""

import math

import keras
import numpy as np
import pytest
from harness import sequences, to_numpy

import keras_lsc
from keras_lsc import layers
from keras_lsc.layers import parallel

CELLS = {
    "min-gru": layers.MinGRU,
    "min-lstm": layers.MinLSTM,
    "para-gru": layers.ParaGRU,
    "para-lstm": layers.ParaLSTM,
    "para-leaky": layers.ParaLeaky,
    "selective": layers.SelectiveSSM,
    "oscillators": layers.LinOSS,
}


def model_of(layer_class, units=5, depth=2, **options):
    return keras.Sequential(
        [
            keras.Input((12, 4)),
            *(
                layer_class(units, return_sequences=True, seed=seed, **options)
                for seed in range(depth)
            ),
        ]
    )


def test_the_radius_of_a_diagonal_is_its_largest_entry(rng):
    """MinGRU: the Jacobian in time is 1 - z, of which the mean of the largest entry is measured."""
    model, x = model_of(layers.MinGRU, depth=1), sequences(rng, batch=16, steps=12)
    kernel, bias = (to_numpy(weight) for weight in model.layers[0].weights)
    kept = 1.0 / (1.0 + np.exp((x @ kernel + bias)[..., :5]))
    report = keras_lsc.measure(model, x, samples=16 * 12)
    # Points are drawn among all steps: five standard errors of a mean over them.
    largest = kept.max(axis=-1)
    bound = float(5 * largest.std() / math.sqrt(16 * 12))
    assert report.time[0] == pytest.approx(float(largest.mean()), abs=bound)


@pytest.mark.once
def test_pre_training_reaches_its_target(rng):
    model, x = model_of(layers.ParaLSTM), sequences(rng, batch=16, steps=12)
    assert keras_lsc.measure(model, x).max_deviation("variance") > 0.3
    report = keras_lsc.stabilize(model, x, tolerance=0.1, verbose=0)
    assert report.max_deviation("variance") <= 0.1


@pytest.mark.once
@pytest.mark.parametrize("name", CELLS)
def test_every_layer_is_levelled(name, rng):
    model, x = model_of(CELLS[name], units=12, depth=4), sequences(rng, batch=64, steps=12)
    before = keras_lsc.measure(model, x).energy
    # A fifth, because few units on few sequences have energies that scatter by as much.
    report = keras_lsc.stabilize(model, x, method="level", tolerance=0.2, verbose=0)
    after = report.energy
    assert before.max() / before.min() > 2.0
    assert after.max() / after.min() < 1.6


@pytest.mark.once
def test_predictions_grow_as_the_theory_says():
    predict = parallel.predicted_iterations
    # Forgetting: the same at any length. At the edge: the logarithm. Chaos: every step.
    assert predict(-0.5, 1_000) == predict(-0.5, 1_000_000)
    growth = [predict(0.0, 10**k) for k in range(2, 6)]
    assert len(set(np.diff(growth)) - {4, 5}) == 0
    assert predict(0.5, 1_000) == 1_000
    # Continuous where the formula has no value of its own.
    assert predict(1e-12, 1_000) == predict(-1e-12, 1_000) == predict(0.0, 1_000)
    assert predict(2.0, 1) == 1
    with pytest.raises(ValueError, match="exponent must be a finite number"):
        predict(float("nan"), 10)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        predict(0.0, 0)


@pytest.mark.once
def test_predictions_are_near_what_is_needed(rng):
    """GRU cells from forgetting to the edge: within a factor of two of what solve takes."""
    x = sequences(rng, batch=1, steps=500, features=4)
    for scale in (0.3, 1.0, 2.0):
        model = keras.Sequential([keras.Input((500, 4)), keras.layers.GRU(8)])
        cell = model.layers[0].cell
        generator = np.random.default_rng(1)
        cell.recurrent_kernel.assign(scale * generator.standard_normal((8, 24)) / 8**0.5)
        exponent = keras_lsc.lyapunov(model, np.tile(x, (2, 1, 1)), k=1).stack[0]
        expected = parallel.predicted_iterations(float(exponent), 500)
        found = parallel.solve(cell, x)
        assert found.has_converged
        assert found.iterations / 2 <= expected <= 2 * found.iterations, (scale, exponent)
