"""The batches on which all entrants of a race train, and the data that decides."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc.stability.devices import whole_batches

Array = np.ndarray
# Parts of the validation data, from whose differences the intervals come.
PARTS = 8


@dataclass(frozen=True)
class Place:
    """Where a model is between two rounds.

    Attributes:
        variables: Values of its variables, the states of random layers among them.
        optimizer: Values of those of its optimizer.
    """

    variables: list[Array]
    optimizer: list[Array]

    @classmethod
    def of(cls, model: keras.Model) -> "Place":
        """Where a model is now."""
        return cls(_values(model.variables), _values(model.optimizer.variables))

    def give(self, model: keras.Model) -> None:
        """Brings a model there."""
        pairs = (
            (model.variables, self.variables),
            (model.optimizer.variables, self.optimizer),
        )
        for variables, values in pairs:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)


def _values(variables: list[Any]) -> list[Array]:
    # Copies: what a backend shows of a tensor may change with it.
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


@dataclass(frozen=True)
class Leg:
    """What an entrant does in a round.

    Attributes:
        place: Where it is.
        learning_rate: Learning rate.
        first: Training steps that it has made.
        steps: Those that it makes now.
    """

    place: Place
    learning_rate: float
    first: int
    steps: int


# Where an entrant is after a leg, and what each part of the validation data says of it.
Finish = tuple[Place, list[dict[str, float]]]


class Course:
    """The batches on which all entrants train, and the data that decides.

    Args:
        model: A compiled model, which runs every leg.
        x: Inputs.
        y: Targets.
        validation: Inputs and targets that decide.
        batch_size: Rows in a batch.
        seed: Of the order of the rows.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any,
        validation: tuple[Any, Any],
        batch_size: int,
        seed: int,
    ):
        self._model, self._x, self._y = model, x, y
        self._validation = validation
        self._size = batch_size
        self._seed = seed

    def run(self, leg: Leg) -> Finish:
        """Trains an entrant on, and looks at it."""
        model = self._model
        leg.place.give(model)
        model.optimizer.learning_rate = leg.learning_rate
        done = 0
        while done < leg.steps:
            chosen = self._rows_from(leg.first + done, leg.steps - done)
            done += len(chosen) // self._size
            x, y = (_taken(part, chosen) for part in (self._x, self._y))
            with whole_batches(self._size):
                model.fit(x, y, batch_size=self._size, shuffle=False, verbose=0)
        place = Place.of(model)
        return place, self._logs()

    def _rows_from(self, step: int, most: int) -> Array:
        """The rows of batches from a step on, to the end of an epoch or as many as wanted."""
        count = len(tree.flatten(self._x)[0])
        an_epoch = count // self._size
        epoch, first = divmod(step, an_epoch)
        order = np.random.default_rng([self._seed, 11, epoch]).permutation(count)
        return order[first * self._size : min(first + most, an_epoch) * self._size]

    def _logs(self) -> list[dict[str, float]]:
        x, y = self._validation
        count = len(tree.flatten(x)[0])
        found = []
        for rows in np.array_split(np.arange(count), min(PARTS, count)):
            part = [_taken(data, rows) for data in (x, y)]
            with whole_batches(len(rows)):
                logs = self._model.evaluate(
                    *part, batch_size=len(rows), verbose=0, return_dict=True
                )
            found.append({name: float(value) for name, value in logs.items()})
        return found


def _taken(data: Any, rows: Array) -> Any:
    return tree.map_structure(lambda array: array[rows], data)
