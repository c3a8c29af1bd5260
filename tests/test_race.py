"""A race of starts is fair, keeps to its budget, and is taken up where it stopped."""

import json

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc.race import legs
from keras_lsc.race.course import Course
from keras_lsc.workers import WorkerFailedError, start_workers

STEPS, ROWS = 12, 96


def data():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((ROWS, STEPS, 3)).astype("float32")
    return x, x[:, :2].mean(axis=(1, 2))[:, None]


def network(rate=0.01, **options):
    keras.utils.set_random_seed(0)
    stack = [layers.SimpleRNN(8, return_sequences=k < 1) for k in range(2)]
    model = keras.Sequential([keras.Input((STEPS, 3)), *stack, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), "mse", **options)
    return model


def race(model, **options):
    x, y = data()
    given = {"starts": ["level"], "learning_rates": [0.003, 0.03], "epochs": 4, "batch_size": 16}
    return keras_lsc.best_start(
        model, x[:64], y[:64], validation_data=(x[64:], y[64:]), **{**given, **options}
    )


@pytest.mark.once
def test_the_winner_is_the_start_that_trained_best():
    model = network()
    before = model.get_weights()
    found = race(model)
    assert {entrant.start for entrant in found.entrants} == {"default", "level"}
    furthest = max(entrant.steps for entrant in found.entrants)
    finalists = [entrant for entrant in found.entrants if entrant.steps == furthest]
    assert found.winner.score == min(entrant.score for entrant in finalists)
    assert any(entrant.start == "default" for entrant in finalists)
    # At most three trainings of 4 epochs of 4 steps.
    assert found.steps <= 3 * 16
    assert found.steps == sum(entrant.steps for entrant in found.entrants)
    assert float(to_numpy(model.optimizer.learning_rate)) == pytest.approx(
        found.winner.learning_rate
    )
    assert int(to_numpy(model.optimizer.iterations)) == 0
    same = all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    assert same == (found.winner.start == "default")
    # Trained as in the race, the winner comes to its score.
    x, y = data()
    order = [np.random.default_rng([0, 11, epoch]).permutation(64) for epoch in range(9)]
    rows = np.concatenate(order)[: 16 * furthest]
    model.fit(x[rows], y[rows], batch_size=16, shuffle=False, verbose=0)
    assert model.evaluate(x[64:], y[64:], verbose=0) == pytest.approx(found.winner.score, rel=1e-3)


@pytest.mark.once
def test_a_rate_that_diverges_loses():
    model = network()
    found = race(model, starts=[], learning_rates=[1e6, 0.01])
    assert found.winner.learning_rate == 0.01
    assert found.entrants[-1].learning_rate == 1e6


@pytest.mark.once
def test_a_start_that_cannot_be_made_is_told_and_the_race_goes_on():
    model = network()
    for layer in model.layers[:2]:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse")
    found = race(model, starts=["level", 1.0])
    assert found.winner.start == "default"
    problems = {entrant.start: entrant.problem for entrant in found.entrants}
    assert "frozen" in problems["level"]
    assert problems["1.0"]
    assert problems["default"] is None


@pytest.mark.once
def test_an_interrupted_race_goes_on(tmp_path, monkeypatch):
    whole = race(network())
    fit, calls = keras.Sequential.fit, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    model = network()
    before = model.get_weights()
    monkeypatch.setattr(keras.Sequential, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        race(model, folder=tmp_path)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(keras.Sequential, "fit", fit)
    again = race(model, folder=tmp_path)
    same_race(again, whole)
    with pytest.raises(ValueError, match="other arguments"):
        race(network(), folder=tmp_path, epochs=5)


def same_race(one, other):
    for a, b in zip(one.entrants, other.entrants, strict=True):
        assert (a.start, a.learning_rate, a.steps) == (b.start, b.learning_rate, b.steps)
        assert a.score == pytest.approx(b.score, rel=1e-5)
        assert a.ahead == (b.ahead if b.ahead is None else pytest.approx(b.ahead, rel=1e-3))


def dropping():
    """A network whose training draws at random, of a layer of this module's own."""
    keras.utils.set_random_seed(0)
    stack = [layers.SimpleRNN(8), OwnDropout(0.3, seed=3), layers.Dense(1)]
    model = keras.Sequential([keras.Input((STEPS, 3)), *stack])
    model.compile(keras.optimizers.Adam(0.01), own_loss)
    return model


@keras.saving.register_keras_serializable("test_race")
class OwnDropout(layers.Dropout):
    pass


@keras.saving.register_keras_serializable("test_race")
def own_loss(y, found):
    return keras.ops.mean(keras.ops.square(y - found))


# A worker that is killed as it begins, whichever comes first, or every one.
_KILLED = """
import os, signal
from pathlib import Path
note = Path(__file__).with_name("killed")
def runner(*given):
    try:
        note.touch(exist_ok=EVERY)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        from keras_lsc.race import legs
        return legs.runner(*given)
"""


def let_workers_be_killed(patch, folder, every):
    (folder / "killed_runner.py").write_text(_KILLED.replace("EVERY", str(every)))
    patch.syspath_prepend(folder)
    patch.setattr(legs, "_RUNNER", "killed_runner:runner")


@pytest.mark.once(on="jax")
def test_processes_come_to_the_same_race_and_one_that_is_killed_loses_nothing(
    tmp_path, monkeypatch
):
    alone, model = dropping(), dropping()
    whole = race(alone, starts=[1.0], epochs=2)
    let_workers_be_killed(monkeypatch, tmp_path, every=False)
    # One at a time: each of them imports a backend, which takes longer than the race.
    monkeypatch.setattr(legs, "start_workers", lambda work, jobs: start_workers(work, jobs - 1))
    same_race(race(model, starts=[1.0], epochs=2, jobs=2), whole)
    assert (tmp_path / "killed").exists()
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once
def test_a_race_whose_workers_are_killed_is_taken_up(tmp_path, monkeypatch):
    whole = race(network())
    stop_at_the_third_leg(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        race(network(), folder=tmp_path)
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        let_workers_be_killed(patch, tmp_path, every=True)
        model = network()
        before = model.get_weights()
        with pytest.raises(WorkerFailedError, match="signal 9"):
            race(model, folder=tmp_path, jobs=2)
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)
    same_race(race(network(), folder=tmp_path), whole)


def stop_at_the_third_leg(patch):
    run, calls = Course.run, []

    def stopped(self, leg):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, leg)

    patch.setattr(Course, "run", stopped)


@pytest.mark.once
def test_models_that_cannot_be_made_again_are_refused_before_anything_runs(monkeypatch):
    model = network()
    before = model.get_weights()
    model.compile("adam", unregistered_loss)
    with pytest.raises(ValueError, match="register_keras_serializable"):
        race(model, jobs=2)
    monkeypatch.setattr(own_loss, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"own_loss.*module of its own"):
        race(dropping(), jobs=2)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def unregistered_loss(y, found):
    return own_loss(y, found)


@pytest.mark.once
def test_a_metric_decides_and_the_table_says_so():
    model = network(metrics=["mae"])
    found = race(model, monitor="mae", higher_is_better=False)
    assert found.monitor == "mae"
    assert json.loads(json.dumps(found.to_dict()))["entrants"][0]["start"] == found.winner.start
    for text in (str(found), found._repr_html_()):
        assert "minus default" in text
        assert "mae on the validation data" in text
    with pytest.raises(ValueError, match="monitor='accuracy'"):
        race(network(), monitor="accuracy")


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"starts": "level"}, "starts"),
        ({"starts": ["high"]}, "high"),
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": [0.0]}, "learning_rates"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"budget": 0}, "budget"),
        ({"seed": -1}, "seed"),
        ({"jobs": 0}, "jobs"),
        ({"jobs": "two"}, "jobs"),
        ({"monitor": 3}, "monitor"),
        ({"higher_is_better": "yes"}, "higher_is_better"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        race(network(), **options)


@pytest.mark.once
def test_models_and_data_of_no_use_are_refused():
    x, y = data()
    with pytest.raises(TypeError, match=r"keras\.Model"):
        keras_lsc.best_start("model", x, y, validation_data=(x, y))
    with pytest.raises(ValueError, match="compiled"):
        keras_lsc.best_start(
            keras.Sequential([keras.Input((3,)), layers.Dense(1)]), x, y, validation_data=(x, y)
        )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    with pytest.raises(ValueError, match="schedule"):
        race(network(schedule))
    for pair in (x, (x,), (x, y[:3]), (x.tolist(), y)):
        with pytest.raises(ValueError, match="validation_data"):
            keras_lsc.best_start(network(), x, y, validation_data=pair)
