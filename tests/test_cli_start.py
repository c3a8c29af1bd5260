"""Help, version and completion, which import no Keras, and what all commands have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import keras_lsc
from keras_lsc import comparison, datasets, demo, zoo
from keras_lsc_command import completion, package
from keras_lsc_command.app import app
from keras_lsc_command.backends import BACKENDS
from keras_lsc_command.models import CELLS

ROOT = Path(__file__).parents[1]
COMMANDS = get_command(app).commands
HEAVY = ("keras", "numpy", "keras_lsc", *BACKENDS, "tensorflow_datasets", "matplotlib")

pytestmark = pytest.mark.once


def started(*arguments, **environment):
    """What the command prints, and which of `HEAVY` it imports, in a process of its own."""
    script = (
        "import sys, keras_lsc_command\n"
        "try:\n    keras_lsc_command.main()\n"
        f"finally:\n    sys.stderr.write(' '.join(n for n in {HEAVY} if n in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "none", **environment},
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["stabilize", "-h"]])
def test_help_imports_no_keras(arguments):
    printed, imported = started(*arguments)
    assert printed.startswith("Usage: keras-lsc ")
    assert ("--install-completion" in printed) == (arguments == ["--help"])
    assert imported == ""


def test_version_is_that_of_the_package_and_imports_no_keras():
    assert started("--version") == (f"keras-lsc {keras_lsc.__version__}\n", "")


def test_a_shell_completes_a_checkpoint_and_no_keras_is_imported():
    printed, imported = started(
        _KERAS_LSC_COMPLETE="complete_bash",
        COMP_WORDS="keras-lsc info gru_adding_",
        COMP_CWORD="2",
    )
    assert printed.split() == sorted(zoo.list("gru_adding_*"))
    assert len(printed.split()) > 1
    assert imported == ""


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "keras_lsc_command", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == f"keras-lsc {keras_lsc.__version__}\n"


def test_completion_knows_the_checkpoints_and_their_tasks(monkeypatch):
    monkeypatch.delenv("KERAS_LSC_ZOO", raising=False)
    assert set(package.recipes()) == set(zoo.list(hidden=True))
    assert completion.checkpoints("") == sorted(zoo.list())
    assert completion.checkpoints("test_") == sorted(zoo.list("test_*", hidden=True))
    found = completion.tasks("")
    assert found == sorted({zoo.info(name).dataset for name in zoo.list()})
    assert set(found) <= set(datasets.names())
    assert completion.of("jax", "torch")("t") == ["torch"]


@pytest.mark.parametrize(
    "content", [b"{", b"[1]", b'{"a": 1}', b'{"a": {"certificate": null}}', b"\xff", b"[" * 10**5]
)
def test_an_index_that_cannot_be_read_completes_nothing(monkeypatch, tmp_path, content):
    expected = completion.checkpoints("")
    monkeypatch.setenv("KERAS_LSC_ZOO", str(tmp_path))
    (tmp_path / "index.json").write_bytes(content)
    assert completion.checkpoints("") == expected


def test_help_names_what_the_package_knows():
    assert CELLS == demo.CELLS
    assert BACKENDS == comparison.BACKENDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_a_backend(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--json", "--backend"} <= options
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", ["measure", "stabilize", "fine-tune"])
def test_commands_that_load_a_model_of_the_user_s_import_modules(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--import" in options
