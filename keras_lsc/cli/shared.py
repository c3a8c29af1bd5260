"""What the commands share: options, errors in one line, files read and written."""

import io
import json
import math
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, cast

import keras
import numpy as np
import typer

from keras_lsc.datasets import DatasetUnavailableError
from keras_lsc.stability.targets import Target
from keras_lsc.stabilization import NotStabilizedError
from keras_lsc.zoo.keras_file import read_model

# What the package documents for wrong use, damaged files and what is not to be had.
_EXPECTED_ERRORS = (
    DatasetUnavailableError,
    FloatingPointError,
    ImportError,
    MemoryError,
    NotStabilizedError,
    OSError,
    TypeError,
    ValueError,
)

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

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
    """Prints an expected error as one line, and exits with code 1; 130 where it is interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A name in another encoding than the terminal's is shown with escapes, and is no error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("keras-lsc: interrupted", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Who read has had enough, as `head` has; Python would say so once more when it flushes.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise typer.Exit(1) from None
    except _EXPECTED_ERRORS as error:
        message = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"keras-lsc: error: {message}", err=True)
        raise typer.Exit(1) from error


def check_backend(name: str | None) -> None:
    """Raises ValueError where another backend than the asked one already runs."""
    current = keras.backend.backend()
    if name is not None and name != current:
        raise ValueError(
            f"Keras already runs on {current} in this process, so it cannot change to {name!r}. "
            "Start the keras-lsc command anew, or set KERAS_BACKEND."
        )


def check_output(output: Path, *inputs: Path) -> None:
    """Raises OSError where a file cannot be written, before anything else is done.

    Args:
        output: of the command.
        *inputs: files that it must not be.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder of the output {output} does not exist; make it first.")
    if output.is_dir():
        raise IsADirectoryError(f"The output {output} is a folder; name a file in it.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder of the output {output} cannot be written to.")
    for given in inputs:
        if given.exists() and output.exists() and output.samefile(given):
            raise FileExistsError(f"The output {output} is an input as well; name another file.")


def check_model_output(output: Path, *inputs: Path) -> None:
    """As `check_output`, and raises ValueError where the file does not end in .keras."""
    check_output(output, *inputs)
    if output.suffix != ".keras":
        raise ValueError(f"The output {output} must end in .keras, the format of the model.")


def check_picture_output(output: Path, *inputs: Path) -> None:
    """As `check_output`, and raises ValueError where the file is none that matplotlib writes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    check_output(output, *inputs)
    if find_spec("matplotlib") is None:
        raise ImportError(
            'Pictures are drawn with matplotlib; install it: pip install "keras-lsc[plot]"'
        )
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if output.suffix.removeprefix(".").lower() not in known:
        raise ValueError(
            f"The output {output} must end in one of {', '.join(f'.{kind}' for kind in known)}."
        )


def load_model(path: Path) -> keras.Model:
    """Loads a saved model, without running code of it.

    Raises:
        OSError: there is no such file, or it is damaged.
    """
    _check_file(path, "model", "a model saved as .keras")
    return read_model(path)


def load_data(path: Path) -> np.ndarray:
    """Loads an array of real numbers that numpy.save wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, nothing, or less than it declares.
    """
    _check_file(path, "data", "an array saved with numpy.save")
    try:
        _check_header(path)
        return np.load(path, allow_pickle=False)
    # NumPy reads the header as a Python literal, of which the last four are told.
    except (ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"The data file {path} is not an array of numbers saved with numpy.save: {error}"
        ) from error


def _check_header(path: Path) -> None:
    """Compares what a file declares with its size, before anything is allocated for it."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(path):
            raise ValueError("it is an archive (.npz?), and a single array is expected (.npy)")
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its format {version} is for fields with names")
        shape, _, dtype = _HEADERS[version](file)
        found = os.fstat(file.fileno()).st_size - file.tell()
    if dtype.kind not in "biuf":
        raise ValueError(f"its dtype is {dtype}, and real numbers are expected")
    if not all(size > 0 for size in shape):
        raise ValueError(f"its shape is {shape}, so it has no values")
    declared = math.prod(shape) * dtype.itemsize
    if declared != found:
        raise ValueError(
            f"its shape {shape} of {dtype} takes {declared} bytes, and the file has {found}"
        )


def _check_file(path: Path, what: str, expected: str) -> None:
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"The {what} file {path} {problem}; expected {expected}.")


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
        except (ValueError, RecursionError):
            options[key] = value
    return options
