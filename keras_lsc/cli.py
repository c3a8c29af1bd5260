"""The `keras-lsc` command: parses and prints; what it runs is `keras_lsc` itself.

It is started by `keras_lsc_command`, which chooses the Keras backend first.
"""

import fnmatch
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast

import keras
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from keras_lsc import datasets as tasks
from keras_lsc import demo as demonstration
from keras_lsc import zoo
from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.datasets.uea import find_problems
from keras_lsc.pretrainer import Mode
from keras_lsc.stability.measure import measure as measure_model
from keras_lsc.stability.radius import RadiusKind
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.targets import Target
from keras_lsc.stabilization import NotStabilizedError
from keras_lsc.stabilization import stabilize as stabilize_model
from keras_lsc.zoo.build import build_all, is_built
from keras_lsc.zoo.pages import card, write_pages
from keras_lsc.zoo.recipes import Recipe, read_recipes
from keras_lsc.zoo.registry import refuse

_EXPECTED_ERRORS = (
    DatasetUnavailableError,
    FloatingPointError,
    ImportError,
    NotStabilizedError,
    OSError,
    TypeError,
    ValueError,
)

app = typer.Typer(
    help="Measures and stabilises recurrent Keras networks by pre-training (arXiv 2308.12075).",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL.keras", help="A saved Keras model.")]
DataPath = Annotated[
    Path, typer.Argument(metavar="DATA.npy", help="Inputs of the model, (rows, steps, features).")
]
Samples = Annotated[int, typer.Option(help="Points (sequence, time step) at which to measure.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn at random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and all else to stderr.")]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="jax|tensorflow|torch",
        help="Keras backend. Default: KERAS_BACKEND, else Keras' configuration file, else the "
        "first of the three that is installed.",
    ),
]
TargetText = Annotated[
    str,
    typer.Option(
        metavar="TARGET",
        help='Radius wanted: "variance" (1/sqrt(2) in time and depth), a number, a pair '
        '"rho_t,rho_l", "unbalanced" or "variance-unbalanced".',
    ),
]
ModeText = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="scales|weights",
        help='"scales" moves one scale per weight matrix or gate block, "weights" every entry.',
    ),
]


def main() -> None:
    """Runs the command line of this process."""
    app(prog_name="keras-lsc")


@app.command()
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
    epochs: Annotated[int, typer.Option(help="Epochs of training from each start.")] = 3,
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
    a generated parity task. Radii and gains are measured as Keras initialises the network and
    after pre-training; then it is trained from both starts, all else equal.
    """
    with _errors_in_one_line():
        _check_backend(backend)
        _check_folder(output)
        if find_spec("matplotlib") is None:
            raise ImportError(
                'The demo draws with matplotlib; install it: pip install "keras-lsc[demo]"'
            )
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
        listener.say(f"Picture: {output}")
        if as_json:
            _print_json({**result.to_dict(), "picture": str(output)})


@app.command()
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
    with _errors_in_one_line():
        _check_backend(backend)
        report = measure_model(
            _load_model(model), _load_data(data), samples, seed, cast(RadiusKind, radius)
        )
        if as_json:
            _print_json(report.to_dict())
        else:
            typer.echo(report)


@app.command()
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
    with _errors_in_one_line():
        _check_backend(backend)
        _check_folder(output)
        if output.suffix != ".keras":
            raise ValueError(f"The output {output} must end in .keras, the format of the model.")
        loaded = _load_model(model)
        report = stabilize_model(
            loaded,
            _load_data(data),
            parse_target(target),
            tolerance=tolerance,
            mode=cast(Mode, mode),
            seed=seed,
        )
        _save(loaded, output)
        if as_json:
            _print_json({"report": report.to_dict(), "output": str(output)})
        else:
            typer.echo(report)
            typer.echo(f"Saved: {output}")


@app.command()
def datasets(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the datasets. Default: TFDS_DATA_DIR."),
    ] = None,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks of keras_lsc.datasets, their sizes, and whether their data is prepared.

    Nothing is fetched. A folder may hold a part of a dataset; the numbers are those it holds.
    """
    with _errors_in_one_line():
        _check_backend(backend)
        folder = chosen_data_dir(data_dir)
        rows = [describe_task(name, folder) for name in tasks.names()]
        if as_json:
            _print_json({"folder": str(folder), "datasets": rows})
        else:
            # Where there is no terminal rich would cut the table to 80 columns.
            Console(width=None if sys.stdout.isatty() else 120).print(_table_of_tasks(rows))
            for row in rows:
                if row["status"] == "in part":
                    files = (f"{n:,} {file}" for file, n in row["prepared"]["examples"].items())
                    typer.echo(f"{row['name']} is prepared in part: {', '.join(files)}.")
            typer.echo(f"Folder of the datasets: {folder}")


Pattern = Annotated[str, typer.Argument(help='Names, with wildcards: "lstm_*".')]
CheckpointName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a checkpoint.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the datasets. Default: TFDS_DATA_DIR.")
]
ZooFolder = Annotated[
    Path, typer.Option("--zoo", help="Folder with the recipes, the index and the checkpoints.")
]


@app.command("list")
def list_checkpoints(
    pattern: Pattern = "*",
    dataset: Annotated[str | None, typer.Option(help="Only of this dataset.")] = None,
    target: Annotated[str | None, typer.Option(help="Only of this target.")] = None,
    hidden: Annotated[bool, typer.Option(help="The tiny ones for tests as well.")] = False,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of the zoo."""
    with _errors_in_one_line():
        _check_backend(backend)
        filters: dict[str, Any] = {"dataset": dataset} if dataset else {}
        if target:
            filters["target"] = parse_target(target)
        names = zoo.list(pattern, hidden=hidden, **filters)
        if as_json:
            _print_json(names)
            return
        for name in names:
            typer.echo(name)


@app.command()
def info(name: CheckpointName, backend: Backend = None, as_json: AsJson = False) -> None:
    """Show what is known of a checkpoint: recipe, size, radii before and after."""
    with _errors_in_one_line():
        _check_backend(backend)
        known = zoo.info(name)
        if as_json:
            _print_json({**asdict(known), "recipe": known.recipe.to_dict()})
        else:
            typer.echo(card(known))


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names, with wildcards.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All checkpoints.")] = False,
    data_dir: DataDir = None,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Measure the radii of checkpoints again and compare them with their certificates.

    The exit code is 1 where a certificate is not met.
    """
    with _errors_in_one_line():
        _check_backend(backend)
        found = _chosen(names, everything, zoo.list(hidden=True))
        results = []
        for name in found:
            result = zoo.verify(name, data_dir=data_dir)
            results.append(result.to_dict())
            if not as_json:
                typer.echo(result)
        if as_json:
            _print_json(results)
    if not all(result["passed"] for result in results):
        raise typer.Exit(1)


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes, with wildcards.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recipes.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 1,
    folder: ZooFolder = Path("zoo"),
    backend: Backend = None,
) -> None:
    """Make checkpoints from the recipes in the folder of the zoo; those it has are left alone.

    It can be interrupted and called again. The exit code is 1 where a build failed.
    """
    with _errors_in_one_line():
        _check_backend(backend)
        recipes = read_recipes(folder)
        if not recipes:
            raise ValueError(f"There are no recipes in {folder}; --zoo names their folder.")
        chosen = [recipes[name] for name in _chosen(names, everything, list(recipes))]
        console = Console()
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            task = progress.add_task("building", total=len(chosen))
            progress.advance(task, sum(is_built(recipe, folder) for recipe in chosen))

            def finished(recipe: Recipe, problem: str | None) -> None:
                progress.advance(task)
                console.print(f"{recipe.name}: {problem or 'built'}", highlight=False, markup=False)

            failures = build_all(chosen, folder, jobs, finished)
    if failures:
        raise typer.Exit(1)


@app.command()
def pages(folder: ZooFolder = Path("zoo"), backend: Backend = None) -> None:
    """Write RESULTS.md and the cards of the checkpoints from their index."""
    with _errors_in_one_line():
        _check_backend(backend)
        count = write_pages(folder)
        typer.echo(f"{folder / 'RESULTS.md'} and {count} cards are written.")


def _chosen(names: list[str] | None, everything: bool, known: list[str]) -> list[str]:
    if everything:
        return known
    if not names:
        raise ValueError("Give the names of checkpoints, or --all.")
    chosen: list[str] = []
    for pattern in names:
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise refuse(pattern, known)
        chosen.extend(name for name in matching if name not in chosen)
    return chosen


def parse_target(text: str) -> Target:
    """Returns the target that a command line names.

    Args:
        text: a number, numbers parted by a comma, or a name.

    Returns:
        A float, a tuple of floats, or the text itself; whether it is a target is checked later.

    Example:
        >>> parse_target("0.9,0.4")
        (0.9, 0.4)
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else cast(tuple[float, float], numbers)


def describe_task(name: str, data_dir: Path) -> dict[str, Any]:
    """Returns what is known of a task, and what is prepared of its data, as JSON types.

    Args:
        name: of the task.
        data_dir: folder of the datasets.

    Returns:
        The fields of `TaskInfo`; "status", which is "generated", "prepared", "in part" or
        "absent"; and under "prepared" the folder, version, examples by file and bytes, or None.
    """
    info = tasks.info(name)
    content: dict[str, Any] = {**info.to_dict(), "prepared": None}
    if info.source is None:
        return {**content, "status": "generated"}
    if name == "uea":
        problems = find_problems(data_dir / "uea")
        return {**content, "status": "prepared" if problems else "absent", "problems": problems}
    found = tasks.prepared(name, data_dir)
    if found is None:
        return {**content, "status": "absent"}
    # A text is one example of many tokens.
    expected = sum(count or 0 for count in info.examples.values())
    is_part = info.kind != "text" and sum(found.examples.values()) < expected
    content["prepared"] = {
        "folder": str(found.folder),
        "version": found.version,
        "examples": found.examples,
        "bytes": found.size,
    }
    return {**content, "status": "in part" if is_part else "prepared"}


def _table_of_tasks(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for title in ("input", "outputs", "train / validation / test"):
        table.add_column(title, justify="right")
    table.add_column("data")
    table.add_column("MB", justify="right")
    for row in rows:
        sizes = [row["examples"][split] for split in ("train", "validation", "test")]
        found = row["prepared"]
        table.add_row(
            row["name"],
            " x ".join("?" if size is None else str(size) for size in row["shape"]),
            "?" if row["outputs"] is None else f"{row['outputs']:,}",
            " / ".join("?" if size is None else f"{size:,}" for size in sizes),
            row["status"],
            f"{found['bytes'] / 1e6:.0f}" if found else "",
        )
    return table


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


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except _EXPECTED_ERRORS as error:
        typer.echo(f"keras-lsc: error: {error}", err=True)
        raise typer.Exit(1) from error


def _check_backend(name: str | None) -> None:
    current = keras.backend.backend()
    if name is not None and name != current:
        raise ValueError(
            f"Keras already runs on {current} in this process, so it cannot change to {name!r}. "
            "Start the keras-lsc command anew, or set KERAS_BACKEND."
        )


def _check_folder(output: Path) -> None:
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of the output {output} does not exist; make it first.")


def _load_model(path: Path) -> keras.Model:
    _check_file(path, "model", "a model saved as .keras")
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _load_data(path: Path) -> np.ndarray:
    _check_file(path, "data", "an array saved with numpy.save")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"The data file {path} is not an array of numbers saved with numpy.save: {error}"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"The data file {path} is an archive of arrays; expected a single .npy.")
    return array


def _check_file(path: Path, what: str, expected: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"The {what} file {path} does not exist; expected {expected}.")


def _save(model: keras.Model, path: Path) -> None:
    # Written beside it first: an error halfway leaves no broken file, nor spoils a former one.
    with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        written = Path(folder) / path.name
        model.save(written)
        os.replace(written, path)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))
