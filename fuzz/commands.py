"""Command lines: random lists of arguments, damaged files among them."""

import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
from typer.main import get_command
from typer.testing import CliRunner

from fuzz.kind import REFUSED, RIGHT, Kind, require
from fuzz.mutate import damaged_bytes
from keras_lsc_command.app import app

# Of every command with one of these arguments it ends before it computes much.
_BOUNDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "demo": (
        *(("--output", "absent/demo.png"), ("--target", "none"), ("--cell", "x"), ("--depth", "0")),
        *(("--examples", "1"), ("--mode", "x"), ("--output", "demo.x"), ("--epochs", "-1")),
    ),
    "measure": ((),),
    "stabilize": (("--output", "out.keras", "--target", "none"), ("--output", "absent/out.keras")),
    "fine-tune": (
        *(("--dataset", "parity", "--epochs", "-1"), ("--dataset", "smnist", "--no-download")),
        *(("--dataset", "adding", "--limit", "4"), ("--dataset", "parity", "--batch-size", "0")),
    ),
    "compare-backends": (("--backends", "none"), ("--samples", "0"), ("--timeout", "nan")),
    "datasets": ((),),
    "list": ((),),
    "info": ((),),
    "verify": ((),),
    "build": (("--zoo", "absent"), ("none",)),
    "pages": (("--zoo", "absent"), ("--zoo", "folder")),
}
_OPTIONS = (
    *("--json", "--help", "--seed", "--samples", "--radius", "--backend", "--target", "--mode"),
    *("--tolerance", "--output", "--data-dir", "--dataset", "--option", "--weights", "--limit"),
    *("--batch-size", "--patience", "--learning-rate", "--checkpoint", "--tensorboard", "--hidden"),
    *("--cell", "--depth", "--units", "--examples", "--jobs", "--zoo", "--all", "--timeout"),
    *(
        "--repeats",
        "--backends",
        "--plot",
        "--no-download",
        "--import",
        "--names",
        "--max-updates",
        "--",
        "-",
        "--nonsense",
        "-x",
    ),
)
_VALUES = (
    *("0", "-1", "1", "2", "1e999", "nan", "inf", "-inf", "1e-300", "9" * 400, "2.5", "", " "),
    *(
        "x",
        "é",
        "\udcff",
        "a\nb",
        "0.9,0.4",
        "1,2,3",
        "variance",
        "unbalanced",
        "scales",
        "weights",
    ),
    *(
        "spectral",
        "rms",
        "jax",
        "torch",
        "theano",
        "parity",
        "smnist",
        "uea",
        "n=2",
        "n",
        "=",
        "n=",
    ),
    *(
        "n=[[[[",
        "length=NaN",
        "test_*",
        "[",
        "*",
        "test_gru_parity_d2_rhovar",
        "lstm_smnist_d2_rho1",
    ),
    *("hf://a/b@c/d.keras", "https://127.0.0.1:9/a.keras", "http://x", "file:///etc/passwd"),
    *("model.keras", "damaged.keras", "data.npy", "damaged.npy", "wide.npy", "empty.npy", "folder"),
    *("folder/out.keras", "absent/out.keras", "out.h5", "out.png", ".", "/", "/dev/null", "/proc"),
    *("index.json", "null", "true", "{}", "../../..", "~nobody/x", "%s", "$HOME", "--seed", "\t"),
)

_INTEGERS = ("0", "-1", "1", "2", "3", "8", "16", "100000000", str(2**31), str(2**64), "9" * 400)
_NUMBERS = ("0", "-1", "1e-9", "0.01", "0.5", "1", "30", "1e999", "-inf", "nan", "1e308", "5e-324")
_LIKE = {"limit": 1, "examples": 1}
_NAMES = (
    *("test_gru_parity_d2_rhovar", "test_sigmoid*", "model.keras", "damaged.keras", "folder", "x"),
    *(
        "data.npy",
        "./model.keras",
        "absent.keras",
        "https://127.0.0.1:9/a.keras",
        "lstm_ptb_d2_rho1",
    ),
)


def _draw(random: np.random.Generator) -> tuple[str, ...]:
    command = str(
        random.choice(list(_BOUNDS) if random.random() < 0.97 else ["", "none", "--help"])
    )
    arguments = [command]
    if command in ("measure", "stabilize") and random.random() < 0.7:
        arguments.append(_value(random, ("model.keras",) * 3 + ("damaged.keras", "folder")))
        arguments.append(
            _value(random, ("data.npy",) * 3 + ("damaged.npy", "wide.npy", "empty.npy"))
        )
    elif command in ("info", "verify", "fine-tune", "compare-backends") and random.random() < 0.8:
        arguments.append(_value(random, _NAMES if random.random() < 0.6 else _VALUES))
    for _ in range(int(random.integers(0, 5))):
        if random.random() < 0.75:
            arguments += _option(random, command)
        else:
            arguments.append(_value(random, _OPTIONS if random.random() < 0.5 else _VALUES))
    if command == "verify":  # All of those whose data is generated take many minutes.
        arguments = [argument for argument in arguments if argument != "--all"]
    bounds = _BOUNDS.get(command, ((),))
    return (*arguments, *bounds[int(random.integers(len(bounds)))])


def _option(random: np.random.Generator, command: str) -> list[str]:
    """An option of the command, with a value of its type more often than not."""
    known = [one for one in _parameters().get(command, []) if one.param_type_name == "option"]
    if not known:
        return []
    option = known[int(random.integers(len(known)))]
    name = str(random.choice([*option.opts, *option.secondary_opts]))
    if getattr(option, "is_flag", False):
        return [name]
    # By its default: the types of options are no public part of Typer.
    like = _LIKE.get(option.name, option.default)
    values = _INTEGERS if type(like) is int else _NUMBERS if type(like) is float else _VALUES
    if name == "--backend" and random.random() < 0.8:
        return [name, keras.backend.backend()]
    if random.random() < 0.3:
        values = _VALUES
    return [name, _value(random, values)]


@cache
def _parameters() -> dict[str, list[Any]]:
    commands = cast(Any, get_command(app)).commands
    return {name: command.params for name, command in commands.items()}


def _value(random: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(random.integers(len(options)))]


@cache
def _files() -> dict[str, bytes]:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    written = folder / f"fuzz-{os.getpid()}.keras"
    keras.utils.set_random_seed(3)
    keras.Sequential([keras.Input((5, 3)), keras.layers.SimpleRNN(4)]).save(written)
    model = written.read_bytes()
    written.unlink()
    random = np.random.default_rng(2)
    made = {"model.keras": model}
    for name, shape in (("data", (16, 5, 3)), ("wide", (16, 5, 4)), ("empty", (0, 5, 3))):
        file = folder / f"fuzz-{os.getpid()}.npy"
        np.save(file, random.normal(size=shape).astype("float32"))
        made[f"{name}.npy"] = file.read_bytes()
        file.unlink()
    return made


def _attempt(given: tuple[str, ...], folder: Path) -> str:
    files = _files()
    # What is damaged, and how, is told by the arguments: a replay damages it in the same way.
    random = np.random.default_rng([len(given), *map(len, given)])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "damaged.keras").write_bytes(damaged_bytes(random, files["model.keras"]))
    (folder / "damaged.npy").write_bytes(damaged_bytes(random, files["data.npy"]))
    (folder / "folder").mkdir()
    former = Path.cwd()
    os.chdir(folder)
    try:
        environment = {"TFDS_DATA_DIR": "data"}
        result = CliRunner().invoke(app, list(given), env={**environment, "HOME": str(folder)})
    finally:
        os.chdir(former)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    require(result.exit_code in (0, 1, 2), f"exit code {result.exit_code}")
    require("Traceback" not in result.output, "a traceback")
    if result.exit_code == 0:
        return RIGHT
    lines = result.stderr.strip().splitlines()
    if result.exit_code == 1 and given[0] != "verify":
        problem = lines[-1] if lines else ""
        require(problem.startswith("keras-lsc: error: "), f"no error in one line: {problem!r}")
        require(len(problem) > 25, f"an error without a message: {problem!r}")
    require(bool(lines) or given[0] == "verify", "no word of what is wrong")
    for name, content in files.items():
        require((folder / name).read_bytes() == content, f"{name} was changed by a failure")
    return REFUSED


COMMAND = Kind("command", 150, _draw, _attempt, on_every_backend=False)
