"""Which start trains best on the user's own data: a race by successive halving.

Every start is tried with several learning rates. All that are in the race train for the same number
of steps on the same batches; then the better half goes on, the best one from the default start with
it, until two are left. What a start costs beside training is not counted, and told.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import tree

from keras_lsc import arguments
from keras_lsc.flossing import NotFlossedError
from keras_lsc.levelling import NotLevelledError
from keras_lsc.pretrainer import State
from keras_lsc.pretraining import NotStabilizedError
from keras_lsc.race.course import Array, Finish, Leg, Place
from keras_lsc.race.entrants import DEFAULT, Entrant, StartRace
from keras_lsc.race.judge import Judge
from keras_lsc.race.legs import Run, runs
from keras_lsc.race.record import Record, Start
from keras_lsc.stability.targets import checked
from keras_lsc.stabilization import stabilize
from keras_lsc.workers import checked_jobs

_METHODS = ("level", "flossing")
_RATES = (1 / 3, 1.0, 3.0)


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
    jobs: int | Literal["ray"] = 1,
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
        jobs: how many entrants train at a time, each in a process of its own; 1 for this process,
            one after the other; "ray" for as many as the Ray cluster has cores. The race comes out
            the same, to rounding; on torch, layers that draw need a seed for that.
        seed: Integer, seed of the order of the rows and of the starts.

    Returns:
        A `StartRace`; print it for a table. The model has the weights of the winner's start, not
        yet trained, and its optimizer the winner's learning rate and its former state.

    Raises:
        TypeError: the model is no `keras.Model`.
        ValueError: it is not built or compiled, its optimizer follows a schedule, or an argument is
            of no use; or `jobs` is not 1 and it cannot be made again in another process.
        ModuleNotFoundError: `jobs` is "ray", which is not installed.
        WorkerFailedError: a process of `jobs` failed, or three in a row were killed; it has what
            the process printed last. What others did is in `folder`.

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
    jobs = checked_jobs(jobs)
    judge = Judge(monitor, higher_is_better)
    steps = max(1, int(budget * epochs * (rows // batch_size)))
    settings = [names, rates, epochs, batch_size, budget, judge.monitor, seed, rows]
    record = Record(folder, settings, model)
    former = State(model.variables, model.optimizer.variables, model.metrics_variables)
    try:
        with runs(jobs, model, x, y, validation_data, batch_size, seed) as run:
            made = partial(_make_start, model, x, seed)
            race = _race(made, run, judge, record, names, rates, steps)
    finally:
        former.restore()
    winner = record.start(race.winner.start)
    assert winner is not None
    for variable, value in zip(model.variables, winner.variables, strict=True):
        variable.assign(value)
    model.optimizer.learning_rate = race.winner.learning_rate
    return race


def _race(
    make: Callable[[Any], Start],
    run: Run,
    judge: Judge,
    record: Record,
    names: dict[str, Any],
    rates: list[float],
    steps: int,
) -> StartRace:
    running: list[Entrant] = []
    out: list[Entrant] = []
    for name, wanted in names.items():
        start = record.start(name)
        if start is None:
            start = make(wanted)
            record.add_start(name, start)
        entrants = [
            Entrant(name, rate, seconds=start.seconds, problem=start.problem) for rate in rates
        ]
        (running if start.problem is None else out).extend(entrants)
    rounds = max(1, math.ceil(math.log2(len(running))))
    spent = 0
    for number in range(rounds):
        share = max(1, steps // (rounds * len(running)))
        spent += share * len(running)
        running = judge.compared(*_round(number, running, share, run, judge, record))
        keep = max(2, math.ceil(len(running) / 2)) if number < rounds - 1 else len(running)
        best_default = next(entrant for entrant in running if entrant.start == DEFAULT)
        kept = running[:keep]
        if best_default not in kept:
            kept[-1] = best_default
        out = [*(entrant for entrant in running if entrant not in kept), *out]
        running = kept
    return StartRace((*running, *out), judge.monitor, spent)


def _round(
    number: int, running: list[Entrant], steps: int, run: Run, judge: Judge, record: Record
) -> tuple[list[Entrant], list[Array]]:
    """Entrants after a round, and what they scored on the parts of the validation data."""
    missing = [entrant for entrant in running if record.leg(number, entrant) is None]

    def keep(k: int, finish: Finish) -> None:
        place, logs = finish
        parts = judge.parts(logs)
        entrant = missing[k]
        moved = replace(entrant, steps=entrant.steps + steps, score=float(parts.mean()))
        record.add_leg(number, moved, place, parts)

    run([Leg(record.place(e), e.learning_rate, e.steps, steps) for e in missing], keep)
    found = [leg for entrant in running if (leg := record.leg(number, entrant)) is not None]
    return [entrant for entrant, _ in found], [parts for _, parts in found]


def _make_start(model: keras.Model, x: Any, seed: int, start: Any) -> Start:
    """Makes a start of the weights that a model has, which it has again afterwards."""
    begin = State(model.variables)
    clock = time.perf_counter()
    problem = _bring_to(model, x, seed, start)
    seconds = time.perf_counter() - clock
    weights = model.get_weights()
    # The states of random layers are the same for every start.
    begin.restore()
    model.set_weights(weights)
    made = Start(Place.of(model).variables, seconds, problem)
    begin.restore()
    return made


def _bring_to(model: keras.Model, x: Any, seed: int, start: Any) -> str | None:
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
