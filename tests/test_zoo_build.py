"""Builds of several processes, recipes and indices of any content, and certificates taken at word.

No backend changes what is done with processes and text, so JAX stands for all there.
"""

import copy
import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import forks

from keras_lsc import zoo
from keras_lsc.stability.targets import resolve
from keras_lsc.zoo import build as building
from keras_lsc.zoo import registry, verification
from keras_lsc.zoo.certificate import certificate_data
from keras_lsc.zoo.recipes import Recipe, RecipeError, read_recipes, target_name

FOLDER = Path(__file__).parents[1] / "zoo"
TINY = "test_sigmoid_parity_d2_rhovar"
ENTRY = json.loads((FOLDER / "index.json").read_text())[TINY]


def tiny(**changes):
    return Recipe.from_dict({**ENTRY["certificate"]["recipe"], **changes})


# Processes


def finish(folder, recipe, content=b"x", **changes):
    """Leaves what a finished build leaves, for `collect`."""
    digest = hashlib.sha256(content).hexdigest()
    waiting = folder / "building"
    waiting.mkdir(exist_ok=True)
    (waiting / f"{digest}.npz").write_bytes(content)
    entry = copy.deepcopy(ENTRY) | {"sha256": digest} | changes
    entry["certificate"]["recipe"] = recipe.to_dict()
    # In one step, as the builder does under its lock.
    written = waiting / f".{recipe.name}"
    written.write_text(json.dumps(entry))
    written.replace(waiting / f"{recipe.name}.json")
    return entry


@pytest.mark.once
def test_collecting_at_once_loses_no_entry(tmp_path):
    """Eight threads, each with an open folder of its own, as that of another process."""
    recipes = [tiny(depth=depth) for depth in range(1, 41)]
    failures = []

    def work(mine):
        try:
            for recipe in mine:
                finish(tmp_path, recipe, recipe.name.encode())
                building.collect(tmp_path)
        except Exception as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(recipes[k::8],)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    building.collect(tmp_path)
    assert set(registry.read_index(tmp_path / "index.json")) == {r.name for r in recipes}
    assert all(building.is_built(recipe, tmp_path) for recipe in recipes)
    assert list((tmp_path / "building").iterdir()) == []


@pytest.mark.once
def test_what_is_half_written_is_not_collected(tmp_path):
    good, cut, absent, other = (tiny(depth=depth) for depth in (1, 2, 3, 4))
    entry = finish(tmp_path, good, b"good")
    for recipe in (cut, absent, other):
        finish(tmp_path, recipe, recipe.name.encode())
    waiting = tmp_path / "building"
    (waiting / f"{cut.name}.json").write_text('{"bytes": 5')
    digest = json.loads((waiting / f"{absent.name}.json").read_text())["sha256"]
    (waiting / f"{digest}.npz").unlink()
    (waiting / f"{other.name}.json").write_text("[1]")
    building.collect(tmp_path)
    assert registry.read_index(tmp_path / "index.json") == {good.name: entry}
    assert list(waiting.glob("*.json")) == []


@pytest.mark.once
def test_collecting_goes_on_where_a_killed_process_stopped(tmp_path):
    """Between the move of the file and the entry of the index."""
    recipe = tiny()
    entry = finish(tmp_path, recipe, b"good")
    (tmp_path / "starts").mkdir()
    path = tmp_path / "starts" / f"{recipe.name}.npz"
    os.replace(tmp_path / "building" / f"{entry['sha256']}.npz", path)
    building.collect(tmp_path)
    assert building.is_built(recipe, tmp_path)


# A recipe that cannot be built at once, by a process that prints all it can first.
_TALKING = """
import json, sys
from pathlib import Path
from keras_lsc.zoo import Recipe, build
talk = "import os, sys, time\\nprint('x' * 300_000 + ' last words', flush=True)\\n" + arguments[1]
Path(arguments[0], "talking.py").write_text(talk)
sys.path.insert(0, arguments[0])
build._BUILDER = "talking:builder"
told = []
recipes = [Recipe.from_dict(json.loads(arguments[2]))]
failures = build.build_all(recipes, Path(arguments[0]), 1, lambda *row: told.append(row))
print(failures, told[0][1].endswith(" last words\\nexit code 3"), len(told[0][1]) > 60_000)
"""


def build_by(prepared, folder, then):
    recipe = json.dumps(tiny(max_updates=1).to_dict())
    return prepared.start(_TALKING, folder, then, recipe, output=folder / "printed")


@pytest.mark.once
@forks
def test_a_build_that_prints_much_and_fails_is_told_by_its_last_words(prepared, tmp_path):
    copy = build_by(prepared, tmp_path, "sys.exit(3)")
    assert copy.wait() == 0, copy.printed
    assert copy.printed.split("\n")[-2] == "1 True True"
    assert not (tmp_path / "index.json").exists()


@pytest.mark.once
@forks
@pytest.mark.parametrize("way", ["SIGKILL", "SIGINT"])
def test_no_build_outlives_its_parent(way, prepared, tmp_path):
    note = tmp_path / "child"
    then = f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    copy = build_by(prepared, tmp_path, then)
    wait_for(lambda: note.exists() and note.read_text())
    child = int(note.read_text())
    os.kill(child, 0)
    os.kill(copy.process, getattr(signal, way))
    assert copy.wait() != 0
    wait_for(lambda: not is_running(child))


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that nobody has asked about yet, can still be signalled.
    state = Path(f"/proc/{process}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def wait_for(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.once
def test_jobs_are_counted():
    for jobs in (0, -1, True, 1.5, "2"):
        with pytest.raises(ValueError, match="jobs must be a positive integer"):
            building.build_all([], FOLDER, jobs, lambda *_: None)


# Names


RADII = st.floats(min_value=5e-324, max_value=1.7e308, allow_subnormal=True)
TARGETS = st.one_of(
    RADII,
    st.tuples(RADII, RADII),
    st.sampled_from(["variance", "unbalanced", "variance-unbalanced"]),
)


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(TARGETS, TARGETS)
def test_targets_have_names_of_their_own(one, other):
    names = target_name(one), target_name(other)
    assert (names[0] == names[1]) == (one == other)
    assert all(set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz-") for name in names)
    assert all(len(name) <= 60 for name in names)


@pytest.mark.once
def test_near_targets_have_names_of_their_own():
    digits = [1, 15, 5, 10, 100, 7071067811865476]
    radii = {float(f"{digit}e{power}") for digit in digits for power in range(-20, 21)}
    pairs = {(one, other) for one in radii for other in (1.0, 0.5, 1.5, 15.0)}
    targets = [*radii, *pairs, "variance", "unbalanced", "variance-unbalanced"]
    assert len({target_name(target) for target in targets}) == len(targets)
    assert target_name(1) == target_name(1.0) == "1"
    for name, entry in json.loads((FOLDER / "index.json").read_text()).items():
        assert Recipe.from_dict(entry["certificate"]["recipe"]).name == name


# Text of any content


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["smnist", "gru", "variance", "../../x", "", 0, -1, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(ENTRY["certificate"]["recipe"])), JUNK)
def test_recipes_are_recipes_or_refused(key, value):
    given_values = {**ENTRY["certificate"]["recipe"], key: value}
    try:
        recipe = Recipe.from_dict(given_values)
    except RecipeError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert hash(recipe.name) is not None
    assert Path(recipe.name).name == recipe.name
    resolve(recipe.target, recipe.depth, 5)


BAD_TOML = [
    b"\xff\xfe",
    b"a = " + b"9" * 5000,
    b"a = " + b"[" * 5000,
    b"network = 5",
    b"network = [5]",
    b"network = []",
    b"[network]\ncell = 'gru'",
    b"[[network]]\ncell = 5",
    b"[[network]]\n5 = 5",
    *(
        b"[[network]]\ncell='gru'\ndataset='smnist'\nunits=8\ndepth=2\n" + line
        for line in (
            b"target=true",
            b"target=inf",
            b"target=nan",
            b"target=[]",
            b"target=[1,2,3]",
            b"target={}",
            b"target=1979-05-27",
            b"target=" + b"9" * 400,
            b"target=1.0\nseed=-1",
            b"target=1.0\nseed=1.5",
            b"target=1.0\nhidden=1",
            b"target=1.0\nmode='best'",
            b"target=1.0\noptions=5",
            b"target=1.0\noptions={when=1979-05-27}",
            b"target=1.0\ninput_shape=5",
            b"target=1.0\ninput_shape=[0]",
            b"target=1.0\ntolerance='0.1'",
            b"target=1.0\ntolerance=nan",
            b"target=1.0\nsamples=" + b"9" * 30,
            b"targets=1.0",
            b"targets=[]",
            b"target=1.0\ndepths=2",
            b"target=1.0\ndepths=[true]",
        )
    ),
    b"[[network]]\ncell='../x'\ndataset='smnist'\nunits=8\ndepth=2\ntarget=1.0",
    b"[[network]]\ncell='gru'\ndataset=['smnist']\nunits=8\ndepth=2\ntarget=1.0",
    b"[[network]]\ncell='gru'\ndataset='smnist'\nunits=true\ndepth=2\ntarget=1.0",
]


@pytest.mark.once
@pytest.mark.parametrize("content", BAD_TOML, ids=lambda content: content[-20:])
def test_a_recipe_file_of_no_use_is_named(content, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        read_recipes(tmp_path)


@pytest.mark.once
def test_a_folder_named_as_a_recipe_file_is_refused(tmp_path):
    (tmp_path / "bad.toml").mkdir()
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        read_recipes(tmp_path)


def places(content, at=()):
    """Every place in a JSON value."""
    yield at
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))
        else:
            yield (*at, key)


PLACES = [place for place in places(ENTRY) if place]


@pytest.mark.once
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JUNK, st.booleans())
def test_an_entry_of_an_index_is_sound_or_refused(tmp_path_factory, place, value, remove):
    entry = copy.deepcopy(ENTRY)
    inner = entry
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    path = tmp_path_factory.mktemp("index") / "index.json"
    path.write_text(json.dumps({TINY: entry}))
    try:
        read = registry.read_index(path)
    except zoo.DamagedCheckpointError as error:
        assert "index.json: entry" in str(error)  # noqa: PT017
        assert "field" in str(error)  # noqa: PT017
        return
    info = registry.info_of(TINY, read[TINY])
    assert registry.select(read, "*", True, {"units": info.units}) == [TINY]
    assert info.deviation >= 0


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "5", "null", '{"a": 5}', '{"../x": {}}', "[" * 10_000, "\x00", '{"a": NaN}'],
)
def test_an_index_that_is_none_is_named(text, tmp_path):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(zoo.DamagedCheckpointError, match=r"index\.json"):
        registry.read_index(tmp_path / "index.json")


# Certificates


@pytest.fixture(scope="module")
def measured():
    """The tiny checkpoint, its data, and what is measured of it."""
    model = zoo.load(TINY)
    x = certificate_data(tiny())
    return model, x, verification.remeasure(TINY, model, ENTRY["certificate"], x)


def compared(measured, change=lambda c: None, parameters=ENTRY["parameters"]):
    changed = copy.deepcopy(ENTRY["certificate"])
    change(changed)
    return verification.compare(TINY, measured[0], changed, measured[2].report, parameters)


def rows(c):
    return c["stabilized"]["transitions"]


def one_row(c):
    for which in ("initial", "stabilized"):
        c[which]["transitions"] = c[which]["transitions"][:1]


def one_more(c):
    rows(c).append(rows(c)[-1] | {"name": "layer_3.time", "layer": 2})


UNTRUE = {
    "layer_1.time has the radius": lambda c: rows(c)[0].update(radius=0.75),
    "layer_2.time has the radius": lambda c: rows(c)[2].update(radius=0.75),
    "has the gain": lambda c: rows(c)[3].update(gain=0.5),
    "has the radius_std": lambda c: rows(c)[3].update(radius_std=0.5),
    "has the kind": lambda c: rows(c)[0].update(kind="depth"),
    "has the shape": lambda c: rows(c)[0].update(shape=[8, 9]),
    "has the state": lambda c: rows(c)[0].update(state="state 9"),
    "the certificate 1, which": one_row,
    "the certificate 5, which": one_more,
    "differ at layer_1.time": lambda c: rows(c)[0].update(name="layer_9.time"),
    "layers is 2": lambda c: c["stabilized"].update(layers=3),
    "steps is 12": lambda c: c["stabilized"].update(steps=13),
    "radius_kind is 'spectral'": lambda c: c["stabilized"].update(radius_kind="rms"),
    "spiking layers": lambda c: c["stabilized"].update(firing_rates={"layer_1": 0.1}),
    "states a deviation": lambda c: c.update(deviation=0.0),
    "of 8 points": lambda c: c["stabilized"].update(samples=8),
    "seed 5": lambda c: c["stabilized"].update(seed=5),
    "its recipe says 9": lambda c: c["recipe"].update(units=9),
    "its recipe says 2000000000": lambda c: c["recipe"].update(units=2 * 10**9),
    "the depth 2, its recipe says 3": lambda c: c["recipe"].update(depth=3),
    "SimpleRNN layer_1 sigmoid": lambda c: c["recipe"].update(cell="gru"),
    "makes no network": lambda c: c["recipe"].update(cell="best"),
    "the embedding None": lambda c: c["recipe"].update(embedding=5),
    "the input_shape": lambda c: c["recipe"].update(input_shape=[13, 1]),
    "FAILED": lambda c: c["recipe"].update(target=0.5),
    "0.00": lambda c: c["recipe"].update(tolerance=1e-5),
}


@pytest.mark.parametrize("problem", UNTRUE)
def test_a_certificate_that_is_untrue_fails_and_says_why(problem, measured):
    result = compared(measured, UNTRUE[problem])
    assert not result.passed
    assert problem in str(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["passed"] is False


MALFORMED = {
    "transitions'": lambda c: c["stabilized"].update(transitions=[]),
    "transitions.0": lambda c: rows(c)[0].pop("gain"),
    "radius'": lambda c: rows(c)[0].update(radius=float("nan")),
    "tolerance": lambda c: c["recipe"].update(tolerance="0.02"),
    "samples'": lambda c: c["stabilized"].pop("samples"),
    "seed": lambda c: c["stabilized"].update(seed=None),
    "recipe'": lambda c: c["recipe"].pop("target"),
    "certificate_data": lambda c: c.pop("certificate_data"),
    "expected 0000": lambda c: c["certificate_data"].update(sha256="0" * 64),
    "float64": lambda c: c["certificate_data"].update(dtype="float64"),
}


@pytest.mark.parametrize("field", MALFORMED)
def test_a_certificate_that_is_none_is_refused_by_its_field(field, measured):
    changed = copy.deepcopy(ENTRY["certificate"])
    MALFORMED[field](changed)
    with pytest.raises(zoo.CertificateMismatchError, match=field):
        verification.remeasure(TINY, measured[0], changed, measured[1])


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"n": 2, "colour": 1}}, "names data that does not exist"),
        ({"options": {"n": 2, "length": -12}}, "names data that does not exist"),
        ({"dataset": "nothing"}, "names data that does not exist"),
    ],
)
def test_data_that_does_not_exist_is_refused(changes, message):
    changed = copy.deepcopy(ENTRY["certificate"])
    changed["recipe"].update(changes)
    with pytest.raises(zoo.CertificateMismatchError, match=message):
        verification.checked_data(TINY, changed)


def test_the_true_certificate_passes(measured):
    for result in (measured[2], compared(measured)):
        assert result.passed
        assert result.problems == ()
    assert not compared(measured, parameters=ENTRY["parameters"] + 1).passed


@pytest.mark.parametrize("place", [0, 3, -1])
def test_weights_that_are_no_numbers_never_pass(place, measured):
    """In the first layer, in the second, and in the readout, which no transition sees."""
    model, x, result = measured
    weight = model.weights[place]
    value = keras.ops.convert_to_numpy(weight).copy()
    bad = value.copy()
    bad.flat[-1] = np.nan
    weight.assign(bad)
    try:
        if place == 0:
            result = verification.remeasure(TINY, model, ENTRY["certificate"], x)
        else:
            result = verification.compare(TINY, model, ENTRY["certificate"], result.report)
    finally:
        weight.assign(value)
    assert not result.passed
    assert f"the weight {weight.path} has values that are not finite" in result.problems
