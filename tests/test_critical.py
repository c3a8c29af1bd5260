"""Critical initialisations as theorems: in nets of NumPy, signals and gradients stay."""

import numpy as np
import pytest

from keras_lsc.stability.critical import critical, residual_growth

pytestmark = pytest.mark.once

WIDTH, DEPTH = 1000, 10


def test_the_published_numbers():
    assert critical("linear")[:2] == (0.0, 1.0)
    assert critical("relu")[:2] == (0.0, 2.0)
    assert critical("tanh") == critical("sin") == (0.0, 1.0, 0.0)
    np.testing.assert_allclose(critical("gelu")[:2], (0.17292239, 1.98305826), atol=1e-6)
    np.testing.assert_allclose(critical("silu")[:2], (0.55514317, 1.98800468), atol=1e-6)
    # Of a slope other than 1, and of leaky relu with the slope a, 2/(1 + a^2).
    assert critical(lambda z: np.tanh(2 * z))[1] == pytest.approx(0.25)
    leaky = critical(lambda z: np.where(z > 0, z, 0.5 * z))
    assert leaky.weight_variance == pytest.approx(2 / 1.25)


def test_activations_without_a_critical_start_are_refused():
    with pytest.raises(ValueError, match="no critical initialisation"):
        critical("sigmoid")
    with pytest.raises(ValueError, match="activation must be one of"):
        critical("reluu")


def passed(function, found, start, factor=1.0):
    """Variance of preactivations and energy of a tangent after every layer of a random net."""
    generator = np.random.default_rng(0)
    z = np.sqrt(start) * generator.standard_normal((WIDTH, 20))
    tangent = generator.standard_normal(z.shape)
    signals, energies = [], []
    for _ in range(DEPTH):
        deviation = np.sqrt(factor * found.weight_variance / WIDTH)
        weights = deviation * generator.standard_normal((WIDTH, WIDTH))
        bias = np.sqrt(found.bias_variance) * generator.standard_normal((WIDTH, 1))
        slope = (function(z + 1e-6) - function(z - 1e-6)) / 2e-6
        z, tangent = weights @ function(z) + bias, weights @ (slope * tangent)
        signals.append(np.mean(z**2))
        energies.append(np.mean(tangent**2))
    return np.array(signals), np.array(energies)


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_signals_and_differences_stay_at_criticality_and_only_there(name):
    from keras_lsc.stability.critical import _ACTIVATIONS

    function, found = _ACTIVATIONS[name], critical(name)
    start = 1.0 if found.signal is None else found.signal
    signals, energies = passed(function, found, start)
    assert 0.5 < signals[-1] / start < 2.0
    assert 0.4 < energies[-1] / energies[0] < 2.5
    for factor in (0.7, 1.4):
        _, off = passed(function, found, start, factor)
        assert abs(np.log(off[-1] / off[0])) > 2.5


def test_the_signal_of_tanh_decays_as_one_over_the_depth():
    """K after l layers is 1/(2 l), by the third derivative of tanh at zero."""
    signals, _ = passed(np.tanh, critical("tanh"), 1.0)
    assert signals[-1] == pytest.approx(1 / (2 * DEPTH), rel=0.35)


def test_residual_layers_of_one_over_the_root_of_the_depth_stay_below_e():
    generator = np.random.default_rng(0)
    for layers in (5, 40):
        x = generator.standard_normal((WIDTH, 20))
        for _ in range(layers):
            weights = np.sqrt(2 / WIDTH) * generator.standard_normal((WIDTH, WIDTH))
            x = x + layers**-0.5 * weights @ np.maximum(x, 0)
        growth = residual_growth(layers, layers**-0.5)
        assert np.mean(x**2) == pytest.approx(growth, rel=0.15)
        assert growth < np.e
