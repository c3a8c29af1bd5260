"""MNIST from the file that `keras.datasets.mnist` fetches: the digits of the prepared dataset."""

import io
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets import source

pytestmark = pytest.mark.once

SPLITS = ("train", "validation", "test")
# The labels that the two original files begin with.
FIRST = {"train": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "test": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder where Keras keeps the file, and no other MNIST."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    folder = tmp_path / "keras" / "datasets"
    folder.mkdir(parents=True)
    return folder


def arrays(train=60, test=12):
    random = np.random.default_rng(0)
    found = {}
    for part, count in (("train", train), ("test", test)):
        found[f"x_{part}"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        found[f"y_{part}"] = random.integers(0, 10, count, dtype=np.uint8)
    return found


def write(home, **changed):
    found = {name: array for name, array in {**arrays(), **changed}.items() if array is not None}
    np.savez_compressed(home / "mnist.npz", **found)
    return found


def test_it_gives_the_arrays_of_the_prepared_dataset(tfds_folder, home):
    if datasets.prepared("mnist", tfds_folder) is None:
        pytest.skip(f"mnist is not prepared in {tfds_folder}")
    hashing = pytest.importorskip("tensorflow_datasets.core.hashing")
    features = {"label": "integer"}
    content, orders = {}, {}
    for file in FIRST:
        labels = [
            one["label"]
            for one in source.read_examples(
                "mnist", source.Part(file), features, data_dir=tfds_folder, download=False
            )
        ]
        # TensorFlow Datasets sorts examples by what its own hash makes of their numbers.
        orders[file] = sorted(range(len(labels)), key=hashing.Hasher(file).hash_key)
        content[f"y_{file}"] = np.zeros(len(labels), dtype=np.uint8)
        content[f"y_{file}"][orders[file]] = labels
        content[f"x_{file}"] = np.zeros((len(labels), 28, 28), dtype=np.uint8)
        assert content[f"y_{file}"][:10].tolist() == FIRST[file]
    expected = {}
    # Of the pictures, the first of each split: decoding all of them takes long.
    for split, file, start in (
        ("train", "train", 0),
        ("validation", "train", 55_000),
        ("test", "test", 0),
    ):
        expected[split] = datasets.load("smnist", split, limit=200, data_dir=tfds_folder)
        pixels = np.rint(255 * expected[split][0]).astype(np.uint8)
        content[f"x_{file}"][orders[file][start : start + 200]] = pixels
    np.savez(home / "mnist.npz", **content)
    for split, pair in expected.items():
        for array, same in zip(datasets.load("smnist", split, limit=200), pair, strict=True):
            assert array.dtype == same.dtype
            np.testing.assert_array_equal(array, same)


def test_splits_part_the_file(home):
    content = write(home)
    found = {split: datasets.load("smnist", split) for split in SPLITS}
    assert {split: len(y) for split, (_, y) in found.items()} == {
        "train": 55,
        "validation": 5,
        "test": 12,
    }
    read = [
        image.tobytes() for x, _ in found.values() for image in np.rint(255 * x).astype("uint8")
    ]
    written = [image.tobytes() for part in FIRST for image in content[f"x_{part}"]]
    assert sorted(read) == sorted(written)
    label_of = dict(zip(written, [*content["y_train"], *content["y_test"]], strict=True))
    assert [label_of[one] for one in read] == [label for _, y in found.values() for label in y]


@pytest.mark.parametrize("name", [name for name in datasets.names() if "mnist" in name])
def test_every_task_of_mnist_reads_it(home, name):
    write(home)
    x, y = datasets.load(name, "test", limit=7, download=False)
    assert x.shape == (7, *datasets.info(name).shape)
    assert (x.dtype, y.dtype) == ("float32", "int32")
    np.testing.assert_array_equal(y, datasets.load("smnist", "test")[1][:7])


def test_it_needs_no_package(home, monkeypatch):
    write(home)
    monkeypatch.setattr(source, "_is_installed", lambda module: False)
    assert len(datasets.load("smnist", "test")[1]) == 12


def test_the_prepared_dataset_comes_first(home, tmp_path):
    write(home)
    folder = tmp_path / "prepared" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("damaged")
    with pytest.raises(datasets.DatasetUnavailableError, match="description cannot be read"):
        datasets.load("smnist", "test")


def test_it_is_described(home):
    assert datasets.prepared("smnist") is None
    write(home)
    found = datasets.prepared("psmnist")
    assert found.folder == home
    assert found.version == "mnist.npz"
    assert found.examples == {"train": 60, "test": 12}
    assert found.size == (home / "mnist.npz").stat().st_size
    assert datasets.prepared("cifar10") is None


def test_absent_it_is_said_what_to_do(home, tmp_path):
    with pytest.raises(datasets.DatasetUnavailableError) as caught:
        datasets.load("smnist", download=False)
    for part in (
        f"mnist is not prepared in {tmp_path / 'prepared'}, nor is there {home / 'mnist.npz'}",
        "download=False forbids fetching it",
        "Set TFDS_DATA_DIR",
        "keras.datasets.mnist.load_data()",
    ):
        assert part in str(caught.value)


@pytest.fixture
def answering(monkeypatch):
    """A network on which the host of the file answers."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())


def test_absent_keras_fetches_it(home, answering, monkeypatch):
    content = arrays()
    pairs = tuple((content[f"x_{part}"], content[f"y_{part}"]) for part in FIRST)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: pairs)
    fetched = datasets.load("smnist", "validation")
    write(home)
    for array, same in zip(fetched, datasets.load("smnist", "validation"), strict=True):
        np.testing.assert_array_equal(array, same)


def test_without_a_network(home, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(
        datasets.DatasetUnavailableError,
        match=r"mnist is not prepared.*fetching it failed: .*no route to host.*TFDS_DATA_DIR",
    ):
        datasets.load("smnist")


# What Keras raises for a download that breaks off, and for one that is damaged.
@pytest.mark.parametrize("error", [Exception("URL fetch failure"), ValueError("corrupted")])
def test_a_failed_download(home, answering, monkeypatch, error):
    def failing():
        raise error

    monkeypatch.setattr(keras.datasets.mnist, "load_data", failing)
    with pytest.raises(datasets.DatasetUnavailableError, match=f"fetching it failed: {error}"):
        datasets.load("smnist")


def test_what_is_no_failed_download_is_raised(home, answering, monkeypatch):
    def failing():
        raise ZeroDivisionError

    monkeypatch.setattr(keras.datasets.mnist, "load_data", failing)
    with pytest.raises(ZeroDivisionError):
        datasets.load("smnist")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": None}, "KeyError"),
        ({"x_test": np.zeros((12, 28, 27), np.uint8)}, r"x_test is uint8 \(12, 28, 27\)"),
        ({"x_test": np.zeros((11, 28, 28), np.uint8)}, r"not uint8 \(12, 28, 28\)"),
        ({"x_test": np.zeros((12, 28, 28), np.int16)}, "x_test is int16"),
        ({"x_test": np.array([None] * 12)}, "Object arrays cannot be loaded"),
        ({"y_test": np.full(12, 10, np.uint8)}, "none of the 10 classes"),
        ({"y_test": np.full(12, 0.5)}, "none of the 10 classes"),
        ({"y_test": np.uint8(3)}, "x_test is uint8"),
        ({"x_train": np.zeros((2, 2**26), np.uint8)}, "too many for one array"),
        ({"x_train": arrays(1)["x_train"], "y_train": arrays(1)["y_train"]}, "too few digits"),
    ],
)
def test_a_damaged_file_is_refused(home, changed, message):
    write(home, **changed)
    split = "train" if "too few" in message else "test"
    with pytest.raises(datasets.DatasetUnavailableError, match=rf"{message}.*Delete that file"):
        datasets.load("smnist", split)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", b"\x93NUMPY"])
def test_a_file_that_is_no_archive(home, content):
    (home / "mnist.npz").write_bytes(content)
    for call in (lambda: datasets.load("smnist"), lambda: datasets.prepared("smnist")):
        with pytest.raises(datasets.DatasetUnavailableError, match="cannot be read"):
            call()


def test_damage_is_refused_or_changes_nothing(home):
    write(home)
    whole = (home / "mnist.npz").read_bytes()
    expected = datasets.load("smnist", "test")
    for place in np.linspace(0, len(whole) - 1, 400).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (home / "mnist.npz").write_bytes(damaged)
        try:
            found = datasets.load("smnist", "test")
        except datasets.DatasetUnavailableError:
            continue
        for array, same in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, same)
