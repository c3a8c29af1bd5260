"""Workers that are processes of a Ray cluster, wherever it starts them.

Ray takes up nothing by itself here: which items are answered is known where jobs are given out, and
what Ray repeats it repeats from the beginning.
"""

import importlib
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from keras_lsc.workers.run import Workers
from keras_lsc.workers.threads import thread_limits
from keras_lsc.workers.work import Work, WorkerDiedError, WorkerFailedError

_Answering = Callable[[list[Any]], Iterable[Any]]


def import_ray() -> Any:
    """Returns the module `ray`.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Jobs on many machines need Ray; install it on each: pip install "keras-lsc[ray]"'
        ) from error


class RayWorkers(Workers):
    """Tasks of Ray, a core each, of the cluster that this process is connected to.

    Where it is connected to none, that is the one of RAY_ADDRESS, or one that runs on this
    computer, or a new one with its cores; the connection ends with the context.

    Args:
        work: What they are for.
    """

    def __init__(self, work: Work):
        self._ray = import_ray()
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            self._ray.init(log_to_driver=False, logging_level="warning")
        super().__init__(work, max(1, int(self._ray.cluster_resources().get("CPU", 1))))
        backend = {"KERAS_BACKEND": keras.backend.backend()}
        self._task = self._ray.remote(
            num_cpus=1,
            num_returns="streaming",
            max_retries=0,
            max_calls=1 if work.is_fresh else 0,
            runtime_env={"env_vars": {**thread_limits(1), **work.environment, **backend}},
        )(_task())
        self._packed = self._ray.put(work.packed())
        self._running: set[Any] = set()
        self._lock = threading.Lock()

    def _answers(self, items: list[Any]) -> Iterator[Any]:
        with self._lock:
            if self._is_over:
                return
            # In a list the object is handed on as it is, and read only by who has not yet.
            answers = self._task.remote([self._packed], pickle.dumps(items))
            self._running.add(answers)
        try:
            for answer in answers:
                yield self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerFailedError("an error", str(error)) from None
        except self._ray.exceptions.RayError as error:
            raise WorkerDiedError(type(error).__name__, str(error)) from None
        finally:
            with self._lock:
                self._running.discard(answers)

    def _stop(self) -> None:
        with self._lock:
            running = list(self._running)
        for answers in running:
            self._ray.cancel(answers, force=True)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._is_own:
            self._ray.shutdown()


def _task() -> Callable[[list[Any], bytes], Iterator[Any]]:
    """What Ray runs in its processes.

    Ray sends a function within another as it is, and those of a module by their names: so a
    process imports this package only where the work does.
    """
    # What a process made last, and of which object; making it compiles a network.
    made: dict[str, _Answering] = {}

    def answers_of_task(packed: list[Any], items: bytes) -> Iterator[Any]:
        import ray

        key = packed[0].hex()
        if key not in made:
            module, name, given = pickle.loads(ray.get(packed[0]))
            made.clear()
            made[key] = getattr(importlib.import_module(module), name)(*pickle.loads(given))
        asked = pickle.loads(items)
        for _, found in zip(asked, made[key](asked), strict=True):
            yield found

    return answers_of_task
