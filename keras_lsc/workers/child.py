"""A process of this package's own that ends with the one that started it, and its last words."""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import keras

from keras_lsc.workers.work import WorkerDiedError, WorkerFailedError

# What is kept of the output of a process, from its end.
_LAST_WORDS = 2**16
# Seconds until a process that was asked to end is ended.
_GRACE = 5.0

# Before anything slow is imported, a thread reads what is asked, and waits for the end of the
# parent, which has the other end of the pipe. It holds no lock of a stream, which the interpreter
# could not end without. What a library prints is kept from the answers.
_PROGRAM = """
import importlib, os, pickle, queue, sys, threading
asked = queue.SimpleQueue()
def read(count):
    content = bytearray()
    while len(content) < count:
        block = os.read(0, min(count - len(content), 2**20))
        if not block:
            os._exit(1)
        content += block
    return bytes(content)
def listen():
    while True:
        asked.put(read(int.from_bytes(read(8), "big")))
threading.Thread(target=listen, daemon=True).start()
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
sys.path[:] = pickle.loads(asked.get())
module, name, given = pickle.loads(asked.get())
make = getattr(importlib.import_module(module), name)
answer = make(*pickle.loads(given))
while True:
    items = pickle.loads(asked.get())
    for _, found in zip(items, answer(items), strict=True):
        pickle.dump(found, answers)
        answers.flush()
"""


class Child:
    """A process that does jobs one after the other.

    Args:
        packed: As `Work.packed` returns it.
        environment: Variables that it has unless this process has others.
    """

    def __init__(self, packed: bytes, environment: Mapping[str, str]):
        # In a file what it prints may have any length; a pipe would have to be emptied all the
        # time.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env={**environment, **os.environ, "KERAS_BACKEND": keras.backend.backend()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._output,
        )
        self._begin = [pickle.dumps(sys.path), packed]

    def ask(self, items: list[Any]) -> None:
        """Gives it a job.

        Raises:
            WorkerFailedError: It has ended.
        """
        assert self.process.stdin is not None
        try:
            for part in (*self._begin, pickle.dumps(items)):
                self.process.stdin.write(len(part).to_bytes(8, "big"))
                self.process.stdin.write(part)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._end() from None
        self._begin = []

    def answer(self) -> Any:
        """Waits for its next answer.

        Raises:
            WorkerFailedError: It has ended instead.
        """
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._end() from None

    def _end(self) -> WorkerFailedError:
        code = self.process.wait()
        if code < 0:
            return WorkerDiedError(f"signal {-code}", self._last_words())
        return WorkerFailedError(f"exit code {code}", self._last_words())

    def _last_words(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _LAST_WORDS))
        return self._output.read().decode("utf-8", errors="replace").strip()

    def end(self) -> None:
        """Ends the process if it still runs, and lets go of its files."""
        self.process.terminate()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._output):
            assert stream is not None
            # What it was to be told may not have arrived.
            with contextlib.suppress(BrokenPipeError):
                stream.close()
