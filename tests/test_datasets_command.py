"""The command that lists the tasks, and their page in the documentation."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_lsc import datasets
from keras_lsc_command.app import app

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"


def run(*arguments):
    return CliRunner().invoke(app, ["datasets", *map(str, arguments)])


def test_an_empty_folder(tmp_path):
    result = run("--data-dir", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["folder"] == str(tmp_path)
    rows = {row["name"]: row for row in printed["datasets"]}
    assert list(rows) == datasets.names()
    for name, row in rows.items():
        generated = datasets.info(name).source is None
        assert row["status"] == ("generated" if generated else "absent")
        assert row["licence"] == datasets.info(name).licence
    assert list(tmp_path.iterdir()) == []


def test_what_is_prepared_is_said(tfds_folder):
    result = run("--data-dir", tfds_folder, "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)["datasets"]}
    for name in datasets.names():
        found = None if name == "uea" else datasets.prepared(name, tfds_folder)
        if found is not None:
            assert rows[name]["prepared"]["examples"] == found.examples
            assert rows[name]["prepared"]["bytes"] == found.size


def test_a_part_of_a_dataset_is_said(tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    splits = [
        {"name": name, "shardLengths": [count], "numBytes": "1"}
        for name, count in (("train", "500"), ("test", "100"))
    ]
    description = {"name": "mnist", "version": "3.0.1", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(description))
    table = run("--data-dir", tmp_path)
    assert table.exit_code == 0, table.output
    for name in datasets.names():
        assert name in table.stdout
    assert "smnist is prepared in part: 500 train, 100 test." in table.stdout
    assert f"Folder of the datasets: {tmp_path}" in table.stdout


def test_problems_of_the_uea_archive_are_named(raw_folder):
    if not (raw_folder / "uea").is_dir():
        pytest.skip(f"the UEA archive is not in {raw_folder}")
    rows = {
        row["name"]: row
        for row in json.loads(run("--data-dir", raw_folder, "--json").stdout)["datasets"]
    }
    assert rows["uea"]["status"] == "prepared"
    assert rows["uea"]["problems"] == ["BasicMotions", "JapaneseVowels"]


@pytest.mark.parametrize("name", datasets.names())
def test_the_page_describes_the_task(name):
    info = datasets.info(name)
    text = PAGE.read_text().partition("## Options")[0]
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert info.description in row
    assert info.homepage in row
    for size in info.examples.values():
        assert "?" if size is None else f"{size:,}" in row


@pytest.mark.parametrize("name", datasets.names())
def test_the_page_names_the_options(name):
    own = set(datasets.options(name)) - {"limit", "data_dir", "download"}
    text = PAGE.read_text().partition("## Options")[2].partition("## Splits")[0]
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert own == set(re.findall("`([a-z_]+)`", "".join(rows))) - {name}
