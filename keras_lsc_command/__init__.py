"""The `keras-lsc` command: parses and prints; what it runs is `keras_lsc` itself.

It stands beside `keras_lsc`, not in it: whatever is imported of that package imports Keras and a
backend, which takes seconds, and Keras then keeps its backend for the life of the process. So the
commands import within their functions, when they run and their backend is chosen, and help,
version and completion are there at once.

A group of commands is a module; `app` names them, in the order in which `--help` lists them.
"""

import importlib.util
import sys


def main() -> None:
    """Runs the command line of this process."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"keras-lsc: error: the command needs {' and '.join(missing)}; "
            'install what it needs: pip install "keras-lsc[cli]"'
        )
    try:
        from keras_lsc_command.app import app

        app(prog_name="keras-lsc")
    except KeyboardInterrupt:
        sys.stderr.write("keras-lsc: interrupted\n")
        sys.exit(130)
