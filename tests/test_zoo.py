"""The zoo: recipes, files, certificates, and what happens to wrong or damaged ones."""

import json
import os
import re
import threading
import zipfile
from pathlib import Path

import https_server
import keras
import numpy as np
import pytest
from conftest import prepared_data
from harness import exported, mostly_once, run_python

import keras_lsc
from keras_lsc import files, zoo
from keras_lsc.zoo import registry, sources
from keras_lsc.zoo.build import build, builder, collect, is_built, leave
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.networks import CELLS, build_network
from keras_lsc.zoo.recipes import Recipe, RecipeError, read_recipes

FOLDER = Path(__file__).parents[1] / "zoo"
TINY = "test_gru_parity_d2_rhovar"
NAMES = zoo.list(hidden=True)
# `make zoo` runs every checkpoint; the tests run one of each cell and dataset.
DEEP = bool(os.environ.get("KERAS_LSC_DEEP"))


RECIPES = read_recipes(FOLDER)


def run_here():
    """One checkpoint of each cell and dataset, the first in natural order, or all of them."""
    families = {}
    for name in NAMES:
        families.setdefault((RECIPES[name].cell, RECIPES[name].dataset), name)
    return NAMES if DEEP else list(families.values())


BACKENDS = ("torch", "tensorflow", "jax")
RUN = run_here()
QUICK = [*zoo.list("test_*", hidden=True), "gru_adding_d2_rhovar", "gru_smnist_d2_rhovar"]
VERIFIED = NAMES if DEEP else QUICK


def tiny_recipe(**changes):
    return Recipe(
        **{
            "cell": "sigmoid",
            "dataset": "parity",
            "options": {"n": 2, "length": 12},
            "input_shape": (12, 1),
            "depth": 2,
            "units": 8,
            "target": "variance",
            "sequences": 512,
            "certificate_sequences": 128,
            "samples": 256,
            **changes,
        }
    )


# The registry


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_the_one_of_the_index(name):
    known = zoo.info(name)
    path = FOLDER / "starts" / f"{name}.npz"
    assert path.stat().st_size == known.bytes
    assert files.sha256(path) == known.sha256
    assert known.recipe == RECIPES[name]
    assert known.deviation <= known.recipe.tolerance


@pytest.mark.once
def test_an_index_is_written_in_one_way():
    """So that what two branches add to it is merged line by line."""
    text = (FOLDER / "index.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_there_are_ninety_checkpoints_each_with_its_recipe():
    assert [name for name in NAMES if name not in RECIPES] == []
    assert len(zoo.list()) >= 90
    assert {recipe.cell for recipe in RECIPES.values()} == set(CELLS)


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in NAMES if name not in RUN])
def test_every_other_checkpoint_loads(name):
    assert zoo.load(name).count_params() == zoo.info(name).parameters


def shared_out(names):
    """Names for `parametrize`: the first of every cell on every backend, others on one of them."""
    cells = {}
    for name in names:
        cells.setdefault(RECIPES[name].cell, name)
    return [
        name
        if name in cells.values() or DEEP
        else pytest.param(name, marks=pytest.mark.once(on=BACKENDS[k % len(BACKENDS)]))
        for k, name in enumerate(names)
    ]


@pytest.mark.parametrize("name", shared_out(RUN))
def test_a_checkpoint_loads_and_runs(name):
    model, task = zoo.load(name), keras_lsc.datasets.info(zoo.info(name).dataset)
    assert model.count_params() == zoo.info(name).parameters
    x = np.ones((2, *model.inputs[0].shape[1:]), dtype=task.dtype)
    y = keras.ops.convert_to_numpy(model(x))
    assert np.isfinite(y).all()
    assert y.shape[-1] == task.outputs


@pytest.mark.parametrize("name", mostly_once(VERIFIED, {*VERIFIED[:2], VERIFIED[-1]}))
def test_certificates_hold(name):
    try:
        result = zoo.verify(name, data_dir=prepared_data())
    except keras_lsc.datasets.DatasetUnavailableError as error:
        pytest.skip(str(error))
    assert result.passed, str(result)


_OUTPUTS = """
import hashlib, keras, keras_lsc, numpy as np

def inputs(name, model):
    task = keras_lsc.datasets.info(keras_lsc.zoo.info(name).dataset)
    shape, generator = (3, *model.inputs[0].shape[1:]), np.random.default_rng(0)
    if "int" in task.dtype:
        return generator.integers(0, task.outputs, shape).astype(task.dtype)
    if keras_lsc.zoo.info(name).cell in ("lif", "alif"):
        return (generator.random(shape) < 0.02).astype(task.dtype)
    return generator.standard_normal(shape).astype(task.dtype)

rows = {}
for name in names:
    for weights in ("stabilized", "initial"):
        model = keras_lsc.zoo.load(name, weights=weights)
        bits = b"".join(weight.tobytes() for weight in model.get_weights())
        y = keras.ops.convert_to_numpy(model(inputs(name, model)))
        rows[f"{name} {weights}"] = [hashlib.sha256(bits).hexdigest(), y.tolist()]
"""
_PRINTED = (
    "import json, sys; names = json.loads(sys.argv[1])" + _OUTPUTS + "print(json.dumps(rows))"
)


@pytest.mark.once
def test_weights_and_outputs_are_the_same_on_every_backend():
    names = RUN if DEEP else zoo.names("test_*", hidden=True)
    here = {"names": names}
    exec(_OUTPUTS, here)
    for backend in {"jax", "tensorflow", "torch"} - {keras.backend.backend()}:
        printed = run_python(_PRINTED, json.dumps(names), backend=backend, timeout=3000)
        rows = json.loads(printed.splitlines()[-1])
        assert rows.keys() == here["rows"].keys()
        for key, (bits, outputs) in rows.items():
            expected = here["rows"][key]
            assert bits == expected[0], (key, backend)
            np.testing.assert_allclose(outputs, expected[1], atol=1e-4, err_msg=f"{key} {backend}")


def test_initial_weights_differ_from_the_stabilised_ones_by_scales():
    start, end = (zoo.load(TINY, weights=which) for which in ("initial", "stabilized"))
    old = start.get_layer("layer_2").cell.kernel.numpy().reshape(8, 3, 8)
    new = end.get_layer("layer_2").cell.kernel.numpy().reshape(8, 3, 8)
    ratio = new / old
    np.testing.assert_allclose(
        ratio, ratio.mean(axis=(0, 2), keepdims=True) * np.ones_like(ratio), rtol=1e-4
    )
    assert np.abs(np.log(ratio)).max() > 0.01


@pytest.mark.parametrize("is_path", [False, True], ids=["start", "exported"])
def test_loading_leaves_every_initialiser_in_place(is_path):
    """The weights are set without drawing any; what is loaded is what Keras itself loads."""
    path = exported(TINY)
    ours = zoo.load(path if is_path else TINY)
    theirs = keras.saving.load_model(path, compile=False)
    configs = [json.dumps(model.get_config(), sort_keys=True) for model in (ours, theirs)]
    one, other = (re.sub(r'"shared_object_id": \d+', "", config) for config in configs)
    assert one == other
    assert "GlorotUniform" in one
    for mine, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, reference)


@pytest.mark.once
def test_two_processes_load_at_once_and_import_no_framework():
    """Keras itself imports its backend, and JAX where that is installed."""
    program = (
        "import sys, keras\n"
        "loaded = lambda: [n for n in ('jax', 'tensorflow', 'torch') if n in sys.modules]\n"
        "before = loaded()\n"
        "import keras_lsc\n"
        f"model = keras_lsc.zoo.load({TINY!r})\n"
        f"keras_lsc.zoo.load({TINY!r}, num_classes=7, input_shape=(20, 1), dtype='bfloat16')\n"
        "assert loaded() == before, (before, loaded())\n"
        "print(model.count_params())\n"
    )
    printed = []
    threads = [
        threading.Thread(
            target=lambda: printed.append(run_python(program, backend=keras.backend.backend()))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(text.splitlines()[-1]) for text in printed] == [zoo.info(TINY).parameters] * 2


# Discovery


def test_list_selects_by_pattern_and_filter():
    assert zoo.list is zoo.names
    hidden = zoo.list("test_*", hidden=True)
    assert TINY in hidden
    assert TINY not in zoo.list()
    assert zoo.list("test_*", hidden=True, cell="gru", target=0.5) == ["test_gru_parity_d2_rho05"]
    with pytest.raises(TypeError, match="no 'colour'"):
        zoo.list(colour="blue")


def test_names_are_in_natural_order():
    names = ["a_d10", "a_d2", "b_d1"]
    assert sorted(names, key=registry.natural_order) == ["a_d2", "a_d10", "b_d1"]
    recipes = [tiny_recipe(depth=depth) for depth in (10, 2)]
    entries = {recipe.name: {"certificate": {"recipe": recipe.to_dict()}} for recipe in recipes}
    selected = registry.select(entries, "*", hidden=False, filters={})
    assert selected == [recipe.name for recipe in reversed(recipes)]


def test_an_unknown_name_is_refused_with_the_closest(monkeypatch):
    with pytest.raises(zoo.UnknownCheckpointError, match="gru_smnist_d2_rhovar"):
        zoo.load("gru_smnist_d2_rhovra")
    with pytest.raises(zoo.UnknownCheckpointError, match="Did you mean gru_smnist"):
        zoo.info("gru_smnist")


# Recipes and builds


@pytest.mark.once
def test_building_twice_gives_the_same_file_and_a_build_is_taken_up(tmp_path):
    recipe = tiny_recipe()
    one = build(recipe, tmp_path / "a")
    assert one["certificate"]["deviation"] <= recipe.tolerance
    assert one["certificate"]["stabilized"]["gradient"]["layers"] == ["layer_1", "layer_2"]
    folder = tmp_path / "b"
    assert not is_built(recipe, folder)
    (made,) = builder()([recipe.to_dict()])
    leave(recipe.name, made["entry"], made["content"], folder)
    collect(folder)
    assert is_built(recipe, folder)
    path = folder / "starts" / f"{recipe.name}.npz"
    assert files.sha256(path) == one["sha256"]
    assert not is_built(tiny_recipe(seed=1), folder)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_built(recipe, folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("units = [", "no TOML"),
        ("dataset = 'smnist'", "no \\[\\[network\\]\\]"),
        ("[[network]]\ncell = 'gru'\ncolour = 1", "unknown key 'colour'"),
        ("[[network]]\ncell = 'gru'\ndataset = 'smnist'\nunits = 8\ndepth = 2", "no 'target'"),
        (
            "[[network]]\ncell='gru'\ndataset='smnist'\nunits=8\ndepth=2\ntarget=-1.0",
            "not a radius",
        ),
        (
            "[[network]]\ncell='gru'\ndataset='smnist'\nunits=8\ndepth=-2\ntarget=1.0",
            "depth must be a positive integer",
        ),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipes(tmp_path)


def test_recipes_survive_the_round_trip_through_json():
    for recipe in RECIPES.values():
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_drawn_weights_have_the_spread_of_their_initialisers():
    model = build_network(tiny_recipe(cell="lstm", units=64, depth=2))
    kernel, recurrent, bias = (w.numpy() for w in model.get_layer("layer_2").cell.weights)
    assert np.isclose(kernel.std(), np.sqrt(2 / (64 + 256)), rtol=0.05)
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(64), atol=1e-5)
    np.testing.assert_array_equal(bias.reshape(4, 64).mean(axis=1), [0, 1, 0, 0])


# Heads, shapes and dtypes


def test_a_fresh_head_keeps_the_core_and_is_drawn_from_a_seed():
    model = zoo.load(TINY, num_classes=7, seed=3)
    assert model.output_shape == (None, 7)
    keras.utils.set_random_seed(1)
    kernel, bias = zoo.load(TINY, num_classes=7, seed=3).get_layer("readout").get_weights()
    np.testing.assert_array_equal(kernel, model.get_layer("readout").get_weights()[0])
    # Of NumPy: within sqrt(6 / (8 + 7)), as Keras draws it.
    limit = np.sqrt(6 / 15)
    drawn = np.random.default_rng(3).uniform(-limit, limit, (8, 7))
    np.testing.assert_array_equal(kernel, drawn.astype("float32"))
    assert not bias.any()
    other = zoo.load(TINY, num_classes=7).get_layer("readout").get_weights()[0]
    assert np.abs(other - kernel).max() > 0.1
    original = zoo.load(TINY)
    for name in ("layer_1", "layer_2"):
        for one, other in zip(
            model.get_layer(name).get_weights(), original.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_another_number_of_steps_changes_no_weight():
    x = np.random.default_rng(0).standard_normal((2, 30, 1)).astype("float32")
    model = zoo.load(TINY, input_shape=(None, 1))
    assert model(x).shape == (2, 2)
    for one, other in zip(model.get_weights(), zoo.load(TINY).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "name",
    mostly_once(
        [
            TINY,
            "lif_smnist_latency_d2_rho1",
            "lru_smnist_d3_rhovar",
            "lstm_tiny_shakespeare_d2_rho1",
        ],
        {TINY, "lru_smnist_d3_rhovar"},
    ),
)
def test_dtype_is_a_policy_of_every_layer(name, policy):
    model = zoo.load(name, dtype=policy)
    for layer in model.layers:
        assert layer.dtype_policy.name == policy
    exact = zoo.load(name)
    for one, other in zip(model.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_allclose(one.astype("float32"), other, rtol=2**-8)
    x = np.ones(
        (2, *model.inputs[0].shape[1:]), dtype=keras_lsc.datasets.info(zoo.info(name).dataset).dtype
    )
    assert np.isfinite(model.predict(x, verbose=0).astype("float32")).all()


def test_outputs_in_bfloat16_are_near_the_exact_ones():
    x = np.random.default_rng(0).standard_normal((16, 12, 1)).astype("float32")
    exact = keras.ops.convert_to_numpy(zoo.load(TINY)(x))
    for policy in ("bfloat16", "mixed_bfloat16"):
        rough = keras.ops.cast(zoo.load(TINY, dtype=policy)(x), "float32")
        np.testing.assert_allclose(keras.ops.convert_to_numpy(rough), exact, atol=0.05)


def test_a_model_of_ones_own_is_saved_and_loaded(tmp_path):
    x = np.random.default_rng(0).standard_normal((128, 10, 2))
    model = keras.Sequential(
        [
            keras.Input((10, 2)),
            keras.layers.GRU(6, return_sequences=True),
            keras.layers.GRU(6),
            keras.layers.Dense(3),
        ]
    )
    report = keras_lsc.measure(model, x, samples=16)
    path = zoo.save(model, tmp_path / "mine", report)
    loaded = zoo.load(str(path))
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    inside = KerasFile.read(path / "model.keras").certificate()
    assert inside["stabilized"] == json.loads(json.dumps(report.to_dict()))
    # Of what was trained on a task nothing is known of it.
    assert inside.keys() == zoo.info(TINY).certificate.keys() - {"trained"}
    assert zoo.load(str(path), num_classes=5).output_shape == (None, 5)


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        ([], 1),
        ([keras.layers.Dense(3), keras.layers.Softmax()], 1),
        ([keras.layers.Dense(3), keras.layers.GRU(2, name="top")], 3),
    ],
    ids=["no head", "softmax apart", "recurrent"],
)
def test_a_fresh_head_replaces_a_head_and_nothing_else(last, kept, tmp_path):
    returns = len(last) > 1 and isinstance(last[1], keras.layers.GRU)
    core = keras.layers.GRU(4, return_sequences=returns, name="core")
    model = keras.Sequential([keras.Input((5, 2)), core, *last])
    path = zoo.save(model, tmp_path / "own")
    loaded = zoo.load(str(path), num_classes=5, dtype="float32")
    assert [layer.name for layer in loaded.layers[:-1]] == [
        layer.name for layer in model.layers[:kept]
    ]
    assert loaded.output_shape == (None, 5)
    for one, other in zip(loaded.layers[:-1], model.layers, strict=False):
        for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


# Safety


def test_a_changed_or_truncated_file_is_refused_by_name(tmp_path, monkeypatch):
    content = exported(TINY).read_bytes()
    cut, changed = tmp_path / "cut.keras", tmp_path / "changed.keras"
    cut.write_bytes(content[: len(content) // 2])
    changed.write_bytes(content[:-200] + bytes(200))
    for path in (cut, changed):
        with pytest.raises(zoo.DamagedCheckpointError, match=re.escape(path.name)):
            zoo.load(str(path), sha256=files.sha256(exported(TINY)))
    with pytest.raises(zoo.DamagedCheckpointError, match=r"cut\.keras"):
        zoo.load(str(cut))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    path = tmp_path / "lambda.keras"
    model.save(path)
    with pytest.raises(zoo.DamagedCheckpointError, match="Lambda"):
        zoo.load(str(path))


def test_a_damaged_index_is_named(tmp_path, monkeypatch):
    (tmp_path / registry.INDEX).write_text("{")
    with pytest.raises(zoo.DamagedCheckpointError, match=r"index\.json"):
        registry.read_index(tmp_path / registry.INDEX)


@pytest.mark.once
def test_a_start_needs_no_network_and_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "folders", lambda: [tmp_path])
    with pytest.raises(zoo.CheckpointUnavailableError) as raised:
        sources.find(TINY, "0" * 64, RECIPES[TINY])
    for part in (f"{TINY}.npz", str(tmp_path), sources.FOLDER_VARIABLE):
        assert part in str(raised.value)


# Addresses


def test_an_address_needs_a_sha256():
    for address in ("https://example.org/x.keras", "hf://owner/repo@main/x.keras"):
        with pytest.raises(ValueError, match="needs sha256="):
            zoo.load(address)
    with pytest.raises(ValueError, match="not safe"):
        zoo.load("http://example.org/x.keras", sha256="0" * 64)


@pytest.fixture
def served(monkeypatch):
    """Address of a server that has the file of the tiny checkpoint."""
    content = exported(TINY).read_bytes()
    answers = {f"/{TINY}.keras": [https_server.file(content)]}
    with https_server.serving(answers, monkeypatch) as server:
        yield server.address


def test_a_checkpoint_is_fetched_checked_and_kept(served, tmp_path):
    address, digest = f"{served}/{TINY}.keras", files.sha256(exported(TINY))
    model = zoo.load(address, sha256=digest, cache_dir=tmp_path)
    assert model.count_params() == zoo.info(TINY).parameters
    (kept,) = tmp_path.rglob("*.keras")
    assert files.sha256(kept) == digest


def test_another_file_than_the_expected_is_refused_and_not_kept(served, tmp_path):
    with pytest.raises(zoo.DamagedCheckpointError):
        zoo.load(f"{served}/{TINY}.keras", sha256="0" * 64, cache_dir=tmp_path)
    with pytest.raises(zoo.CheckpointUnavailableError):
        zoo.load(f"{served}/absent.keras", sha256="0" * 64, cache_dir=tmp_path)


def test_a_saved_file_has_no_time_and_no_compile_state(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    kept = {"metadata.json": "date_saved", "config.json": "compile_config"}
    model.save(tmp_path / "by_keras.keras")
    with zipfile.ZipFile(tmp_path / "by_keras.keras") as file:
        assert all(key in json.loads(file.read(part)) for part, key in kept.items())
    with zipfile.ZipFile(zoo.save(model, tmp_path / "own") / "model.keras") as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not any(key in json.loads(file.read(part)) for part, key in kept.items())


def test_drawn_eigenvalues_fill_their_ring():
    cell = build_network(tiny_recipe(cell="lru", units=64, depth=3)).get_layer("layer_2").cell.lru
    real, imag = (keras.ops.convert_to_numpy(part) for part in cell.eigenvalues())
    modulus = np.hypot(real, imag)
    assert modulus.min() > 0.5 - 1e-4
    assert modulus.max() < 0.99 + 1e-4
    gamma = np.exp(cell.log_gamma.numpy())
    np.testing.assert_allclose(gamma, np.sqrt(1 - modulus**2), rtol=1e-3)
