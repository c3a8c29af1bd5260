"""Gradient noise: its law over the updates, and what is saved of it."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc.optimizers import GradientNoise


def wide(optimizer, loss="mse"):
    """A model whose gradient is zero: what moves it is the noise."""
    model = keras.Sequential([keras.Input((50,)), layers.Dense(40, kernel_initializer="zeros")])
    model.compile(optimizer, loss)
    return model, np.zeros((8, 50), "float32"), np.zeros((8, 40), "float32")


def test_the_noise_has_the_variance_that_decays():
    model, x, y = wide(GradientNoise(keras.optimizers.SGD(1.0), eta=0.3, gamma=0.55))
    before = to_numpy(model.layers[0].kernel.value)
    for update in range(4):
        model.train_on_batch(x, y)
        after = to_numpy(model.layers[0].kernel.value)
        # Of 2,000 draws, four standard errors of a variance.
        assert np.var(after - before) == pytest.approx(0.3 / (1 + update) ** 0.55, rel=0.13)
        assert abs(np.mean(after - before)) < 0.05
        before = after


@pytest.mark.once
def test_without_noise_it_is_the_optimizer_within():
    x = np.random.default_rng(0).standard_normal((32, 5)).astype("float32")
    y, ends = x.sum(axis=1, keepdims=True), []
    for make in (
        lambda: keras.optimizers.Adam(0.1),
        lambda: GradientNoise(keras.optimizers.Adam(0.1), 0.0),
    ):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(1, kernel_initializer="ones")])
        model.compile(make(), "mse")
        model.fit(x, y + 1, epochs=3, shuffle=False, verbose=0)
        ends.append(to_numpy(model.layers[0].bias.value))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_a_saved_training_goes_on_as_if_it_had_not_been_saved(tmp_path):
    ends = []
    for is_saved in (False, True):
        model, x, y = wide(GradientNoise(keras.optimizers.Adam(0.1), eta=1.0, seed=3))
        model.fit(x, y, epochs=2, batch_size=8, verbose=0)
        if is_saved:
            model.save(tmp_path / "model.keras")
            model = keras.saving.load_model(tmp_path / "model.keras")
            assert int(model.optimizer.iterations) == 2
        model.fit(x, y, epochs=2, batch_size=8, verbose=0)
        ends.append(to_numpy(model.layers[0].kernel.value))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_embeddings_learning_rates_and_schedules():
    model = keras.Sequential([keras.Input((4,)), layers.Embedding(9, 3), layers.GRU(3)])
    model.compile(GradientNoise("sgd", eta=0.01), "mse")
    model.optimizer.learning_rate = 0.25
    assert float(model.optimizer.optimizer.learning_rate) == 0.25
    stop = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=1e9)
    x = np.zeros((8, 4), "int32")
    model.fit(x, np.zeros((8, 3)), epochs=3, verbose=0, callbacks=[stop])
    assert float(model.optimizer.learning_rate) < 0.25
    assert np.isfinite(to_numpy(model.layers[0].embeddings.value)).all()


@pytest.mark.once
@pytest.mark.parametrize(
    "options", [{"eta": -1}, {"gamma": -0.1}, {"seed": -1}, {"optimizer": "sdg"}], ids=str
)
def test_arguments_are_checked(options):
    with pytest.raises(ValueError):  # noqa: PT011 - of the last it is Keras' own
        GradientNoise(**{"optimizer": "sgd", **options})


@pytest.mark.once
def test_it_is_restored_from_its_configuration():
    config = GradientNoise(keras.optimizers.Adam(0.02), 0.3, 0.6, seed=5).get_config()
    again = GradientNoise.from_config(config)
    assert again.get_config() == config
    assert float(again.optimizer.learning_rate) == pytest.approx(0.02)


@pytest.mark.parametrize("reset", ["subtractive"])
def test_radii_of_the_straight_through_estimator_are_those_of_one_matrix(reset):
    surrogate = keras_lsc.layers.surrogates.straight_through
    layer = keras_lsc.layers.LIF(8, reset=reset, tau=3.0, surrogate=surrogate)
    x = np.random.default_rng(0).standard_normal((16, 9, 4)).astype("float32")
    model = keras.Sequential([keras.Input((9, 4)), layer])
    weights = to_numpy(layer.cell.recurrent_kernel.value) * (1 - np.eye(8))
    matrix = (np.exp(-1 / 3) - 1.0) * np.eye(8) + weights
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    report = keras_lsc.measure(model, x, samples=16, gradient=False)
    assert report.time[0] == pytest.approx(radius, rel=1e-4)
    assert report.transitions[0].radius_std < 1e-4
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.cell.surrogate.shape is surrogate
