"""One input: within bounded time and memory, and what came of it."""

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.kind import FAILED, Kind

# Longer than an input's own seconds, for what waits, and for machines that others use as well.
SECONDS_ON_THE_CLOCK = 300
MOST_BYTES = 2**30
_PACKAGE = Path(__file__).parents[1]


class HangError(BaseException):
    """Time is up. No Exception, so that nothing but the harness takes it for one of its own."""


@dataclass(frozen=True)
class Result:
    """What came of an input.

    Attributes:
        kind: of the input.
        index: its number.
        outcome: "right", "refused" or "failed".
        given: the input as text.
        problem: of a failed one, its last lines; else nothing.
        place: of a failed one, exception and innermost line of the package.
    """

    kind: str
    index: int
    outcome: str
    given: str = ""
    problem: str = ""
    place: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types."""
        return asdict(self)


def attempt(kind: Kind, seed: int, index: int, root: Path, seconds: int | None = None) -> Result:
    """Feeds one input to the package.

    Args:
        kind: of the input.
        seed: of the run.
        index: number of the input.
        root: folder for its files, which are removed.
        seconds: after which it counts as one that hangs; None for those of the kind.

    Returns:
        The result.
    """
    folder = Path(tempfile.mkdtemp(dir=root))
    given, before = None, _peak()
    try:
        with _watchdog(seconds or kind.seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = kind.input(seed, index)
            outcome = kind.judge(given, folder)
        taken = _peak() - before
        if taken > MOST_BYTES:
            return _failed(kind, index, given, f"took {taken / 1e9:.1f} GB", "memory")
        return Result(kind.name, index, outcome)
    except (Exception, HangError) as error:  # noqa: BLE001 - whatever is raised is the finding.
        lines = "".join(traceback.format_exception(error)[-8:])
        return _failed(kind, index, given, lines, _place(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _failed(kind: Kind, index: int, given: Any, problem: str, place: str) -> Result:
    label = getattr(given, "label", "")
    return Result(kind.name, index, FAILED, repr(given), problem, f"{label} {place}".strip())


def _peak() -> int:
    """Bytes of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _watchdog(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        del frame
        limit = seconds if number == signal.SIGPROF else SECONDS_ON_THE_CLOCK
        raise HangError(f"not done after {limit} s")

    former = {number: signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(max(seconds, SECONDS_ON_THE_CLOCK))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in former.items():
            signal.signal(number, handler)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    own = [frame for frame in own if "fuzz" not in Path(frame.filename).parent.parts] or own
    where = f"{Path(own[-1].filename).relative_to(_PACKAGE)}:{own[-1].lineno}" if own else "?"
    message = str(error).partition("\n")[0][:60] if "fuzz/" in where else ""
    return f"{type(error).__name__} at {where} {message}".strip()


def limit_memory(more: int = 8 * MOST_BYTES) -> None:
    """Lets this process reserve no more than it has now and `more` bytes."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, resource.RLIM_INFINITY))


def silence() -> int:
    """Sends what this process prints nowhere; returns a descriptor of the former output."""
    former = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return former
