"""What workers do, what they answer, and how they end."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Work:
    """What a worker is for; it imports that itself, wherever it runs.

    Attributes:
        maker: "module:function". The function is called once in a worker, with `given`, and
            returns another, which takes the items of a job and yields an answer for each in turn.
        given: Arguments of that function.
        environment: Variables that a worker has unless its computer has others.
        is_fresh: Whether every job has a process of its own.
    """

    maker: str
    given: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    is_fresh: bool = False

    def packed(self) -> bytes:
        """The maker and what it is given, for `pickle.loads`."""
        module, name = self.maker.split(":")
        # As bytes of their own, so that the module can be imported before what is given is read.
        return pickle.dumps((module, name, pickle.dumps(self.given)))


@dataclass(frozen=True)
class Answer:
    """What came of an item of a job, or of the rest of a job that failed.

    Attributes:
        job: Number of the job, from 0.
        value: What the worker said; None where it failed.
        failure: Why there is no answer to this item and those after it, else None.
    """

    job: int
    value: Any = None
    failure: "WorkerFailedError | None" = None


class WorkerFailedError(RuntimeError):
    """A worker ended before it had done its job.

    Attributes:
        end: How it ended, such as "exit code 1".
        words: What it printed last; may be empty.
    """

    def __init__(self, end: str, words: str):
        lines = words.splitlines()
        super().__init__(f"the worker ended with {end}" + (f": {lines[-1]}" if lines else ""))
        self.end, self.words = end, words


class WorkerDiedError(WorkerFailedError):
    """A worker was ended from outside, by a signal or with its machine: another may do better."""
