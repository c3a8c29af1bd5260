"""The command that compares: compare-backends."""

from pathlib import Path
from typing import Annotated

import typer

from keras_lsc import plot as pictures
from keras_lsc.cli.shared import (
    AsJson,
    Backend,
    CheckpointOrFile,
    DataDir,
    Seed,
    TaskOptions,
    check_backend,
    check_picture_output,
    parse_options,
    print_json,
)
from keras_lsc.comparison import BACKENDS, compare_backends


def compare(
    name: CheckpointOrFile,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Task whose validation sequences are the batch. Default: those of the "
            "checkpoint's certificate where prepared, else random inputs."
        ),
    ] = None,
    option: TaskOptions = None,
    data_dir: DataDir = None,
    backends: Annotated[
        str, typer.Option(metavar="A,B,...", help="Which, in this order.")
    ] = ",".join(BACKENDS),
    batch_size: Annotated[int, typer.Option(help="Sequences of the batch.")] = 32,
    samples: Annotated[
        int, typer.Option(help="Points (sequence, time step) at which radii are measured.")
    ] = 256,
    repeats: Annotated[int, typer.Option(help="Timed calls of each step.")] = 20,
    timeout: Annotated[float, typer.Option(help="Seconds until a backend is given up.")] = 900.0,
    seed: Seed = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="PICTURE.png", help="Where a picture is written.")
    ] = None,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Run one checkpoint on every installed backend: differences, times, memory.

    Each backend runs in a process of its own, on the device that it chooses, with the same
    weights and the same batch. A backend that is not installed, or fails, is a row with the
    reason. The exit code is 1 where one failed, or none is installed.
    """
    check_backend(backend)
    if plot is not None:
        check_picture_output(plot, Path(name))
    comparison = compare_backends(
        name,
        dataset=dataset,
        options=parse_options(option),
        backends=backends.split(","),
        batch_size=batch_size,
        samples=samples,
        repeats=repeats,
        seed=seed,
        timeout=timeout,
        data_dir=data_dir,
    )
    if as_json:
        print_json(comparison.to_dict())
    else:
        typer.echo(comparison)
    if plot is not None and comparison.ran:
        axes = pictures.backends(comparison)
        axes[0].figure.savefig(plot)
        typer.echo(f"Picture: {plot}", err=as_json)
    if not comparison.ran or any(row.failed and not row.is_absent for row in comparison.rows):
        raise typer.Exit(1)
