"""A process of this package's own that ends with the one that started it, and its last words."""

import os
import subprocess
from dataclasses import dataclass
from typing import IO

# What is kept of the output of a process, from its end.
_LAST_WORDS = 2**16
# Seconds until a process that was asked to end is ended.
_GRACE = 5.0


@dataclass
class Child:
    """A process, and what it prints.

    Attributes:
        process: The process; it ends when its standard input does.
        output: What it prints, in a file: that takes any amount, where a pipe would have to be
            emptied all the time.
    """

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def last_words(self) -> str:
        """What it printed last."""
        size = self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, size - _LAST_WORDS))
        return self.output.read().decode("utf-8", errors="replace").strip()

    def end(self) -> None:
        """Ends the process if it still runs."""
        self.process.terminate()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.close()

    def close(self) -> None:
        """Lets go of its files."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.output.close()
