"""What the commands share: options, errors in one line, files read and written."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import keras
import numpy as np
import typer

from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.stability.targets import Target
from keras_lsc.stabilization import NotStabilizedError

_EXPECTED_ERRORS = (
    DatasetUnavailableError,
    FloatingPointError,
    ImportError,
    NotStabilizedError,
    OSError,
    TypeError,
    ValueError,
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
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the datasets. Default: TFDS_DATA_DIR.")
]
CheckpointOrFile = Annotated[
    str,
    typer.Argument(
        metavar="NAME|MODEL.keras", help="Name of a checkpoint, or a saved Keras model."
    ),
]
TaskOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Option of the task, such as length=20; can be given several times.",
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


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Prints an expected error as one line, and exits with code 1."""
    try:
        yield
    except _EXPECTED_ERRORS as error:
        typer.echo(f"keras-lsc: error: {error}", err=True)
        raise typer.Exit(1) from error


def check_backend(name: str | None) -> None:
    """Raises ValueError where another backend than the asked one already runs."""
    current = keras.backend.backend()
    if name is not None and name != current:
        raise ValueError(
            f"Keras already runs on {current} in this process, so it cannot change to {name!r}. "
            "Start the keras-lsc command anew, or set KERAS_BACKEND."
        )


def check_folder(output: Path) -> None:
    """Raises FileNotFoundError where there is no folder to write the output to."""
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of the output {output} does not exist; make it first.")


def check_model_file(output: Path) -> None:
    """Raises ValueError where a file for a model does not end in .keras."""
    if output.suffix != ".keras":
        raise ValueError(f"The output {output} must end in .keras, the format of the model.")


def load_model(path: Path) -> keras.Model:
    """Loads a saved model, without running code of it."""
    _check_file(path, "model", "a model saved as .keras")
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def load_data(path: Path) -> np.ndarray:
    """Loads an array that numpy.save wrote."""
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


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model, in one piece or not at all."""
    # Written beside it first: an error halfway leaves no broken file, nor spoils a former one.
    with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        written = Path(folder) / path.name
        model.save(written)
        os.replace(written, path)


def print_json(content: Any) -> None:
    """Prints JSON types."""
    typer.echo(json.dumps(content, indent=2))


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


def parse_options(given: list[str] | None) -> dict[str, Any]:
    """Returns the options of a task that a command line names.

    Args:
        given: of the form key=value, the value JSON or else a text.

    Raises:
        ValueError: one has no "=".

    Example:
        >>> parse_options(["problem=JapaneseVowels", "length=20", "delay=null"])
        {'problem': 'JapaneseVowels', 'length': 20, 'delay': None}
    """
    options = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ValueError(f"--option {text} is no option of a task; expected key=value.")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options
