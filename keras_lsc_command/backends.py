"""The Keras backend of a command, chosen before anything imports Keras, which then keeps it."""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "tensorflow", "torch")


def choose(asked: str | None) -> None:
    """Sets KERAS_BACKEND for this process.

    Args:
        asked: Backend that `--backend` names, or None.

    Raises:
        ValueError: As `find` raises it, or Keras already runs on another backend.
        ImportError: As `find` raises it, or the backend cannot be imported.
    """
    if "keras" in sys.modules:
        import keras

        current = keras.backend.backend()
        if asked not in (None, current):
            raise ValueError(
                f"Keras already runs on {current} in this process, so it cannot change to "
                f"{asked!r}. Start the keras-lsc command anew, or set KERAS_BACKEND."
            )
        return
    os.environ["KERAS_BACKEND"] = find(asked)
    # TensorFlow tells of its CPU instructions at every start, also when only its data are read.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import keras

    # With it Keras adds to the message of an error which layer was called with what.
    keras.config.disable_traceback_filtering()


def find(asked: str | None) -> str:
    """Returns the backend asked for, or one that is installed.

    Without `asked` Keras' own choice holds (KERAS_BACKEND, or its configuration file); where there
    is none, the first installed of `BACKENDS` is taken.

    Args:
        asked: Name of a backend, or None.

    Raises:
        ValueError: The name is not one of `BACKENDS`.
        ImportError: The backend is not installed, or none is.
    """
    name = asked
    if name is None:
        name = os.environ.get("KERAS_BACKEND") or _configured()
    if name is None:
        name = next(filter(_is_installed, BACKENDS), None)
    if name is None:
        raise ImportError(
            f"none of the backends {', '.join(BACKENDS)} is installed; "
            'install one: pip install "keras-lsc[jax]"'
        )
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(BACKENDS)}")
    if not _is_installed(name):
        raise ImportError(
            f'the backend {name} is not installed; install it: pip install "keras-lsc[{name}]"'
        )
    return name


def _configured() -> str | None:
    """The backend in Keras' configuration file; None where there is none that Keras would read."""
    home = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
    try:
        content = json.loads((Path(home) / "keras.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    name = content.get("backend") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
