"""The versions and the machine that figures were measured with."""

import os
import platform
import subprocess
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc


def environment() -> dict[str, Any]:
    """What figures were measured with."""
    backend = keras.backend.backend()
    package = {"tensorflow": "tensorflow-cpu"}.get(backend, backend)
    return {
        "backend": backend,
        "backend_version": version(package),
        "keras": keras.version(),
        "keras_lsc": keras_lsc.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "library_tree": _library_tree(),
    }


@cache
def _library_tree() -> str | None:
    """Git's name of the folder `keras_lsc`, "+" where files differ from it; None outside of Git.

    It outlives a rebase, unlike that of a commit: `git log --format=%H` with `git rev-parse
    COMMIT:keras_lsc` finds the commits that have it.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return found.stdout.strip()

    tree = git("rev-parse", "--verify", "--quiet", "--short=12", "HEAD:keras_lsc")
    return tree + ("+" if git("status", "--porcelain", ":/keras_lsc") else "") if tree else None
