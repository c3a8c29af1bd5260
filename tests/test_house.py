"""The house as CONTRIBUTING describes it: the map is complete, and imports go one way."""

import ast
import re
from pathlib import Path

import pytest

import keras_lsc

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_lsc"
FILES = sorted(PACKAGE.rglob("*.py"))
# A room imports from the rooms above it in this list, never from one below.
ROOMS = (
    "version arguments files renamed progress",
    "backend workers",
    "plot",
    "layers datasets optimizers",
    "convert",
    "stability",
    "exporting spiking",
    "pretrainer",
    "levelling flossing solving",
    "methods",
    "diagnosis",
    "callbacks choosing",
    "pretraining",
    "stabilization citing",
    "race",
    "zoo",
    "comparison",
    "demo",
    "__init__",
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms.split()}
FRAMEWORKS = {"jax", "jaxlib", "tensorflow", "torch"}


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree):
    """The modules that a file imports, the names imported of a package with it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def when_imported(tree):
    """The statements that run when a module is imported; the rest is for those who call it."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
        yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = room_of(path)
    for node in when_imported(ast.parse(path.read_text())):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for module in imported(ast.Module([node], [])):
            parts = module.split(".")
            if parts[0] == "keras_lsc" and len(parts) > 1 and parts[1] in FLOOR:
                assert parts[1] == here or FLOOR[parts[1]] < FLOOR[here], f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_are_imported_by_the_backends_alone(path):
    modules = list(imported(ast.parse(path.read_text())))
    assert not [module for module in modules if module.startswith("keras.src")]
    if room_of(path) not in ("backend", "comparison"):
        assert not FRAMEWORKS & {module.split(".")[0] for module in modules}


def test_the_map_names_every_room_and_what_is_in_it():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (house,) = re.findall(r"```\n(keras_lsc/ .*?)```", text, flags=re.DOTALL)
    named = set(re.findall(r"[\w.]+\.py\b|\w+(?=/)", house))
    # The rooms whose files are each named; of the others the folder is.
    for room in ("stability", "plot", "zoo", "comparison"):
        for path in (PACKAGE / room).iterdir():
            if path.name not in ("__init__.py", "__pycache__"):
                assert path.name in named, path
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            assert path.name in named, path
    places = ("keras_lsc", "keras_lsc_command", "fuzz", "benchmarks", "colab", "docs", "release")
    every = {path.name for place in places for path in (ROOT / place).rglob("*.py")}
    assert not {name for name in named if name.endswith(".py")} - every


@pytest.mark.parametrize(
    "module",
    [
        keras_lsc,
        keras_lsc.callbacks,
        keras_lsc.comparison,
        keras_lsc.convert,
        keras_lsc.datasets,
        keras_lsc.layers,
        keras_lsc.methods,
        keras_lsc.plot,
        keras_lsc.spiking,
        keras_lsc.zoo,
    ],
    ids=lambda module: module.__name__,
)
def test_completion_shows_public_names_only(module):
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_every_public_function_and_class_has_its_place_in_the_reference():
    listed = set(
        re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/reference/index.md").read_text(), re.M)
    )
    public = {
        f"keras_lsc.{name}" for name in keras_lsc.__all__ if callable(getattr(keras_lsc, name))
    }
    assert public <= listed
