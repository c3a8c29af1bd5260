"""One checkpoint on every backend: equal numbers, rows for what is absent or fails, exit codes."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_lsc import plot, zoo
from keras_lsc.comparison import BACKENDS, BackendComparison, BackendRow, compare_backends
from keras_lsc.comparison.report import with_differences
from keras_lsc_command.app import app

TINY = "test_sigmoid_parity_d2_rhovar"
# A comparison starts every backend itself.
pytestmark = pytest.mark.once
# Torch has nothing to compile.
BACKEND = "torch" if importlib.util.find_spec("torch") else keras.backend.backend()
OTHER = next(name for name in BACKENDS if name != BACKEND)
FEW = {"samples": 16, "repeats": 3, "batch_size": 16}

mpl.use("Agg")


def run(*arguments):
    return CliRunner().invoke(app, ["compare-backends", *map(str, arguments)])


@pytest.fixture(scope="module")
def comparison():
    """On all backends that are installed."""
    return compare_backends(TINY, **FEW)


@pytest.fixture
def absent(monkeypatch):
    """Makes a backend one that cannot be found."""
    find = importlib.util.find_spec

    def hide(*names):
        def found(name, package=None):
            return None if name in names else find(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", found)

    return hide


def test_backends_agree(comparison):
    assert [row.backend for row in comparison.rows] == list(BACKENDS)
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    assert [row.backend for row in comparison.ran] == installed
    first, *others = comparison.ran
    assert first.radius_difference is first.output_difference is first.gradient_difference is None
    for row in others:
        # Rounding of float32; the radius squares its matrix a few times.
        assert row.radius_difference < 1e-4
        assert row.output_difference < 1e-5
        assert row.gradient_difference < 1e-4


def test_radii_are_those_of_the_model(comparison):
    for row in comparison.ran:
        certified = zoo.info(TINY).certificate["stabilized"]["transitions"]
        assert row.radii.keys() == {transition["name"] for transition in certified}
        for transition in certified:
            # 16 points instead of the certificate's: five standard errors.
            spread = 5 * transition["radius_std"] / 4 + 1e-3
            assert row.radii[transition["name"]] == pytest.approx(transition["radius"], abs=spread)


def test_times_and_memory_are_told(comparison):
    for row in comparison.ran:
        for timing in (row.training, row.pretraining):
            assert 0 < timing.least <= timing.low <= timing.median <= timing.high
            assert timing.compile >= 0
            assert timing.calls == 3
        # Python with a framework takes more than a tenth of a GB.
        assert row.host_memory > 1e8
        assert row.device
        assert set(row.versions) == {"keras", "numpy", row.backend}


def test_the_batch_is_that_of_the_certificate_s_data(comparison):
    assert comparison.data == "the first 16 validation sequences of parity"
    assert comparison.inputs["shape"] == [16, 12, 1]
    assert comparison.inputs["labels"] == "of the data"
    assert comparison.sha256 == zoo.info(TINY).sha256


def test_round_trip_through_json(comparison):
    again = BackendComparison.from_dict(json.loads(json.dumps(comparison.to_dict())))
    assert again == comparison
    assert str(again) == str(comparison)


def test_the_table_and_the_picture_show_the_figures(comparison):
    table = str(comparison)
    for row in comparison.ran:
        median = 1e3 * row.training.median
        assert (f"{median:.0f} ms" if median >= 100 else f"{median:.3g} ms") in table
        assert row.versions[row.backend] in table
    times, differences = plot.backends(comparison)
    drawn = {line.get_label(): line for line in times.get_lines()}
    medians = [1e3 * row.pretraining.median for row in comparison.ran]
    np.testing.assert_allclose(drawn["pre-training"].get_xdata(), medians)
    assert differences.get_xlabel() == f"difference to {comparison.ran[0].backend}"


def test_the_picture_of_one_backend_has_room_and_no_differences(comparison, recwarn):
    alone = dataclasses.replace(comparison, rows=comparison.ran[:1])
    times, differences = plot.backends(alone)
    times.figure.canvas.draw()
    assert not recwarn.list
    assert not differences.get_lines()
    left, right = times.get_xlim()
    assert right >= 7.99 * left


def test_an_absent_backend_is_a_row_and_the_others_run(absent, tmp_path):
    absent(OTHER)
    result = run(
        *(TINY, "--backends", f"{OTHER},{BACKEND}", "--samples", 4, "--repeats", 1, "--json"),
        *("--plot", tmp_path / "backends.png"),
    )
    assert result.exit_code == 0, result.output
    missing, present = json.loads(result.stdout)["rows"]
    assert missing["failed"] == f'not installed: pip install "keras-lsc[{OTHER}]"'
    assert (missing["is_absent"], present["failed"]) == (True, None)
    assert present["radius_difference"] is None
    assert (tmp_path / "backends.png").read_bytes().startswith(b"\x89PNG")


def test_no_backend_at_all(absent):
    absent(*BACKENDS)
    result = run(TINY)
    assert result.exit_code == 1
    for name in BACKENDS:
        assert f'not installed: pip install "keras-lsc[{name}]"' in result.stdout
    with pytest.raises(ValueError, match="no backend ran"):
        plot.backends(compare_backends(TINY))


def test_a_file_of_ones_own_reads_drawn_inputs(tmp_path):
    path = tmp_path / "mine.keras"
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.SimpleRNN(4, return_sequences=True),
            keras.layers.SimpleRNN(4),
        ]
    )
    model.save(path)
    found = compare_backends(str(path), backends=[BACKEND], **FEW)
    assert found.data == "normally distributed inputs"
    assert found.inputs["shape"] == [16, 50, 3]
    assert found.inputs["labels"] == "random"
    assert len(found.ran) == 1


def test_a_backend_that_fails_is_a_row_and_exit_code_1(tmp_path):
    path = tmp_path / "two.keras"
    inputs = [keras.Input((5, 2)), keras.Input((5, 2))]
    states = keras.layers.GRU(3)(keras.layers.Add()(inputs))
    keras.Model(inputs, states, name="two").save(path)
    result = run(path, "--backends", BACKEND)
    assert result.exit_code == 1
    assert "'two' has 2 inputs and 1 outputs" in result.stdout
    assert "Traceback" not in result.output


def test_a_backend_that_takes_too_long_is_given_up():
    (row,) = compare_backends(TINY, backends=[BACKEND], timeout=0.01).rows
    assert "given up after 0.01 s" in row.failed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["test_sigmoid_parity"], [TINY]),
        (["absent.keras"], ["absent.keras"]),
        ([TINY, "--dataset", "party"], ["'party'", "'parity'"]),
        ([TINY, "--dataset", "smnist", "--data-dir", "absent"], ["mnist is not prepared"]),
        ([TINY, "--backends", "jax,theano"], ["jax,theano", "tensorflow"]),
        ([TINY, "--repeats", "0"], ["repeats must be", "got 0"]),
        ([TINY, "--plot", "absent/backends.png"], ["absent/backends.png"]),
    ],
)
def test_wrong_use_is_one_line(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("keras-lsc: error: ")
    for part in expected:
        assert part in line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("at", [0, 1])
def test_a_radius_that_is_not_a_number_is_the_largest_difference(at):
    radii = {"a.time": 0.5, "b.time": 0.7}
    spoiled = {**radii, list(radii)[at]: float("nan")}
    one = np.ones(3)
    first, other = BackendRow("jax", radii=radii), BackendRow("torch", radii=spoiled)
    assert np.isnan(with_differences(other, one, one, first, one, one).radius_difference)
    assert with_differences(first, one, one, first, one, one).radius_difference == 0.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("batch_size", value) for value in (0, -3, 2.5, None)),
        *(("samples", value) for value in (0, True)),
        *(("repeats", value) for value in (0, "3")),
        *(("seed", value) for value in (None, -1)),
        *(("timeout", value) for value in (0, float("nan"), "long")),
        *(("backends", value) for value in ("jax", [], [["jax"]], ["jax", "jax"], None, [3])),
        ("name", None),
        ("name", 3),
    ],
)
def test_wrong_arguments(argument, value):
    with pytest.raises(ValueError, match=argument):
        compare_backends(**{"name": TINY, argument: value})
