"""The keras-lsc command: what it prints and writes, and how it fails."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_lsc
from keras_lsc import demo, zoo
from keras_lsc_command import backends, models
from keras_lsc_command.app import app
from keras_lsc_command.options import parse_target

ROOT = Path(__file__).parents[1]
BACKEND = keras.backend.backend()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path, rng):
    """A small model and sequences for it, as files."""
    model = keras.Sequential(
        [
            keras.Input((6, 3)),
            keras.layers.SimpleRNN(8, return_sequences=True, name="lower"),
            keras.layers.SimpleRNN(8, name="upper"),
        ]
    )
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "data.npy", rng.normal(size=(128, 6, 3)).astype("float32"))
    return tmp_path / "model.keras", tmp_path / "data.npy"


@pytest.mark.once
def test_demo_falls_back_to_digits_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    picture = tmp_path / "demo.png"
    size = {"cell": "tanh", "depth": 2, "units": 8, "epochs": 1, "examples": 200}
    answer = models.demo(**size, download=False, output=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    content = json.loads(json.dumps(answer.content))
    assert content["picture"] == str(picture)
    assert content["task"]["name"] == "digits"
    answer.show()
    printed = capsys.readouterr().out
    assert "Small handwritten digits" in printed
    assert "sequential MNIST is not available here" in printed
    assert printed.count("layer_2.depth") == 2
    assert "Default initialisation" in printed
    assert "Validation accuracy, default:" in printed
    assert "Validation accuracy, stabilised:" in printed


@pytest.mark.once
def test_demo_that_cannot_reach_its_target_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(demo, "_MAX_UPDATES", 4)
    picture = tmp_path / "demo.png"
    result = run(
        *("demo", "--depth", 2, "--units", 8, "--examples", 200, "--no-download"),
        *("--output", picture),
    )
    assert result.exit_code == 1
    assert "not within 0.02 of the target" in result.stderr
    assert not picture.exists()


@pytest.mark.once
def test_both_networks_of_the_demo_start_from_the_same_readout():
    task = demo.load_task(40, download=False)
    settings = demo.DemoSettings(depth=2, units=4, seed=3)
    first, second = (demo.make_network(settings, task).get_weights() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once
def test_batch_accuracies_add_up_to_those_of_the_epoch(monkeypatch):
    # 34 sequences in batches of 8: the last batch is a small one.
    settings = demo.DemoSettings(depth=1, units=4)
    task = replace(demo.load_task(40, download=False), epochs=2, batch_size=8)
    model = demo.make_network(settings, task)
    epochs = []
    fit = model.fit

    def fit_and_keep(*args, **kwargs):
        history = fit(*args, **kwargs)
        epochs.extend(history.history["accuracy"])
        return history

    monkeypatch.setattr(model, "fit", fit_and_keep)

    class Silent:
        def track(self, title, total):
            return _Nothing()

    curve = demo._train(model, "test", task, settings, Silent())
    sizes = [8, 8, 8, 8, 2]
    batches = np.reshape(curve.training, (2, 5))
    np.testing.assert_allclose(batches @ sizes / 34, epochs, atol=1e-5)


class _Nothing:
    def __enter__(self):
        return lambda remark: None

    def __exit__(self, *error):
        return None


def test_measure_prints_a_table_or_json(saved):
    table = run("measure", *saved, "--samples", 8)
    assert table.exit_code == 0, table.output
    assert "upper.depth" in table.stdout
    printed = run("measure", *saved, "--samples", 8, "--json")
    report = json.loads(printed.stdout)
    assert report["samples"] == 8
    names = [row["name"] for row in report["transitions"]]
    assert names == ["lower.time", "lower.input", "upper.time", "upper.depth"]


@pytest.mark.once
def test_stabilize_then_measure_finds_the_target(saved, tmp_path):
    model, data = saved
    output = tmp_path / "stable.keras"
    before = model.read_bytes()
    result = run("stabilize", model, data, "--output", output, "--target", "0.8,0.5", "--json")
    assert result.exit_code == 0, result.output
    assert model.read_bytes() == before
    told = json.loads(result.stdout)
    assert told["output"] == str(output)
    former, after = (
        {row["name"]: row["radius"] for row in told[which]["transitions"]}
        for which in ("before", "report")
    )
    measured = json.loads(run("measure", model, data, "--json").stdout)
    assert {row["name"]: row["radius"] for row in measured["transitions"]} == pytest.approx(former)
    assert after["upper.depth"] == pytest.approx(0.5, abs=0.02)
    measured = json.loads(run("measure", output, data, "--samples", 128, "--json").stdout)
    radii = {row["name"]: row["radius"] for row in measured["transitions"]}
    # The tolerance of 0.02, and the sampling error of other points than those it was checked at.
    assert radii["lower.time"] == pytest.approx(0.8, abs=0.05)
    assert radii["upper.time"] == pytest.approx(0.8, abs=0.05)
    assert radii["upper.depth"] == pytest.approx(0.5, abs=0.05)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.npy",
        "model.keras",
        "stable.keras",
    ]


@pytest.mark.once
def test_stabilize_shows_what_was_and_what_is(saved, tmp_path):
    output = tmp_path / "stable.keras"
    result = run("stabilize", *saved, "--output", output, "--tolerance", 0.1)
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("upper.depth")]
    assert re.search(r"output +0\.707 +\d\.\d{3} -> 0\.[678]\d\d ", row)
    assert f"Saved: {output}" in result.stdout


@pytest.mark.once
def test_a_target_that_is_not_reached_is_told_by_transition(saved, tmp_path):
    output = tmp_path / "stable.keras"
    options = ("--output", output, "--target", "30", "--max-updates", 2)
    result = run("stabilize", *saved, *options)
    assert result.exit_code == 1
    first, *lines = result.stderr.splitlines()
    assert first.startswith("keras-lsc: error: ")
    assert "after 2 updates" in first
    for name in ("lower.time", "upper.time", "upper.depth"):
        assert any(line.startswith(f"  {name}: ") for line in lines)
    assert not output.exists()


@pytest.mark.once
@pytest.mark.once
def test_stabilize_levels_the_gradient(tmp_path, rng):
    model, data, output = (tmp_path / name for name in ("deep.keras", "x.npy", "level.keras"))
    stack = [keras.layers.GRU(8, return_sequences=k < 2, name=f"gru_{k}") for k in range(3)]
    keras.Sequential([keras.Input((6, 3)), *stack]).save(model)
    np.save(data, rng.standard_normal((300, 6, 3)).astype("float32"))
    result = run("stabilize", model, data, "--output", output, "--method", "level")
    assert result.exit_code == 0, result.output
    assert "energy before -> after" in result.stdout
    found = keras_lsc.measure(keras.saving.load_model(output), np.load(data))
    assert 0.75 < found.energy.min() <= found.energy.max() < 1.33


def test_a_failed_stabilize_leaves_the_former_output(saved, tmp_path):
    output = tmp_path / "stable.keras"
    output.write_text("former")
    result = run("stabilize", *saved, "--output", output, "--target", "high")
    assert result.exit_code == 1
    assert "'high'" in result.stderr
    assert output.read_text() == "former"


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo", "--cell", "elman"], ["'elman'", "'sigmoid', 'tanh', 'relu', 'lstm', 'gru'"]),
        (["demo", "--depth", "0"], ["depth", "0"]),
        (["demo", "--target", "-1"], ["-1.0"]),
        (["demo", "--mode", "all"], ["'all'", "'scales', 'weights'"]),
        (["demo", "--output", "absent/demo.png"], ["absent/demo.png", "folder"]),
        (["demo", "--backend", "numpy"], ["'numpy'", BACKEND]),
        (["measure", "absent.keras", "absent.npy"], ["absent.keras", "does not exist"]),
        (["diagnose", "absent.keras", "absent.npy"], ["absent.keras", "does not exist"]),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_1(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, *(["--no-download"] if arguments[0] == "demo" else []))
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("keras-lsc: error: ")
    for part in expected:
        assert part in lines[0]


@pytest.mark.once
def test_diagnose_says_what_is_wrong_and_fails_by_it(saved, tmp_path):
    model, data = saved
    y = tmp_path / "y.npy"
    np.save(y, np.zeros((len(np.load(data)), *keras.saving.load_model(model).output_shape[1:])))
    options = ["--targets", y, "--loss", "mse", "--no-radii"]
    healthy = run("diagnose", model, data, *options)
    assert healthy.exit_code == 0
    assert healthy.stdout.startswith("healthy: ")
    sick = run("diagnose", model, data, *options, "--learning-rate", 1e9, "--json")
    assert sick.exit_code == 1
    assert json.loads(sick.stdout)["kind"] == "learning_rate"
    for arguments, culprit in (
        (["--targets", y], "--loss"),
        ([*options, "--learning-rate", -1], "--learning-rate"),
        (["--targets", y, "--loss", "cosine"], "cosine"),
        ([*options, "--optimizer", "adamant"], "adamant"),
    ):
        wrong = run("diagnose", model, data, *arguments)
        assert wrong.exit_code == 1
        assert culprit in wrong.stderr
        assert len(wrong.stderr.strip().splitlines()) <= 3


@pytest.mark.once
def test_files_that_are_not_what_they_should_be(saved, tmp_path):
    model, data = saved
    for arguments, culprit in (((data, data), "data.npy"), ((model, model), "model.keras")):
        result = run("measure", *arguments)
        assert result.exit_code == 1
        assert culprit in result.stderr
        assert "Traceback" not in result.stderr
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((4, 6, 2), "float32"))
    result = run("measure", model, wrong)
    assert result.exit_code == 1
    assert "(6, 3)" in result.stderr
    assert "(6, 2)" in result.stderr
    result = run("stabilize", model, data, "--output", tmp_path / "out.h5")
    assert result.exit_code == 1
    assert ".keras" in result.stderr


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("variance", "variance"),
        ("0.5", 0.5),
        ("0.9,0.4", (0.9, 0.4)),
        ("unbalanced", "unbalanced"),
    ],
)
def test_targets_on_the_command_line(text, target):
    assert parse_target(text) == target


def command(*arguments, **environment):
    """Runs the command in a process of its own, which another backend needs."""
    return subprocess.run(
        [sys.executable, "-m", "keras_lsc_command", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.once
def test_backend_option_goes_before_the_environment(saved, tmp_path):
    other = next(name for name in backends.BACKENDS if name != BACKEND and find_spec(name))
    # The report is the same on every backend.
    (tmp_path / "tell.py").write_text(
        "import keras\n"
        "print(keras.backend.backend(), keras.config.is_traceback_filtering_enabled())"
    )
    done = command(
        *("measure", *map(str, saved), "--samples", "4", "--json", "--backend", other),
        *("--import", str(tmp_path / "tell.py")),
        KERAS_BACKEND=BACKEND,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 4
    assert f"{other} False" in done.stderr.splitlines()


@pytest.mark.once
@pytest.mark.parametrize("arguments", ["--backend theano", "--backend jax --backend=theano"])
def test_unknown_backend(arguments):
    done = command("demo", *arguments.split())
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "keras-lsc: error: unknown backend 'theano'; expected one of jax, tensorflow, torch"
    )


@pytest.mark.once
def test_backend_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(backends, "_is_installed", lambda module: module == "jax")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ImportError, match=r'pip install "keras-lsc\[tensorflow\]"'):
        backends.find(None)


@pytest.mark.once
def test_without_a_choice_the_installed_backend_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "_is_installed", lambda module: module == "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert backends.find(None) == "torch"


@pytest.mark.once
def test_the_command_knows_every_method():
    """By a list of its own: help imports no Keras."""
    assert ("lsc", "level", "flossing", "auto", *keras_lsc.methods.names()) == models.METHODS


@pytest.mark.once
def test_list_and_info_name_the_checkpoints_of_the_zoo():
    # Where there is room for every column.
    listed = CliRunner().invoke(app, ["list", "test_gru*", "--hidden"], env={"COLUMNS": "120"})
    assert listed.exit_code == 0
    (row,) = [line for line in listed.stdout.splitlines() if "_rhovar" in line]
    entry = zoo.info("test_gru_parity_d2_rhovar")
    expected = [entry.name, "parity", "gru", "2x8", "variance", "714"]
    expected += [f"{entry.bytes / 1e3:.1f}", f"{entry.deviation:.3f}"]
    assert row.split() == [*expected, f"{100 * entry.trained.test:.1f}", "%"]
    names = run("list", "test_gru*", "--hidden", "--names").stdout.splitlines()
    assert names == zoo.list("test_gru*", hidden=True)
    rows = json.loads(run("list", "test_gru*", "--hidden", "--json").stdout)
    assert [one["name"] for one in rows] == names
    (found,) = [one for one in rows if one["name"] == entry.name]
    assert (found["deviation"], found["method"]) == (entry.deviation, "lsc")
    assert run("list", "--hidden", "--method", "level", "--names").stdout.splitlines() == zoo.list(
        hidden=True, method="level"
    )
    nothing = run("list", "absent*")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No checkpoint matches 'absent*'" in nothing.stderr
    shown = run("info", "test_gru_parity_d2_rhovar")
    assert shown.exit_code == 0
    assert "layer_2.depth" in shown.stdout
    known = json.loads(run("info", "test_gru_parity_d2_rhovar", "--json").stdout)
    assert known["recipe"]["cell"] == "gru"
    levelled = run("info", "test_gru_parity_d4_level")
    assert levelled.exit_code == 0
    assert "energy before -> after" in levelled.stdout
    assert "the same energy of the gradient at every layer" in levelled.stdout


@pytest.mark.once
def test_verify_measures_a_certificate_again():
    result = run("verify", "test_gru*", "--json")
    assert result.exit_code == 0
    assert all(row["passed"] for row in json.loads(result.stdout))


@pytest.mark.once
@pytest.mark.parametrize("command", ["info", "verify", "build"])
def test_an_unknown_checkpoint_is_refused_with_the_closest(command):
    result = run(command, "test_gru_parity_d2_rhovra")
    assert result.exit_code == 1
    assert "test_gru_parity_d2_rhovar" in result.stderr


def test_fine_tune_trains_and_saves(tmp_path):
    output = tmp_path / "tuned.keras"
    options = ("--epochs", 1, "--limit", 32, "--option", "length=15", "--option", "delay=3")
    result = run(
        *("fine-tune", "test_gru_parity_d2_rhovar", "--dataset", "parity", *options),
        *("--output", output, "--json"),
    )
    assert result.exit_code == 0, result.output
    tuning = json.loads(result.stdout)
    assert tuning["options"] == {"n": 2, "length": 15, "delay": 3}
    assert tuning["sequences"]["train"] == 32
    assert "epoch 1/1: accuracy" in result.stderr
    again = run("fine-tune", output, "--dataset", "parity", "--epochs", 0, *options[2:])
    assert again.exit_code == 0, again.output
    assert f"test {tuning['test']['accuracy']:.4g}" in again.stdout


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--dataset", "party"], ["'party'", "'parity'"]),
        (["--dataset", "parity", "--option", "n"], ["--option n", "key=value"]),
        (["--dataset", "parity", "--output", "tuned.h5"], ["tuned.h5", ".keras"]),
        (["--dataset", "adding"], ["12 x 1", "100 x 2"]),
        (
            ["--dataset", "parity", "--weights", "random"],
            ["'stabilized', 'initial'", "'random'"],
        ),
    ],
)
def test_wrong_fine_tuning_is_one_line(options, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("fine-tune", "test_gru_parity_d2_rhovar", *options)
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    for part in expected:
        assert part in line
