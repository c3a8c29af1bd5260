"""Checkpoints in another width, depth or number of features, made when they are loaded."""

import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from harness import exported

import keras_lsc
from keras_lsc import zoo
from keras_lsc.zoo import networks, resized, start_file
from keras_lsc.zoo.resolver import locate

TINY = "test_gru_parity_d2_rhovar"


@pytest.fixture(scope="module")
def wide_and_deep():
    """Data of the task, so nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return zoo.load(TINY, units=12, depth=3, num_classes=5)


def test_another_width_and_depth_has_the_target_of_the_checkpoint(wide_and_deep):
    assert [layer.name for layer in wide_and_deep.layers] == [
        *("layer_1", "layer_2", "layer_3", "readout")
    ]
    assert [layer.units for layer in wide_and_deep.layers] == [12, 12, 12, 5]
    recipe = zoo.info(TINY).recipe
    x = np.random.default_rng(5).integers(0, 2, (512, 12, 1)).astype("float32")
    report = keras_lsc.measure(wide_and_deep, x, samples=512, gradient=False)
    # Of other points, whose means have errors of their own.
    assert report.max_deviation(recipe.target) < 2 * recipe.tolerance
    drawn = networks.build_network(replace(recipe, units=12, depth=3))
    before = keras_lsc.measure(drawn, x, samples=512, gradient=False)
    assert before.max_deviation(recipe.target) > 5 * recipe.tolerance


def test_its_certificate_says_what_was_measured(wide_and_deep):
    made, stored = zoo.certificate(wide_and_deep), zoo.info(TINY).certificate
    assert made.keys() == stored.keys() - {"trained"}
    assert (made["recipe"]["units"], made["recipe"]["depth"]) == (12, 3)
    assert made["deviation"] <= zoo.info(TINY).recipe.tolerance
    assert len(made["stabilized"]["transitions"]) > len(stored["stabilized"]["transitions"])
    assert made["certificate_data"]["split"] == "train"
    assert made["certificate_data"]["sha256"] != made["training_data"]["sha256"]
    with pytest.raises(ValueError, match="is no model that"):
        zoo.certificate(zoo.load(TINY))


def test_other_features_are_pretrained_on_the_sequences_given():
    x = 3 * np.random.default_rng(0).standard_normal((300, 9, 4)).astype("float32")
    model = zoo.load(TINY, input_shape=(9, 4), x=x)
    assert model.input_shape == (None, 9, 4)
    assert zoo.certificate(model)["certificate_data"]["split"] == "given"
    report = keras_lsc.measure(model, x, samples=300, gradient=False)
    assert report.max_deviation("variance") < 0.04


def test_without_sequences_they_are_drawn_and_that_is_said():
    with pytest.warns(UserWarning, match=r"parity have the shape \(12, 1\).*x="):
        model = zoo.load(TINY, input_shape=(6, 2))
    assert zoo.certificate(model)["certificate_data"]["split"] == "drawn"


@pytest.mark.once
@pytest.mark.parametrize("name", ["lstm_smnist_d2_rhovar", "alif_smnist_latency_d2_rho1", TINY])
def test_the_same_size_is_the_stored_network(name):
    stored = locate(name).file
    drawn = networks.drawn_weights(networks.undrawn_network(stored.recipe), stored.recipe)
    expected = start_file.expanded(drawn, stored.numbers())
    carried = resized._carried_over(stored.recipe, stored.numbers(), stored.recipe, drawn)
    for path, value in expected.items():
        np.testing.assert_array_equal(carried[path], value)


@pytest.mark.once
def test_biases_move_by_the_mean_of_their_gate():
    """An LSTM of four gates, and a GRU's two biases of three."""
    generator = np.random.default_rng(0)
    for rows, gates in (((), 4), ((2,), 3)):
        before, step = np.zeros((*rows, gates * 2)), generator.standard_normal((*rows, gates * 2))
        initial = np.ones((*rows, gates * 5))
        moved = resized._moved_vector(initial, before, step, 5, 2)
        means = step.reshape(*rows, gates, 2).mean(axis=-1)
        np.testing.assert_allclose(moved, 1 + np.repeat(means, 5, axis=-1), rtol=1e-6)


def test_the_initial_weights_of_another_size_are_those_of_its_recipe():
    model = zoo.load(TINY, units=9, depth=4, weights="initial")
    recipe = replace(zoo.info(TINY).recipe, units=9, depth=4)
    for one, other in zip(
        model.get_weights(), networks.build_network(recipe).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": 0}, "units must be a positive integer"),
        ({"depth": 1.5}, "depth must be a positive integer"),
        ({"x": np.ones((4, 12, 1))}, "x is what another size is pre-trained on"),
        ({"units": 9, "x": np.ones((4, 12, 2))}, r"takes rows of shape \(12, 1\)"),
        ({"input_shape": (12,)}, r"input_shape=\(12,\) does not fit"),
    ],
)
def test_a_size_of_no_use_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        zoo.load(TINY, **options)


@pytest.mark.once
def test_a_file_has_the_size_it_has():
    with pytest.raises(ValueError, match="is a file, whose network is as it is"):
        zoo.load(exported(TINY), units=9)
    with pytest.raises(ValueError, match="only the number of steps"):
        zoo.load(exported(TINY), input_shape=(12, 3))
    assert isinstance(zoo.load(exported(TINY), input_shape=(20, 1)), keras.Sequential)
