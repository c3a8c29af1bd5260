"""The command that compares: compare-backends."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_lsc_command import completion
from keras_lsc_command.answer import Answer
from keras_lsc_command.backends import BACKENDS
from keras_lsc_command.imports import import_modules
from keras_lsc_command.options import (
    CheckpointOrFile,
    DataDir,
    Imports,
    Seed,
    TaskOptions,
    parse_options,
)

if TYPE_CHECKING:
    from keras_lsc.comparison import BackendComparison, Timing

# The name of an input transition; a layer with several has numbers behind them.
_INPUT = re.compile(r"\.input(\[.*\])?$")


def compare(
    name: CheckpointOrFile,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Task whose validation sequences are the batch. Default: those of the "
            "checkpoint's certificate where prepared, else random inputs.",
            autocompletion=completion.tasks,
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
    imports: Imports = None,
) -> Answer:
    """Run one checkpoint on every installed backend: differences, times, memory.

    Each backend runs in a process of its own, on the device that it chooses, with the same
    weights and the same batch. A backend that is not installed, or fails, is a row with the
    reason. The exit code is 1 where one failed, or none is installed.
    """
    modules = import_modules(imports)
    from keras_lsc import plot as pictures
    from keras_lsc.comparison import compare_backends
    from keras_lsc_command.files import check_picture_output

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
        imports=[module.__name__ for module in modules],
    )
    if plot is not None and comparison.ran:
        axes = pictures.backends(comparison)
        axes[0].figure.savefig(plot)
    is_drawn = plot is not None and bool(comparison.ran)

    def shown() -> None:
        show(comparison)
        if is_drawn:
            typer.echo(f"Picture: {plot}")

    failed = not comparison.ran or any(row.failed and not row.is_absent for row in comparison.rows)
    return Answer(comparison.to_dict(), shown, failed)


def show(comparison: "BackendComparison") -> None:
    """Prints a comparison."""
    from keras_lsc_command import tables

    console = tables.console()
    console.print(f"{comparison.model}: {comparison.data}")
    if comparison.inputs:
        shape = " x ".join(map(str, comparison.inputs["shape"]))
        console.print(f"batch {shape}, labels {comparison.inputs['labels']}")
    if comparison.ran:
        console.print()
        _show_figures(comparison)
        console.print()
        machine = comparison.machine
        console.print(
            f"Radii of {comparison.samples} points, seed {comparison.seed}. Steps: median, and "
            f"quartiles below. {machine['cores']} cores, load {machine['load']} before, "
            f"{machine['system']}."
        )
    for row in comparison.rows:
        if row.failed:
            typer.echo(f"{row.backend}: {row.failed}")


def _show_figures(comparison: "BackendComparison") -> None:
    """A column for each backend: there are few of them, and many figures."""
    from keras_lsc_command import tables
    from keras_lsc_command.tables import Column

    first, *others = comparison.ran
    names = ["version", "device", "radii in time, depth"]
    if others:
        names += [
            *(f"difference to {first.backend}", "  largest of a radius"),
            *("  largest of an output", "  norm of gradients, rel."),
        ]
    for step in ("training step", "pre-training step"):
        names += [step, "", "  compilation"]
    names += ["peak memory", "  of the device"]
    columns = [Column("backend", names)]
    for row in comparison.ran:
        assert row.training is not None
        assert row.pretraining is not None
        # Input transitions are not what pre-training drives.
        radii = [radius for name, radius in row.radii.items() if not _INPUT.search(name)]
        differences = (row.radius_difference, row.output_difference, row.gradient_difference)
        cells = (
            row.versions.get(row.backend, "?"),
            str(row.device),
            f"{min(radii):.3f} to {max(radii):.3f}" if radii else "-",
            *(("", *map(_difference, differences)) if others else ()),
            *_times(row.training),
            *_times(row.pretraining),
            _gigabytes(row.host_memory),
            _gigabytes(row.device_memory),
        )
        columns.append(Column(row.backend, cells, is_number=True))
    console = tables.console()
    console.print(tables.table(columns, console.width))


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _times(timing: "Timing") -> tuple[str, str, str]:
    values = (1e3 * seconds for seconds in (timing.median, timing.low, timing.high))
    median, low, high = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{median} ms", f"{low} to {high}", f"{timing.compile:.1f} s"


def _gigabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2f} GB"
