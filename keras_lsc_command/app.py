"""The application: its commands, and what all of them do alike."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import wraps
from inspect import Parameter, signature
from itertools import groupby
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from keras_lsc_command import backends, comparison, data, models, package, training, zoo
from keras_lsc_command.answer import Answer
from keras_lsc_command.errors import errors_in_few_lines
from keras_lsc_command.options import AsJson, Backend


class _InGroups(TyperGroup):
    """Lists the commands under the headings of their groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands: list[Any] = [self.commands[name] for name in self.list_commands(ctx)]
        for title, group in groupby(commands, lambda one: one.rich_help_panel):
            with formatter.section(title):
                formatter.write_dl(
                    [(str(one.name), one.get_short_help_str(limit=90)) for one in group]
                )


app = typer.Typer(
    cls=_InGroups,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    # Rich's frames would double the time that help takes.
    rich_markup_mode=None,
    # An error that is not told in a line is ours, and its traceback is to be copied.
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"keras-lsc {package.version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Measure and stabilise recurrent Keras networks by pre-training (arXiv 2308.12075).

    Start with "keras-lsc demo". Every command has --backend, and --json for programs.
    """
    del version


def _add(group: str, command: Callable[..., Answer], name: str | None = None) -> None:
    """Adds a command, with the options --backend and --json, which are the same in all."""

    @wraps(command)
    def run(*, backend: str | None, as_json: bool, **arguments: Any) -> None:
        with errors_in_few_lines():
            backends.choose(backend)
            # Whatever a library or the user's own module prints, JSON alone is on stdout.
            with redirect_stdout(sys.stderr) if as_json else nullcontext():
                answer = command(**arguments)
            if as_json:
                typer.echo(json.dumps(answer.content, indent=2))
            else:
                answer.show()
        if answer.failed:
            raise typer.Exit(1)

    own = signature(command)
    added = [
        Parameter("backend", Parameter.KEYWORD_ONLY, default=None, annotation=Backend),
        Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson),
    ]
    parameters = [*own.parameters.values(), *added]
    # Typer reads what a command takes from here.
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=parameters, return_annotation=None
    )
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    app.command(name, rich_help_panel=group)(run)


_MODELS, _ZOO = "Your models", "The zoo of checkpoints"
_add(_MODELS, models.demo)
_add(_MODELS, models.measure)
_add(_MODELS, models.diagnose)
_add(_MODELS, models.stabilize)
_add(_MODELS, training.fine_tune)
_add(_MODELS, comparison.compare, "compare-backends")
_add(_MODELS, data.datasets)
_add(_ZOO, zoo.list_checkpoints, "list")
_add(_ZOO, zoo.info)
_add(_ZOO, zoo.export)
_add(_ZOO, zoo.push)
_add(_ZOO, zoo.verify)
_add(_ZOO, zoo.build)
_add(_ZOO, zoo.train)
_add(_ZOO, zoo.pages)
