"""The datasets: what they return, and what they say when they cannot."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import requests

from fuzz.prepared import serialized, small_records, write_prepared
from keras_lsc import callbacks, datasets, layers
from keras_lsc.datasets import source

pytestmark = pytest.mark.once

# Counts of the digits 0 to 9 in the two files of MNIST, as published.
TRAINING_FILE_DIGITS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_FILE_DIGITS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def mnist_folder(tfds_folder):
    if not (tfds_folder / "mnist").is_dir():
        pytest.skip(f"MNIST is not prepared in {tfds_folder}")
    return tfds_folder / "mnist"


@pytest.fixture(scope="module")
def mnist_files(mnist_folder):
    """Every record of the two files of MNIST; undecoded, which takes a tenth of the time."""
    features = {"image": "bytes", "label": "integer"}
    return {
        file: source.read_examples(
            "mnist", source.Part(file), features, data_dir=mnist_folder.parent
        )
        for file in ("train", "test")
    }


@pytest.fixture(scope="module")
def smnist(mnist_folder):
    """All of the smaller splits, and as much of the training split."""
    return {
        split: datasets.load(
            "smnist", split, limit=10_000, data_dir=mnist_folder.parent, download=False
        )
        for split in SPLITS
    }


def truncated_copy(folder: Path, copy: Path) -> None:
    """Copies a prepared dataset with only the first bytes of every data file."""
    for file in folder.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            is_data = "array_record" in file.name
            target.write_bytes(file.read_bytes()[: 100_000 if is_data else None])


def test_names_are_those_of_the_tasks():
    assert datasets.names() == [
        *("adding", "arrow_pointing", "cifar10", "cifar100", "copy_memory", "delayed_match"),
        *("digits", "mnist"),
        *("parity", "psmnist", "ptb", "scifar10", "shd", "smnist", "smnist_latency"),
        *("spike_patterns", "spoken_digit", "spoken_digit_spikes", "tiny_shakespeare", "uea"),
    ]


def test_unknown_name_names_the_closest():
    with pytest.raises(ValueError, match=r"'smnits'; did you mean 'smnist'.*parity, psmnist"):
        datasets.load("smnits")


@pytest.mark.parametrize("name", datasets.names())
def test_information_is_complete(name):
    info = datasets.info(name)
    assert info.name == name
    assert info.citation.startswith("@")
    assert info.homepage.startswith("http")
    assert info.licence
    assert tuple(info.examples) == SPLITS
    assert keras.losses.get(info.loss) is not None
    if info.metric != "perplexity":
        assert keras.metrics.get(info.metric) is not None
    assert json.loads(json.dumps(info.to_dict()))["shape"] == list(info.shape)
    with pytest.raises(TypeError):
        info.examples["train"] = 1


def test_information_says_what_is_to_be_predicted():
    targets = {name: datasets.info(name) for name in datasets.names()}
    assert (targets["smnist"].classes, targets["smnist"].vocabulary) == (10, None)
    assert (targets["ptb"].classes, targets["ptb"].vocabulary) == (None, 10_000)
    assert (targets["adding"].classes, targets["adding"].metric) == (None, "mean_squared_error")
    assert targets["ptb"].metric == "perplexity"
    per_step = [name for name, task in targets.items() if task.per_step]
    assert per_step == ["copy_memory", "ptb", "tiny_shakespeare"]


@pytest.mark.parametrize("name", datasets.names())
def test_every_task_takes_what_tasks_share(name):
    assert {"limit": None, "data_dir": None}.items() <= datasets.options(name).items()
    with pytest.raises(ValueError, match="download must be True or False"):
        datasets.load(name, download=1)
    with pytest.raises(ValueError, match="data_dir must be the path of a folder"):
        datasets.load(name, data_dir=3)


def test_options_are_those_of_the_task():
    own = {
        name: list(datasets.options(name))[3:] for name in ("digits", "smnist_latency", "adding")
    }
    assert own == {
        "digits": [],
        "smnist_latency": ["steps", "time_constant", "threshold"],
        "adding": ["length", "seed"],
    }
    assert datasets.options("smnist_latency")["time_constant"] == 20.0


def test_what_is_generated_reads_no_folder(tmp_path):
    absent = tmp_path / "absent"
    for array, same in zip(
        datasets.load("parity", limit=9, data_dir=absent, download=False),
        datasets.load("parity", limit=9),
        strict=True,
    ):
        np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", datasets.names())
def test_unknown_option_names_the_options(name):
    with pytest.raises(TypeError, match=f"{name} takes no option 'lmit'; its options: .*limit"):
        datasets.load(name, lmit=3)


def test_what_is_prepared(mnist_folder, tmp_path):
    found = datasets.prepared("psmnist", mnist_folder.parent)
    assert found.examples == {"train": 60_000, "test": 10_000}
    assert found.folder == mnist_folder / found.version
    assert found.size == sum(file.stat().st_size for file in found.folder.iterdir())
    assert datasets.prepared("psmnist", tmp_path) is None
    assert datasets.prepared("adding", mnist_folder.parent) is None


def test_damaged_description_is_reported(tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "mnist", "splits": [')
    with pytest.raises(datasets.DatasetUnavailableError, match="description cannot be read"):
        datasets.load("smnist", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("name", datasets.names())
def test_unknown_split_names_the_splits(name):
    with pytest.raises(ValueError, match=r"split must be one of 'train', .* got 'valid'"):
        datasets.load(name, split="valid")


@pytest.mark.parametrize("name", datasets.names())
@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_impossible_limit_is_refused(name, limit):
    with pytest.raises(ValueError, match=f"limit must be a positive integer, got {limit!r}"):
        datasets.load(name, limit=limit)


def test_mnist_has_the_published_digits(mnist_files):
    for file, expected in (("train", TRAINING_FILE_DIGITS), ("test", TEST_FILE_DIGITS)):
        labels = [example["label"] for example in mnist_files[file]]
        assert np.bincount(labels, minlength=10).tolist() == expected


def test_smnist_splits_part_the_files(mnist_files, smnist):
    labels = {file: [one["label"] for one in rows] for file, rows in mnist_files.items()}
    assert dict(datasets.info("smnist").examples) == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert smnist["train"][1].tolist() == labels["train"][:10_000]
    assert smnist["validation"][1].tolist() == labels["train"][55_000:]
    assert smnist["test"][1].tolist() == labels["test"]
    # Equal pictures of one encoder are equal files.
    pictures = [one["image"] for rows in mnist_files.values() for one in rows]
    assert len(set(pictures)) == 70_000


def test_splits_leave_out_nothing(tmp_path):
    # A dataset in small, of 24 and 6 pictures whose labels count from 0 to 9 again and again.
    records = {
        split: [serialized(one) for one in rows] for split, rows in small_records("mnist").items()
    }
    write_prepared(tmp_path, "mnist", records)
    labels = [
        datasets.load("smnist", split, data_dir=tmp_path, download=False)[1] for split in SPLITS
    ]
    assert [len(one) for one in labels] == [22, 2, 6]
    assert np.concatenate(labels).tolist() == [*(k % 10 for k in range(24)), *range(6)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_smnist_shapes_dtypes_and_range(smnist, split):
    x, y = smnist[split]
    assert x.shape == (len(y), 28, 28)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert x.min() == 0.0
    assert x.max() == 1.0
    assert (x.max(axis=(1, 2)) > 0.5).all(), "an image without ink was not decoded"


def test_smnist_rows_are_time_steps(smnist):
    x, _ = smnist["test"]
    # Digits are higher than wide: the ink spans 20 rows, and no more than 20 columns.
    ink_rows = (x > 0).any(axis=2).sum(axis=1)
    ink_columns = (x > 0).any(axis=1).sum(axis=1)
    assert np.median(ink_rows) == 20
    assert np.median(ink_columns) < 20


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_smnist_limit_returns_the_first_digits(smnist, tfds_folder, split):
    x, y = datasets.load("smnist", split, limit=7, data_dir=tfds_folder, download=False)
    np.testing.assert_array_equal(x, smnist[split][0][:7])
    np.testing.assert_array_equal(y, smnist[split][1][:7])


def test_smnist_limit_beyond_the_end_returns_the_split(smnist, tfds_folder):
    _, y = datasets.load("smnist", "validation", limit=1_000_000, data_dir=tfds_folder)
    np.testing.assert_array_equal(y, smnist["validation"][1])


def test_absent_data_names_dataset_folder_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(datasets.DatasetUnavailableError) as caught:
        datasets.load("cifar10", download=False)
    message = str(caught.value)
    assert f"cifar10 is not prepared in {tmp_path}" in message
    assert "TFDS_DATA_DIR" in message
    assert "download_and_prepare" in message
    assert list(tmp_path.iterdir()) == []


def test_absent_data_without_network(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", unreachable)
    monkeypatch.setattr(source, "_is_installed", lambda module: True)
    with pytest.raises(datasets.DatasetUnavailableError, match="failed: no route to host"):
        datasets.load("ptb", data_dir=tmp_path)


def test_absent_data_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_is_installed", lambda module: module != "tensorflow")
    with pytest.raises(datasets.DatasetUnavailableError, match="needs TensorFlow, which is not"):
        datasets.load("cifar10", data_dir=tmp_path)


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(source, "_is_installed", lambda module: module != "array_record")
    with pytest.raises(ModuleNotFoundError, match=r"needs array_record.*keras-lsc\[datasets\]"):
        datasets.load("cifar10", download=False)


def test_truncated_data_is_reported(mnist_folder, tmp_path):
    truncated_copy(mnist_folder, tmp_path / "mnist")
    with pytest.raises(datasets.DatasetUnavailableError, match=r"cannot be read.*prepare it again"):
        datasets.load("smnist", data_dir=tmp_path, download=False)


def test_data_in_another_format_is_reported(mnist_folder, tmp_path):
    truncated_copy(mnist_folder, tmp_path / "mnist")
    for file in tmp_path.rglob("dataset_info.json"):
        info = json.loads(file.read_text())
        file.write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(datasets.DatasetUnavailableError, match="cannot be opened as array_record"):
        datasets.load("smnist", data_dir=tmp_path, download=False)


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_flipped_byte_is_reported(mnist_folder, tmp_path, position):
    shutil.copytree(mnist_folder, tmp_path / "mnist")
    (file,) = tmp_path.rglob("*-test.array_record*")
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(datasets.DatasetUnavailableError, match=r"cannot be read.*prepare it again"):
        datasets.load("smnist", "test", data_dir=tmp_path, download=False)


def test_preparing_is_only_tried_where_it_can_succeed(tmp_path):
    with pytest.raises(datasets.DatasetUnavailableError, match=r"lacks ptb\.train\.txt, ptb"):
        datasets.load("ptb", data_dir=tmp_path, manual_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (datasets, "LaneBatches", datasets.ContiguousBatches),
        (datasets, "CarriedState", layers.CarriedState),
        (layers, "FiringRateSchedule", callbacks.FiringRateSchedule),
    ],
)
def test_old_names_say_the_new_one(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now keras_lsc.*{new.__name__}"):
        assert getattr(module, old) is new
    assert old not in module.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018
