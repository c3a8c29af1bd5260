"""What was done of a race: starts, and what entrants have and scored; on disk where asked for."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lsc.files import replacing
from keras_lsc.race.course import Array, Place
from keras_lsc.race.entrants import Entrant


@dataclass(frozen=True)
class Start:
    """A start that was made.

    Attributes:
        variables: Values of the variables of the model.
        seconds: That it took.
        problem: Why it is not to be had, else None.
    """

    variables: list[Array]
    seconds: float
    problem: str | None


def _key(number: int, entrant: Entrant) -> str:
    return f"{number} {entrant.start} {entrant.learning_rate!r}"


class Record:
    """What was done: starts, and weights and scores of entrants; on disk if there is a folder."""

    def __init__(self, folder: str | Path | None, settings: list[Any], model: keras.Model):
        self._folder = None if folder is None else Path(folder)
        weights = hashlib.sha256()
        for value in model.get_weights():
            weights.update(np.ascontiguousarray(value).tobytes())
        self._identity = hashlib.sha256(
            json.dumps([settings, weights.hexdigest()], default=str).encode()
        ).hexdigest()
        self._begin = Place.of(model)
        self._starts: dict[str, Start] = {}
        self._places: dict[tuple[str, float], Place] = {}
        self._legs: dict[str, Any] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._read()

    def start(self, name: str) -> "Start | None":
        """A start; None where it was not made."""
        return self._starts.get(name)

    def add_start(self, name: str, start: "Start") -> None:
        """Keeps a start."""
        self._starts[name] = start
        self._write()

    def place(self, entrant: Entrant) -> Place:
        """Where an entrant is."""
        start = self._starts[entrant.start]
        begin = Place(start.variables, self._begin.optimizer)
        return self._places.get((entrant.start, entrant.learning_rate), begin)

    def leg(self, number: int, entrant: Entrant) -> tuple[Entrant, Array] | None:
        """What came of an entrant in a round; None where it did not run."""
        stored = self._legs.get(_key(number, entrant))
        if stored is None:
            return None
        fields = dict(stored)
        parts = np.array(fields.pop("parts"))
        return Entrant(**fields), parts

    def add_leg(self, number: int, after: Entrant, place: Place, parts: Array) -> None:
        """Keeps what came of an entrant in a round, and where it is."""
        self._places[after.start, after.learning_rate] = place
        fields = asdict(replace(after, ahead=None))
        self._legs[_key(number, after)] = {**fields, "parts": parts.tolist()}
        self._write()

    def _write(self) -> None:
        if self._folder is None:
            return
        arrays: dict[str, Array] = {}
        index: dict[str, Any] = {"identity": self._identity, "legs": self._legs, "starts": []}
        for k, (name, start) in enumerate(self._starts.items()):
            count = len(start.variables)
            index["starts"].append([name, start.seconds, start.problem, count])
            arrays.update({f"start_{k}_{i}": value for i, value in enumerate(start.variables)})
        index["places"] = []
        for k, ((name, rate), place) in enumerate(self._places.items()):
            index["places"].append([name, rate, len(place.variables), len(place.optimizer)])
            arrays.update({f"variables_{k}_{i}": v for i, v in enumerate(place.variables)})
            arrays.update({f"optimizer_{k}_{i}": v for i, v in enumerate(place.optimizer)})
        texts = np.frombuffer(json.dumps(index).encode(), dtype="uint8")
        with replacing(self._folder / "race.npz") as path, path.open("wb") as file:
            np.savez(file, index=texts, **arrays)  # type: ignore[arg-type]

    def _read(self) -> None:
        path = self._folder / "race.npz" if self._folder is not None else None
        if path is None or not path.exists():
            return
        with np.load(path, allow_pickle=False) as stored:
            index = json.loads(bytes(stored["index"]))
            if index["identity"] != self._identity:
                raise ValueError(
                    f"{path} is of a race with other arguments, data or weights. Give another "
                    "folder, or remove it."
                )
            for k, (name, seconds, problem, count) in enumerate(index["starts"]):
                variables = [stored[f"start_{k}_{i}"] for i in range(count)]
                self._starts[name] = Start(variables, seconds, problem)
            for k, (name, rate, count, of_optimizer) in enumerate(index["places"]):
                variables = [stored[f"variables_{k}_{i}"] for i in range(count)]
                optimizer = [stored[f"optimizer_{k}_{i}"] for i in range(of_optimizer)]
                self._places[name, rate] = Place(variables, optimizer)
            self._legs = index["legs"]
