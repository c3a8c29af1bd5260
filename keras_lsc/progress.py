"""What `stabilize` shows while it runs: a line that is written over, or one now and then."""

import sys
import time
from typing import Any, TextIO

import keras

# Seconds between two writings of the line, and updates between two lines where none is overwritten.
_SECONDS = 0.1
_UPDATES = 80


def is_shown(verbose: str | int, stream: TextIO) -> bool:
    """Returns whether progress is told.

    Args:
        verbose: as in `keras.Model.fit`; "auto" tells whoever watches, at a terminal or in a
            notebook, unless Keras' interactive logging is off.
        stream: that it would be written to.
    """
    if verbose == "auto":
        return keras.config.is_interactive_logging_enabled() and _is_overwritten(stream)
    return verbose != 0


class Progress(keras.callbacks.Callback):
    """Tells updates, the largest deviation of a radius, and seconds.

    Args:
        name: of the model.
        most: updates that there are at most.
        verbose: 1 or "auto" for a line that is written over where that can be, 2 for a line now
            and then.
        stream: that is written to; standard output without it.
    """

    def __init__(
        self, name: str, most: int, verbose: str | int = "auto", stream: TextIO | None = None
    ):
        super().__init__()
        self._stream = sys.stdout if stream is None else stream
        self._overwrites = verbose != 2 and _is_overwritten(self._stream)
        self._name, self._most = name, most
        self._updates, self._first = 0, float("nan")
        self._start = self._last = time.perf_counter()
        self._width = 0
        self._say("compiling")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts an update, and tells it where it is time."""
        del batch
        deviation = float((logs or {})["max_deviation"])
        self._updates += 1
        if self._updates == 1:
            self._first = deviation
        now = time.perf_counter()
        if self._overwrites and now - self._last < _SECONDS:
            return
        if self._overwrites or self._updates % _UPDATES == 0:
            self._last = now
            self._say(f"{self._updates}/{self._most} updates, off by {deviation:.3f} at most")

    def end(self, deviation: float) -> None:
        """Says how far radii were off before, and are now.

        Args:
            deviation: the largest, on held-out sequences.
        """
        self._say(
            f"largest deviation {self._first:.3f} -> {deviation:.3f}, {self._updates} updates"
        )
        self.leave()

    def leave(self) -> None:
        """Ends the line that was written over, so that what follows has one of its own."""
        if self._overwrites and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _say(self, text: str) -> None:
        line = f"{self._name}: {text}, {time.perf_counter() - self._start:.0f} s"
        if self._overwrites:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _is_overwritten(stream: TextIO) -> bool:
    return stream.isatty() or "ipykernel" in sys.modules
