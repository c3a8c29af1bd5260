"""The legs of a round, run in this process or by several at a time."""

import importlib
import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from keras_lsc.race.course import Course, Finish, Leg
from keras_lsc.workers import Answer, Jobs, Work, start_workers

# Runs legs and calls a function with the number of each and what came of it, as they finish.
Run = Callable[[Sequence[Leg], Callable[[int, Finish], None]], None]
# What a worker is for.
_RUNNER = f"{__name__}:runner"
# What comes of classes that Keras cannot write or read.
_OF_OWN_CLASSES = (
    AttributeError,
    NotImplementedError,
    TypeError,
    ValueError,
    pickle.PickleError,
)


@contextmanager
def runs(jobs: Jobs, model: keras.Model, *arguments: Any) -> Iterator[Run]:
    """Yields what runs legs.

    Args:
        jobs: Number of processes at a time; 1 for this one, "ray" for the cores of a Ray cluster.
        model: The model.
        *arguments: Those of `Course` after it.

    Raises:
        ValueError: The model cannot be made again in another process.
    """
    if jobs == 1:
        course = Course(model, *arguments)

        def run_here(legs: Sequence[Leg], tell: Callable[[int, Finish], None]) -> None:
            for number, leg in enumerate(legs):
                tell(number, course.run(leg))

        yield run_here
        return
    defaults = keras.config.floatx(), keras.config.dtype_policy().name
    given = (defaults, *_serialized(model), *arguments)
    with start_workers(Work(_RUNNER, given), jobs) as workers:

        def run(legs: Sequence[Leg], tell: Callable[[int, Finish], None]) -> None:
            def hear(answer: Answer) -> None:
                if answer.failure is not None:
                    raise answer.failure
                tell(answer.job, answer.value)

            workers.run([[leg] for leg in legs], hear)

        yield run


def runner(
    defaults: tuple[str, str], modules: list[str], model: bytes, *arguments: Any
) -> Callable[[list[Leg]], Iterable[Finish]]:
    """What a worker of a race does: legs in, what came of them out.

    Args:
        defaults: Keras' default dtype and policy.
        modules: Modules to import first.
        model: The pickled model.
        *arguments: Those of `Course` after it.
    """
    floatx, policy = defaults
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    for module in modules:
        importlib.import_module(module)
    course = Course(pickle.loads(model), *arguments)
    return lambda legs: map(course.run, legs)


def _serialized(model: keras.Model) -> tuple[list[str], bytes]:
    """The modules of what is registered with Keras and part of the model, and the model."""
    advice = (
        "Register its own classes and functions with keras.saving.register_keras_serializable and "
        "give them get_config, or train with jobs=1."
    )
    try:
        texts = [keras.saving.serialize_keras_object(model), model.get_compile_config()]
        text = json.dumps(texts)
        content = pickle.dumps(model)
        again = pickle.loads(content)
    # What is wrong with a model's own classes shows in any of them.
    except _OF_OWN_CLASSES as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Model {model.name!r} cannot be made again in another process: {reason:.300}. {advice}"
        ) from error
    if not (again.compiled and _shapes(again) == _shapes(model)):
        raise ValueError(
            f"Model {model.name!r} made again from its configuration is another one, or is not "
            f"compiled. {advice}"
        )
    registered = keras.saving.get_custom_objects().items()
    parts = {name: part.__module__ for name, part in registered if json.dumps(name) in text}
    for name, module in parts.items():
        if module == "__main__":
            raise ValueError(
                f"Model {model.name!r} has {name!r}, which another process cannot import from a "
                "script or a notebook. Put it into a module of its own, or train with jobs=1."
            )
    return sorted(set(parts.values())), content


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    variables = [*model.variables, *model.optimizer.variables]
    return [tuple(variable.shape) for variable in variables]
