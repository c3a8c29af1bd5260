"""A process that has imported everything and starts copies of itself.

An import takes seconds, a copy takes milliseconds. It computes nothing before, so its copies miss
no threads.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

_PROGRAM = """
import json, os, signal, sys, traceback
import keras_lsc.zoo.build
for line in sys.stdin:
    given = json.loads(line)
    if "wait" in given:
        print(os.waitstatus_to_exitcode(os.waitpid(given["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    # Who runs tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        output = os.open(given["output"], os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.environ.update(given["environment"])
        exec(given["program"], {"arguments": given["arguments"]})
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
"""


class Copy:
    """A process that runs a program, and whose output is in a file."""

    def __init__(self, prepared: "Prepared", process: int, output: Path):
        self._prepared, self.process, self._output = prepared, process, output

    def wait(self) -> int:
        """Waits for its end; returns its exit code, or the negative number of a signal."""
        return self._prepared.ask(wait=self.process)

    @property
    def printed(self) -> str:
        """All it has printed."""
        return self._output.read_text() if self._output.exists() else ""


class Prepared:
    """The process that has imported everything."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, program: str, *arguments: object, output: Path, **environment: str) -> Copy:
        """Runs a program, which finds its `arguments` as texts, in a copy."""
        process = self.ask(
            program=program,
            arguments=[str(argument) for argument in arguments],
            output=str(output),
            environment=environment,
        )
        return Copy(self, process, output)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this operating system")
