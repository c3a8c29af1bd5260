"""Commands on models: demo, measure, diagnose, stabilize."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from keras_lsc_command import completion
from keras_lsc_command.answer import Answer
from keras_lsc_command.imports import import_modules
from keras_lsc_command.options import (
    DataPath,
    Imports,
    ModelPath,
    ModeText,
    Samples,
    Seed,
    TargetText,
    parse_target,
)

if TYPE_CHECKING:
    from keras_lsc import StabilityReport

CELLS = ("sigmoid", "tanh", "relu", "lstm", "gru")
RADII = ("spectral", "rms", "norm")
METHODS = (
    "lsc",
    "level",
    "flossing",
    "auto",
    "orthogonal",
    "glorot",
    "he",
    "identity",
    "chrono",
    "lsuv",
    "autoinit",
    "mean-field",
    "fluctuation",
    "spiking-conditions",
    "gradinit",
)


def demo(
    cell: Annotated[
        str,
        typer.Option(
            metavar="|".join(CELLS),
            help="Activation of a simple recurrent layer, or a gated cell.",
            autocompletion=completion.of(*CELLS),
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
    output: Annotated[
        Path, typer.Option(metavar="PICTURE.png", help="Where the picture is written.")
    ] = Path("demo.png"),
) -> Answer:
    """Stabilise a deep network and train it from both starts, with a picture as the result.

    The network reads sequential MNIST, one row of pixels a step, or where MNIST is not to be had
    the small digits that come with scikit-learn. Radii and gains are measured as Keras
    initialises the network and after pre-training; then it is trained from both starts, all else
    equal.
    """
    from keras_lsc import demo as demonstration
    from keras_lsc_command.files import check_picture_output

    check_picture_output(output)
    listener = _Printer()
    settings = demonstration.DemoSettings(
        cell=cell,
        depth=depth,
        units=units,
        target=parse_target(target),
        mode=cast(Any, mode),
        epochs=epochs,
        examples=examples,
        seed=seed,
        download=download,
    )
    result = demonstration.run(settings, listener)
    demonstration.draw(result, output)

    def show() -> None:
        for name, title in (("default", "default"), ("stabilized", "stabilised")):
            curve = result.curves[name]
            listener.say(
                f"Validation accuracy, {title}: {curve.validation[-1]:.3f} "
                f"({curve.seconds:.0f} s of training)"
            )
        listener.say(
            "Look at how soon each curve leaves chance: the two starts differ only in the radii "
            "on the left."
        )
        typer.echo(f"Picture: {output}")

    return Answer({**result.to_dict(), "picture": str(output)}, show)


def measure(
    model: ModelPath,
    data: DataPath,
    samples: Samples = 64,
    seed: Seed = 0,
    radius: Annotated[
        str,
        typer.Option(
            metavar="|".join(RADII),
            help="Which radius to measure.",
            autocompletion=completion.of(*RADII),
        ),
    ] = "spectral",
    imports: Imports = None,
) -> Answer:
    """Measure radius and gain of every transition of a saved model; the model is not changed."""
    import_modules(imports)
    import keras_lsc
    from keras_lsc_command.files import load_data, load_model

    report = keras_lsc.measure(load_model(model), load_data(data), samples, seed, cast(Any, radius))
    return Answer(report.to_dict(), lambda: _show(report))


def diagnose(
    model: ModelPath,
    data: DataPath,
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="Y.npy",
            help="Targets. With them the gradient is that of the loss, and the learning rate is "
            "tried.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Name of a loss of Keras, for the targets, such as mse."),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="Name of an optimizer of Keras.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="Learning rate to try.")] = 0.001,
    samples: Annotated[int, typer.Option(help="Sequences that are looked at.")] = 64,
    seed: Seed = 0,
    radii: Annotated[bool, typer.Option(help="Measure the radii as well.")] = True,
    imports: Imports = None,
) -> Answer:
    """Say what is wrong with a saved model, from which layer on, and what to do.

    The first line is the verdict. The exit code is 1 where something is wrong.
    """
    import_modules(imports)
    import keras_lsc
    from keras_lsc_command.files import compile_for_trial, load_data, load_model

    loaded, x = load_model(model), load_data(data)
    y = None if targets is None else load_data(targets)
    if (targets is None) != (loss is None):
        raise ValueError("--targets and --loss belong together: give both of them, or none.")
    if loss is not None:
        compile_for_trial(loaded, loss, optimizer, learning_rate)
    found = keras_lsc.diagnose(loaded, x, y, samples=samples, seed=seed, radii=radii)
    return Answer(found.to_dict(), lambda: typer.echo(str(found)), failed=not found.is_healthy)


def stabilize(
    model: ModelPath,
    data: DataPath,
    output: Annotated[
        Path,
        typer.Option(metavar="OUT.keras", help="Where the stabilised model is written."),
    ],
    target: TargetText = "variance",
    mode: ModeText = "scales",
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help=f"Pre-training of radii (lsc), or another: {', '.join(METHODS[1:])}.",
            autocompletion=completion.of(*METHODS),
        ),
    ] = "lsc",
    targets: Annotated[
        Path | None,
        typer.Option(metavar="Y.npy", help='Targets, of a method that needs labels ("gradinit").'),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Name of a loss of Keras, for the targets, such as mse."),
    ] = None,
    growth: Annotated[
        float | None,
        typer.Option(help='Of "level": growth of the energy from a layer to the one below.'),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help='Largest |mean radius - target| to accept; of "level" the largest distance of '
            "an energy. Default: 0.02, and 0.05."
        ),
    ] = None,
    max_updates: Annotated[
        int, typer.Option(help="Updates after which pre-training gives up.")
    ] = 400,
    seed: Seed = 0,
    imports: Imports = None,
) -> Answer:
    """Stabilise a saved model, and save it.

    Pre-trains it until every transition has its target radius; or, with --method level, scales its
    layers until the gradient has the same energy at every layer; or, with --method auto, does one
    of both or leaves it alone, and says why. The other methods are those of the guide "The methods
    of others".

    Nothing is written when the tolerance is not met.
    """
    import_modules(imports)
    import keras_lsc
    from keras_lsc_command import tables
    from keras_lsc_command.files import (
        check_model_output,
        compile_for_trial,
        load_data,
        load_model,
        save_model,
    )

    check_model_output(output, model, data)
    loaded, x, wanted = load_model(model), load_data(data), parse_target(target)
    y = None if targets is None else load_data(targets)
    if (targets is None) != (loss is None):
        raise ValueError("--targets and --loss belong together: give both of them, or none.")
    if loss is not None:
        compile_for_trial(loaded, loss, "adam", 0.001)
    before = keras_lsc.measure(loaded, x, seed=seed)
    after = keras_lsc.stabilize(
        loaded,
        x,
        wanted,
        y=y,
        method=method,
        growth=growth,
        tolerance=tolerance,
        mode=cast(Any, mode),
        max_updates=max_updates,
        samples=None if method == "lsc" else before.samples,
        seed=seed,
    )
    save_model(loaded, output)

    def show() -> None:
        console = tables.console()
        targets = after.wanted(wanted) if method == "lsc" else {}
        console.print(tables.change(before, after, targets, console.width))
        if after.gradient is not None:
            console.print(tables.energies(before.gradient, after.gradient, console.width))
        for note in after.notes:
            console.print(note)
        typer.echo(f"Saved: {output}")

    content = {"before": before.to_dict(), "report": after.to_dict(), "output": str(output)}
    return Answer(content, show)


def _show(report: "StabilityReport") -> None:
    from keras_lsc_command import tables

    console = tables.console()
    if report.transitions:
        console.print(tables.report(report, console.width))
    if report.gradient is not None:
        console.print(tables.energies(None, report.gradient, console.width))
    for note in report.notes:
        console.print(note)


class _Printer:
    """Prints what the demonstration tells, as it does it."""

    def say(self, text: str) -> None:
        from keras_lsc_command import tables

        tables.console().print(text)

    def show(self, title: str, report: "StabilityReport") -> None:
        typer.echo()
        typer.secho(title, bold=True)
        _show(report)
        typer.echo()

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        from keras_lsc_command.bar import bar

        with bar(title, total) as advance:
            yield advance
