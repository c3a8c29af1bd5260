"""The README and the handbook: their code runs, their links lead somewhere, their names exist."""

import ast
import doctest
import functools
import importlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

import keras
import pytest
from harness import ROOT, run_python

import keras_lsc

pytestmark = pytest.mark.once

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SITE = "https://keras-lsc.github.io/keras-lsc/"
REPOSITORY = "https://github.com/keras-lsc/keras-lsc/"
_MOST_CHARACTERS = 6_500
# Markers on the lines before a block say which modules it needs, which tasks' data, what is smaller
# in tests than for a reader, or why it is not run.
_BLOCK = re.compile(
    r"(?P<markers>(?:^<!-- [^\n]* -->\n)*)^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARKER = re.compile(r"^<!-- (?P<kind>[a-z ]+): (?P<value>.*) -->$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of Python in a page.

    Attributes:
        line: Line of the page on which its code begins.
        code: What it says, with the smaller numbers that tests use.
        needs: Modules that have to be installed.
        data: Tasks whose data has to be prepared.
        not_run: Why it is never run; empty otherwise.
    """

    line: int
    code: str
    needs: tuple[str, ...]
    data: tuple[str, ...]
    not_run: str


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@functools.cache
def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        markers, code = {}, match["code"]
        for kind, value in _MARKER.findall(match["markers"]):
            assert kind in ("needs", "data", "not run", "in tests"), f"{name_of(page)}: {kind}"
            markers[kind] = value
            if kind == "in tests":
                shown, run = value.split(" -> ")
                assert shown in code, f"{name_of(page)}: {value}"
                code = code.replace(shown, run)
        line = text.count("\n", 0, match.start("code")) + 1
        needs, data = (tuple(markers.get(kind, "").split()) for kind in ("needs", "data"))
        found.append(Block(line, code, needs, data, markers.get("not run", "")))
    return found


def is_prepared(task):
    return keras_lsc.datasets.prepared(task) is not None


def cases():
    """Every page with its plain blocks, and with those that have the same needs besides."""
    for page in PAGES:
        blocks = [block for block in blocks_of(page) if not block.not_run]
        for wants in sorted({(block.needs, block.data) for block in blocks}):
            chosen = [b for b in blocks if (b.needs, b.data) in (((), ()), wants)]
            # What comes after the last of them can need nothing of it.
            last = max(k for k, b in enumerate(chosen) if (b.needs, b.data) == wants)
            label = "-".join([name_of(page), *wants[0], *wants[1]])
            # The README trains a network as it stands, with JAX in three fifths of torch's time.
            marks = [pytest.mark.once(on="jax")] if page.name == "README.md" else []
            yield pytest.param(page, wants, chosen[: last + 1], id=label, marks=marks)


@pytest.mark.parametrize(("page", "wants", "blocks"), list(cases()))
def test_the_code_of_a_page_runs(page, wants, blocks, tmp_path, monkeypatch):
    modules, tasks = wants
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"{name_of(page)} shows {', '.join(absent)}, not installed here")
    if tasks and not (tfds := _data_folder()).is_dir():
        pytest.skip(f"{name_of(page)} reads {', '.join(tasks)}: {tfds} does not exist")
    for task in tasks:
        if not is_prepared(task):
            pytest.skip(f"{name_of(page)} reads {task}, which is not prepared")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    policy = keras.config.dtype_policy()
    scope = {"__name__": "__main__"}
    try:
        for block in blocks:
            # So that a traceback names the line of the page.
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, str(page), "exec"), scope)
    finally:
        keras.config.set_dtype_policy(policy)
    if page.name == "README.md":
        # As its first example says: the stabilised network learns what the default one does not.
        assert scope["model"].evaluate(scope["x"], scope["y"], verbose=0)[1] > 0.8


def _data_folder():
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def test_most_of_the_code_is_run():
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert len(blocks) > 40
    assert sum(bool(block.not_run) for block in blocks) <= 4


def test_the_readme_is_short_and_its_links_are_absolute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text) <= _MOST_CHARACTERS
    for target in _LINK.findall(text):
        assert target.startswith(("https://", "#")), target
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if path.startswith(f"{REPOSITORY}blob/main/"):
            found = ROOT / path.removeprefix(f"{REPOSITORY}blob/main/")
        elif path.startswith("https://raw.githubusercontent.com/keras-lsc/keras-lsc/main/"):
            found = ROOT / path.removeprefix(
                "https://raw.githubusercontent.com/keras-lsc/keras-lsc/main/"
            )
        elif path.startswith(SITE):
            found = _source_of(path.removeprefix(SITE).strip("/"))
        elif re.match(r"[a-z]+:", path):
            continue
        else:
            found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} leads to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in _anchors(found), f"{name_of(page)} leads to {target}"


def _source_of(address):
    """The page of the repository that the site has at an address."""
    names = [f"{address}.md", f"{address}/index.md"] if address else ["index.md"]
    candidates = [folder / name for folder in (ROOT / "docs", ROOT) for name in names]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _anchors(page):
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.relative_to(ROOT / "docs").as_posix() in navigation


def test_what_the_documentation_names_is_reached_from_the_package():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = sorted(set(re.findall(r"\bkeras_lsc(?:\.[A-Za-z_]\w*)+", text)))
    # Where the package is, and not what is in it.
    names = [name for name in names if not name.endswith((".keras", ".md", ".py"))]
    assert "keras_lsc.comparison.compare_backends" in names
    program = (
        "import functools, sys, keras_lsc\n"
        "for name in sys.argv[1:]:\n"
        "    functools.reduce(getattr, name.split('.')[1:], keras_lsc)\n"
    )
    run_python(program, *names, backend=keras.backend.backend())


def test_the_messages_of_the_page_of_troubles_are_those_of_the_package():
    page = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
    source = "\n".join(
        text
        for path in (ROOT / "keras_lsc").rglob("*.py")
        for text in _texts(ast.parse(path.read_text(encoding="utf-8")))
    )
    quoted = re.findall(r'^(?:\*\*|\| )[^\n]*?"([^"\n]+)"', page, re.MULTILINE)
    assert len(quoted) > 30
    for message in quoted:
        for part in message.split("..."):
            assert part.strip() in source, message


def _texts(tree):
    """The literals of a module, with dots where values are formatted into them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (
                part.value if isinstance(part, ast.Constant) else "..." for part in node.values
            )
            yield "".join(parts)


_PACKAGES = [ROOT / "keras_lsc", ROOT / "keras_lsc_command"]
_OTHER_BACKENDS = {"jax", "tensorflow", "torch"} - {keras.backend.backend()}


def modules_with_examples():
    for file in sorted(file for package in _PACKAGES for file in package.rglob("*.py")):
        is_elsewhere = file.parent.name == "backend" and file.stem in _OTHER_BACKENDS
        if ">>>" in file.read_text() and not is_elsewhere:
            parts = file.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_the_examples_of_the_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    examples = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert examples
    assert not [test.name for test in examples if _fails(test)]


def _fails(test):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    return bool(runner.run(test).failed)
