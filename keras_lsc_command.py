"""Starts the `keras-lsc` command on the Keras backend that was asked for.

Importing anything of `keras_lsc` imports Keras, which then keeps its backend for the life of the
process. So the backend is chosen here, outside of the package, before that.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "tensorflow", "torch")


def main() -> None:
    """Chooses the backend, then runs the command line of `keras_lsc.cli`."""
    problem = choose_backend(sys.argv[1:])
    if problem is None and not (_is_installed("typer") and _is_installed("rich")):
        problem = 'the command needs typer and rich; install them: pip install "keras-lsc[cli]"'
    if problem is not None:
        sys.exit(f"keras-lsc: error: {problem}")
    try:
        from keras_lsc.cli import main as run

        run()
    except KeyboardInterrupt:
        # Importing a backend takes seconds in which a command may be broken off as well.
        sys.stderr.write("keras-lsc: interrupted\n")
        sys.exit(130)


def choose_backend(arguments: list[str]) -> str | None:
    """Sets KERAS_BACKEND to what follows `--backend`, or to a backend that is installed.

    Without the option Keras' own choice holds (KERAS_BACKEND, or its configuration file); where
    there is none, the first installed of `BACKENDS` is taken.

    Args:
        arguments: of the command line.

    Returns:
        What is wrong with the choice, or None.
    """
    name = _asked_for(arguments) or os.environ.get("KERAS_BACKEND") or _configured()
    if not name:
        installed = [backend for backend in BACKENDS if _is_installed(backend)]
        if not installed:
            return (
                f"none of the backends {', '.join(BACKENDS)} is installed; "
                'install one: pip install "keras-lsc[jax]"'
            )
        name = installed[0]
    if name not in BACKENDS:
        return f"unknown backend {name!r}; expected one of {', '.join(BACKENDS)}"
    if not _is_installed(name):
        return f'the backend {name} is not installed; install it: pip install "keras-lsc[{name}]"'
    os.environ["KERAS_BACKEND"] = name
    # TensorFlow tells of its CPU instructions at every start, also when only its data are read.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    return None


def _asked_for(arguments: list[str]) -> str | None:
    # Of an option that is given twice the last holds, as in the commands themselves.
    name = None
    for position, argument in enumerate(arguments):
        if argument == "--backend":
            name = "".join(arguments[position + 1 : position + 2])
        elif argument.startswith("--backend="):
            name = argument.removeprefix("--backend=")
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


if __name__ == "__main__":
    main()
