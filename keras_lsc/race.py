"""Which start trains best on the user's own data: a race by successive halving.

Every start is tried with several learning rates. All that are in the race train for the same number
of steps on the same batches; then the better half goes on, the best one from the default start with
it, until two are left. What a start costs beside training is not counted, and told.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc import arguments
from keras_lsc.files import replacing
from keras_lsc.flossing import NotFlossedError
from keras_lsc.levelling import NotLevelledError
from keras_lsc.pretrainer import State
from keras_lsc.pretraining import NotStabilizedError
from keras_lsc.stability.devices import whole_batches
from keras_lsc.stability.tables import html_table, text_table
from keras_lsc.stability.targets import checked
from keras_lsc.stabilization import stabilize

Array = np.ndarray
DEFAULT = "default"
_METHODS = ("level", "flossing")
# Parts of the validation data, from whose differences the intervals come.
_PARTS = 8
# 97.5 % of Student's t with 7 degrees of freedom.
_STUDENT = 2.365
_RATES = (1 / 3, 1.0, 3.0)
HEADER = ("start", "learning rate", "steps", "score", "minus default", "seconds of the start")


@dataclass(frozen=True)
class Entrant:
    """A start with a learning rate, and how far it came.

    Attributes:
        start: "default", a method, or a target as text.
        learning_rate: Learning rate.
        steps: training steps made.
        score: the monitored value on the validation data after these; None before the first.
        ahead: the score minus that of the best entrant from the default start after as many steps,
            and half the width of its 95 % interval, from parts of the validation data; None for
            that one itself.
        seconds: that the start took.
        problem: why it did not run or went out, else None.
    """

    start: str
    learning_rate: float
    steps: int = 0
    score: float | None = None
    ahead: tuple[float, float] | None = None
    seconds: float = 0.0
    problem: str | None = None


@dataclass(frozen=True)
class StartRace:
    """What came of a race of starts.

    Attributes:
        entrants: Tuple of `Entrant`, the winner first, those that went further before the others.
        monitor: name of what was monitored.
        steps: training steps of all entrants together.
    """

    entrants: tuple[Entrant, ...]
    monitor: str
    steps: int

    @property
    def winner(self) -> Entrant:
        """The entrant whose start the model holds."""
        return self.entrants[0]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table as texts, in the order of `HEADER`."""
        return [
            (
                entrant.start,
                f"{entrant.learning_rate:.3g}",
                str(entrant.steps),
                "-" if entrant.score is None else f"{entrant.score:.4g}",
                "-" if entrant.ahead is None else "{:+.3g} ± {:.2g}".format(*entrant.ahead),
                entrant.problem or f"{entrant.seconds:.1f}",
            )
            for entrant in self.entrants
        ]

    @property
    def note(self) -> str:
        """What is to be said below the table."""
        return (
            f"{self.monitor} on the validation data; differences from the best default entrant "
            f"after as many steps, with 95 % intervals; {self.steps} training steps in all"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the race as a dictionary of JSON types."""
        return {
            "entrants": [asdict(entrant) for entrant in self.entrants],
            "monitor": self.monitor,
            "steps": self.steps,
        }

    def __str__(self) -> str:
        return f"{text_table(HEADER, self.rows, 1)}\n{self.note}"

    def _repr_html_(self) -> str:
        return f"{html_table('starts', HEADER, self.rows, 1)}<p>{self.note}</p>"


def best_start(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    validation_data: tuple[Any, Any],
    starts: Sequence[Any] = (DEFAULT, "level", "variance", 1.0),
    learning_rates: Sequence[float] | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    budget: float = 3.0,
    monitor: str = "loss",
    higher_is_better: bool | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
) -> StartRace:
    """Lets starts race on the user's own data, and gives the model the start of the winner.

    Args:
        model: a built and compiled `keras.Model`; "default" are the weights that it has.
        x: inputs, an array or a nest of arrays `(rows, ...)`.
        y: targets, the same.
        validation_data: pair of inputs and targets that decide.
        starts: "default", which is always in the race, "level", "flossing", or targets as
            `stabilize` takes them.
        learning_rates: tried with every start; without them a third of the optimizer's own, that
            one, and three times it.
        epochs: length of the training that the start is wanted for.
        batch_size: rows in a batch.
        budget: training steps of the whole race over those of one such training.
        monitor: "loss" or the name of a metric that the model is compiled with.
        higher_is_better: of the monitor; without it, of losses and errors the lower is.
        folder: where what was done is written; a race that was interrupted goes on from there.
        seed: Integer, seed of the order of the rows and of the starts.

    Returns:
        A `StartRace`; print it for a table. The model has the weights of the winner's start, not
        yet trained, and its optimizer the winner's learning rate and its former state.

    Raises:
        TypeError: the model is no `keras.Model`.
        ValueError: it is not built or compiled, its optimizer follows a schedule, or an argument is
            of no use.

    Source: successive halving, arXiv 1502.07943.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> stack = [keras.layers.GRU(8, return_sequences=k < 1) for k in range(2)]
        >>> model = keras.Sequential([keras.Input((10, 3)), *stack, keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(96, 10, 3)).astype("float32")
        >>> y = x.mean(axis=(1, 2))[:, None]
        >>> race = keras_lsc.best_start(model, x[:64], y[:64], starts=["level"],
        ...     validation_data=(x[64:], y[64:]), learning_rates=[0.01], epochs=2)
        >>> sorted(entrant.start for entrant in race.entrants)
        ['default', 'level']
    """
    _check_model(model)
    rows = _checked_rows("x and y", (x, y))
    _checked_rows("validation_data", validation_data)
    names = _checked_starts(starts)
    rates = _checked_rates(model, learning_rates)
    epochs = arguments.positive_integer("epochs", epochs)
    batch_size = min(arguments.positive_integer("batch_size", batch_size), rows)
    budget = arguments.number("budget", budget, above=0)
    seed = arguments.integer("seed", seed, at_least=0)
    course = _Course(model, x, y, validation_data, batch_size, monitor, higher_is_better, seed)
    steps = max(1, int(budget * epochs * (rows // batch_size)))
    settings = [names, rates, epochs, batch_size, budget, course.monitor, seed, rows]
    record = _Record(folder, settings, model)
    former = State(model.variables, model.optimizer.variables, model.metrics_variables)
    try:
        race = _race(model, x, course, record, names, rates, steps, seed)
    except BaseException:
        former.restore()
        raise
    former.restore()
    model.set_weights(record.start(race.winner.start)[0])
    model.optimizer.learning_rate = race.winner.learning_rate
    return race


def _race(
    model: keras.Model,
    x: Any,
    course: "_Course",
    record: "_Record",
    names: dict[str, Any],
    rates: list[float],
    steps: int,
    seed: int,
) -> StartRace:
    begin = State(model.variables)
    running: list[Entrant] = []
    out: list[Entrant] = []
    for name, start in names.items():
        if record.start(name) is None:
            begin.restore()
            clock = time.perf_counter()
            problem = _make_start(model, x, start, seed)
            record.add_start(name, model.get_weights(), time.perf_counter() - clock, problem)
        _, seconds, problem = record.start(name)
        entrants = [Entrant(name, rate, seconds=seconds, problem=problem) for rate in rates]
        (running if problem is None else out).extend(entrants)
    rounds = max(1, math.ceil(math.log2(len(running))))
    spent = 0
    for number in range(rounds):
        share = max(1, steps // (rounds * len(running)))
        scores = []
        for k, entrant in enumerate(running):
            run = partial(course.run, steps=share, record=record)
            running[k], parts = record.leg(number, entrant, run)
            scores.append(parts)
            spent += share
        running = _compared(running, scores, course)
        keep = max(2, math.ceil(len(running) / 2)) if number < rounds - 1 else len(running)
        best_default = next(entrant for entrant in running if entrant.start == DEFAULT)
        kept = running[:keep]
        if best_default not in kept:
            kept[-1] = best_default
        out = [*(entrant for entrant in running if entrant not in kept), *out]
        running = kept
    return StartRace((*running, *out), course.monitor, spent)


def _compared(running: list[Entrant], scores: list[Array], course: "_Course") -> list[Entrant]:
    """The entrants in the order of their scores, with what they are ahead of the default start."""
    order = sorted(range(len(running)), key=lambda k: course.rank(running[k].score))
    default = next(k for k in order if running[k].start == DEFAULT)
    found = []
    for k in order:
        ahead = None
        if k != default:
            differences = scores[k] - scores[default]
            error = differences.std(ddof=1) / math.sqrt(len(differences))
            ahead = (float(differences.mean()), float(_STUDENT * error))
        found.append(replace(running[k], ahead=ahead))
    return found


def _make_start(model: keras.Model, x: Any, start: Any, seed: int) -> str | None:
    """Brings a model to a start, or says why that is not to be had."""
    if start == DEFAULT:
        return None
    options: dict[str, Any] = {"method": start} if start in _METHODS else {"target": start}
    try:
        stabilize(model, x, seed=seed, verbose=0, **options)
    except (NotFlossedError, NotLevelledError, NotStabilizedError) as error:
        return f"{type(error).__name__}: {str(error).split('. ')[0]}"
    except (FloatingPointError, TypeError, ValueError) as error:
        return str(error).split(". ")[0]
    return None


class _Course:
    """The batches on which all entrants train, and the data that decides."""

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any,
        validation_data: tuple[Any, Any],
        batch_size: int,
        monitor: str,
        higher_is_better: bool | None,
        seed: int,
    ):
        self._model, self._x, self._y = model, x, y
        self._validation = validation_data
        self._size = batch_size
        self._seed = seed
        self.monitor = arguments.text("monitor", monitor)
        if higher_is_better is None:
            higher_is_better = not any(word in monitor for word in ("loss", "error", "perplexity"))
        self._higher_is_better = arguments.flag("higher_is_better", higher_is_better)

    def rank(self, score: float | None) -> float:
        """The smaller, the better; what is no number comes last."""
        if score is None or not math.isfinite(score):
            return math.inf
        return -score if self._higher_is_better else score

    def run(self, entrant: Entrant, steps: int, record: "_Record") -> tuple[Entrant, Array]:
        """Trains an entrant on, and looks at it."""
        model = self._model
        record.bring(model, entrant)
        model.optimizer.learning_rate = entrant.learning_rate
        done = 0
        while done < steps:
            chosen = self._rows_from(entrant.steps + done, steps - done)
            done += len(chosen) // self._size
            x, y = (_taken(part, chosen) for part in (self._x, self._y))
            with whole_batches(self._size):
                model.fit(x, y, batch_size=self._size, shuffle=False, verbose=0)
        parts = self._scores()
        record.keep(model, entrant)
        moved = replace(entrant, steps=entrant.steps + steps, score=float(parts.mean()))
        return moved, parts

    def _rows_from(self, step: int, most: int) -> Array:
        """The rows of batches from a step on, to the end of an epoch or as many as wanted."""
        count = len(tree.flatten(self._x)[0])
        an_epoch = count // self._size
        epoch, first = divmod(step, an_epoch)
        order = np.random.default_rng([self._seed, 11, epoch]).permutation(count)
        return order[first * self._size : min(first + most, an_epoch) * self._size]

    def _scores(self) -> Array:
        x, y = self._validation
        count = len(tree.flatten(x)[0])
        found = []
        for rows in np.array_split(np.arange(count), min(_PARTS, count)):
            part = [_taken(data, rows) for data in (x, y)]
            with whole_batches(len(rows)):
                logs = self._model.evaluate(
                    *part, batch_size=len(rows), verbose=0, return_dict=True
                )
            if self.monitor not in logs:
                raise ValueError(
                    f"monitor={self.monitor!r} is not among what the model measures, "
                    f"{sorted(logs)}. Compile it with that metric, or choose another."
                )
            found.append(float(logs[self.monitor]))
        return np.array(found)


def _taken(data: Any, rows: Array) -> Any:
    return tree.map_structure(lambda array: array[rows], data)


class _Record:
    """What was done: starts, and weights and scores of entrants; on disk if there is a folder."""

    def __init__(self, folder: str | Path | None, settings: list[Any], model: keras.Model):
        self._folder = None if folder is None else Path(folder)
        weights = hashlib.sha256()
        for value in model.get_weights():
            weights.update(np.ascontiguousarray(value).tobytes())
        self._identity = hashlib.sha256(
            json.dumps([settings, weights.hexdigest()], default=str).encode()
        ).hexdigest()
        self._begin = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
        self._starts: dict[str, tuple[list[Array], float, str | None]] = {}
        self._state: dict[tuple[str, float], tuple[list[Array], list[Array]]] = {}
        self._legs: dict[str, Any] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._read()

    def start(self, name: str) -> Any:
        """Weights, seconds and problem of a start; None where it was not made."""
        return self._starts.get(name)

    def add_start(
        self, name: str, weights: list[Array], seconds: float, problem: str | None
    ) -> None:
        """Keeps a start."""
        self._starts[name] = (weights, seconds, problem)
        self._write()

    def bring(self, model: keras.Model, entrant: Entrant) -> None:
        """Gives a model the weights and the optimizer that an entrant had last."""
        key = (entrant.start, entrant.learning_rate)
        weights, optimizer = self._state.get(key, (self._starts[entrant.start][0], self._begin))
        model.set_weights(weights)
        for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
            variable.assign(value)

    def keep(self, model: keras.Model, entrant: Entrant) -> None:
        """Keeps what an entrant has now."""
        state = [np.array(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
        self._state[entrant.start, entrant.learning_rate] = (model.get_weights(), state)

    def leg(
        self,
        number: int,
        entrant: Entrant,
        run: Callable[[Entrant], tuple[Entrant, Array]],
    ) -> tuple[Entrant, Array]:
        """What an entrant did in a round, done now if it was not."""
        key = f"{number} {entrant.start} {entrant.learning_rate!r}"
        if key not in self._legs:
            after, parts = run(entrant)
            self._legs[key] = {**asdict(after), "parts": parts.tolist()}
            self._write()
        stored = dict(self._legs[key])
        parts = np.array(stored.pop("parts"))
        ahead = stored["ahead"]
        return Entrant(**{**stored, "ahead": None if ahead is None else tuple(ahead)}), parts

    def _write(self) -> None:
        if self._folder is None:
            return
        arrays: dict[str, Array] = {}
        index: dict[str, Any] = {"identity": self._identity, "legs": self._legs, "starts": []}
        for k, (name, (weights, seconds, problem)) in enumerate(self._starts.items()):
            index["starts"].append([name, seconds, problem, len(weights)])
            arrays.update({f"start_{k}_{i}": value for i, value in enumerate(weights)})
        index["states"] = []
        for k, ((name, rate), (weights, optimizer)) in enumerate(self._state.items()):
            index["states"].append([name, rate, len(weights), len(optimizer)])
            arrays.update({f"weights_{k}_{i}": value for i, value in enumerate(weights)})
            arrays.update({f"optimizer_{k}_{i}": value for i, value in enumerate(optimizer)})
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
                weights = [stored[f"start_{k}_{i}"] for i in range(count)]
                self._starts[name] = (weights, seconds, problem)
            for k, (name, rate, count, of_optimizer) in enumerate(index["states"]):
                weights = [stored[f"weights_{k}_{i}"] for i in range(count)]
                state = [stored[f"optimizer_{k}_{i}"] for i in range(of_optimizer)]
                self._state[name, rate] = (weights, state)
            self._legs = index["legs"]


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model, got {type(model).__name__}.")
    if not model.built or not getattr(model, "compiled", False):
        raise ValueError(
            f"Model {model.name!r} has to be built and compiled. Begin it with keras.Input(shape) "
            "and call model.compile(optimizer, loss)."
        )
    if isinstance(model.optimizer.get_config().get("learning_rate"), dict):
        raise ValueError(
            f"The optimizer of {model.name!r} follows a schedule, and the race sets learning "
            "rates. Compile it with a number."
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _checked_rows(name: str, data: Any) -> int:
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise ValueError(f"{name} must be a pair of inputs and targets, got {data!r:.200}.")
    leaves = tree.flatten(data)
    if not all(isinstance(leaf, np.ndarray) and leaf.ndim for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise ValueError(f"{name} must be NumPy arrays, got {', '.join(kinds)}.")
    counts = {len(leaf) for leaf in leaves}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"{name} must have the same number of rows, two or more, got {sorted(counts)}."
        )
    return counts.pop()


def _checked_starts(starts: Any) -> dict[str, Any]:
    if isinstance(starts, str) or not isinstance(starts, list | tuple):
        raise ValueError(f'starts must be a list such as ["level", 1.0], got {starts!r:.200}.')
    names: dict[str, Any] = {DEFAULT: DEFAULT}
    for start in starts:
        if start != DEFAULT and start not in _METHODS:
            checked(start)
        names[str(start)] = start
    return names


def _checked_rates(model: keras.Model, rates: Any) -> list[float]:
    if rates is None:
        own = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        return [factor * own for factor in _RATES]
    return list(arguments.learning_rates("learning_rates", rates))
