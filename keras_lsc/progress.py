"""What `stabilize` shows while it runs: a line that is written over, or one now and then."""

import sys
import time
from typing import Any

import keras

# Seconds between two writings of the line; updates, or passes, between two lines where none is
# overwritten.
_SECONDS = 0.1
_UPDATES = 80
_PASSES = 5


class Progress(keras.callbacks.Callback):
    """Tells updates, the largest deviation of a radius, and seconds.

    Args:
        name: Name of the model.
        most: updates that there are at most.
        verbose: 0 is silent; 1 writes a line over where that can be, 2 gives it a line of its own
            now and then; "auto" is 1 for who watches, at a terminal or in a notebook, unless
            Keras' interactive logging is off, and silent for others.
    """

    def __init__(self, name: str, most: int, verbose: str | int = "auto"):
        super().__init__()
        self._stream = sys.stdout
        # What stands in for standard output need not say whether it is a terminal.
        isatty = getattr(self._stream, "isatty", None)
        is_watched = (isatty is not None and isatty()) or _is_in_notebook()
        self._is_silent = verbose == 0 or (
            verbose == "auto" and not (is_watched and keras.config.is_interactive_logging_enabled())
        )
        self._overwrites = verbose != 2 and is_watched
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

    def on_pass(self, number: int, factor: float) -> None:
        """Tells a pass of levelling.

        Args:
            number: of the pass, from 1.
            factor: by which an energy is off at most.
        """
        if self._overwrites or number % _PASSES == 0:
            self._say(f"{number}/{self._most} passes, energies off by a factor of {factor:.3g}")

    def end_of_passes(self, spread: float) -> None:
        """Says how even the energies are on held-out sequences: the largest over the smallest."""
        self._say(f"energies even within a factor of {spread:.2f}")
        self.leave()

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
        if self._is_silent:
            return
        line = f"{self._name}: {text}, {time.perf_counter() - self._start:.0f} s"
        if self._overwrites:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _is_in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which others import without being one."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_shell is None else get_shell()
    return "IPKernelApp" in getattr(shell, "config", ())
