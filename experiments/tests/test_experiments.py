"""The experiments: runs that can be repeated and resumed, and a report that follows from them."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from itertools import groupby

import keras
import numpy as np
import pytest
from scipy import stats

from experiments import (
    advice,
    aggregate,
    blind,
    defaults,
    energies,
    findings,
    flossing,
    memory_length,
    methods,
    optimum,
    peers,
    report,
    run,
    sparsity,
    statistics,
    storage,
    tables,
    timescales,
)
from experiments.lsuv import level_forward
from experiments.measures import signal
from experiments.networks import make_network, set_initial_weights
from experiments.report import write_report
from experiments.run import PAPER, figures_of, pending_jobs, run_jobs
from experiments.runs import Workplace
from experiments.settings import (
    FOLDER,
    Setting,
    SettingsError,
    experiment_names,
    in_order,
    read_experiment,
    start_key,
)
from experiments.summary import networks, start_label, tally
from keras_lsc import backend
from keras_lsc.stability import theory
from keras_lsc.workers import Work

TOML = """
title = "A small one"
question = "Is it?"
seeds = 4

[defaults]
dataset = "parity"
options = { n = 2, delay = 1, length = 6 }
units = 4
training = 64
validation = 32
test = 32
epochs = 1
batch_size = 16
validations = 2
tolerance = 0.6
max_updates = 8
threshold = 0.4
learning_rates = [1e-3, 1e-2]
targets = ["none", 0.5, 1.0]

[[group]]
cells = ["tanh"]
depths = [2]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with one small experiment."""
    (tmp_path / "small.toml").write_text(TOML)
    return tmp_path


@pytest.fixture
def settings(folder):
    return read_experiment(folder / "small.toml").settings


def made_up_row(setting, validation, test):
    """A row of results as a run writes it, with the figures that a test needs."""
    figures = {"radius": [0.5], "gain": [0.5], "isotropy": [1.0]}
    return {
        "id": setting.id,
        "setting": setting.to_dict(),
        "status": "trained",
        "start": {
            "radii": {"time": figures, "depth": figures},
            "gradients": None,
            "seconds": 1.0,
            "updates": 3,
            "problem": None,
        },
        "training": {"best": validation, "test": test, "updates_to_threshold": 4, "seconds": 1.0},
        "environment": {"backend": "jax", "backend_version": "1", "keras": "3"},
    }


def made_up_results(folder, settings, rng, test=None):
    """Writes made-up results for the settings; returns their rows."""
    rows = []
    with storage.writer(folder / "results") as writer:
        for setting in settings:
            validation, own_test = rng.random(2).round(3)
            rows.append(made_up_row(setting, validation, own_test if test is None else test))
            writer.append("small", rows[-1])
    return rows


def test_a_run_repeated_from_its_own_line_gives_the_same_figures(folder, settings):
    chosen = [s for s in settings if s.seed == 1 and s.target in (None, 0.5)]
    assert len({setting.network for setting in chosen}) == 1
    with storage.writer(folder / "results") as writer:
        for row in Workplace(chosen[0]).runs(chosen):
            writer.append("small", row)
    rows = storage.read_rows(folder / "results" / "small.jsonl")
    assert [row["status"] for row in rows] == ["trained"] * 4
    last = rows[-1]
    setting = Setting.from_dict(last["setting"])
    assert setting.id == last["id"]
    assert setting == chosen[-1]
    (again,) = Workplace(setting).runs([setting])
    assert figures_of(json.loads(json.dumps(again))) == figures_of(last)
    # Starts of one seed begin from the same weights; only the pre-trained one was moved.
    assert rows[0]["start"]["updates"] == 0 < last["start"]["updates"]


# In place of the runner: the first worker of every job is killed after two rows.
KILLED = """
import os, signal
from pathlib import Path
def runner(rows):
    def answer(settings):
        note = Path(__file__).with_name(str(settings[0]["seed"]) + str(settings[0]["target"]))
        done = 0
        for setting in settings:
            if done == 2 and not note.exists():
                note.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield next(row for row in rows if row["setting"] == setting)
            done += 1
    return answer
"""


def test_what_a_killed_worker_leaves_is_run_once_by_another(
    folder, settings, rng, monkeypatch, capsys
):
    rows = [made_up_row(setting, *rng.random(2).round(3)) for setting in settings]
    (folder / "killed_runs.py").write_text(KILLED)
    monkeypatch.syspath_prepend(folder)
    work = partial(Work, given=(rows,))
    monkeypatch.setattr(run, "_RUNNER", "killed_runs:runner")
    monkeypatch.setattr(run, "Work", work)
    results = folder / "results"
    jobs = pending_jobs(["small"], folder, results, 1.0)
    jobs = [(name, part[k : k + 6]) for name, part in jobs for k in range(0, len(part), 6)]
    assert run_jobs(jobs, results, 2, 100.0) == 0
    done = [row["id"] for row in storage.read_rows(results / "small.jsonl")]
    assert sorted(done) == sorted(setting.id for setting in settings)
    assert pending_jobs(["small"], folder, results, 1.0) == []
    assert capsys.readouterr().out.count("validation") == len(settings)
    # With no time left nothing is begun.
    assert run_jobs(jobs, folder / "none", 2, 0.0) == 0
    assert not list((folder / "none").glob("*.jsonl"))


def test_settings_are_in_the_order_in_which_they_are_run(settings):
    """From whichever on, so that the rest of a job is what is left of it."""
    ordered = in_order(settings[::-1])
    keys = [start_key(setting) for setting in ordered]
    assert len([key for key, _ in groupby(keys)]) == len(set(keys)) == 12
    for k in range(len(ordered)):
        assert in_order(ordered[k:]) == ordered[k:]


def test_the_test_split_has_no_part_in_training(settings):
    setting = next(s for s in settings if s.target is None)
    place, other = Workplace(setting), Workplace(setting)
    other.test.x[:] = 1 - other.test.x
    other.test.y[:] = 1 - other.test.y
    (row,), (changed,) = place.runs([setting]), other.runs([setting])
    for name in ("validation", "loss", "best", "final", "updates_to_best"):
        assert row["training"][name] == changed["training"][name]


def test_the_learning_rate_and_the_best_start_are_chosen_on_validation(folder, settings, rng):
    rows = made_up_results(folder, settings, rng)
    (network,) = networks(rows)
    (verdict,) = advice.verdicts([network])
    for row in rows:
        row["training"]["test"] = 1 - row["training"]["test"]
    (inverted,) = networks(rows)
    (other,) = advice.verdicts([inverted])
    assert verdict.best == other.best
    assert verdict.gain.value == pytest.approx(-other.gain.value)
    for label, start in network.starts.items():
        assert start.learning_rate == inverted.starts[label].learning_rate
        means = {
            rate: np.mean([start.rows[rate, seed]["training"]["best"] for seed in range(4)])
            for rate in start.learning_rates
        }
        assert start.learning_rate == max(means, key=means.get)


def test_all_starts_of_a_seed_have_the_same_initial_weights(settings):
    of_seed = [setting for setting in settings if setting.seed == 2]
    model = make_network(of_seed[0], (6, 1))
    drawn = []
    for setting in of_seed:
        set_initial_weights(model, setting)
        drawn.append(model.get_weights())
    for weights in drawn[1:]:
        for one, other in zip(drawn[0], weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_levelled_starts_differ_from_the_default_one_in_their_input_kernels_alone(settings):
    default = replace(settings[0], target=None, training=1024, epochs=0)
    for method in ("level", "lsuv"):
        setting = replace(default, method=method)
        place = Workplace(setting)
        (row,) = place.runs([setting])
        assert row["start"]["problem"] is None
        changed = [weight.path for weight in place.model.trainable_variables]
        after = place.model.get_weights()
        set_initial_weights(place.model, default)
        before = place.model.get_weights()
        moved = [
            path
            for path, one, other in zip(changed, before, after, strict=True)
            if not np.array_equal(one, other)
        ]
        assert moved
        assert all(path.endswith("/kernel") and "recurrent" not in path for path in moved)


def test_a_method_of_others_gives_its_start_or_says_why_not(settings):
    default = replace(settings[0], target=None, training=1024, epochs=0)
    place = Workplace(default)
    (row,) = place.runs([replace(default, method="methods.orthogonal")])
    assert row["start"]["problem"] is None
    assert start_label(Setting.from_dict(row["setting"])) == "orthogonal"
    recurrent = keras.ops.convert_to_numpy(place.model.layers[0].cell.recurrent_kernel)
    np.testing.assert_allclose(recurrent.T @ recurrent, np.eye(4), atol=1e-5)
    (row,) = place.runs([replace(default, method="methods.chrono", epochs=1)])
    assert row["status"] == "not stabilised"
    assert "makes no sense" in row["start"]["problem"]
    # Of those that need labels, the first of the training split.
    (row,) = place.runs([replace(default, method="methods.gradinit")])
    assert row["start"]["problem"] is None or "norm" in row["start"]["problem"]


def test_lists_of_variants_have_names(folder):
    path = folder / "small.toml"
    named = '\n[variants]\nothers = [{}, { method = "methods.he" }]\n'
    path.write_text(TOML.replace("\n[[group]]", f'{named}\n[[group]]\nvariants = "others"'))
    found = read_experiment(path).settings
    assert {setting.method for setting in found} == {"lsc", "methods.he"}
    path.write_text(TOML.replace("[[group]]", '[[group]]\nvariants = "mine"'))
    with pytest.raises(SettingsError, match=r"no variants 'mine'\. Known: none"):
        read_experiment(path)


def test_a_part_of_the_runs_can_be_asked_for(folder):
    def asked(**options):
        jobs = pending_jobs(["small"], folder, folder / "results", 1.0, **options)
        return [setting for _, job in jobs for setting in job]

    whole = asked()
    assert {setting.seed for setting in asked(seeds=2)} == {0, 1}
    left = asked(skip=['"target": 0.5', '"target": 1.0'])
    assert left == [setting for setting in whole if setting.target is None]


def test_a_start_is_good_within_two_points_of_the_best(settings):
    accuracies = {None: 0.9, 0.5: 0.885, 1.0: 0.8}
    rows = [made_up_row(s, accuracies[s.target], accuracies[s.target]) for s in settings]
    members = networks(rows)
    counts = [methods.near_best(members, label) for label in ("default", "0.5", "1", "level")]
    assert counts == [(1, 1), (1, 1), (0, 1), (0, 0)]
    assert methods.best(members[0]) == ["default"]
    assert methods.accuracy(members[0].starts["1"]) == pytest.approx(80)


@pytest.fixture
def small_curriculum():
    """A training of seconds on a task that is soon learned, to one half more than by chance."""
    return timescales.Setting(
        "delayed_match", "multi", 0, units=6, largest=3, batch_size=16, batches=4, epochs=3
    )


def test_a_curriculum_repeated_gives_the_same_time_constants(small_curriculum):
    one, other = (timescales.run(small_curriculum) for _ in range(2))
    for name in ("id", "start", "passed", "end", "epochs"):
        assert one[name] == other[name], name
    assert one["end"]["tau"] != one["start"]["tau"]
    assert sum(step["epochs"] for step in one["passed"]) <= one["epochs"]
    assert [step["n"] for step in one["passed"]] == list(range(2, one["end"]["n"]))


def test_time_constants_are_compared_where_all_seeds_have_passed(small_curriculum):
    def row(heads, seed, taus):
        setting = replace(small_curriculum, heads=heads, seed=seed)
        return {
            "setting": vars(setting),
            "passed": [{"n": n, "epochs": 1, "tau": {"mean": tau}} for n, tau in taus.items()],
        }

    rows = [row("single", 0, {2: 1.5, 3: 2.0}), row("single", 1, {2: 1.7})]
    rows += [row("multi", 0, {2: 1.4, 3: 1.0})]
    found = timescales.curves(rows)
    assert found["delayed_match", "single"] == {2: [1.5, 1.7], 3: [2.0]}
    assert timescales.common_n(rows) == {
        ("delayed_match", "single"): 2,
        ("delayed_match", "multi"): 3,
    }


def test_networks_begin_with_many_spikes_or_few(monkeypatch):
    monkeypatch.setitem(sparsity.TASKS["parity"], "limit", 64)
    rates = {}
    for start in sparsity.STARTS:
        setting = sparsity.Setting("parity", start, seed=0, units=8)
        row = sparsity.run(setting, epochs=1)
        assert row["id"] == setting.id
        rates[start] = np.mean(row["firing_rates"])
    # One update has hardly moved them.
    assert rates["low"] < 0.2 < rates["high"]


def test_a_flossed_start_has_exponents_near_zero():
    rows = {"train": 256, "validation": 64, "test": 64}
    found = {}
    for start in ("default", "flossing"):
        setting = flossing.Setting(
            start, delay=2, seed=0, units=4, epochs=1, learning_rates=(1e-3,)
        )
        row = flossing.run(setting, rows)
        assert row["id"] == setting.id
        found[start] = np.abs(row["exponents"]).max()
    assert found["flossing"] < 0.1 < found["default"]


def test_a_race_is_blind_and_its_choice_is_trained(monkeypatch):
    monkeypatch.setitem(blind.STARTS, "recurrent", {"default": "default", "0.5": 0.5})
    changed = {"training": 128, "validation": 64, "test": 64, "epochs": 1, "depth": 1, "units": 4}
    row = blind.run(blind.Setting("gru 2x32", seed=1), changed)
    assert row["winner"] in blind.STARTS["recurrent"]
    assert 0 <= row["test"] <= 1
    assert row["cost"] <= blind.BUDGET
    assert row["race"]["entrants"][0]["learning_rate"] == row["learning_rate"]


def test_a_choice_is_compared_with_the_stored_runs_of_its_experiment():
    networks = report.read_networks()
    (stored,) = [n for n in networks["levelled"] if n.setting.network
                 == blind.runs_of("lstm 10x32")[0].network]  # fmt: skip
    level, default = stored.starts["level"], stored.starts["default"]
    races = [
        {
            "setting": {"network": "lstm 10x32", "seed": seed},
            "winner": "level",
            "learning_rate": level.learning_rate,
            "test": level.test[seed],
            "cost": 2.0 + seed,
        }
        for seed in (0, 1)
    ]
    (choice,) = blind.choices(races, networks)
    gains = [100 * (level.test[seed] - default.test[seed]) for seed in (0, 1)]
    assert choice.ahead.value == pytest.approx(np.mean(gains))
    assert choice.best == "level"
    assert choice.best_ahead == pytest.approx(np.mean(gains))
    assert choice.cost == 2.5
    assert "level at" in blind.table([choice])
    assert blind.choices(races[:1], networks) == []


def gradient_of_torch(function, x, weights):
    """What a function of torch makes of x, and the gradient of its weighted sum."""
    import torch

    given = torch.tensor(x, requires_grad=True)
    outputs = function(given)
    (outputs * torch.tensor(weights)).sum().backward()
    return outputs.detach().numpy(), given.grad.numpy()


def gradient_of_jax(function, x, weights):
    """The same of JAX."""
    import jax

    outputs, pullback = jax.vjp(function, x)
    return np.asarray(outputs), np.asarray(pullback(weights)[0])


def gradient_of_keras(function, x, weights):
    """The same of the backend of Keras."""
    outputs, pullback = backend.vjp(function, keras.ops.convert_to_tensor(x))
    gradient = pullback(keras.ops.convert_to_tensor(weights))
    return tuple(keras.ops.convert_to_numpy(one) for one in (outputs, gradient))


DRAWN_ELSEWHERE = [peer for peer in peers.PEERS if not peer.library.startswith("keras")]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("peer", DRAWN_ELSEWHERE, ids=lambda peer: peer.name)
def test_what_a_library_draws_is_carried_over_whole(peer, depth, rng):
    pytest.importorskip(peer.library, reason=f"{peer.library} is not installed")
    batch, steps, features, units = 4, 12, 10, 16
    stack = peer.draw(peers.Size(features, units, depth, seed=3, return_sequences=True))
    x = 6 * rng.random((batch, steps, features)).astype("float32")
    if not peer.is_spiking:
        if peer.library == "torch":
            expected, _ = gradient_of_torch(stack.original, x, np.float32(1))
        else:
            expected = np.asarray(stack.original(x))
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(stack.model(x)), expected, atol=1e-5, rtol=0
        )
        return
    kept = steps - stack.delay
    weights = rng.standard_normal((batch, kept, units)).astype("float32")
    of_original = gradient_of_jax if "flax" in peer.also else gradient_of_torch
    expected, its_gradient = of_original(lambda x: stack.original(x)[:, stack.delay :], x, weights)
    spikes, gradient = gradient_of_keras(lambda x: stack.model(x)[:, :kept], x, weights)
    np.testing.assert_array_equal(spikes, expected)
    scale = np.abs(its_gradient).max()
    np.testing.assert_allclose(gradient, its_gradient, atol=1e-5 * scale, rtol=0)
    # Of silent neurons everything would be equal; second layers fire little anywhere.
    assert scale > 0
    assert depth == 2 or 0.01 < expected.mean() < 0.99


def test_the_findings_on_default_starts_have_the_figures_of_the_stored_runs():
    rows = report.read_runs(defaults)
    stacks = {name: defaults.by_depth(rows, name) for name in defaults.names(rows)}
    assert list(stacks) == [peer.name for peer in peers.PEERS]
    assert all(
        [len(of_depth[depth]) for depth in defaults.DEPTHS] == [defaults.SEEDS] * 4
        for of_depth in stacks.values()
    )
    fall = {name: defaults.power(defaults.fall(of_depth[10])) for name, of_depth in stacks.items()}
    text = " ".join(findings.DEFAULTS.split())
    for sentence in (
        f"falls to {fall['keras LSTM']} of that at the top with the weights of Keras, to "
        f"{fall['flax nnx.LSTMCell']} with those of flax.nnx and to {fall['torch LSTM']} with "
        "those of torch",
        f"of GRU to {fall['flax linen.GRUCell']} (flax.linen), {fall['flax nnx.GRUCell']} "
        f"(flax.nnx), {fall['keras GRU']} (Keras) and {fall['torch GRU']} (torch)",
        f"grow, {fall['keras SimpleRNN']} and {fall['flax nnx.SimpleCell']} times; those of torch "
        f"let it fall to {fall['torch RNN']}",
    ):
        assert sentence in text
    spiking = [peer.name for peer in peers.PEERS if peer.is_spiking]
    reaches = {name: defaults.reach(stacks[name][1]) for name in stacks if name not in spiking}
    assert f"at most {defaults.power(max(reaches.values()))} is of the first quarter" in text
    assert min(reaches, key=reaches.get) == "torch RNN"
    assert f"and {defaults.power(reaches['torch RNN'])} with torch's RNN" in text
    silent = {name: defaults.first_silent(stacks[name][10]) for name in spiking}
    assert (len(spiking), silent.pop("keras-lsc LIF"), max(silent.values())) == (9, 5, 3)
    most = max(defaults.fall(stacks[name][10]) for name in spiking)
    assert f"at most {defaults.power(most)} of the energy" in text
    positive = [name for name in stacks if defaults.largest_exponent(stacks[name][10]) > 0]
    assert positive == ["norse LIFRecurrent"]
    largest = defaults.largest_exponent(stacks["norse LIFRecurrent"][10])
    assert f"LIFRecurrent ({largest:+.2f})" in text


@pytest.mark.parametrize("name", ["keras GRU", "keras-lsc LIF"])
def test_a_default_start_is_measured_again_alike(name, monkeypatch, rng):
    x = (rng.random((16, 12, 5)) < 0.5).astype("float32")
    monkeypatch.setattr(defaults, "digits", lambda *_: x)
    setting = defaults.Setting(name, depth=2, seed=1, units=6, sequences=16, samples=4)
    row, again = (defaults.run(setting) for _ in range(2))
    figures = ("time", "depth", "energies", "reach", "exponents", "firing_rates")
    assert {key: row[key] for key in figures} == {key: again[key] for key in figures}
    assert [len(row[key]) for key in figures[:5]] == [2, 1, 3, 3, 2]
    # The top layer is read at its last step alone.
    assert row["reach"][-1] in (0, None)
    assert row["versions"].keys() == {defaults.peer_of(name).library}


def test_forward_levelling_gives_what_layers_read_unit_variance(rng):
    stack = [keras.layers.SimpleRNN(16, return_sequences=True) for _ in range(3)]
    model = keras.Sequential([keras.Input((7, 3)), *stack, keras.layers.Dense(2)])
    x = 5 * rng.standard_normal((64, 7, 3)).astype("float32")
    head = model.layers[-1].get_weights()
    level_forward(model, x)
    for layer in stack:
        kernel = keras.ops.convert_to_numpy(layer.cell.kernel)
        assert np.std(x @ kernel) == pytest.approx(1.0, rel=1e-4)
        x = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(head[0], model.layers[-1].get_weights()[0])
    with pytest.raises(FloatingPointError, match="deviation 0"):
        level_forward(model, np.zeros((64, 7, 3), "float32"))


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_the_signal_counts_the_dimensions_that_sequences_differ_in(dimensions, rng):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    model.layers[0].set_weights([np.eye(8), np.zeros(8)])
    q = np.linalg.qr(rng.standard_normal((256, dimensions)))[0]
    x = np.zeros((256, 8), "float32")
    x[:, :dimensions] = q - q.mean(axis=0)
    found = signal(model, x)
    assert found["participation"] == pytest.approx(dimensions, rel=0.05)
    assert found["correlation"] == pytest.approx(0.0, abs=0.02)
    assert signal(model, x + 100)["correlation"] == pytest.approx(1.0, abs=1e-3)


def test_a_bit_that_is_zero_is_not_masked(settings):
    model = make_network(settings[0], (6, 1))
    set_initial_weights(model, settings[0])
    x = np.zeros((1, 6, 1), dtype="float32")
    x[0, 0] = 1.0
    later = np.roll(x, 1, axis=1)
    outputs = [np.asarray(model.predict(inputs, verbose=0)) for inputs in (x, later)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-6


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("glorot", lambda k: (k.var(), 2 / sum(k.shape))),
        ("he", lambda k: (k.var(), 2 / k.shape[0])),
        ("orthogonal", lambda k: (np.abs(k.T @ k - np.eye(k.shape[1])).max(), 0.0)),
    ],
)
def test_initializations_have_the_variance_they_are_named_for(name, law):
    setting = Setting(
        cell="dense_relu", dataset="mnist", depth=2, units=200, seed=0, training=1, validation=1,
        test=1, learning_rate=1.0, epochs=1, initialization=name,
    )  # fmt: skip
    model = make_network(setting, (784,))
    set_initial_weights(model, setting)
    for layer in model.layers[:-1]:
        value, expected = law(np.asarray(layer.get_weights()[0], dtype="float64"))
        # The variance of n numbers is off by sqrt(2/n), 1 % of 200 x 200; five times that.
        assert value == pytest.approx(expected, rel=0.05, abs=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "sigmoid"])
def test_layers_can_differ_in_width(settings, cell):
    setting = replace(settings[0], cell=cell, widths=[5, 3])
    model = make_network(setting, (6, 1))
    set_initial_weights(model, setting)
    recurrent = [layer for layer in model.layers if hasattr(layer, "cell")]
    assert [layer.units for layer in recurrent] == [5, 3]
    if cell == "lstm":
        for layer in recurrent:
            bias = np.asarray(keras.ops.convert_to_numpy(layer.cell.bias)).reshape(4, -1)
            np.testing.assert_array_equal(bias.mean(axis=1), [0, 1, 0, 0])
    with pytest.raises(ValueError, match="3 layers; depth=2"):
        make_network(replace(setting, widths=[1, 2, 3]), (6, 1))


def test_a_restart_skips_what_is_finished(folder, settings, rng):
    (whole,) = pending_jobs(["small"], folder, folder / "results", budget=1)
    assert whole[1] == list(settings)
    made_up_results(folder, settings[:5], rng)
    (job,) = pending_jobs(["small"], folder, folder / "results", budget=1)
    assert job[1] == list(settings[5:])
    path = folder / "results" / "small.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    (job,) = pending_jobs(["small"], folder, folder / "results", budget=1)
    assert job[1] == list(settings[4:])
    made_up_results(folder, settings[4:], rng)
    assert pending_jobs(["small"], folder, folder / "results", budget=1) == []
    rows = storage.read_rows(path)
    assert [row["line"] for row in rows] == list(range(1, len(settings) + 1))


def test_only_one_process_writes(folder):
    with (
        storage.writer(folder / "results"),
        pytest.raises(storage.ResultsError, match="Another process"),
        storage.writer(folder / "results"),
    ):
        pass


def test_the_budget_scales_epochs_and_seeds(folder, settings):
    path = folder / "small.toml"
    path.write_text(TOML.replace("epochs = 1", "epochs = 10"))
    half = read_experiment(path, budget=0.5).settings
    assert {setting.epochs for setting in half} == {5}
    assert {setting.seed for setting in half} == {0, 1}
    assert {setting.seed for setting in settings} == {0, 1, 2, 3}


def test_a_start_without_pre_training_does_not_depend_on_its_options(folder, settings):
    path = folder / "small.toml"
    path.write_text(TOML.replace("tolerance = 0.6", "tolerance = 0.1"))
    other = {setting.id for setting in read_experiment(path).settings}
    shared = {setting.target for setting in settings if setting.id in other}
    assert shared == {None}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units = 4", "unit = 4", "unknown key 'unit'"),
        ("units = 4", "", "units"),
        ('title = "A small one"', "", "gives no 'title'"),
    ],
)
def test_a_file_of_no_use_is_refused(folder, old, new, message):
    path = folder / "small.toml"
    path.write_text(TOML.replace(old, new))
    with pytest.raises(SettingsError, match=message):
        read_experiment(path)


@pytest.mark.parametrize("folder", [FOLDER, PAPER])
def test_the_experiments_can_be_read(folder):
    for name in experiment_names(folder):
        experiment = read_experiment(folder / f"{name}.toml")
        assert experiment.seeds >= 4
        assert len({setting.id for setting in experiment.settings}) == len(experiment.settings)
        has_other_methods = any(setting.method != "lsc" for setting in experiment.settings)
        modes = {None, "scales"} if has_other_methods else {None, "scales", "weights"}
        if name == "surrogates":  # of which no start is pre-trained
            modes = {None}
        assert {setting.mode for setting in experiment.settings} == modes


def test_stored_runs_are_those_of_their_settings():
    for path in (FOLDER / "results").glob("*.jsonl"):
        rows = storage.read_rows(path)
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert Setting.from_dict(row["setting"]).id == row["id"]


@pytest.mark.parametrize("module", [timescales, sparsity, defaults, flossing, blind])
def test_stored_runs_of_other_runners_are_those_of_their_settings(module):
    rows = report.read_runs(module)
    assert {row["id"] for row in rows} <= {setting.id for setting in module.settings()}
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert module.Setting(**row["setting"]).id == row["id"]


def test_the_report_is_that_of_the_stored_runs():
    assert write_report(check=True), "python -m experiments.report"


def test_the_findings_have_the_figures_of_the_stored_runs():
    found = report.read_networks()
    compared = report.compared(found)
    said = advice.verdicts(compared)
    words = [verdict.word for verdict in said]
    helps, hurts, neither = map(words.count, (advice.HELPS, advice.HURTS, advice.NEITHER))

    def against(first, second):
        counts = tally(compared, first, second)
        return counts.better, counts.worse, counts.count

    def expect(text, *sentences):
        flat = " ".join(text.split())
        for sentence in sentences:
            assert sentence in flat

    worst, nearest = against("0.5", "default"), against("1", "default")
    expect(
        findings.SUMMARY,
        f"default one on {helps} of {len(said)} networks, clearly worse on {hurts}, and neither on "
        f"{neither}.",
        'nearest is 1 in mode "scales", clearly better than the default on {} and clearly worse '
        "on {} of {} networks".format(*nearest),
        'Worst is 0.5 in mode "scales", clearly better than the default on {} and clearly worse '
        "on {} of {} networks".format(*worst),
    )
    correlation = advice.distance_correlation(said)
    expect(
        findings.BEFOREHAND, f"correlation {correlation.value:.2f}, p = {correlation.p_value:.2g}"
    )
    verdicts = advice.frame(said)
    for cell, chosen in verdicts.groupby("cell"):
        better = sum(chosen["word"] == advice.HELPS)
        worse = sum(chosen["word"] == advice.HURTS)
        name = cell.upper() if cell in ("gru", "lstm", "lif", "alif", "lru") else cell
        sentences = " ".join(findings.BY_CELL.split()).split("). ")
        (sentence,) = [one for one in sentences if re.search(rf"(^|\W){name} networks", one)]
        if better or worse:
            assert f"better on {better} of {len(chosen)}" in sentence
            assert (f"worse on {worse}" in sentence) == (worse > 0)
        else:
            assert f"none of {len(chosen)}" in sentence
    for depth in (2, 5, 10):
        chosen = verdicts[verdicts["depth"] == depth]
        helped = sum(chosen["word"] == advice.HELPS)
        expect(findings.BY_CELL, f"{helped} of {len(chosen)} with {depth} layers")
    laws = [line.split(" | ")[1] for line in optimum.law_table(found["targets"]).splitlines()[2:]]
    held = [line.split(" of ")[0] for line in laws]
    moving = optimum.corner_correlation(found["targets"])
    nearer = optimum.nearer_target_table(compared).splitlines()[2:]
    won, of = nearer[0].split(" | ")[1].split(" of ")
    expect(
        findings.BEST_TARGET,
        "holds 1/√2 on {}, 0.5 on {}, 1 on {}, and the tried one that is nearest to the far-corner "
        "radius on {}".format(*held),
        f"correlation {moving.value:.2f}, p = {moving.p_value:.2g}",
        f"differ clearly on {of} recurrent networks",
        f"better on {won} ({nearer[0].split(' | ')[2].removesuffix(' |')})",
        "default start on {} and {} of {}".format(*against("far corner", "default")),
        '"variance" on {} and {} of {}'.format(*against("far corner", "variance")),
        "than 1 on {} and {} of {} networks".format(*against("far corner", "1")),
    )
    header, _, *lines = tables.metrics_table(found["levelled"]).splitlines()
    starts = [name.strip() for name in header.split("|")[2:-1]]
    accuracies = {}
    for line in lines:
        network, *cells = [cell.strip() for cell in line.split("|")[1:-1]]
        accuracies[network.split("x")[0]] = {
            start: cell.split(" ")[0] for start, cell in zip(starts, cells, strict=True)
        }
    ten, twenty, gru = (accuracies[name] for name in ("lstm 10", "lstm 20", "gru 20"))
    expect(
        findings.LEVELLED,
        f"ten LSTM layers reach {ten['level']} % instead of {ten['default']} from their",
        f"twenty {twenty['level']} instead of {twenty['default']}, which",
        f"twenty GRU layers {gru['level']} instead of {gru['default']}, or {gru['variance']} with",
        f"{ten['lsuv']} with ten LSTM and {gru['lsuv']} with twenty GRU",
    )


def test_the_report_is_the_same_bytes_every_time(folder, settings, rng):
    made_up_results(folder, settings, rng)
    pytest.importorskip("matplotlib", reason="draws pictures")
    write_report(folder)
    paths = [folder / "RESULTS.md", folder / "results" / "trace.json"]
    before = [path.read_bytes() for path in (*paths, *sorted((folder / "figures").iterdir()))]
    assert write_report(folder)
    after = [path.read_bytes() for path in (*paths, *sorted((folder / "figures").iterdir()))]
    assert before == after
    assert write_report(folder, check=True)


def test_every_figure_is_traced_to_its_lines(folder, settings, rng):
    rows = made_up_results(folder, settings, rng)
    (folder / "figures").mkdir()
    write_report(folder)
    index = json.loads((folder / "results" / "trace.json").read_text())
    text = (folder / "RESULTS.md").read_text()
    for label, starts in index["small"].items():
        for start in starts.values():
            lines = [int(line.rsplit(":", 1)[1]) for line in start["lines"].values()]
            found = [rows[line - 1] for line in lines]
            assert {row["setting"]["learning_rate"] for row in found} == {start["learning_rate"]}
            middle = 100 * np.mean([row["training"]["test"] for row in found])
            assert f"| {label} |" in text
            assert f" {middle:.1f} ± " in text


def test_the_verdict_is_that_of_the_paired_interval(settings):
    for shift, word in ((0.2, advice.HELPS), (0.0, advice.NEITHER), (-0.2, advice.HURTS)):
        rows = []
        for setting in settings:
            noise = 0.01 * (-1) ** setting.seed if setting.target else 0.0
            accuracy = 0.5 + (shift if setting.target else 0) + 0.005 * setting.seed + noise
            rows.append(made_up_row(setting, accuracy, accuracy))
        (network,) = networks(rows)
        (verdict,) = advice.verdicts([network])
        assert verdict.word == word
        errors = [
            [1 - network.starts[label].test[seed] for seed in range(4)]
            for label in (verdict.best, "default")
        ]
        ratio = np.prod(errors[0]) ** 0.25 / np.prod(errors[1]) ** 0.25
        assert verdict.error_ratio == pytest.approx(ratio)
        # Gains of 0.5 in time and in depth.
        assert verdict.energy_sum == pytest.approx(0.5)
        ratio = f"{verdict.error_ratio:.2f}"
        counts = [int(word == one) for one in (advice.HELPS, advice.NEITHER, advice.HURTS)]
        cells = " | ".join(map(str, [1, *counts]))
        expected = f"| tanh | {cells} | {ratio} [{ratio}, {ratio}] | {verdict.best} (1) |"
        assert advice.cell_table([verdict]).splitlines()[2:] == [expected]
        assert advice.depth_table([verdict]).splitlines()[2:] == [f"| 2 | {cells} |"]


def test_the_energy_sum_tells_where_pre_training_helps_only_if_it_does(settings, rng):
    def of(gain, improvement):
        rows = []
        for setting in settings:
            accuracy = 0.5 + (improvement if setting.target else 0) + 0.03 * rng.random()
            row = made_up_row(setting, accuracy, accuracy)
            figures = {"radius": [gain], "gain": [gain], "isotropy": [1.0]}
            row["start"]["radii"] = {"time": figures, "depth": figures}
            rows.append(row)
        return networks(rows)[0]

    gains = np.geomspace(0.1, math.sqrt(0.5), 8)
    improvements = np.linspace(0.4, -0.16, 8)
    told = advice.verdicts(of(g, i) for g, i in zip(gains, improvements, strict=True))
    table = advice.range_table(told)
    for low, high, name in ((0, 0.25, "below 0.25"), (0.25, 0.5, "0.25 to 0.5")):
        members = [v for v in told if low <= v.energy_sum < high]
        words = [v.word for v in members]
        best = f"{words.count(advice.HELPS)}, {words.count(advice.HURTS)} of {len(members)}"
        against = [v.network.compare("0.5", "default") for v in members]
        half = f"{sum(i.low > 0 for i in against)}, {sum(i.high < 0 for i in against)}"
        (line,) = [line for line in table.splitlines() if name in line]
        assert f"| tanh | {best} |" in line
        assert f"| {half} of {len(members)} |" in line
    told_apart = advice.distance_correlation(told)
    assert (told_apart.value, told_apart.count) == (pytest.approx(1, abs=0.1), 8)
    assert told_apart.p_value < 0.05
    mixed = advice.verdicts(
        of(g, i) for g, i in zip(gains, [0.4, 0, 0.3, 0, 0, 0.3, 0, 0.4], strict=True)
    )
    assert advice.distance_correlation(mixed).p_value > 0.05


def sweep(setting, steps, accuracy_of):
    """The network of a sweep over targets, with the accuracy that a function gives each."""
    targets = [0.3, 0.4, 0.5, 0.6, math.sqrt(0.5), 0.8, 0.9, 1.0]
    rows = []
    for seed in range(4):
        for target in targets:
            chosen = replace(setting, dataset="smnist", options={}, steps=steps, seed=seed,
                             target=target)  # fmt: skip
            accuracy = accuracy_of(target) + 0.001 * seed
            rows.append(made_up_row(chosen, accuracy, accuracy))
    return networks(rows)[0]


def test_the_best_target_moves_with_the_far_corner_radius_only_if_it_does(settings):
    base = next(s for s in settings if s.target)
    lengths = [2, 4, 14, 56, 112, 392]
    corners = [theory.far_corner_radius(steps, base.depth) for steps in lengths]
    moving = [
        sweep(base, steps, lambda target, best=best: 0.9 - (target - best) ** 2)
        for steps, best in zip(lengths, corners, strict=True)
    ]
    assert "| the tried one nearest to the far-corner radius | 6 of 6 |" in optimum.law_table(
        moving
    )
    correlation = optimum.corner_correlation(moving)
    assert correlation.value > 0.9
    assert (correlation.p_value < 0.05, correlation.count) == (True, 6)
    still = [
        sweep(base, steps, lambda target, best=best: 0.9 - (target - best) ** 2)
        for steps, best in zip(lengths, [0.6, 0.5, 0.6, 0.5, 0.6, 0.5], strict=True)
    ]
    assert optimum.corner_correlation(still).p_value > 0.05
    assert optimum.corner_correlation(still[:4]) is None


def test_a_sweep_in_which_nothing_is_learned_has_no_best_target(settings):
    base = next(s for s in settings if s.target)
    guessing = sweep(base, 28, lambda target: 0.1 + 0.01 * target)
    assert optimum.law_table([guessing]) == ""
    assert "nothing learned" in optimum.optimum_table([guessing])


def test_the_target_nearer_to_the_far_corner_radius_is_counted_where_it_wins(settings):
    base = next(s for s in settings if s.target)
    members = [
        # Its far-corner radius is near to 1/sqrt(2), those of the long ones are near to 1.
        sweep(replace(base, depth=20), 20, lambda target: 0.9 - abs(target - math.sqrt(0.5))),
        sweep(base, 392, lambda target: 0.9 - abs(target - 1)),
        sweep(base, 196, lambda target: 0.9 - abs(target - math.sqrt(0.5))),
        sweep(base, 56, lambda target: 0.5),
    ]
    lines = [line.split(" | ")[:2] for line in optimum.nearer_target_table(members).splitlines()]
    assert lines[2:] == [
        ["| the one nearer to the far-corner radius", "2 of 3"],
        ["| variance", "2 of 3"],
        ["| 1", "1 of 3"],
    ]
    assert optimum.nearer_target_table(members[3:]) == ""


def test_the_far_corner_radius_as_a_target_is_compared_with_the_others(settings):
    def network(accuracies):
        base = replace(settings[0], options={}, dataset="smnist", tolerance=0.1, max_updates=9)
        rows = []
        for seed in range(4):
            for target, accuracy in accuracies.items():
                value = base.far_corner_target if target == "far-corner" else target
                mode = None if target is None else "scales"
                setting = replace(base, target=value, mode=mode, seed=seed)
                rows.append(made_up_row(setting, accuracy, accuracy + 0.001 * seed))
        return networks(rows)[0]

    members = [
        network({None: 0.5, "far-corner": 0.6, "variance": 0.7, 1.0: 0.6}),
        network({None: 0.5, "far-corner": 0.6, "variance": 0.5}),
    ]
    rows = [line.split(" | ") for line in aggregate.paper_form(members).splitlines()]
    counted = {line[0]: (line[2], *line[4:]) for line in rows if line[0].startswith("| far corner")}
    assert counted == {
        "| far corner beats default": ("2", "2", "0 |"),
        "| far corner beats variance": ("2", "1", "1 |"),
        "| far corner beats 1": ("1", "0", "0 |"),
    }
    assert "far corner" not in aggregate.paper_form([network({None: 0.5, 1.0: 0.6})])


@pytest.mark.parametrize(
    ("dataset", "options", "steps"),
    [
        ("smnist", {}, 28),
        ("tiny_shakespeare", {"steps": 64}, 64),
        ("adding", {"length": 25}, 25),
        ("copy_memory", {"delay": 5, "symbols": 3}, 11),
    ],
)
def test_the_number_of_steps_is_that_of_the_data(settings, dataset, options, steps):
    setting = replace(settings[0], dataset=dataset, options=options)
    assert setting.number_of_steps == steps


def test_the_start_that_is_never_beaten_has_distance_one(settings):
    accuracies = {None: 0.7, 0.5: 0.8, 1.0: 0.9}
    rows = [made_up_row(s, *[accuracies[s.target]] * 2) for s in settings]
    table = aggregate.distance_table(networks(rows))
    cells = [line.split(" | ") for line in table.splitlines()[2:]]
    found = {line[0].removeprefix("| "): line[2:5] for line in cells}
    assert found == {
        "default": ["0", "3.00", "3.00"],
        "0.5": ["0", "2.00", "2.00"],
        "1": ["1", "1.00", "1.00"],
    }


def test_the_longest_solved_is_that_of_half_of_the_seeds(settings):
    # By start and delay, how many of the four seeds pass the threshold of 0.4.
    passing = {None: {2: 4, 5: 2, 9: 1}, 0.5: {2: 1, 5: 0, 9: 0}, 1.0: {2: 4, 5: 1, 9: 3}}
    rate = min(s.learning_rate for s in settings)
    rows = []
    for setting in (s for s in settings if s.learning_rate == rate):
        for delay, count in passing[setting.target].items():
            chosen = replace(setting, options={"n": 2, "delay": delay, "length": 20})
            rows.append(made_up_row(chosen, 0.5, 0.5 if setting.seed < count else 0.3))
    lines = [
        line.split(" | ") for line in memory_length.longest_table(networks(rows)).splitlines()[2:]
    ]
    found = {line[2]: (line[3], line[4].removesuffix(" |")) for line in lines}
    assert found == {
        "default": ("5", "2: 4/4, 5: 2/4, 9: 1/4"),
        "0.5": ("none", "2: 1/4, 5: 0/4, 9: 0/4"),
        "1": ("9", "2: 4/4, 5: 1/4, 9: 3/4"),
    }


def test_the_far_corner_target_is_that_of_each_network(tmp_path):
    text = TOML.replace('["none", 0.5, 1.0]', '["variance", "far-corner"]')
    (tmp_path / "far.toml").write_text(text.replace("depths = [2]", "depths = [2, 5]"))
    chosen = read_experiment(tmp_path / "far.toml").settings
    for depth in (2, 5):
        by_label = {start_label(s): s.target for s in chosen if s.depth == depth}
        radius = theory.far_corner_radius(6, depth)
        assert by_label == {"variance": "variance", "far corner": pytest.approx(radius, abs=5e-4)}


def test_too_few_seeds_make_no_claim(folder, settings, rng):
    made_up_results(folder, [s for s in settings if s.seed < 3], rng)
    (network,) = networks(storage.read_rows(folder / "results" / "small.jsonl"))
    assert advice.verdicts([network]) == []
    assert network.compare("0.5", "default") is None
    assert "unfinished: 3 of 4" in tables.metrics_table([network])


def test_a_target_that_was_not_reached_is_said(settings, rng):
    rows = [made_up_row(setting, *rng.random(2)) for setting in settings]
    for row in rows:
        if row["setting"]["target"] == 1.0:
            row["status"] = "not stabilised"
            del row["training"]
    (network,) = networks(rows)
    assert "not reached (0 of 4)" in tables.metrics_table([network])
    assert network.compare("1", "default") is None
    assert network.compare("0.5", "default") is not None


def test_a_mean_has_students_interval(rng):
    first, second = rng.standard_normal((2, 6))
    interval = statistics.paired_difference(list(first), list(second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert interval.value == pytest.approx(np.mean(first - second))
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert math.isinf(statistics.mean([1.0]).high)


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (3, 8), (8, 8)])
def test_a_share_has_wilsons_interval(successes, count):
    interval = statistics.share(successes, count)
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert interval.value == successes / count
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_best_place_of_a_parabola_is_its_top():
    places = [0.3, 0.5, 0.7, 0.9]
    values = np.array([[-((place - 0.5) ** 2) + seed for seed in range(5)] for place in places])
    interval = statistics.place_of_best(places, values)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)
    undecided = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    interval = statistics.place_of_best([0.5, 1.0], undecided)
    assert (interval.low, interval.high) == (0.5, 1.0)


def test_energies_change_in_depth_and_time_as_the_law_they_were_made_by(settings, rng):
    rows = [made_up_row(setting, *rng.random(2)) for setting in settings]
    grid = theory.propagate([0.5, 0.5], [0.5, 0.5], steps=40)
    lags = [0, 1, 2, 4, 8, 16, 27]
    of_law = {"layers": list(grid.sum(axis=0)), "lags": [grid[-1 - lag].sum() for lag in lags]}
    for row in rows:
        kinds = dict.fromkeys(energies.KINDS, of_law)
        row["start"]["gradients"] = {"lags": lags, **kinds}
    (network,) = networks(rows)
    for start in network.starts.values():
        # Two layers: the sum over lag n is 2^-n (1 + (n + 1)/2), so not quite a half a step.
        rate = 0.5 * (9.5 / 3.5) ** (1 / 12)
        assert energies.changes(start, energies.time_rate)["measured"] == pytest.approx(rate)
        depth = energies.changes(start, energies.depth_ratio)["bound"]
        expected = theory.energy_summed_over_time(0.5**0.5, 0.5**0.5, 1) / 2
        # The sum ends after 40 steps.
        assert depth == pytest.approx(expected, rel=1e-9)


def test_the_network_is_one_for_all_starts_and_seeds(settings):
    assert len({setting.network for setting in settings}) == 1
    assert replace(settings[0], units=5).network != settings[0].network
