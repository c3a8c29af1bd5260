"""The notebooks: each has what it needs to run in Colab, and each runs."""

import ast
import base64
import importlib.util
import re
import shlex
import struct

import keras
import nbformat
import pytest
from harness import ROOT
from IPython.core.interactiveshell import InteractiveShell

import keras_lsc

_SPEC = importlib.util.spec_from_file_location("execute", ROOT / "colab" / "execute.py")
assert _SPEC is not None
execute = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(execute)

NAMES = execute.names()
ADDRESS = "https://colab.research.google.com/github/keras-lsc/keras-lsc/blob/main/colab/"
# The first, which everybody runs, on every backend; each of the others on one.
ONLY_ON = {
    "02_fine_tune.ipynb": "torch",
    "03_compare_backends.ipynb": "jax",
    "04_stabilise_your_own.ipynb": "torch",
    "05_spiking.ipynb": "jax",
    "06_state_space.ipynb": "torch",
    "07_my_rnn_does_not_learn.ipynb": "jax",
    "08_twenty_layers.ipynb": "torch",
    "09_long_sequences.ipynb": "jax",
}
_LARGEST_PICTURE = 150_000
# Widest that fits beside a table of contents, twice as dense as in print.
_WIDEST_PICTURE = 1300


@pytest.fixture(params=NAMES)
def notebook(request):
    return execute.read(request.param)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_they_are_numbered():
    assert [int(name[:2]) for name in NAMES] == list(range(1, len(NAMES) + 1))


def test_it_is_a_notebook(notebook):
    nbformat.validate(notebook)


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_a_title_its_badge_and_what_one_will_see(name):
    first = execute.read(name).cells[0]
    assert first.cell_type == "markdown"
    title, badge, *paragraphs = first.source.split("\n\n")
    assert title.startswith("# ")
    assert badge == (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({ADDRESS}{name})"
    )
    assert len(paragraphs) == 1
    assert len(paragraphs[0]) > 100


def test_the_backend_is_chosen_before_anything_else_and_one_in_the_environment_is_kept(
    code, monkeypatch
):
    menu = code[0].source
    assert 'backend = "jax"  # @param ["jax", "tensorflow", "torch"]' in menu
    for given, expected in (("torch", "torch"), (None, "jax")):
        if given:
            monkeypatch.setenv("KERAS_BACKEND", given)
        else:
            monkeypatch.delenv("KERAS_BACKEND")
        scope = {}
        exec(compile(menu, "menu", "exec"), scope)
        assert scope["os"].environ["KERAS_BACKEND"] == expected


def test_only_one_cell_installs(code):
    assert [cell for cell in code if "pip install" in cell.source] == [code[1]]


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_it_installs_its_own_version_from_the_index_and_failing_that_the_archive(
    code, fails, monkeypatch
):
    asked = []
    shell = InteractiveShell()
    shell.register_magic_function(lambda line: asked.append(shlex.split(line)), magic_name="pip")
    find = importlib.util.find_spec

    def found(name, *rest):
        return None if name == "keras_lsc" and len(asked) < fails else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    shell.run_cell(code[1].source).raise_error()
    version = keras_lsc.__version__
    archive = f"https://github.com/keras-lsc/keras-lsc/archive/refs/tags/v{version}.tar.gz"
    package = "keras-lsc[datasets,plot]"
    commands = [f"{package}=={version}", f"{package} @ {archive}"]
    assert asked == [["install", "--quiet", command] for command in commands[:fails]]


def test_its_code_is_python_without_shell_commands(code):
    for cell in [code[0], *code[2:]]:
        ast.parse(cell.source)
        assert not re.search(r"^\s*[!%]", cell.source, flags=re.MULTILINE)


def test_every_cell_was_run_once_in_order_without_an_error(notebook, code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {output.output_type for output in outputs_of(notebook)} <= {
        "stream",
        "display_data",
        "execute_result",
    }


def test_it_shows_something(notebook):
    pictures = [
        output.data["image/png"]
        for output in outputs_of(notebook)
        if "image/png" in output.get("data", {})
    ]
    assert pictures
    for picture in pictures:
        content = base64.b64decode(picture)
        assert len(content) < _LARGEST_PICTURE
        assert struct.unpack(">I", content[16:20])[0] < _WIDEST_PICTURE


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stored_is_of_one_machine_or_one_moment(name):
    notebook = execute.read(name)
    assert execute.normalize(execute.read(name)) == notebook
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"quick", "tags"}
    text = "\n".join(str(output) for output in outputs_of(notebook))
    assert "Warning" not in text
    # A path of a home, a temporary folder, an installation; of Colab or of Windows.
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|usr|work|content|Users)/|[A-Z]:\\", text)


def test_links_to_other_notebooks_lead_somewhere(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((\w+\.ipynb)\)", cell.source):
                assert target in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_notebooks_has_it(name):
    page = ROOT / "docs" / "notebooks.md"
    assert f"{ADDRESS}{name}" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if ONLY_ON.get(name, keras.config.backend()) == keras.config.backend()],
)
def test_it_runs(name, tfds_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_folder))
    monkeypatch.setenv("KERAS_BACKEND", keras.config.backend())
    notebook = execute.execute(execute.read(name), quick=True)
    shown = [output for output in outputs_of(notebook) if "data" in output]
    assert any("image/png" in output.data for output in shown)
