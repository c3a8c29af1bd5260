"""What is known of `keras_lsc` without importing it, which would import Keras."""

import importlib.util
import json
import os
import runpy
from pathlib import Path
from typing import Any


def folder() -> Path:
    """The folder of the package that would be imported."""
    spec = importlib.util.find_spec("keras_lsc")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def version() -> str:
    """The version of that package.

    It is read from its file: the metadata of an installation know only the version that was
    installed, which is another one for a checkout that has moved on.
    """
    return str(runpy.run_path(str(folder() / "version.py"))["__version__"])


def recipes() -> dict[str, dict[str, Any]]:
    """The recipes of the zoo's checkpoints by name, as its indices have them; nothing is checked.

    An index that cannot be read has none: this is for completion, which has nowhere to complain.
    """
    chosen = os.environ.get("KERAS_LSC_ZOO")
    known: dict[str, dict[str, Any]] = {}
    for place in (folder() / "zoo" / "installed", folder().parent / "zoo", chosen):
        if place is None:
            continue
        try:
            entries = json.loads((Path(place) / "index.json").read_bytes())
            found = {name: entry["certificate"]["recipe"] for name, entry in entries.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
        known = {**found, **known}
    return known
