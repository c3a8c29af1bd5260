"""Verifying many checkpoints: in several processes, and past what cannot be measured."""

import json
import os

import pytest
from typer.testing import CliRunner

from keras_lsc import zoo
from keras_lsc.zoo import sweep
from keras_lsc_command.app import app

TINY = "test_gru_parity_d2_rhovar"
LEVELLED = "test_gru_parity_d4_level"
# Its data is never drawn, and no fixture prepares it.
ABSENT = "gru_spoken_digit_d2_rhovar"
# In place of the package, which takes seconds to import.
_FAKE = """
import os, sys, time
def verifier(data_dir, weights):
    return lambda names: (outcome(name, data_dir, weights) for name in names)
def outcome(name, data_dir, weights):
    print("what a library says")
    if name == "dies":
        print("the last words", file=sys.stderr)
        os._exit(3)
    if name == "waits":
        time.sleep(300)
    threads = os.environ["OMP_NUM_THREADS"]
    return {"name": name, "process": os.getpid(), "threads": threads, "data_dir": data_dir,
            "weights": weights}
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    (tmp_path / "fake_sweep.py").write_text(_FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sweep, "_VERIFIER", "fake_sweep:verifier")


def verify(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_processes_share_the_names_and_the_cores(fake, tmp_path):
    names = [f"name_{k}" for k in range(12)]
    told = []
    rows = sweep.verify_all(names, 2, told.append, tmp_path)
    assert [row["name"] for row in rows] == names
    assert sorted(told, key=str) == sorted(rows, key=str)
    assert 1 <= len({row["process"] for row in rows}) <= 2
    assert {row["threads"] for row in rows} == {"4"}
    assert rows[0]["data_dir"] == str(tmp_path)
    assert rows[0]["weights"] == "stabilized"
    rows = sweep.verify_all(["a", "b"], 2, told.append, weights="trained")
    assert [(row["weights"], row["data_dir"]) for row in rows] == 2 * [("trained", None)]


@pytest.mark.once
def test_a_process_that_dies_takes_one_checkpoint_with_it(fake):
    names = ["a", "dies", "b", "c"]
    rows = sweep.verify_all(names, 2, lambda row: None)
    assert [row["name"] for row in rows] == names
    failed = rows[1]
    assert (failed["verdict"], failed["passed"]) == ("failed", False)
    assert failed["problems"] == ["the worker ended with exit code 3: the last words"]


@pytest.mark.once
def test_an_interruption_ends_every_process(fake):
    processes = []

    def interrupt(row):
        processes.append(row["process"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.verify_all(["waits", "a"], 2, interrupt)
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.once
def test_a_sweep_goes_past_data_that_is_not_here(tmp_path):
    output = tmp_path / "found.json"
    absent = ABSENT, ABSENT.replace("rhovar", "rho1")
    result = verify(*absent, TINY, LEVELLED, "--data-dir", tmp_path, "--output", output)
    assert result.exit_code == 0, result.output
    assert "2 passed and 0 failed" in result.stdout
    assert "2 were not measured, because their data is not on this computer" in result.stdout
    assert result.stdout.count("spoken_digit is not prepared") == 1
    rows = {row["name"]: row for row in json.loads(output.read_text())}
    assert list(rows) == [*absent, TINY, LEVELLED]
    assert (rows[ABSENT]["verdict"], rows[ABSENT]["passed"]) == ("no data", None)
    assert "spoken_digit" in rows[ABSENT]["problems"][0]
    assert rows[TINY]["energy_difference"] is None
    assert rows[LEVELLED]["energy_difference"] <= 1e-3
    assert all(row.keys() == rows[TINY].keys() for row in rows.values())


@pytest.mark.once
def test_a_sweep_that_measured_nothing_has_failed(tmp_path):
    result = verify(ABSENT, "--data-dir", tmp_path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["verdict"] == "no data"


@pytest.mark.once
def test_a_damaged_checkpoint_fails_and_the_next_is_measured(monkeypatch):
    def damaged(name, **options):
        raise zoo.DamagedCheckpointError(f"{name} is cut off")

    monkeypatch.setattr(sweep, "verify", damaged)
    rows = sweep.verify_all([TINY, LEVELLED], 1, lambda row: None)
    assert [row["verdict"] for row in rows] == ["failed", "failed"]
    assert rows[0]["problems"] == [f"{TINY} is cut off"]


@pytest.mark.once
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    result = verify("--all", "--output", tmp_path / "absent" / "found.json")
    assert result.exit_code == 1
    assert "does not exist" in result.stderr
