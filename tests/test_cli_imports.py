"""`--import`: models with cells of the user's own, and errors of the user's code."""

import json
import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_lsc_command import imports
from keras_lsc_command.app import app

pytestmark = pytest.mark.once

CELLS = """
import keras
from helper_of_cells import LEAK

print("the cells are loaded")


@keras.saving.register_keras_serializable(package="tests_of_import")
class Leaky(keras.layers.Layer):
    def __init__(self, units, fails=False, **options):
        super().__init__(**options)
        self.units, self.fails = units, fails
        self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + self.units, self.units), name="kernel")

    def call(self, inputs, states):
        if self.fails:
            {}["gain"]
        both = keras.ops.concatenate([inputs, states[0]], axis=-1)
        state = LEAK * states[0] + (1 - LEAK) * keras.ops.tanh(both @ self.kernel)
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "fails": self.fails}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the cells, two models of them and inputs; forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(imports, "_IMPORTED", [])
    (tmp_path / "own_cells.py").write_text(CELLS)
    (tmp_path / "helper_of_cells.py").write_text("LEAK = 0.5")
    (module,) = imports.import_modules(["own_cells.py"])
    for name, fails in (("own", False), ("failing", True)):
        cell = module.Leaky(4)
        model = keras.Sequential([keras.Input((5, 3)), keras.layers.RNN(cell, name="layer")])
        cell.fails = fails
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(8, 5, 3)).astype("float32"))
    _forget(before)
    yield tmp_path
    _forget(before)


def _forget(before):
    registered = keras.saving.get_custom_objects()
    for name in [name for name in registered if name.startswith("tests_of_import>")]:
        del registered[name]
    for name in set(sys.modules) - before:
        if name.endswith("_cells"):
            del sys.modules[name]


def run(*arguments):
    return CliRunner().invoke(app, [*arguments])


def refused(*arguments):
    result = run("measure", "own.keras", "x.npy", *arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("keras-lsc: error: ")
    return line.removeprefix("keras-lsc: error: ")


@pytest.mark.parametrize("given", ["own_cells.py", "own_cells"])
def test_a_model_of_own_cells_is_measured(folder, given):
    assert "--import FILE.py" in refused()
    result = run("measure", "own.keras", "x.npy", "--samples", "4", "--json", "--import", given)
    assert result.exit_code == 0, result.output
    # What the module prints is no JSON.
    assert [row["name"] for row in json.loads(result.stdout)["transitions"]] == [
        *("layer.time", "layer.input")
    ]
    assert result.stderr == "the cells are loaded\n"


def test_every_process_of_a_comparison_imports_them(folder):
    result = run(
        *("compare-backends", "own.keras", "--backends", keras.backend.backend()),
        *("--batch-size", "4", "--samples", "4", "--repeats", "1", "--json"),
        *("--import", "own_cells.py"),
    )
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert set(row["radii"]) == {"layer.time", "layer.input"}


def test_several_modules_are_imported_once_each(folder):
    (folder / "other_cells.py").write_text("raise AssertionError('imported again')")
    first, second = imports.import_modules(["own_cells.py", "./own_cells.py"])
    assert first is second
    with pytest.raises(imports.UserCodeError, match=r"again \(other_cells.py, line 1\)"):
        imports.import_modules(["own_cells.py", "other_cells.py"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n    return {}['a']\nf()", "KeyError: 'a' (bad_cells.py, line 2, in f)"),
        ("x = 1\nassert x > 1", "AssertionError (bad_cells.py, line 2)"),
        ("def f(:", "SyntaxError: invalid syntax (bad_cells.py, line 1)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (bad_cells.py, line 2)"),
        (
            "import absent",
            "ModuleNotFoundError: No module named 'absent' (bad_cells.py, line 1)",
        ),
    ],
)
def test_errors_of_a_module_name_its_line(folder, code, expected):
    (folder / "bad_cells.py").write_text(code)
    for given in ("bad_cells.py", "bad_cells"):
        assert refused("--import", given) == f"--import {given}: {expected}"
        assert "bad_cells" not in sys.modules


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("absent.py", "--import absent.py: the file does not exist"),
        ("absent", "--import absent: there is no module of that name"),
        ("./x.npy", "--import x.npy: the file must end in .py"),
        ("x.npy", "--import x.npy: there is no module of that name"),
        ("..", "--import ..: expected the path of a Python file"),
        ("", "--import : expected the path of a Python file"),
        ("json.py", "a module 'json' is imported already"),
    ],
)
def test_what_cannot_be_imported(folder, given, expected):
    (folder / "json.py").write_text("")
    assert expected in refused("--import", given)


def test_an_error_of_a_cell_names_its_line(folder):
    result = run("measure", "failing.keras", "x.npy", "--import", "own_cells.py")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("keras-lsc: error: KeyError: ")
    assert line.endswith("(own_cells.py, line 20, in call)")
