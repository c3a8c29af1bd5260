"""Commands on models: demo, measure, stabilize."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_lsc import demo as demonstration
from keras_lsc.cli.shared import (
    AsJson,
    Backend,
    DataPath,
    ModelPath,
    ModeText,
    Samples,
    Seed,
    TargetText,
    check_backend,
    check_model_output,
    check_picture_output,
    load_data,
    load_model,
    parse_target,
    print_json,
    save_model,
)
from keras_lsc.pretrainer import Mode
from keras_lsc.stability.measure import measure as measure_model
from keras_lsc.stability.radius import RadiusKind
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stabilization import stabilize as stabilize_model


def demo(
    cell: Annotated[
        str,
        typer.Option(
            metavar="|".join(demonstration.CELLS),
            help="Activation of a simple recurrent layer, or a gated cell.",
        ),
    ] = "sigmoid",
    depth: Annotated[int, typer.Option(help="Number of recurrent layers.")] = 5,
    units: Annotated[int, typer.Option(help="Units of each layer.")] = 64,
    target: TargetText = "variance",
    mode: ModeText = "scales",
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs of training from each start. Default: 3 of MNIST, 12 of digits."),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(help="Sequences, 15 % of them for validation. Default: 20000; torch 10000."),
    ] = None,
    seed: Seed = 0,
    download: Annotated[
        bool, typer.Option(help="Fetch MNIST when it is not on this computer.")
    ] = True,
    backend: Backend = None,
    output: Annotated[
        Path, typer.Option(metavar="PICTURE.png", help="Where the picture is written.")
    ] = Path("demo.png"),
    as_json: AsJson = False,
) -> None:
    """Stabilise a deep network and train it from both starts, with one picture as the result.

    The network reads sequential MNIST, one row of pixels a step, or where MNIST is not to be had
    the small digits that come with scikit-learn. Radii and gains are measured as Keras
    initialises the network and after pre-training; then it is trained from both starts, all else
    equal.
    """
    check_backend(backend)
    check_picture_output(output)
    listener = _Printer(Console(stderr=as_json))
    settings = demonstration.DemoSettings(
        cell=cell,
        depth=depth,
        units=units,
        target=parse_target(target),
        mode=cast(Mode, mode),
        epochs=epochs,
        examples=examples,
        seed=seed,
        download=download,
    )
    result = demonstration.run(settings, listener)
    demonstration.draw(result, output)
    for name, title in (("default", "default"), ("stabilized", "stabilised")):
        curve = result.curves[name]
        listener.say(
            f"Validation accuracy, {title}: {curve.validation[-1]:.3f} "
            f"({curve.seconds:.0f} s of training)"
        )
    listener.say(
        "Look at how soon each curve leaves chance: the two starts differ only in the radii on the "
        "left."
    )
    listener.say(f"Picture: {output}")
    if as_json:
        print_json({**result.to_dict(), "picture": str(output)})


def measure(
    model: ModelPath,
    data: DataPath,
    samples: Samples = 64,
    seed: Seed = 0,
    radius: Annotated[
        str, typer.Option(metavar="spectral|rms|norm", help="Which radius to measure.")
    ] = "spectral",
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Measure radius and gain of every transition of a saved model; the model is not changed."""
    check_backend(backend)
    report = measure_model(
        load_model(model), load_data(data), samples, seed, cast(RadiusKind, radius)
    )
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo(report)


def stabilize(
    model: ModelPath,
    data: DataPath,
    output: Annotated[
        Path,
        typer.Option(metavar="OUT.keras", help="Where the stabilised model is written."),
    ],
    target: TargetText = "variance",
    mode: ModeText = "scales",
    tolerance: Annotated[
        float, typer.Option(help="Largest |mean radius - target| of a transition to accept.")
    ] = 0.02,
    seed: Seed = 0,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train a saved model until every transition has its target radius, and save it.

    Nothing is written when the tolerance is not met.
    """
    check_backend(backend)
    check_model_output(output, model, data)
    loaded = load_model(model)
    report = stabilize_model(
        loaded,
        load_data(data),
        parse_target(target),
        tolerance=tolerance,
        mode=cast(Mode, mode),
        seed=seed,
        verbose=0 if as_json else "auto",
    )
    save_model(loaded, output)
    if as_json:
        print_json({"report": report.to_dict(), "output": str(output)})
    else:
        typer.echo(report)
        typer.echo(f"Saved: {output}")


class _Printer:
    """Prints what the demonstration tells, to a terminal or a file."""

    def __init__(self, console: Console):
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, title: str, report: StabilityReport) -> None:
        self._console.print(f"\n{title}", style="bold", markup=False, highlight=False)
        self.say(f"{report}\n")

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[remark]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(title, total=total, remark="")
            yield lambda remark: progress.update(bar, advance=1, remark=remark)
