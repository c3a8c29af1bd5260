"""How the keras-lsc command refuses: one line and exit code 1, and no file is touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from keras_lsc_command import backends
from keras_lsc_command.app import app
from keras_lsc_command.errors import errors_in_few_lines
from keras_lsc_command.files import load_data
from keras_lsc_command.options import parse_options

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.once


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line in which a command refuses."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("keras-lsc: error: ")
    return line


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.SimpleRNN(3)])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "data.npy", np.zeros((8, 4, 2), "float32"))
    return tmp_path / "model.keras", tmp_path / "data.npy"


def npy(header, content=b"\0" * 64, version=1):
    """A file of numpy.save with a header of one's own."""
    header = header.encode() + b"\n"
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + content


def described(descr, shape):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(described("<f4", "(1000000000000,)")), "takes 4000000000000 bytes, and the file has"),
        (npy(described("<f4", "(10, 2)")), "takes 80 bytes, and the file has 64"),
        (npy(described("<f4", "(8,)")), "takes 32 bytes, and the file has 64"),
        (npy(described("<f4", "(0, 4)"), b""), "so it has no values"),
        (npy(described("<f4", "(-4, -4)")), "so it has no values"),
        (npy(described("|O", "(8,)")), "its dtype is object, and real numbers are expected"),
        (npy(described("<U2", "(8,)")), "its dtype is <U2"),
        (npy(described("|V0", "(1000000000000,)")), "its dtype is"),
        (npy(described("<c8", "(8,)")), "its dtype is complex64"),
        (npy(described([("a", "<f4")], "(16,)")), "its dtype is"),
        (npy(described([("a", "<f4")], "(16,)"), version=3), "is for fields with names"),
        (npy("(" * 3000), "saved with numpy.save"),
        (npy("9" * 5000), "saved with numpy.save"),
        (npy("__import__('os')"), "saved with numpy.save"),
        (b"\x93NUMPY\x01\x00\xff", "saved with numpy.save"),
        (b"", "saved with numpy.save"),
    ],
)
def test_arrays_that_are_not_what_they_declare(tmp_path, content, message):
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"data.npy is not an array.*{message}"):
        load_data(path)


def test_archives_of_arrays_are_refused_and_every_real_dtype_is_read(tmp_path):
    path = tmp_path / "data.npy"
    for dtype in ("bool", "uint8", ">i2", "float16", "float64"):
        np.save(path, np.eye(3).astype(dtype))
        np.testing.assert_array_equal(load_data(path), np.eye(3).astype(dtype))
    np.savez(tmp_path / "data.npz", np.eye(3))
    with pytest.raises(ValueError, match="it is an archive"):
        load_data(tmp_path / "data.npz")


def test_outputs_are_checked_before_anything_is_computed(saved, tmp_path):
    model, data = saved
    before = {path.name: path.read_bytes() for path in (model, data)}
    (tmp_path / "folder.keras").mkdir()
    stabilize = ("stabilize", model, data, "--output")
    assert "is a folder; name a file" in refused(*stabilize, tmp_path / "folder.keras")
    assert "is an input as well" in refused(*stabilize, model)
    assert "is an input as well" in refused(*stabilize, data)
    assert "does not exist; make it" in refused(*stabilize, tmp_path / "absent" / "out.keras")
    assert "must end in .keras" in refused(*stabilize, tmp_path / "out")
    for picture in ("demo", "demo.keras", "demo.txt"):
        assert "must end in one of .eps" in refused("demo", "--output", tmp_path / picture)
    tuning = ("fine-tune", model, "--dataset", "parity")
    one = tmp_path / "one.keras"
    assert "name two files" in refused(*tuning, "--output", one, "--checkpoint", one)
    assert "is no folder" in refused(*tuning, "--tensorboard", data)
    assert before == {path.name: path.read_bytes() for path in (model, data)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("data.npy", "folder.keras", "model.keras")
    ]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(saved, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot be written to" in refused("stabilize", *saved, "--output", closed / "a.keras")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list", "--dataset", "smnits"], "did you mean 'smnist'"),
        (["list", "--dataset", ""], "unknown dataset ''"),
        (["list", "--target", "high"], "Unknown target 'high'"),
        (["list", "--target", "nan"], "nan is not a radius"),
        (["compare-backends", "x", "--timeout", "nan"], "timeout must be a finite number"),
        (["compare-backends", "x", "--timeout", "-1"], "timeout must be a finite number"),
        (["compare-backends", "x", "--backends", ""], "backends='' must be a list"),
        (["pages", "--zoo", "."], "There is no index.json in ."),
        (["build", "x", "--zoo", "."], "There are no recipes in ."),
        (["measure", ".", "."], "The model file . is no file"),
        (["info", ""], "name must be a string of one character or more, got ''"),
        (["info", "\udcff"], "There is no checkpoint"),
    ],
)
def test_wrong_use_is_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in refused(*arguments)


def test_options_that_json_cannot_hold_are_texts():
    digits, nested = "9" * 5000, "[" * 100_000
    assert parse_options([f"a={digits}", f"b={nested}"]) == {"a": digits, "b": nested}


@pytest.mark.parametrize("folder", ["mnist/3.0.1"])
def test_a_damaged_dataset_does_not_hide_the_others(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "dataset_info.json").write_text("{")
    result = run("datasets", "--data-dir", tmp_path, "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)["datasets"]}
    assert rows["smnist"]["status"] == "damaged"
    assert "description cannot be read" in rows["smnist"]["problem"]
    assert rows["cifar10"]["status"] == "absent"
    assert "description cannot be read" in run("datasets", "--data-dir", tmp_path).stdout


def test_an_interrupt_is_one_line_and_exit_code_130(capsys):
    with pytest.raises(typer.Exit) as caught, errors_in_few_lines():
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "keras-lsc: interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a\n  b"), OSError(), MemoryError("c")])
def test_a_message_of_many_lines_or_none_becomes_one(error, capsys):
    with pytest.raises(typer.Exit) as caught, errors_in_few_lines():
        raise error
    assert caught.value.exit_code == 1
    expected = " ".join(str(error).split()) or type(error).__name__
    assert capsys.readouterr().err == f"keras-lsc: error: {expected}\n"


@pytest.mark.parametrize(
    "printed",
    ["typer.echo('a' * 10**6)", "tables.console().print(tables.facts({'a': 'b' * 10**6}))"],
)
def test_who_reads_no_further_hears_no_traceback(printed):
    # What commands print with; a real one would import Keras first.
    script = (
        "import typer\nfrom keras_lsc_command import tables\n"
        "from keras_lsc_command.errors import errors_in_few_lines\n"
        f"def run():\n    with errors_in_few_lines():\n        {printed}\n"
        "typer.run(run)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (1, "")


def test_build_and_pages_print_json(tmp_path):
    name, zoo = "test_gru_parity_d2_rhovar", ROOT / "zoo"
    index = json.loads((zoo / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({name: index[name]}))
    shutil.copy(zoo / "test.toml", tmp_path)
    (tmp_path / "starts").mkdir()
    shutil.copy(zoo / "starts" / f"{name}.npz", tmp_path / "starts")
    # What is built already is left alone.
    built = run("build", name, "--zoo", tmp_path, "--json")
    assert (built.exit_code, json.loads(built.stdout)) == (0, [])
    written = run("pages", "--zoo", tmp_path, "--json")
    assert json.loads(written.stdout) == {"results": str(tmp_path / "RESULTS.md"), "cards": 1}


def test_errors_that_are_ours_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), errors_in_few_lines():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"backend": "theano"}', "unknown backend 'theano'"),
        (b'{"backend": "torch"}', None),
        (b"{", None),
        (b"[1]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_backend_of_the_configuration_file(monkeypatch, tmp_path, content, problem):
    monkeypatch.setattr(backends, "_is_installed", lambda module: module != "jax")
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "keras.json").write_bytes(content)
    if problem is None:
        assert backends.find(None) == ("torch" if b"torch" in content else "tensorflow")
    else:
        with pytest.raises(ValueError, match=problem):
            backends.find(None)
