"""Options and arguments that several commands have, and how their texts are read."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_lsc_command import completion
from keras_lsc_command.backends import BACKENDS

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL.keras", help="A saved Keras model.")]
DataPath = Annotated[
    Path, typer.Argument(metavar="DATA.npy", help="Inputs of the model, (rows, steps, features).")
]
CheckpointOrFile = Annotated[
    str,
    typer.Argument(
        metavar="NAME|MODEL.keras",
        help="Name of a checkpoint, or a saved Keras model.",
        autocompletion=completion.checkpoints,
    ),
]
StoredWeights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="stabilized|trained",
        help="The start, or the weights that were trained on the task.",
        autocompletion=completion.of("stabilized", "trained"),
    ),
]
Samples = Annotated[int, typer.Option(help="Points (sequence, time step) at which to measure.")]
ProcessCount = Annotated[int, typer.Option("--jobs", min=1, help="Processes at a time.")]
OnRay = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="On the machines of a Ray cluster, a core a process, instead of --jobs: that of "
        "RAY_ADDRESS, or one that runs here, or a new one of this computer's cores.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn at random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and all else to stderr.")]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(BACKENDS),
        help="Keras backend. Default: KERAS_BACKEND, else Keras' configuration file, else the "
        "first of the three that is installed.",
        autocompletion=completion.of(*BACKENDS),
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="FILE.py|MODULE",
        help="Python file or module to run first, such as one that registers the cells of the "
        "model. It is run as any program is, so name only code that you trust. Can be given "
        "several times.",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the datasets. Default: TFDS_DATA_DIR.")
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
        autocompletion=completion.of("variance", "unbalanced", "variance-unbalanced"),
    ),
]
ModeText = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="scales|weights",
        help='"scales" moves one scale per weight matrix or gate block, "weights" every entry.',
        autocompletion=completion.of("scales", "weights"),
    ),
]


def parse_target(text: str) -> Any:
    """Returns the target that a command line names.

    Args:
        text: Number, numbers parted by a comma, or a name.

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
    return numbers[0] if len(numbers) == 1 else numbers


def parse_options(given: list[str] | None) -> dict[str, Any]:
    """Returns the options of a task that a command line names.

    Args:
        given: Texts of the form key=value, the value JSON or else a text.

    Raises:
        ValueError: One has no "=".

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
