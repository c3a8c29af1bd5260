"""Every job done once, whichever workers die meanwhile."""

import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from keras_lsc.workers.work import Answer, Work, WorkerDiedError, WorkerFailedError

# How many workers may die of one item: the fault may be its own, such as the memory that it takes.
_TRIES = 3


@dataclass
class _Job:
    number: int
    items: deque[Any]
    deaths: int = 0


class _Pending:
    """The jobs that nobody does yet; taken by many threads."""

    def __init__(self, jobs: Iterable[Sequence[Any]]):
        self._jobs = enumerate(jobs)
        self._again: deque[_Job] = deque()
        self._lock = threading.Lock()

    def take(self) -> _Job | None:
        """The next job; None where there is none."""
        with self._lock:
            if self._again:
                return self._again.popleft()
            for number, items in self._jobs:
                return _Job(number, deque(items))
            return None

    def put_back(self, job: _Job) -> None:
        """Leaves what is left of a job to another worker."""
        with self._lock:
            self._again.append(job)


class Workers(ABC):
    """Workers for one kind of work, which end with the context.

    Args:
        work: What they are for.
        count: How many jobs are done at a time.
    """

    def __init__(self, work: Work, count: int):
        self._work = work
        self._count = count
        self._is_over = False

    def run(self, jobs: Iterable[Sequence[Any]], tell: Callable[[Answer], None]) -> None:
        """Does jobs, and tells every answer once.

        A job is a list of items. Where its worker is killed, or the machine below it, another one
        takes up the items that are not answered; after the third in a row that dies of the same
        item, the job has failed. It has too where its worker raises an error or exits. What `tell`
        raises ends the workers.

        Args:
            jobs: Lists of items, taken one by one as workers get free.
            tell: Called in this thread with an `Answer` for every item, those of a job in turn.
        """
        pending = _Pending(jobs)
        told: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(self._count) as pool:
            threads = [pool.submit(self._serve, pending, told) for _ in range(self._count)]
            try:
                running = self._count
                while running:
                    answer = told.get()
                    if answer is None:
                        running -= 1
                    else:
                        tell(answer)
            except BaseException:
                self._is_over = True
                self._stop()
                raise
        for thread in threads:
            thread.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._stop()

    def _serve(self, pending: _Pending, told: "queue.SimpleQueue[Answer | None]") -> None:
        try:
            while not self._is_over and (job := pending.take()) is not None:
                self._do(job, pending, told)
        finally:
            told.put(None)

    def _do(self, job: _Job, pending: _Pending, told: "queue.SimpleQueue[Answer | None]") -> None:
        try:
            for value in self._answers(list(job.items)):
                job.items.popleft()
                job.deaths = 0
                told.put(Answer(job.number, value))
        except WorkerFailedError as error:
            if not job.items:
                return
            job.deaths += 1
            if isinstance(error, WorkerDiedError) and job.deaths < _TRIES:
                pending.put_back(job)
            else:
                told.put(Answer(job.number, failure=error))

    @abstractmethod
    def _answers(self, items: list[Any]) -> Iterator[Any]:
        """Has a worker answer items, as many times as there are items.

        Raises:
            WorkerDiedError: The worker was ended from outside.
            WorkerFailedError: It ended for a reason of its own.
        """

    @abstractmethod
    def _stop(self) -> None:
        """Ends all workers; what waits for one in another thread raises WorkerDiedError."""
