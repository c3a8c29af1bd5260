"""Files: written whole or not at all, and known by their sha256."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the place of a new file, which becomes `path` where nothing was raised.

    Args:
        path: Path of the file; an older one is replaced.

    Yields:
        A path in the same folder, with the same suffix, for the caller to write.
    """
    # Two processes may write the same file.
    new = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield new
        to_disk(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, content: Any, sort_keys: bool = False) -> None:
    """Writes a file of JSON, whole or not at all.

    Args:
        path: Path of the file; an older one is replaced.
        content: what it says.
        sort_keys: whether keys are sorted, so that equal contents are equal files.
    """
    with replacing(path) as new:
        text = json.dumps(content, indent=1, sort_keys=sort_keys)
        new.write_text(text + "\n", encoding="utf-8")


def to_disk(path: Path) -> None:
    """Waits until the disk has a file, lest a rename that outlives a crash name an empty one."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Returns the sha256 of a content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_intact(path: Path, expected: str) -> bool:
    """Returns whether there is such a file, and its sha256 is the expected one."""
    return path.is_file() and sha256(path) == expected


def array_identity(x: np.ndarray) -> dict[str, Any]:
    """Returns shape, dtype and sha256 of an array as JSON types: which data it was."""
    digest = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
    return {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": digest}
