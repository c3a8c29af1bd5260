"""The `keras-lsc` command: parses and prints; what it runs is `keras_lsc` itself.

It is started by `keras_lsc_command`, which chooses the Keras backend first. A group of commands is
a module; they are named here, in the order in which `--help` lists them.
"""

import typer

from keras_lsc.cli import comparison, data, models, training, zoo
from keras_lsc.cli.shared import parse_target

__all__ = ["app", "main", "parse_target"]

app = typer.Typer(
    help="Measures and stabilises recurrent Keras networks by pre-training (arXiv 2308.12075).",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(models.demo)
app.command()(models.measure)
app.command()(models.stabilize)
app.command()(training.fine_tune)
app.command("compare-backends")(comparison.compare)
app.command()(data.datasets)
app.command("list")(zoo.list_checkpoints)
app.command()(zoo.info)
app.command()(zoo.verify)
app.command()(zoo.build)
app.command()(zoo.pages)


def main() -> None:
    """Runs the command line of this process."""
    app(prog_name="keras-lsc")
