"""The datasets: what they return, and what they say when they cannot."""

import functools
import json
import operator
from pathlib import Path

import numpy as np
import pytest
import requests
from harness import run_python

from keras_lsc import datasets
from keras_lsc.datasets import source

# Counts of the digits 0 to 9 in the two files of MNIST, as published.
TRAINING_FILE_DIGITS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_FILE_DIGITS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def mnist_folder():
    folder = source.default_data_dir() / "mnist"
    if not folder.is_dir():
        pytest.skip(f"MNIST is not prepared: {folder} does not exist; set TFDS_DATA_DIR")
    return folder


@pytest.fixture(scope="module")
def smnist(mnist_folder):
    return {
        split: datasets.load("smnist", split=split, download=False)
        for split in ("train", "validation", "test")
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
        *("adding", "cifar10", "cifar100", "copy_memory", "delayed_match", "mnist", "parity"),
        *("psmnist", "ptb", "scifar10", "shd", "smnist", "smnist_latency", "spike_patterns"),
        *("spoken_digit", "spoken_digit_spikes", "tiny_shakespeare", "uea"),
    ]


def test_unknown_name_names_the_closest():
    with pytest.raises(ValueError, match=r"'smnits'; did you mean 'smnist'.*parity, psmnist"):
        datasets.load("smnits")


@pytest.mark.parametrize("name", datasets.names())
def test_unknown_split_names_the_splits(name):
    with pytest.raises(ValueError, match="'valid'; use one of train, validation, test"):
        datasets.load(name, split="valid")


@pytest.mark.parametrize("name", datasets.names())
@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_impossible_limit_is_refused(name, limit):
    with pytest.raises(ValueError, match=f"limit={limit!r} is not an integer of at least 1"):
        datasets.load(name, limit=limit)


def test_smnist_has_the_published_digits(smnist):
    counts = {split: np.bincount(y, minlength=10) for split, (_, y) in smnist.items()}
    assert {split: len(y) for split, (_, y) in smnist.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert (counts["train"] + counts["validation"]).tolist() == TRAINING_FILE_DIGITS
    assert counts["test"].tolist() == TEST_FILE_DIGITS


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


def test_smnist_splits_are_disjoint(smnist):
    images = {split: {image.tobytes() for image in x} for split, (x, _) in smnist.items()}
    assert images["train"].isdisjoint(images["validation"])
    assert images["train"].isdisjoint(images["test"])
    assert images["validation"].isdisjoint(images["test"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_smnist_limit_returns_the_first_digits(smnist, split):
    x, y = datasets.load("smnist", split=split, limit=7, download=False)
    np.testing.assert_array_equal(x, smnist[split][0][:7])
    np.testing.assert_array_equal(y, smnist[split][1][:7])


def test_smnist_limit_beyond_the_end_returns_the_split(smnist):
    _, y = datasets.load("smnist", split="validation", limit=1_000_000, download=False)
    np.testing.assert_array_equal(y, smnist["validation"][1])


def test_smnist_reads_without_tensorflow(mnist_folder):
    program = (
        "import sys\n"
        "from keras_lsc import datasets\n"
        "x, _ = datasets.load('smnist', 'test', limit=3, download=False)\n"
        "print(x.shape, 'tensorflow' in sys.modules)\n"
    )
    printed = run_python(program, backend="jax", TFDS_DATA_DIR=str(mnist_folder.parent))
    assert printed.strip() == "(3, 28, 28) False"


def test_absent_data_names_dataset_folder_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(datasets.DatasetUnavailableError) as caught:
        datasets.load("smnist", download=False)
    message = str(caught.value)
    assert f"mnist is not prepared in {tmp_path}" in message
    assert "TFDS_DATA_DIR" in message
    assert "download_and_prepare" in message
    assert list(tmp_path.iterdir()) == []


def test_absent_data_without_network(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", unreachable)
    monkeypatch.setattr(source, "_is_installed", lambda module: True)
    with pytest.raises(datasets.DatasetUnavailableError, match="failed: no route to host"):
        datasets.load("smnist", data_dir=tmp_path)


def test_absent_data_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_is_installed", lambda module: module != "tensorflow")
    with pytest.raises(datasets.DatasetUnavailableError, match="needs TensorFlow, which is not"):
        datasets.load("smnist", data_dir=tmp_path)


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(source, "_is_installed", lambda module: module != "array_record")
    with pytest.raises(ModuleNotFoundError, match=r"needs array_record.*keras-lsc\[datasets\]"):
        datasets.load("smnist", download=False)


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


@pytest.mark.parametrize(("n", "delay", "length"), [(1, 0, 1), (2, 10, 30), (5, 0, 12), (3, 4, 7)])
def test_parity_obeys_its_law(n, delay, length):
    x, y = datasets.load("parity", limit=500, n=n, delay=delay, length=length, seed=3)
    assert x.shape == (500, length, 1)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    assert set(np.unique(x)) == {0.0, 1.0}
    for sequence, label in zip(x, y, strict=True):
        bits = [int(bit) for bit in sequence[:, 0]]
        seen_last = bits[:-delay] if delay else bits
        assert functools.reduce(operator.xor, seen_last[-n:]) == label


def test_parity_cannot_be_told_from_one_bit():
    x, y = datasets.load("parity", n=3, delay=2, length=8)
    correlations = [np.corrcoef(x[:, t, 0], y)[0, 1] for t in range(8)]
    # No single bit tells the parity: 5 standard errors of a correlation over 50,000 draws.
    assert np.abs(correlations).max() < 5 / np.sqrt(50_000)
    together = x[:, 3:6, 0].sum(axis=1) % 2
    np.testing.assert_array_equal(together, y)


def test_parity_is_balanced():
    _, y = datasets.load("parity")
    # 5 standard deviations of the mean of 50,000 fair coins.
    assert abs(y.mean() - 0.5) < 5 * 0.5 / np.sqrt(50_000)


def test_parity_sizes_and_splits():
    sequences = {}
    for split, size in (("train", 50_000), ("validation", 5_000), ("test", 5_000)):
        x, y = datasets.load("parity", split=split, length=64)
        assert len(x) == len(y) == size
        sequences[split] = {sequence.tobytes() for sequence in x}
    # 64 random bits: two of the 60,000 sequences are equal with a chance of 1e-10.
    assert len(set.union(*sequences.values())) == 60_000


def test_parity_is_fixed_by_its_seed():
    first, _ = datasets.load("parity", seed=1)
    again, _ = datasets.load("parity", seed=1)
    other, _ = datasets.load("parity", seed=2)
    part, _ = datasets.load("parity", seed=1, limit=10)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(part, first[:10])
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0 is not an integer of at least 1"),
        ({"delay": -1}, "delay=-1 is not an integer of at least 0"),
        ({"length": 1.5}, "length=1.5 is not an integer of at least 1"),
        ({"seed": -1}, "seed=-1 is not an integer of at least 0"),
        ({"n": 3, "delay": 4, "length": 6}, "use length=7 or larger"),
    ],
)
def test_parity_refuses_impossible_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("parity", **options)
