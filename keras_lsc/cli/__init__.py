"""The `keras-lsc` command: parses and prints; what it runs is `keras_lsc` itself.

It is started by `keras_lsc_command`, which chooses the Keras backend first. A group of commands is
a module; they are named here, in the order in which `--help` lists them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from keras_lsc.cli import comparison, data, models, training, zoo
from keras_lsc.cli.shared import errors_in_one_line, parse_target

__all__ = ["app", "main", "parse_target"]

app = typer.Typer(
    help="Measures and stabilises recurrent Keras networks by pre-training (arXiv 2308.12075).",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _add(command: Callable[..., None], name: str | None = None) -> None:
    @wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        with errors_in_one_line():
            command(*args, **options)

    app.command(name)(guarded)


_add(models.demo)
_add(models.measure)
_add(models.stabilize)
_add(training.fine_tune)
_add(comparison.compare, "compare-backends")
_add(data.datasets)
_add(zoo.list_checkpoints, "list")
_add(zoo.info)
_add(zoo.verify)
_add(zoo.build)
_add(zoo.pages)


def main() -> None:
    """Runs the command line of this process."""
    app(prog_name="keras-lsc")
