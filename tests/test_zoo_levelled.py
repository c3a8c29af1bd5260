"""Levelled starts: recipes without a target, whose certificates have the gradient's energies."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

import keras_lsc
from keras_lsc import zoo
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import networks, verification
from keras_lsc.zoo.build import build
from keras_lsc.zoo.certificate import certificate_data
from keras_lsc.zoo.pages import card
from keras_lsc.zoo.pretraining import deviation, pretrain
from keras_lsc.zoo.recipes import Recipe, RecipeError
from keras_lsc.zoo.registry import CheckpointInfo
from keras_lsc.zoo.schema import check_entry

TINY = "test_gru_parity_d4_level"
RECIPE = zoo.info(TINY).recipe


def distance(energies, growth=1.0):
    """Largest relative distance of an energy from the middle of all, one layer after the other."""
    levels = [
        np.log(energy) - (len(energies) - 1 - k) * np.log(growth)
        for k, energy in enumerate(energies)
    ]
    middle = (max(levels) + min(levels)) / 2
    return np.exp(max(abs(level - middle) for level in levels)) - 1


# Recipes


@pytest.mark.once
def test_a_levelled_recipe_is_named_by_its_method():
    assert RECIPE.name == TINY
    assert (RECIPE.target, RECIPE.goal) == (None, "level")
    assert not {"target", "mode", "max_updates"} & RECIPE.settings().keys()
    grows = replace(RECIPE, growth=1.25)
    assert (grows.name, grows.goal) == (f"{TINY}1p25", "level, growth 1.25")
    for recipe in (RECIPE, grows):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert TINY in zoo.list(method="level", hidden=True)
    assert TINY not in zoo.list(method="lsc", hidden=True)


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"target": 1.0}, "target 1.0 means nothing to the method 'level'"),
        ({"mode": "weights"}, "mode 'weights' means nothing"),
        ({"learning_rate": 0.1}, r"learning_rate 0\.1 means nothing"),
        ({"max_updates": 9}, "max_updates 9 means nothing"),
        ({"method": "lsc"}, "gives no 'target'"),
        ({"method": "lsc", "target": 1.0, "growth": 2.0}, r"growth 2\.0 means nothing"),
        ({"method": "flossing", "target": 1.0}, "method must be one of"),
        ({"growth": 0.0}, "growth must be"),
    ],
)
def test_what_means_nothing_to_the_method_is_refused(changes, match):
    with pytest.raises(RecipeError, match=match):
        Recipe.from_dict({**RECIPE.to_dict(), **changes})


# Starts


def test_only_the_input_kernels_above_the_first_layer_are_scaled():
    """So the dynamics in time are those of the draw."""
    drawn, levelled = (
        networks.weights_of(zoo.load(TINY, weights=which)) for which in ("initial", "stabilized")
    )
    scales = {}
    for name, value in levelled.items():
        layer, _, weight = name.partition("/")
        if weight == "gru_cell/kernel" and layer != "layer_1":
            scales[layer] = float(value.ravel() @ drawn[name].ravel() / np.sum(drawn[name] ** 2))
            np.testing.assert_allclose(value, scales[layer] * drawn[name], rtol=1e-5)
        else:
            np.testing.assert_array_equal(value, drawn[name])
    assert sorted(scales) == ["layer_2", "layer_3", "layer_4"]
    assert min(abs(np.log(scale)) for scale in scales.values()) > 0.1


@pytest.mark.once
def test_its_gradient_is_level_on_other_sequences():
    x = np.random.default_rng(7).integers(0, 2, (512, 12, 1)).astype("float32")
    spreads = {}
    for which in ("initial", "stabilized"):
        model = zoo.load(TINY, weights=which)
        core = keras_lsc.measure(model, x, samples=64)
        spreads[which] = distance(core.gradient.energies)
    # Of 64 sequences, whose mean is not that of all.
    assert spreads["stabilized"] < 0.3 < 2 < spreads["initial"]


@pytest.mark.once
def test_a_build_certifies_the_energies_that_grow_as_asked(tmp_path):
    recipe = replace(RECIPE, growth=1.5, depth=3)
    entry = build(recipe, tmp_path)
    check_entry(tmp_path, recipe.name, json.loads(json.dumps(entry)))
    certificate = entry["certificate"]
    before, after = (
        StabilityReport.from_dict(certificate[which]) for which in ("initial", "stabilized")
    )
    assert after.gradient.layers == ("layer_1", "layer_2", "layer_3")
    found = distance(after.gradient.energies, 1.5)
    np.testing.assert_allclose([found, certificate["deviation"]], deviation(after, recipe))
    assert found <= recipe.tolerance < distance(before.gradient.energies, 1.5)
    ratios = np.divide(after.gradient.energies[:-1], after.gradient.energies[1:])
    np.testing.assert_allclose(ratios, 1.5, rtol=2.2 * recipe.tolerance)
    info = CheckpointInfo(recipe.name, recipe, **entry)
    assert "Levelled, without updates" in card(info)
    assert "| layer | energy at first | energy | reach |" in card(info)


@pytest.mark.once
def test_another_size_is_levelled_on_the_spot():
    model = zoo.load(TINY, units=12, depth=6)
    made = zoo.certificate(model)
    # Weights that were trained are of the size that was.
    assert made.keys() == zoo.info(TINY).certificate.keys() - {"trained"}
    energies = made["stabilized"]["gradient"]["energies"]
    assert len(energies) == 6
    assert made["deviation"] == pytest.approx(distance(energies))
    assert made["deviation"] < 0.2 < 2 < distance(made["initial"]["gradient"]["energies"])


@pytest.mark.once
def test_silent_layers_are_woken_before_they_are_levelled():
    """Of no spikes the gradient is that of the surrogate's tail."""
    recipe = Recipe(
        "lif", "smnist_latency", 2, 16, method="level", input_shape=(20, 8), tolerance=0.1
    )
    model = networks.build_network(recipe)
    x = (np.random.default_rng(0).random((300, 20, 8)) < 0.01).astype("float32")
    before = keras_lsc.measure(model, x, samples=64, gradient=False)
    assert before.silent_or_saturated
    report = pretrain(model, x, recipe, 0.1, seed=0, verbose=0)
    after = keras_lsc.measure(model, x, samples=64, gradient=False)
    assert not after.silent_or_saturated
    assert distance(report.gradient.energies) < 0.3


# Certificates


@pytest.fixture(scope="module")
def measured():
    certificate = zoo.info(TINY).certificate
    model = zoo.load(TINY)
    return model, verification.remeasure(TINY, model, certificate, certificate_data(RECIPE))


def test_its_certificate_holds_on_every_backend(measured):
    result = measured[1]
    assert result.passed, str(result)
    # Sequences and functional are drawn by NumPy; what is left is the rounding of float32.
    assert result.energy_difference < 1e-4
    certified = zoo.info(TINY).certificate["stabilized"]["gradient"]
    assert result.deviation == pytest.approx(distance(certified["energies"]), abs=1e-4)
    assert "energies by" in str(result)


UNTRUE = {
    "layer_2 has the energy": lambda g: g["energies"].__setitem__(1, 1.1 * g["energies"][1]),
    "layer_1 has the reach": lambda g: g["reaches"].__setitem__(0, g["reaches"][0] + 0.05),
    "layer_3 has the reach": lambda g: g["reaches"].__setitem__(2, None),
    "on 256 sequences, the": lambda g: g.update(sequences=255),
    "the gradient passes": lambda g: g["layers"].__setitem__(0, "layer_9"),
}


@pytest.mark.once
@pytest.mark.parametrize("problem", UNTRUE)
def test_untrue_energies_fail_and_say_where(problem, measured):
    changed = copy.deepcopy(zoo.info(TINY).certificate)
    UNTRUE[problem](changed["stabilized"]["gradient"])
    result = verification.compare(TINY, measured[0], changed, measured[1].report)
    assert not result.passed
    assert problem in str(result)


@pytest.mark.once
def test_a_certificate_without_its_energies_is_no_levelled_one(measured):
    changed = copy.deepcopy(zoo.info(TINY).certificate)
    report = replace(measured[1].report, gradient=None)
    for certificate in (zoo.info(TINY).certificate, changed):
        result = verification.compare(TINY, measured[0], certificate, report)
        assert not result.passed
        assert "no energies of the gradient" in str(result)


@pytest.mark.once
@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.pop("layers"),
        lambda g: g["energies"].pop(),
        lambda g: g["energies"].__setitem__(0, float("nan")),
        lambda g: g["reaches"].__setitem__(0, "much"),
        lambda g: g.update(sequences=0),
        lambda g: g.update(forward=[1.0]),
        lambda g: g.update(colour="blue"),
    ],
)
def test_energies_that_are_none_are_refused(change):
    certificate = copy.deepcopy(zoo.info(TINY).certificate)
    change(certificate["stabilized"]["gradient"])
    with pytest.raises(zoo.CertificateMismatchError, match="gradient"):
        verification.checked_data(TINY, certificate)


@pytest.mark.once
def test_a_folder_of_fetched_checkpoints_means_nothing_to_verify(tmp_path):
    with pytest.warns(DeprecationWarning, match=r"cache_dir of keras_lsc\.zoo\.verify has no"):
        assert zoo.verify(TINY, cache_dir=tmp_path).passed
