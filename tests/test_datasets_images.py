"""The image tasks: the same pictures in several forms."""

import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets.image_transforms import latency, permutation

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def load(tfds_folder):
    """`datasets.load` of what is prepared."""

    def load_prepared(name, split="train", **options):
        if datasets.prepared(name, tfds_folder) is None:
            pytest.skip(f"{datasets.info(name).source} is not prepared in {tfds_folder}")
        return datasets.load(name, split, data_dir=tfds_folder, download=False, **options)

    return load_prepared


@pytest.fixture(scope="module")
def cifar10(load):
    return {split: load("cifar10", split, limit=2_000) for split in ("train", "validation", "test")}


def test_the_permutation_is_the_published_one():
    order = permutation()
    assert sorted(order) == list(range(784))
    # The first of numpy.random.RandomState(92916).permutation(784), the seed of uRNN's successors.
    assert order[:5].tolist() == [319, 576, 323, 107, 355]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_mnist_tasks_are_the_same_digits(load, split):
    rows, digits = load("smnist", split, limit=300)
    flat, flat_digits = load("mnist", split, limit=300)
    permuted, permuted_digits = load("psmnist", split, limit=300)
    np.testing.assert_array_equal(flat_digits, digits)
    np.testing.assert_array_equal(permuted_digits, digits)
    pixels = rows.reshape(300, 784)
    np.testing.assert_array_equal(permuted[:, :, 0], pixels[:, permutation()])
    np.testing.assert_allclose(flat, (pixels - 0.1307) / 0.3081, atol=1e-6)


def test_flat_mnist_is_z_scored(load):
    x, _ = load("mnist", limit=10_000)
    # A sixth of the training file: its moments are within a hundredth of the whole one's.
    assert x.mean() == pytest.approx(0, abs=0.01)
    assert x.std() == pytest.approx(1, abs=0.01)


def test_latency_is_the_time_of_a_leaky_unit():
    # dv/dt = (I - v) / tau from v = 0, in small steps, until v exceeds the threshold.
    time_constant, threshold, step = 20.0, 0.2, 1e-3
    for intensity in (0.25, 0.5, 1.0):
        v, time = 0.0, 0.0
        while v <= threshold:
            v += step * (intensity - v) / time_constant
            time += step
        assert latency(np.array([intensity]), time_constant, threshold)[0] == pytest.approx(
            time, abs=2 * step
        )


def test_latency_code_spikes_once_and_bright_pixels_first(load):
    pixels = load("smnist", "test", limit=50)[0].reshape(50, 784)
    x, _ = load("smnist_latency", "test", limit=50)
    assert x.shape == (50, 100, 784)
    assert set(np.unique(x)) == {0.0, 1.0}
    time = latency(pixels, 20.0, 0.2)
    np.testing.assert_array_equal(x.sum(axis=1), time < 100)
    fires = x.any(axis=1)
    np.testing.assert_array_equal(x.argmax(axis=1)[fires], np.floor(time[fires]))
    assert not x[:, :, :28].any(), "the empty first row of the pictures spiked"


def test_all_of_latency_coded_mnist_comes_in_batches(tfds_folder, load):
    load("smnist_latency", "test", limit=1)
    batches = datasets.batches(
        "smnist_latency", "test", batch_size=100, data_dir=tfds_folder, download=False
    )
    assert len(batches) == 100
    x, y = batches[99]
    assert x.shape == (100, 100, 784)
    assert y.shape == (100,)


def test_too_large_an_array_is_refused(load):
    with pytest.raises(MemoryError, match=r"shape \(50, 10000000, 784\).*datasets.batches"):
        load("smnist_latency", "test", limit=50, steps=10_000_000)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_z_scored_by_colour(load, name):
    x, _ = load(name, "train", limit=5_000)
    colours = x.reshape(-1, 3)
    # 5,000 pictures: standard errors of the moments are below 0.01.
    np.testing.assert_allclose(colours.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(colours.std(axis=0), 1, atol=0.05)


def test_sequential_cifar_is_the_pixels_of_the_flat_one(load, cifar10):
    sequences, labels = load("scifar10", "validation", limit=100)
    flat, flat_labels = cifar10["validation"]
    np.testing.assert_array_equal(labels, flat_labels[:100])
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    assert sequences.min() >= 0
    assert sequences.max() <= 1
    np.testing.assert_allclose(
        (sequences - mean) / deviation, flat[:100].reshape(100, 1024, 3), atol=1e-5
    )


def test_cifar_labels_are_balanced(cifar10):
    for _, y in cifar10.values():
        counts = np.bincount(y, minlength=10)
        # 2,000 draws of ten equal classes: 5 standard deviations of a binomial count.
        assert np.abs(counts - 200).max() < 5 * np.sqrt(2_000 * 0.1 * 0.9)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_splits_are_different_pictures(load, name):
    pictures = {
        split: {one.tobytes() for one in load(name, split, limit=1_000)[0]}
        for split in ("train", "validation", "test")
    }
    assert len(set.union(*pictures.values())) == 3_000


def test_cifar_validation_is_the_last_tenth(tfds_folder, load):
    found = datasets.prepared("cifar100", tfds_folder)
    if found is None:
        pytest.skip("cifar100 is not prepared")
    _, y = load("cifar100", "validation")
    assert len(y) == found.examples["train"] - found.examples["train"] * 9 // 10
