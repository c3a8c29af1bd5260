"""The files of the zoo: checkpoints, the index, certificates."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fuzz.kind import RIGHT, Kind, require, require_finite
from fuzz.mutate import (
    damaged_archive,
    damaged_bytes,
    damaged_json,
    damaged_json_text,
    to_json,
)
from keras_lsc import layers, zoo
from keras_lsc.zoo import Recipe
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.pages import card
from keras_lsc.zoo.resolver import locate
from keras_lsc.zoo.start_file import StartFile
from keras_lsc.zoo.trained_file import TrainedFile

_ZOO = Path(__file__).parents[1] / "zoo"
_NAME = "test_gru_parity_d2_rhovar"
_DAMAGED = (zoo.DamagedCheckpointError,)


@cache
def _entry() -> dict[str, Any]:
    return json.loads((_ZOO / "index.json").read_text())[_NAME]


def _renamed(target: Any) -> tuple[str, dict[str, Any]]:
    """The entry with another target, which makes its name one that the own index does not have."""
    entry = json.loads(json.dumps(_entry()))
    recipe = entry["certificate"]["recipe"]
    recipe["target"] = target
    return Recipe.from_dict(recipe).name, entry


@dataclass(frozen=True)
class Archive:
    """A checkpoint file, and whether it was edited so that another model may be in it."""

    model: str
    content: bytes
    is_edited: bool

    def __repr__(self) -> str:
        how = "edited" if self.is_edited else "damaged"
        return f"{self.model}, {how}, {len(self.content)} bytes: {self.content[:80]!r}..."


@cache
def _content(model: str) -> bytes:
    written = Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}.keras"
    try:
        if model == "zoo":
            zoo.export(_NAME, written)
        else:
            _own_model().save(written)
        return written.read_bytes()
    finally:
        written.unlink(missing_ok=True)


@cache
def _own_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((7, 3), name="x")
    hidden = keras.layers.Bidirectional(keras.layers.SimpleRNN(4, return_sequences=True))(inputs)
    hidden = layers.LIF(5, return_sequences=True)(hidden)
    return keras.Model(inputs, keras.layers.Dense(2)(hidden))


def _draw_archive(random: np.random.Generator) -> Archive:
    model = "zoo" if random.random() < 0.5 else "own"
    is_edited = bool(random.random() < 0.35)
    damage = damaged_archive if is_edited else damaged_bytes
    return Archive(model, damage(random, _content(model)), is_edited)


@cache
def _true(model: str) -> list[np.ndarray]:
    if model == "own":
        return _own_model().get_weights()
    return zoo.load(_NAME).get_weights()


def _attempt_archive(given: Archive, folder: Path) -> str:
    path = folder / "model.keras"
    path.write_bytes(given.content)
    model = zoo.load(str(path))
    KerasFile.read(path).certificate()
    require(isinstance(model, keras.Model), f"a {type(model).__name__} was loaded")
    if not given.is_edited:
        for one, other in zip(model.get_weights(), _true(given.model), strict=True):
            require(np.array_equal(one, other), "other weights than before the damage")
    return RIGHT


@contextmanager
def _zoo_in(folder: Path, index: bytes) -> Iterator[None]:
    (folder / "index.json").write_bytes(index)
    former = os.environ.get("KERAS_LSC_ZOO")
    os.environ["KERAS_LSC_ZOO"] = str(folder)
    try:
        yield
    finally:
        if former is None:
            del os.environ["KERAS_LSC_ZOO"]
        else:
            os.environ["KERAS_LSC_ZOO"] = former


def _draw_index(random: np.random.Generator) -> bytes:
    index = dict([_renamed(0.71), _renamed([0.72, 0.7])])
    if random.random() < 0.7:
        # Else nearly every damage would be deep in the tables of the certificates.
        name, whole = _renamed(0.71)
        short = {**whole, "certificate": {"recipe": whole["certificate"]["recipe"]}}
        index = damaged_json(random, {name: short})
        entry = index.get(name) if isinstance(index, dict) else None
        if isinstance(entry, dict) and isinstance(entry.get("certificate"), dict):
            entry["certificate"] = {**whole["certificate"], **entry["certificate"]}
        return to_json(index)
    return damaged_json_text(random, index)


def _attempt_index(given: bytes, folder: Path) -> str:
    own = set(zoo.list(hidden=True))
    with _zoo_in(folder, given):
        names = [name for name in zoo.list(hidden=True) if name not in own]
        zoo.list(hidden=True, dataset="parity", depth=2)
        for name in names:
            known = zoo.info(name)
            require(known.name == name, f"{known.name!r} in place of {name!r}")
            require_finite([known.deviation, known.parameters, known.bytes], "a figure")
            require_finite([known.depth, known.units], "the size of a network")
            require(known.depth > 0 and known.units > 0, f"{known.depth} x {known.units}")
            require(name in card(known), "a card without a name")
    return RIGHT


def _draw_certificate(random: np.random.Generator) -> bytes:
    return damaged_json_text(random, {"sha256": "0" * 64, "stabilized": {"time": [0.7, 0.7]}})


def _attempt_certificate(given: bytes, folder: Path) -> str:
    zoo.save(_own_model(), folder / "mine")
    path = folder / "mine" / "certificate.json"
    # The sum of the file is only known once it is written.
    true = str(json.loads(path.read_text())["sha256"]).encode()
    path.write_bytes(given.replace(b"0" * 64, true))
    model = zoo.load(str(folder / "mine"))
    for one, other in zip(model.get_weights(), _true("own"), strict=True):
        require(np.array_equal(one, other), "other weights than were saved")
    return RIGHT


@dataclass(frozen=True)
class Forgery:
    """A checkpoint whose certificate does not hold."""

    told: str
    name: str
    entry: dict[str, Any]

    def __repr__(self) -> str:
        return self.told


def _draw_forgery(random: np.random.Generator) -> Forgery:
    # The same radii as the file is of, under another name.
    name, entry = _renamed([0.5**0.5, 0.5**0.5])
    rows = entry["certificate"]["stabilized"]["transitions"]
    row = rows[random.integers(len(rows))]
    way = str(random.choice(["radius", "nan", "remove", "only", "none", "units", "target"]))
    if way == "radius":
        row["radius"] += float(random.choice([-0.2, 0.2, 5.0, -1e6]))
    elif way == "nan":
        row["radius"] = float("nan")
    elif way == "remove":
        rows.remove(row)
    elif way == "only":
        rows[:] = [row]
    elif way == "none":
        rows.clear()
    elif way == "units":
        entry["certificate"]["recipe"]["units"] += 1
    elif way == "target":
        entry["certificate"]["recipe"]["target"] = float(random.choice([0.1, 3.0]))
    if way == "target":
        name = Recipe.from_dict(entry["certificate"]["recipe"]).name
    return Forgery(f"{way} of {row['name']}", name, entry)


def _start() -> bytes:
    return (_ZOO / "starts" / f"{_NAME}.npz").read_bytes()


@dataclass(frozen=True)
class Numbers:
    """The numbers of a start, or of the weights that were trained from it."""

    part: str
    content: bytes

    def __repr__(self) -> str:
        return f"{self.part}, {len(self.content)} bytes: {self.content[:80]!r}..."


def _draw_start(random: np.random.Generator) -> Numbers:
    part = str(random.choice(["starts", "trained"]))
    content = (_ZOO / part / f"{_NAME}.npz").read_bytes()
    return Numbers(part, _damaged_numbers(random, content))


def _damaged_numbers(random: np.random.Generator, content: bytes) -> bytes:
    if random.random() < 0.5:
        return damaged_bytes(random, content)
    with np.load(io.BytesIO(content)) as arrays:
        numbers = {name: arrays[name] for name in arrays.files}
    name = str(random.choice(list(numbers)))
    array = numbers.pop(name)
    way = str(random.choice(["remove", "rename", "shape", "dtype", "number", "pickle", "huge"]))
    if way == "rename":
        numbers[str(random.choice(["x", "../x", "layer_3/kernel", "é"]))] = array
    elif way == "shape":
        numbers[name] = array.reshape(-1)[: int(random.integers(0, array.size))]
    elif way == "dtype":
        numbers[name] = array.astype(str(random.choice(["float16", "int8", "complex64", "U3"])))
    elif way == "number":
        changed = array.reshape(-1).copy()
        step = random.choice([0.1, np.nan, np.inf, -9.0])
        at = random.integers(changed.size)
        changed[at] = changed[at] + step if changed.dtype.kind == "f" else ~changed[at]
        numbers[name] = changed.reshape(array.shape)
    elif way == "pickle":
        numbers[name] = np.array([{}, None], dtype=object)
    written = io.BytesIO()
    np.savez(written, **numbers)
    made = written.getvalue()
    # A header that claims more than any computer holds.
    return made.replace(b"'shape': (", b"'shape': (99999999999, ", 1) if way == "huge" else made


def _attempt_start(given: Numbers, folder: Path) -> str:
    path = folder / "x.npz"
    path.write_bytes(given.content)
    if given.part == "trained":
        model = TrainedFile.read(path, locate(_NAME).file).model()
        expected = zoo.load(_NAME, weights="trained").get_weights()
    else:
        model = StartFile.read(path, Recipe.from_dict(_entry()["certificate"]["recipe"])).model()
        expected = _true("zoo")
    for one, other in zip(model.get_weights(), expected, strict=True):
        require(np.allclose(one, other, atol=1e-5 * np.linalg.norm(other)), "other weights")
    return RIGHT


def _attempt_forgery(given: Forgery, folder: Path) -> str:
    starts = folder / "starts"
    starts.mkdir()
    (starts / f"{given.name}.npz").write_bytes(_start())
    with _zoo_in(folder, to_json({given.name: given.entry})):
        verdict = zoo.verify(given.name)
    require(not verdict.passed, "a certificate that does not hold passed")
    return RIGHT


CHECKPOINT = Kind(
    "checkpoint", 220, _draw_archive, _attempt_archive, _DAMAGED, on_every_backend=False
)
START = Kind("start", 60, _draw_start, _attempt_start, _DAMAGED, on_every_backend=False)
INDEX = Kind("index", 120, _draw_index, _attempt_index, _DAMAGED)
CERTIFICATE = Kind("certificate", 60, _draw_certificate, _attempt_certificate, _DAMAGED)
FORGERY = Kind(
    "forgery",
    3,
    _draw_forgery,
    _attempt_forgery,
    (zoo.DamagedCheckpointError, zoo.CertificateMismatchError),
)
