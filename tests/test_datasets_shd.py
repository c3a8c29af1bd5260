"""The Spiking Heidelberg Digits, on generated files in the layout of the official ones."""

import hashlib
import shutil

import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets.events import SpikeTrains, binned

pytestmark = pytest.mark.once

SIZES = {"train": 60, "test": 20}


def write_official_layout(path, recordings):
    """Writes recordings (times, units, label, speaker) as the authors' files hold them."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, column, dtype in (("times", 0, np.float16), ("units", 1, np.uint16)):
            data = file.create_dataset(
                f"spikes/{name}", (len(recordings),), dtype=h5py.vlen_dtype(dtype)
            )
            for row, recording in enumerate(recordings):
                data[row] = recording[column].astype(dtype)
        file["labels"] = np.array([label for *_, label, _ in recordings], dtype=np.uint16)
        file["extra/speaker"] = np.array([speaker for *_, speaker in recordings], dtype=np.uint16)
        file["extra/keys"] = np.array([b"zero"] * 20)


@pytest.fixture(scope="module")
def official():
    """Recordings that are told apart by their first unit, which is their number."""
    random = np.random.default_rng(11)
    made = {}
    for split, count in SIZES.items():
        made[split] = []
        for number in range(count):
            events = random.integers(50, 200)
            times = np.sort(random.uniform(0, 1.6, events)).astype(np.float16)
            units = random.integers(100, 700, events)
            units[0] = number
            made[split].append((times, units, number % 20, number % 12))
    return made


@pytest.fixture(scope="module")
def files(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shd")
    for split, recordings in official.items():
        write_official_layout(folder / f"shd_{split}.h5", recordings)
    return folder


@pytest.fixture
def published(files, monkeypatch):
    """Lets the generated files pass for the published ones, whose MD5 sums the builder knows."""
    pytest.importorskip("tensorflow_datasets")
    from keras_lsc.datasets.builders.shd.shd_dataset_builder import Builder

    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files.iterdir()}
    monkeypatch.setattr(Builder, "MD5", sums)


@pytest.fixture
def options(files, published, tmp_path):
    return {"data_dir": tmp_path / "prepared", "manual_dir": files, "download": False}


def number_of(counts):
    """The number of each recording, found again from the unit that only it has."""
    return counts.sum(axis=1)[:, :100].argmax(axis=1)


def test_spikes_are_counted_in_bins(options, official):
    x, y = datasets.load("shd", "test", max_time=2.0, bin_width=0.01, **options)
    assert x.shape == (20, 200, 700)
    assert x.dtype == np.float32
    numbers = number_of(x)
    assert sorted(numbers) == list(range(20))
    np.testing.assert_array_equal(y, numbers % 20)
    for counts, number in zip(x, numbers, strict=True):
        times, units, _, _ = official["test"][number]
        expected, _, _ = np.histogram2d(
            times.astype(np.float64), units, bins=(200, 700), range=((0, 2.0), (0, 700))
        )
        np.testing.assert_array_equal(counts, expected)


def test_default_bins_are_a_hundred_up_to_1400_ms(options, official):
    x, _ = datasets.load("shd", "test", **options)
    assert x.shape[1:] == datasets.info("shd").shape == (100, 700)
    kept = {number: (times < 1.4).sum() for number, (times, *_) in enumerate(official["test"])}
    numbers = number_of(x)
    np.testing.assert_array_equal(x.sum(axis=(1, 2)), [kept[number] for number in numbers])


def test_splits_are_disjoint_and_complete(options):
    numbers = {
        split: number_of(datasets.load("shd", split, **options)[0])
        for split in ("train", "validation")
    }
    assert len(numbers["train"]) == 54
    assert len(numbers["validation"]) == 6
    assert sorted(np.concatenate(list(numbers.values()))) == list(range(60))


def test_files_that_are_not_the_published_ones_are_refused(files, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    prepared = tmp_path / "prepared"
    with pytest.raises(datasets.DatasetUnavailableError, match=r"shd_train\.h5 is not the publish"):
        datasets.load("shd", data_dir=prepared, manual_dir=files, download=False)
    assert datasets.prepared("shd", prepared) is None


def test_a_file_broken_off_is_refused_and_leaves_nothing(options, files, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(files, broken)
    content = (files / "shd_test.h5").read_bytes()
    (broken / "shd_test.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(datasets.DatasetUnavailableError, match="or only a part of it"):
        datasets.load("shd", **{**options, "manual_dir": broken})
    assert datasets.prepared("shd", options["data_dir"]) is None
    assert len(datasets.load("shd", "test", **options)[1]) == 20


def test_a_missing_file_is_named(files, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    shutil.copy(files / "shd_train.h5", tmp_path)
    with pytest.raises(datasets.DatasetUnavailableError, match=r"lacks shd_test\.h5; it has to"):
        datasets.load("shd", data_dir=tmp_path, manual_dir=tmp_path)


def test_the_builder_is_registered_with_licence_and_citation(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from keras_lsc.datasets.builders.shd import shd_dataset_builder

    builder = tfds.builder("shd", data_dir=tmp_path, file_format="array_record")
    assert type(builder) is shd_dataset_builder.Builder
    assert "Cramer" in builder.info.citation
    assert builder.info.redistribution_info.license == "CC BY 4.0"


@pytest.mark.parametrize("option", ["bin_width", "max_time"])
def test_impossible_times_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be a positive finite number, got -1"):
        datasets.load("shd", **{option: -1})


def test_events_become_counts():
    trains = SpikeTrains.from_examples(
        [
            (np.array([0, 2, 2]), np.array([1, 0, 0])),
            (np.array([], dtype=int), np.array([], dtype=int)),
            (np.array([1]), np.array([1])),
        ],
        size=(3, 2),
    )
    assert trains.shape == (3, 3, 2)
    expected = [[[0, 1], [0, 0], [2, 0]], [[0, 0]] * 3, [[0, 0], [0, 1], [0, 0]]]
    np.testing.assert_array_equal(trains[:], expected)
    np.testing.assert_array_equal(trains[np.array([2, 0, 2])], np.array(expected)[[2, 0, 2]])
    assert trains[np.array([], dtype=int)].shape == (0, 3, 2)


def test_bins_are_half_open():
    step, channel = binned(np.array([0.0, 0.0099, 0.01, 0.03, -0.1]), np.arange(5), 0.01, 3)
    assert step.tolist() == [0, 0, 1]
    assert channel.tolist() == [0, 1, 2]
