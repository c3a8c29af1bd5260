"""Trained weights: files, scores that hold on every backend, and how they are made."""

import importlib
import io
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import https_server
import keras
import numpy as np
import pytest
from conftest import prepared_data
from typer.testing import CliRunner

import keras_lsc
from keras_lsc import datasets, files, zoo
from keras_lsc.workers import Workers
from keras_lsc.zoo import build, networks, registry, scores, sources, trainer
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.pages import card, results
from keras_lsc.zoo.recipes import RecipeError
from keras_lsc.zoo.resolver import locate, locate_trained
from keras_lsc.zoo.start_file import content_of
from keras_lsc.zoo.trained_file import TrainedFile, moved, numbers_of
from keras_lsc_command.app import app

FOLDER = Path(__file__).parents[1] / "zoo"
TINY, OTHER, UNTRAINED = (
    "test_gru_parity_d2_rhovar",
    "test_gru_parity_d4_level",
    "test_sigmoid_parity_d2_rhovar",
)
NAMES = zoo.names(hidden=True, trained=True)
# `KERAS_LSC_DEEP` measures all of them; their data has to be here.
DEEP = bool(os.environ.get("KERAS_LSC_DEEP"))
MEASURED = NAMES if DEEP else [TINY, OTHER]
Damaged = zoo.DamagedCheckpointError


def numbers_in(content):
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def stored():
    return locate_trained(locate(TINY))


# What is stored


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_the_one_of_the_index_and_of_its_start(name):
    known, plan = zoo.info(name), trainer.read_plans(FOLDER)[name]
    assert trainer.is_trained(plan, FOLDER)
    path = FOLDER / "trained" / f"{name}.npz"
    assert path.is_file() == plan.stored
    if plan.stored:
        assert path.stat().st_size == known.trained.bytes < 300_000
    assert len(known.trained.twin) == plan.seeds >= 2
    assert known.trained.metric == datasets.info(known.dataset).metric


@pytest.mark.once
def test_no_file_is_left_over_and_all_are_small():
    kept = [path for path in (FOLDER / "trained").iterdir() if path.suffix == ".npz"]
    assert {path.stem for path in kept} <= set(NAMES)
    assert sum(path.stat().st_size for path in kept) < 5e6


def test_a_matrix_is_within_half_a_step_and_a_vector_exact():
    """The closed form of rounding; what is as it was takes no bytes."""
    generator = np.random.default_rng(0)
    before = {
        "a/kernel": generator.standard_normal((5, 6)).astype("float32"),
        "a/cube": generator.standard_normal((2, 3, 4)).astype("float32"),
        "a/bias": generator.standard_normal(6).astype("float32"),
        "a/gain": np.float32(2.0).reshape(()),
        "b/kernel": generator.standard_normal((3, 3)).astype("float32"),
    }
    values = {
        name: (start + 0.1 * generator.standard_normal(start.shape)).astype("float32")
        for name, start in before.items()
    }
    values["b/kernel"] = before["b/kernel"]
    # One unit that did not move at all has steps of size zero.
    values["a/kernel"][:, 2] = before["a/kernel"][:, 2]
    numbers = numbers_of(before, values)
    assert "b/kernel" not in numbers
    found = moved(before, numbers)
    for name in ("a/kernel", "a/cube"):
        axes = tuple(range(before[name].ndim - 1))
        step = np.abs(values[name] - before[name]).max(axis=axes) / 127
        assert (np.abs(found[name] - values[name]) <= 0.5 * step + 1e-6).all()
        assert numbers[name].nbytes == values[name].size
    for name in ("a/bias", "a/gain", "b/kernel"):
        np.testing.assert_array_equal(found[name], values[name])


def test_the_loaded_weights_are_the_stored_ones(stored):
    before = networks.weights_of(zoo.load(TINY))
    values = networks.weights_of(zoo.load(TINY, weights="trained"))
    for name, value in moved(before, numbers_in(stored.content)).items():
        np.testing.assert_array_equal(values[name], value)
    assert any(not np.array_equal(values[name], before[name]) for name in before)


# Scores and certificates


@pytest.mark.parametrize("name", MEASURED)
def test_the_score_is_what_the_index_says_on_every_backend(name):
    """Within two sequences, or two steps of labels, of those that are tested."""
    made, known = zoo.info(name).trained, zoo.info(name)
    try:
        _, tuning = zoo.fine_tune(
            name,
            known.dataset,
            weights="trained",
            epochs=0,
            limit=made.limit,
            batch_size=made.batch_size,
            download=False,
            data_dir=prepared_data(),
            verbose=0,
        )
    except (datasets.DatasetUnavailableError, ModuleNotFoundError) as error:
        pytest.skip(str(error))
    assert (tuning.weights, tuning.metric) == ("trained", made.metric)
    assert tuning.sequences == made.sequences
    assert tuning.masks == made.masks
    tolerance = 2.01 / made.sequences["test"] if made.metric == "accuracy" else 1e-3 * made.test
    assert tuning.test[made.metric] == pytest.approx(made.test, abs=tolerance)
    assert tuning.validation[made.metric] == pytest.approx(made.validation, abs=tolerance)


@pytest.mark.parametrize("name", MEASURED)
def test_the_certificate_of_trained_weights_holds(name):
    try:
        found = zoo.verify(name, weights="trained", data_dir=prepared_data())
    except (datasets.DatasetUnavailableError, ModuleNotFoundError) as error:
        pytest.skip(str(error))
    assert found.passed, str(found)
    assert json.loads(json.dumps(found.to_dict()))["tolerance"] is None


def test_a_certificate_of_other_weights_fails():
    """The radii after training are not those of the start: each is compared with its own."""
    known = zoo.info(TINY)
    start, trained = (
        [row["radius"] for row in known.certificate[which]["transitions"]]
        for which in ("stabilized", "trained")
    )
    assert np.abs(np.subtract(start, trained)).max() > 0.05
    report = keras_lsc.StabilityReport.from_dict(known.certificate["trained"])
    assert len(report.gradient.energies) == known.depth


@pytest.mark.once
def test_an_interval_is_student_s():
    """Of the mean of numbers of known spread: t of two degrees of freedom is 4.303."""
    values = [0.90, 0.92, 0.94]
    assert scores.half_width(values) == pytest.approx(4.303 * 0.02 / np.sqrt(3), rel=1e-3)
    assert scores.interval("perplexity", [7.0, 7.0, 7.0]) == "7 ± 0"
    assert scores.is_better("accuracy", 0.9, 0.8)
    assert scores.is_better("perplexity", 7.0, 8.0)
    assert not scores.is_better("accuracy", float("nan"), 0.8)


# Loading


def test_names_without_trained_weights_are_refused_with_those_that_have_them():
    with pytest.raises(zoo.UntrainedCheckpointError) as raised:
        zoo.load(UNTRAINED, weights="trained")
    assert UNTRAINED in str(raised.value)
    assert all(name in str(raised.value) for name in zoo.names(trained=True))
    assert zoo.info(UNTRAINED).trained is None
    for call in (zoo.verify, lambda name, **given: zoo.fine_tune(name, "parity", **given)):
        with pytest.raises(zoo.UntrainedCheckpointError, match=UNTRAINED):
            call(UNTRAINED, weights="trained")


@pytest.mark.once
def test_names_are_chosen_by_whether_they_are_trained():
    every = zoo.names("test_*", hidden=True)
    chosen = [zoo.names("test_*", hidden=True, trained=choice) for choice in (True, False)]
    assert sorted(chosen[0] + chosen[1]) == sorted(every)
    assert TINY in chosen[0]
    assert UNTRAINED in chosen[1]
    with pytest.raises(ValueError, match="trained"):
        zoo.names(trained="yes")


def test_trained_weights_take_another_readout_but_no_other_size(tmp_path):
    model = zoo.load(TINY, weights="trained", num_classes=5, input_shape=(20, 1))
    assert (model.input_shape, model.output_shape) == ((None, 20, 1), (None, 5))
    whole = zoo.load(TINY, weights="trained")
    for one, other in zip(model.layers[:-1], whole.layers[:-1], strict=True):
        for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="of its own size"):
        zoo.load(TINY, weights="trained", units=12)
    zoo.save(whole, tmp_path)
    with pytest.raises(zoo.UntrainedCheckpointError):
        zoo.load(tmp_path, weights="trained")


@pytest.mark.once
def test_an_exported_file_has_them_and_their_report(tmp_path):
    path = zoo.export(TINY, tmp_path / "trained.keras", weights="trained")
    for mine, theirs in zip(
        zoo.load(path).get_weights(), zoo.load(TINY, weights="trained").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert KerasFile.read(path).certificate()["trained"] == zoo.info(TINY).certificate["trained"]
    start = zoo.export(TINY, tmp_path / "start.keras")
    assert "trained" not in KerasFile.read(start).certificate()
    with pytest.raises(ValueError, match="weights"):
        zoo.export(TINY, tmp_path / "x.keras", weights="initial")


# Files that are not what they should be


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layer_1/gru_cell/kernel": np.ones((1, 24), "float32")}, "with steps"),
        ({"layer_1/gru_cell/kernel": np.ones((2, 24), "int8")}, "with steps"),
        ({"layer_1/gru_cell/kernel.step": np.ones(23, "float32")}, "with steps"),
        ({"layer_1/gru_cell/kernel.step": np.ones(24)}, "float64"),
        ({"layer_1/gru_cell/kernel.step": np.full(24, np.nan, "float32")}, "gru_cell/kernel"),
        ({"layer_9/kernel": np.ones(1, "float32")}, "layer_9/kernel"),
        ({"fingerprint": np.ones((2, 3))}, "no fingerprint"),
        ({"fingerprint": np.full((8, 3), np.nan)}, "are not those"),
    ],
)
def test_numbers_that_do_not_fit_are_damage(changes, match, stored):
    changed = {**numbers_in(stored.content), **changes}
    with pytest.raises(Damaged, match=match):
        TrainedFile(Path("changed.npz"), content_of(changed), stored.start).model()


@pytest.mark.once
def test_a_flipped_bit_is_damage_or_changes_nothing(stored):
    """And so is a file that is cut off, compressed, or none at all."""
    sound = networks.weights_of(stored.model())
    bits = np.random.default_rng(0).choice(8 * len(stored.content), 100, replace=False)
    for bit in bits:
        changed = bytearray(stored.content)
        changed[bit // 8] ^= 1 << (bit % 8)
        file = replace(stored, content=bytes(changed))
        with pytest.raises(Damaged, match="sha256"):
            file.checked(stored.sha256)
        try:
            values = networks.weights_of(file.model())
        except Damaged:
            continue
        for name, value in values.items():
            np.testing.assert_allclose(
                value, sound[name], atol=1e-4 * np.linalg.norm(sound[name]), rtol=0
            )
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **numbers_in(stored.content))
    for content in (b"", b"PK", stored.content[:-50], compressed.getvalue()):
        with pytest.raises(Damaged, match="has no trained weights"):
            replace(stored, content=content).model()


def copy_of_zoo(folder, *names):
    """A zoo of some checkpoints, with their starts, plan and trained weights."""
    index = json.loads((FOLDER / "index.json").read_text())
    files.write_json(folder / "index.json", {name: index[name] for name in names})
    for part in ("starts", "trained"):
        (folder / part).mkdir()
        for name in names:
            shutil.copy(FOLDER / part / f"{name}.npz", folder / part)
    return folder


@pytest.fixture
def own_zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "folders", lambda: [tmp_path])
    return copy_of_zoo(tmp_path, TINY)


@pytest.mark.once
def test_a_changed_file_and_one_of_another_start_are_refused(own_zoo):
    path = own_zoo / "trained" / f"{TINY}.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(Damaged, match=r"trained.*sha256.*train the checkpoint, again"):
        zoo.load(TINY, weights="trained")
    index = json.loads((own_zoo / "index.json").read_text())
    index[TINY]["trained"]["start"] = "0" * 64
    files.write_json(own_zoo / "index.json", index)
    with pytest.raises(Damaged, match=r"starts.*sha256"):
        zoo.load(TINY, weights="trained")


@pytest.mark.once
def test_a_file_that_is_not_in_the_package_is_named_or_fetched(own_zoo, monkeypatch):
    """By its address, where the index has one, into the cache, and checked there again."""
    path = own_zoo / "trained" / f"{TINY}.npz"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(zoo.CheckpointUnavailableError, match=f"keras-lsc train {TINY}"):
        zoo.load(TINY, weights="trained")
    # What `keras-lsc train` makes of a large network is found as well.
    (own_zoo / "trained_large").mkdir()
    (own_zoo / "trained_large" / path.name).write_bytes(content)
    expected = zoo.load(TINY, weights="trained").get_weights()
    shutil.rmtree(own_zoo / "trained_large")
    with https_server.serving({"/a.npz": [https_server.file(content)]}, monkeypatch) as server:
        index = json.loads((own_zoo / "index.json").read_text())
        index[TINY]["trained"]["address"] = f"{server.address}/a.npz"
        files.write_json(own_zoo / "index.json", index)
        for _ in range(2):
            model = zoo.load(TINY, weights="trained", cache_dir=own_zoo / "cache")
            for mine, theirs in zip(model.get_weights(), expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
        assert server.asked == ["/a.npz"]
        index[TINY]["trained"]["sha256"] = "0" * 64
        files.write_json(own_zoo / "index.json", index)
        with pytest.raises(Damaged, match="was expected"):
            zoo.load(TINY, weights="trained", cache_dir=own_zoo / "cache")


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda entry: entry.pop("trained"), "only one"),
        (lambda entry: entry["certificate"].pop("trained"), "only one"),
        (lambda entry: entry["trained"].update(seeds=[0.9]), "trained.seeds"),
        (lambda entry: entry["trained"].update(metric="beauty"), "trained.metric"),
        (lambda entry: entry["trained"].update(start="x"), "trained.start"),
        (lambda entry: entry["trained"].update(colour=1), "trained.colour"),
        (lambda entry: entry["certificate"]["trained"]["transitions"].pop(), "other transitions"),
    ],
)
def test_an_entry_of_no_use_is_refused_by_its_field(change, match, tmp_path):
    index = json.loads((FOLDER / "index.json").read_text())
    entry = index[TINY]
    change(entry)
    (tmp_path / "index.json").write_text(json.dumps({TINY: entry}))
    with pytest.raises(Damaged, match=match):
        registry.read_index(tmp_path / "index.json")


# How they are made


@pytest.mark.once
def test_training_makes_a_file_and_scores_and_is_taken_up(tmp_path, monkeypatch):
    """The start and the twin share all but their weights; what is trained is left alone."""
    monkeypatch.setattr(sources, "folders", lambda: [tmp_path])
    folder = copy_of_zoo(tmp_path, TINY)
    plan = trainer.Plan(TINY, epochs=2, limit=64, learning_rates=(0.01, 0.03), seeds=2)
    assert not trainer.is_trained(plan, folder)
    told = []
    made = trainer.train(plan, folder, told.append)
    assert trainer.is_trained(plan, folder)
    assert not trainer.is_trained(replace(plan, epochs=3), folder)
    # Two rates and another seed, for both.
    assert len(told) == 2 * 3
    info = zoo.info(TINY)
    assert asdict(info.trained) == made
    assert made["sequences"] == {"train": 64, "validation": 64, "test": 64}
    assert made["start"] == info.sha256
    assert made["learning_rate"] in plan.learning_rates
    _, tuning = zoo.fine_tune(TINY, "parity", weights="trained", epochs=0, limit=64, verbose=0)
    assert tuning.test["accuracy"] == pytest.approx(made["test"], abs=1e-6)
    assert zoo.verify(TINY, weights="trained").passed
    # A start of the same file keeps them, another loses them.
    entries = registry.read_index(folder / "index.json")
    fresh = {key: value for key, value in entries[TINY].items() if key != "trained"}
    fresh["certificate"] = {
        key: value for key, value in fresh["certificate"].items() if key != "trained"
    }
    assert build._with_training(fresh, entries[TINY]) == entries[TINY]
    other = {**fresh, "sha256": "0" * 64}
    assert build._with_training(other, entries[TINY]) == other


@pytest.mark.once(on="jax")
def test_the_first_run_is_that_of_fine_tune(tmp_path, monkeypatch):
    """One network that is compiled once trains as `fine_tune` does, which compiles for every run.

    Only the last run at a rate could be off, were the optimiser's moments those of the run before.
    """
    monkeypatch.setattr(sources, "folders", lambda: [tmp_path])
    folder = copy_of_zoo(tmp_path, TINY)
    plan = trainer.Plan(TINY, epochs=2, limit=256, learning_rates=(0.03, 0.01), seeds=2)
    made = trainer.train(plan, folder)
    for weights, figures, rate in (
        ("stabilized", made["seeds"], made["learning_rate"]),
        ("initial", made["twin"], made["twin_learning_rate"]),
    ):
        for seed, figure in enumerate(figures):
            _, tuning = zoo.fine_tune(
                TINY,
                "parity",
                weights=weights,
                epochs=2,
                limit=256,
                learning_rate=rate,
                seed=seed,
                verbose=0,
            )
            assert tuning.test["accuracy"] == pytest.approx(figure, abs=1.01 / 256)


class Here(Workers):
    """A worker that is a thread of this process, in place of one that imports a backend."""

    def _answers(self, items):
        module, name, given = pickle.loads(self._work.packed())
        make = getattr(importlib.import_module(module), name)
        for answer in make(*pickle.loads(given))(pickle.loads(pickle.dumps(items))):
            yield pickle.loads(pickle.dumps(answer))

    def _stop(self):
        pass


@pytest.mark.once
def test_training_elsewhere_makes_the_same_and_what_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "start_workers", Here)
    plan = trainer.Plan(TINY, epochs=1, limit=64, learning_rates=(0.01,), seeds=2)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        copy_of_zoo(folder, TINY)
    made, told = trainer.train(plan, one), []
    trainer.train_all([plan], other, 2, lambda *row: told.append(row))
    ((of, lines, again),) = told
    assert (of, len(lines)) == (plan, 2 * 2)
    assert {**made, "seconds": 0} == {**again, "seconds": 0}
    assert trainer.is_trained(plan, other)
    with pytest.raises(trainer.NotTrainedError, match=TINY):
        trainer.train_all([replace(plan, learning_rates=(1e38,))], other, 2, print)
    with pytest.raises(ValueError, match="jobs"):
        trainer.train_all([plan], other, 0, print)


@pytest.mark.once
def test_a_network_that_does_not_learn_is_told(tmp_path):
    folder = copy_of_zoo(tmp_path, TINY)
    plan = trainer.Plan(TINY, epochs=1, limit=64, learning_rates=(1e38,), seeds=2)
    with pytest.raises(trainer.NotTrainedError, match=TINY):
        trainer.train(plan, folder)
    with pytest.raises(zoo.UnknownCheckpointError, match="absent"):
        trainer.train(replace(plan, name="absent"), folder)


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("seeds = [", "cannot be read"),
        ("seeds = 3", "no \\[\\[training\\]\\]"),
        ("[[training]]\nepochs = 1", "without a list of names"),
        ("[[training]]\nnames = ['a']", "no 'epochs'"),
        ("[[training]]\nnames = ['a', 'a']\nepochs = 1", "twice"),
        ("[[training]]\nnames = ['a']\nepochs = 0", "epochs"),
        ("[[training]]\nnames = ['a']\nepochs = 1\ncolour = 1", "unknown key 'colour'"),
        ("[[training]]\nnames = ['a']\nepochs = 1\nseeds = 1", "seeds"),
        ("[[training]]\nnames = ['a']\nepochs = 1\nseeds = 99", "seeds"),
        ("[[training]]\nnames = ['a']\nepochs = 1\nlearning_rates = []", "learning_rates"),
        ("[[training]]\nnames = ['a']\nepochs = 1\nlearning_rates = [-1]", "learning_rates"),
        ("[[training]]\nnames = ['a']\nepochs = 1\nstored = 1", "stored"),
    ],
)
def test_a_plan_of_no_use_is_refused(text, match, tmp_path):
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "plan.toml").write_text(text)
    with pytest.raises(RecipeError, match=match):
        trainer.read_plans(tmp_path)


# What is told of them


@pytest.mark.once
def test_card_and_table_have_the_scores():
    known = zoo.info(TINY)
    made, page = known.trained, card(known)
    _, matter, text = page.split("---\n", 2)
    assert f"- name: {TINY}\n" in matter
    assert f"type: accuracy\n      value: {made.test:.6g}\n" in matter
    shown = scores.figure("accuracy", made.test)
    assert f"| stored weights, test split | {shown} |" in text
    assert scores.interval("accuracy", made.twin) in text
    assert f"keras-lsc train {TINY}" in text
    assert "model-index" not in card(replace(known, trained=None))
    recipe = replace(known.recipe, hidden=False)
    table = results([replace(known, recipe=recipe)], [])
    assert f"| [{TINY}](cards/{TINY}.md) | accuracy | {shown} |" in table
    assert "Trained weights" not in results([replace(known, recipe=recipe, trained=None)], [])


@pytest.mark.once
def test_files_are_arrays_and_nothing_else(stored):
    with zipfile.ZipFile(io.BytesIO(stored.content)) as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())
    assert {value.dtype.name for value in numbers_in(stored.content).values()} == {
        *("int8", "float32", "float64")
    }
    assert stored.sha256 == files.sha256_of(stored.content) == zoo.info(TINY).trained.sha256
    assert keras.backend.backend() in ("jax", "tensorflow", "torch")


@pytest.mark.once(on="jax")
def test_the_command_trains_what_is_missing_and_shows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    folder = copy_of_zoo(tmp_path, TINY)
    (folder / "trained" / "plan.toml").write_text(
        f"[[training]]\nnames = ['{TINY}']\nepochs = 1\nlimit = 32\nseeds = 2\n"
    )
    runner = CliRunner()
    first = runner.invoke(app, ["train", "test_*", "--zoo", str(folder), "--json"])
    assert first.exit_code == 0
    (made,) = json.loads(first.stdout)
    assert (made["name"], made["sequences"]["test"]) == (TINY, 32)
    again = runner.invoke(app, ["train", "--all", "--zoo", str(folder)])
    assert "1 were trained before, 0 are now." in again.stdout
    absent = runner.invoke(app, ["train", "absent", "--zoo", str(folder)])
    assert (absent.exit_code, "absent" in absent.stderr) == (1, True)


@pytest.mark.once
def test_the_commands_show_the_scores(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    runner, made = CliRunner(), zoo.info(TINY).trained
    names = runner.invoke(app, ["list", "--trained", "--hidden", "--names"]).stdout.split()
    assert names == NAMES
    (row,) = json.loads(runner.invoke(app, ["list", TINY, "--hidden", "--json"]).stdout)
    assert row["trained"] == json.loads(json.dumps(asdict(made)))
    shown = runner.invoke(app, ["info", TINY]).stdout
    for part in (
        scores.figure("accuracy", made.test),
        scores.interval("accuracy", made.twin),
        f"keras-lsc train {TINY}",
        f'keras_lsc.zoo.load("{TINY}", weights="trained")',
    ):
        assert part in shown
    assert "Trained weights" not in runner.invoke(app, ["info", UNTRAINED]).stdout
