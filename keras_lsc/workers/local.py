"""Workers that are processes on this computer."""

import os
import threading
from collections.abc import Iterator
from typing import Any

from keras_lsc.workers.child import Child
from keras_lsc.workers.run import Workers
from keras_lsc.workers.threads import thread_limits
from keras_lsc.workers.work import Work


class LocalWorkers(Workers):
    """Processes that end with this one, however it ends, each with its share of the cores.

    Args:
        work: What they are for.
        count: How many there are at a time; each is started when there is a job for it.
    """

    def __init__(self, work: Work, count: int):
        super().__init__(work, count)
        share = max(1, (os.cpu_count() or 1) // count)
        self._environment = {**thread_limits(share), **work.environment}
        self._packed = work.packed()
        self._running: set[Child] = set()
        self._idle: list[Child] = []
        self._lock = threading.Lock()

    def _answers(self, items: list[Any]) -> Iterator[Any]:
        child = self._take()
        if child is None:
            return
        is_done = False
        try:
            child.ask(items)
            for _ in items:
                yield child.answer()
            is_done = not self._work.is_fresh
        finally:
            self._leave(child, is_done)

    def _take(self) -> Child | None:
        """A process that has nothing to do, or a new one; None where all is over."""
        with self._lock:
            if self._is_over:
                return None
            if self._idle:
                return self._idle.pop()
            child = Child(self._packed, self._environment)
            self._running.add(child)
            return child

    def _leave(self, child: Child, is_idle: bool) -> None:
        with self._lock:
            if is_idle:
                self._idle.append(child)
                return
            self._running.discard(child)
        child.end()

    def _stop(self) -> None:
        with self._lock:
            running, idle = set(self._running), list(self._idle)
            self._idle.clear()
        for child in running:
            child.process.kill()
        # Those that are at work are left by their threads.
        for child in idle:
            self._leave(child, False)
