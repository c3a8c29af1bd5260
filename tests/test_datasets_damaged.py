"""Prepared datasets that are damaged: every reader refuses them with the one documented error."""

import io
import json
import sys
import traceback
import zlib

import numpy as np
import pytest
import requests
from PIL import Image

from fuzz.prepared import serialized, small_records, write_prepared
from keras_lsc import datasets
from keras_lsc.datasets import source

pytestmark = pytest.mark.once
SOURCES = {"smnist": "mnist", "ptb": "ptb", "tiny_shakespeare": "tiny_shakespeare", "shd": "shd"}
SOURCES["spoken_digit"] = "spoken_digit"


def prepared(folder, task, changed=None):
    """Writes a dataset in small, a record of its test file, or of its only one, changed."""
    splits = {
        name: [dict(one) for one in rows] for name, rows in small_records(SOURCES[task]).items()
    }
    rows = splits.get("test", splits["train"])
    for name, value in (changed or {}).items():
        rows[0][name] = value
    records = {split: [serialized(one) for one in found] for split, found in splits.items()}
    return write_prepared(folder, SOURCES[task], records)


def load(folder, task):
    return datasets.load(task, "test", data_dir=folder, download=False)


@pytest.mark.parametrize("task", SOURCES)
def test_a_small_dataset_is_read(tmp_path, task):
    prepared(tmp_path, task)
    x, y = load(tmp_path, task)
    assert len(x) == len(y) > 0
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    ("task", "changed", "message"),
    [
        ("smnist", {"image": b"no picture"}, "a picture is damaged"),
        ("smnist", {"label": 10}, "a label is none of the 10 classes"),
        ("smnist", {"label": -1}, "a label is none of the 10 classes"),
        ("smnist", {"label": [1, 2]}, "2 values of 'label', and not one"),
        ("smnist", {"label": None}, "0 values of 'label', and not one"),
        ("smnist", {"label": b"3"}, "no feature 'label' of integer"),
        ("ptb", {"text": b"the \xff cat"}, "the text of test is not UTF-8"),
        ("ptb", {"text": b"the dog"}, "has the word 'dog', which the training text lacks"),
        ("ptb", {"text": b""}, "the text of test has no words"),
        ("tiny_shakespeare", {"text": b"First Z"}, "characters that the training text lacks"),
        ("tiny_shakespeare", {"text": b"\xc3\xa9"}, "characters that the training text lacks"),
        ("tiny_shakespeare", {"text": b""}, "the text of test is empty"),
        ("shd", {"units": np.arange(9) + 695}, "pairs of a time and one of 700 channels"),
        ("shd", {"units": np.arange(9) - 1}, "pairs of a time and one of 700 channels"),
        ("shd", {"units": np.arange(8)}, "pairs of a time and one of 700 channels"),
        ("shd", {"times": np.full(9, np.nan)}, "pairs of a time and one of 700 channels"),
        ("spoken_digit", {"audio/filename": b"\xff.wav"}, "has the name of none"),
        ("spoken_digit", {"audio/filename": b"1_a.wav"}, "has the name of none"),
        ("spoken_digit", {"audio": np.zeros(0, int)}, "a recording is empty"),
        ("spoken_digit", {"audio": np.zeros(99, int)}, "shorter than a frame of 25 ms"),
    ],
)
def test_damaged_records_are_refused(tmp_path, task, changed, message):
    prepared(tmp_path, task, changed)
    with pytest.raises(datasets.DatasetUnavailableError, match=message):
        load(tmp_path, task)


def picture(size, mode="L"):
    written = io.BytesIO()
    Image.new(mode, size).save(written, "PNG")
    return written.getvalue()


def bomb():
    """A picture of 67 bytes that declares 30,000 x 30,000 pixels."""
    small = bytearray(picture((28, 28)))
    small[16:24] = (30_000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.parametrize(
    "image", [picture((29, 28)), picture((28, 28), "RGB"), picture((28, 28))[:-30], bomb()]
)
def test_pictures_of_another_size_are_not_decoded(tmp_path, image):
    prepared(tmp_path, "smnist", {"image": image})
    with pytest.raises(datasets.DatasetUnavailableError, match=r"mnist .* a picture is"):
        load(tmp_path, "smnist")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"splits": {}},
        {"splits": [[]]},
        {"splits": [{"name": "test"}]},
        {"splits": [{"name": ["test"], "shardLengths": ["6"]}]},
        {"splits": [{"name": "../test", "shardLengths": ["6"]}]},
        {"splits": [{"name": "test", "shardLengths": "6"}]},
        *({"splits": [{"name": "test", "shardLengths": [one]}]} for one in ("-6", 6.0, True, "٦")),
        {"splits": [{"name": "test", "shardLengths": ["6"]}] * 2},
    ],
)
def test_damaged_descriptions_are_refused(tmp_path, change):
    file = prepared(tmp_path, "smnist") / "dataset_info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    for call in (load, lambda folder, task: datasets.prepared(task, folder)):
        with pytest.raises(datasets.DatasetUnavailableError, match="description cannot be read"):
            call(tmp_path, "smnist")


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"[" * 100_000, b"", b"null"])
def test_descriptions_that_are_none(tmp_path, content):
    (prepared(tmp_path, "smnist") / "dataset_info.json").write_bytes(content)
    with pytest.raises(datasets.DatasetUnavailableError, match="description cannot be read"):
        load(tmp_path, "smnist")


@pytest.mark.parametrize("count", ["5", "7", "1000000000000"])
def test_other_records_than_declared_are_refused(tmp_path, count):
    file = prepared(tmp_path, "smnist") / "dataset_info.json"
    content = json.loads(file.read_text())
    content["splits"][1]["shardLengths"] = [count]
    file.write_text(json.dumps(content))
    with pytest.raises(datasets.DatasetUnavailableError, match=f"6 records, and {count} are"):
        load(tmp_path, "smnist")


def test_reading_imports_nothing_that_the_data_names(tmp_path, monkeypatch):
    (tmp_path / "imported_by_the_data.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    feature = {"pythonClassName": "imported_by_the_data.Feature"}
    (prepared(tmp_path, "smnist") / "features.json").write_text(json.dumps(feature))
    assert len(load(tmp_path, "smnist")[1]) == 6
    assert "imported_by_the_data" not in sys.modules


def test_a_missing_dataset_offline_is_one_traceback(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("no route to host") from OSError("and its causes")

    monkeypatch.setattr(requests, "head", unreachable)
    monkeypatch.setattr(source, "_is_installed", lambda module: True)
    with pytest.raises(datasets.DatasetUnavailableError) as caught:
        datasets.load("ptb", data_dir=tmp_path)
    printed = "".join(traceback.format_exception(caught.value))
    assert printed.count("Traceback") == 1
    assert "no route to host" in printed


@pytest.mark.parametrize("folder", ["", "a\0b", 3, b"x", "~nobody-has-this-name/x"])
def test_folders_that_are_none(folder):
    with pytest.raises(ValueError, match="data_dir"):
        datasets.load("smnist", data_dir=folder, download=False)


@pytest.mark.parametrize("task", ["shd", "spoken_digit", "spoken_digit_spikes"])
def test_times_beyond_all_bounds_are_refused(task):
    with pytest.raises(ValueError, match="too many time steps"):
        datasets.load(task, max_time=1e300, download=False)
