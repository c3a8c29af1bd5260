"""The file of an experiment's results: one line a run, appended, never rewritten."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


class ResultsError(RuntimeError):
    """Results that cannot be written or read."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished runs of a file; a last line that was cut off is none.

    Args:
        path: of a file of JSON lines; none of it means no runs.

    Returns:
        The runs, each with "line", its number in the file, from 1.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [{**json.loads(line), "line": number} for number, line in enumerate(lines, start=1)]


def identity(values: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that only a setting of these values has."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


class Writer:
    """Appends rows to files; made by `writer`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def append(self, experiment: str, row: dict[str, Any]) -> None:
        """Adds one run, so that it is on the disk as a whole or not at all."""
        path = self._folder / f"{experiment}.jsonl"
        _drop_cut_line(path)
        line = json.dumps(row, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n"
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def writer(folder: Path) -> Iterator[Writer]:
    """The one writer of a folder of results.

    Args:
        folder: of the files.

    Raises:
        ResultsError: another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(
                f"Another process writes to {folder}. Wait for it, or give --results."
            ) from error
        yield Writer(folder)


def _drop_cut_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
