"""Tables fit the terminal: what matters less is left out, nothing is cut."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from keras_lsc import StabilityReport, zoo
from keras_lsc.comparison import BackendComparison, BackendRow, Timing
from keras_lsc.stability.report import TransitionStatistics
from keras_lsc_command import comparison, tables
from keras_lsc_command.app import app
from keras_lsc_command.tables import Column

pytestmark = pytest.mark.once

LONG, LEVELLED = "test_gru_parity_d2_rhovar", "test_gru_parity_d4_level"


def run(width, *arguments):
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    return [line.rstrip() for line in result.stdout.splitlines()]


def drawn(table, width):
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def example(width):
    columns = [
        Column("name", ["a" * 10, "b"]),
        Column("last", ["c" * 10, "d"], rank=2),
        Column("first", ["1", "22"], is_number=True, rank=1),
    ]
    return drawn(tables.table(columns, width), width)


def test_columns_move_closer_and_then_are_left_out_by_rank():
    row = "a" * 10, "c" * 10
    assert example(29)[1] == f"{row[0]}  {row[1]}      1"
    assert example(28)[1] == f"{row[0]} {row[1]}     1"
    assert example(26)[1:] == [f"{row[0]}      1", "b              22"]
    assert example(15)[1:] == [row[0], "b"]
    # What is always shown is broken rather than cut.
    assert example(6)[1:] == ["aaaaaa", "aaaa", "b"]


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--hidden"], ["info", LONG], ["info", LEVELLED], ["datasets"]]
)
@pytest.mark.parametrize("width", [80, 140])
def test_lines_fit(arguments, width, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    lines = run(width, *arguments)
    # Commands to copy, and the path of the folder, are not broken.
    assert all(
        len(line) <= width or line.startswith(("keras-lsc ", "Folder of ")) for line in lines
    )


def test_a_wide_list_has_what_a_narrow_one_has_no_room_for():
    narrow, wide = run(80, "list")[0].split(), run(140, "list")[0].split()
    columns = ("name", "task", "cell", "layers", "target", "params", "kB", "deviation")
    assert wide == [*columns, "trained"]
    assert [title for title in wide if title in narrow] == narrow
    assert {"name", "target", "kB", "trained"} <= set(narrow)
    # Names are there to be copied.
    assert [line.split()[0] for line in run(80, "list")[1:]] == zoo.list()


def test_a_file_gets_everything():
    result = CliRunner().invoke(app, ["list", "lstm*"], env={"COLUMNS": ""})
    assert result.stdout.splitlines()[0].split()[1:3] == ["task", "cell"]


def test_info_shows_the_certificate_before_and_after():
    known = zoo.info(LONG)
    lines = run(80, "info", LONG)
    before, after = (known.certificate[which]["transitions"] for which in ("initial", "stabilized"))
    for first, last in zip(before, after, strict=True):
        (row,) = [line for line in lines if line.startswith(last["name"])]
        assert f"{first['radius']:.3f} -> {last['radius']:.3f}" in row
        assert f"{first['gain']:.3f} -> {last['gain']:.3f}" in row
    assert f"keras-lsc fine-tune {LONG} --dataset parity" in lines
    for heading in ("Certificate", "Made by", "Use"):
        assert heading in lines


def test_a_report_of_long_names_fits_and_keeps_its_figures():
    name = "an_unusually_long_name_of_a_recurrent_layer.time"
    row = TransitionStatistics(name, "time", 0, "state 128+128", (256, 256), 0.7, 0.01, 0.3)
    report = StabilityReport("net", (row,), 1, 20, 64, 0)
    head, line = drawn(tables.report(report, 80), 80)
    assert head.split() == ["transition", "radius", "std", "gain", "isotropy"]
    assert line.split() == [name, "0.700", "0.010", "0.300", "0.43", "!"]
    head, line = drawn(tables.change(report, report, {"time": np.sqrt(0.5)}, 140), 140)
    figures = "state 128+128 0.707 0.700 -> 0.700 0.010 0.300 -> 0.300"
    assert " ".join(line.split()[1:]) == figures


def test_a_comparison_has_a_column_for_each_backend_and_fits(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    timing = Timing(compile=1.25, least=0.001, median=0.0123, low=0.0119, high=0.25, calls=20)
    first = BackendRow(
        "jax",
        device="cpu",
        versions={"jax": "0.10.2"},
        radii={"a.time": 0.7, "b.depth": 0.8, "a.input": 3.0, "b.input[x]": 4.0},
        training=timing,
        pretraining=timing,
        host_memory=690_000_000,
    )
    differences = {"radius_difference": 1.8e-8, "output_difference": 1e-7}
    other = replace(first, backend="torch", versions={}, gradient_difference=2.9e-7, **differences)
    absent = BackendRow("tensorflow", failed="not installed", is_absent=True)
    about = ("net", "0" * 64, "random", {"shape": [2, 3], "labels": "drawn"}, 8, 0)
    machine = {"cores": 2, "load": 0.1, "system": "Linux"}
    found = BackendComparison(*about, machine, (first, other, absent))
    comparison.show(found)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    for row in (
        "backend jax torch",
        "version 0.10.2 ?",
        "radii in time, depth 0.700 to 0.800 0.700 to 0.800",
        "largest of a radius - 1.8e-08",
        "norm of gradients, rel. - 2.9e-07",
        "training step 12.3 ms 12.3 ms",
        "11.9 to 250 11.9 to 250",
        "compilation 1.2 s 1.2 s",
        "peak memory 0.69 GB 0.69 GB",
        "tensorflow: not installed",
    ):
        assert row.split() in cells
    comparison.show(replace(found, rows=(first, absent)))
    assert "difference" not in capsys.readouterr().out
