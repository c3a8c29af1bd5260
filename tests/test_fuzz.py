"""A part of `make fuzz`: damaged inputs get a right answer or a documented refusal."""

import keras
import pytest
from harness import mostly_once
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.attempt import attempt
from fuzz.kind import FAILED, REFUSED, RIGHT, Kind, require
from fuzz.run import Tally
from fuzz.targets import KINDS

# A tenth of `make fuzz` on torch, where nothing is compiled; of what compiles, less elsewhere.
LESS = {"tensorflow": {"arguments": 10, "network": 1}, "jax": {"arguments": 30, "network": 1}}


@pytest.mark.parametrize(
    "name", mostly_once(KINDS, [name for name, kind in KINDS.items() if kind.on_every_backend])
)
def test_damaged_inputs_are_refused_well_or_harmless(name, tmp_path_factory):
    kind = KINDS[name]
    root = tmp_path_factory.mktemp("fuzz")
    less = LESS.get(keras.backend.backend(), {})

    @settings(
        max_examples=less.get(name, kind.count),
        deadline=None,
        derandomize=True,
        database=None,
        # A smaller number is no simpler input.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 10 * kind.count - 1))
    def one(index):
        result = attempt(kind, 0, index, root)
        assert result.outcome != FAILED, f"{result.given}\n{result.problem}"

    one()


def judged(call, root, documented=(ValueError,), seconds=None):
    kind = Kind("own", 1, lambda random: random.integers(9), call, documented)
    return attempt(kind, 0, 0, root, seconds)


def refuse(given, folder):
    raise ValueError("no number of use")


def refuse_without_a_word(given, folder):
    raise ValueError


def raise_another(given, folder):
    raise KeyError("undocumented")


def answer_wrongly(given, folder):
    require(False, "another number")


def never_return(given, folder):
    while True:
        pass


def test_the_harness_tells_right_from_refused_from_failed(tmp_path):
    assert judged(lambda given, folder: RIGHT, tmp_path).outcome == RIGHT
    assert judged(refuse, tmp_path).outcome == REFUSED
    for call in (refuse_without_a_word, raise_another, answer_wrongly):
        assert judged(call, tmp_path).outcome == FAILED
    hung = judged(never_return, tmp_path, seconds=1)
    assert (hung.outcome, "not done after 1 s" in hung.problem) == (FAILED, True)
    assert list(tmp_path.iterdir()) == []


def test_the_tally_counts_and_keeps_what_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.run.FAILURES", tmp_path / "failures")
    tally = Tally(seed=3, show=lambda line: None)
    for call in (refuse, raise_another, raise_another):
        tally.add(judged(call, tmp_path))
    counts = tally.to_dict("jax")["kinds"]["own"]
    assert counts == {"tried": 3, "right": 0, "refused": 1, "failed": 2}
    (kept,) = (tmp_path / "failures").iterdir()
    assert "python -m fuzz --seed 3 --replay own:0" in kept.read_text()
    assert "FAILED 2 of own" in tally.table()


@pytest.mark.parametrize("name", KINDS)
def test_an_input_is_the_same_every_time(name):
    first, again, other = (repr(KINDS[name].input(1, index)) for index in (5, 5, 6))
    assert first == again
    assert first != other
