"""The generated tasks: each obeys the law that generates it."""

import functools
import operator

import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets import arrow_pointing

pytestmark = pytest.mark.once

GENERATED = [name for name in datasets.names() if datasets.info(name).kind == "generated"]


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
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"delay": -1}, "delay must be an integer of 0 or more, got -1"),
        ({"length": 1.5}, "length must be a positive integer, got 1.5"),
        ({"seed": -1}, "seed must be an integer of 0 or more, got -1"),
        ({"n": 3, "delay": 4, "length": 6}, "use length=7 or larger"),
    ],
)
def test_parity_refuses_impossible_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("parity", **options)


def test_parity_of_random_lengths_pads_with_zeros():
    x, y, mask = datasets.load("parity", limit=2_000, n=3, delay=2, length=None, masks=True)
    lengths = mask.sum(axis=1)
    assert x.shape == (2_000, 4 * 3 + 1 + 2, 1)
    assert set(lengths) == set(range(3 + 2 + 2, 4 * 3 + 1 + 2 + 1))
    assert not x[~mask].any()
    for sequence, label, length in zip(x[:, :, 0], y, lengths, strict=True):
        assert sequence[length - 5 : length - 2].sum() % 2 == label


@pytest.mark.parametrize("name", GENERATED)
def test_the_same_seed_gives_the_same_examples(name):
    first = datasets.load(name, limit=50, seed=1)
    for array, again in zip(first, datasets.load(name, limit=50, seed=1), strict=True):
        np.testing.assert_array_equal(array, again)
    for array, part in zip(first, datasets.load(name, limit=10, seed=1), strict=True):
        np.testing.assert_array_equal(array[:10], part)
    assert not np.array_equal(first[0], datasets.load(name, limit=50, seed=2)[0])


@pytest.mark.parametrize("name", GENERATED)
def test_splits_have_their_sizes_and_share_nothing(name):
    # Sequences long enough that two equal ones would be no accident.
    options = {"delayed_match": {"length": 64}, "parity": {"length": 64}}.get(name, {})
    seen: set[bytes] = set()
    for split in ("validation", "test"):
        x, y = datasets.load(name, split, **options)
        assert len(x) == len(y) == datasets.info(name).examples[split] == 5_000
        assert x.dtype == np.float32
        seen |= {one.tobytes() for one in x}
    train, _ = datasets.load(name, limit=5_000, **options)
    assert len(seen | {one.tobytes() for one in train}) == 15_000


@pytest.mark.parametrize("name", GENERATED)
def test_shapes_are_those_of_the_information(name):
    info = datasets.info(name)
    x, y = datasets.load(name, limit=200)
    assert x.shape[1:] == info.shape
    if info.classes is None:
        assert y.dtype == np.float32
    else:
        assert y.dtype == np.int32
        assert y.shape == ((200, info.shape[0]) if info.per_step else (200,))
        assert y.min() >= 0
        assert y.max() == info.classes - 1


def test_arrows_point_at_the_disc_or_past_it():
    """A point that walks along the line from the tip comes into the disc where the label says."""
    scene = arrow_pointing.draw(np.random.default_rng(0), 500)
    for middle, direction, length, centre, radius, label in zip(*scene, strict=True):
        steps = np.linspace(length / 2, 1.5, 3000)[:, np.newaxis]
        nearest = np.linalg.norm(middle + steps * direction - centre, axis=1).min()
        assert (nearest <= radius) == bool(label)
        # Nothing is close enough to be undecided, and nothing touches or is cut off.
        assert not 0.81 * radius < nearest < 1.19 * radius
        assert np.linalg.norm(middle - centre) > length / 2 + radius
        for place, margin in ((middle, length / 2), (centre, radius)):
            assert (place >= margin).all()
            assert (place <= 1 - margin).all()
    assert abs(scene.label.mean() - 0.5) < 5 * 0.5 / np.sqrt(500)


def test_pictures_show_the_scene():
    size = 40
    scene = arrow_pointing.draw(np.random.default_rng(1), 200)
    pictures = arrow_pointing.picture(scene, size)[..., 0]
    assert pictures.min() == 0
    assert pictures.max() == 1
    side = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(side, side)
    for shown, middle, direction, length, centre, radius in zip(pictures, *scene[:-1], strict=True):
        from_centre = np.hypot(x - centre[0], y - centre[1])
        # The area of the disc to within a pixel along its edge.
        disc, pixels = shown * (from_centre < radius + 1 / size), size * radius
        assert disc.sum() == pytest.approx(np.pi * pixels**2, abs=2 * np.pi * pixels)
        arrow = shown * (from_centre > radius + 1 / size)
        along = (x - middle[0]) * direction[0] + (y - middle[1]) * direction[1]
        across = (y - middle[1]) * direction[0] - (x - middle[0]) * direction[1]
        # Its head is where it points, and it leans to neither side.
        assert (arrow * along).sum() / arrow.sum() > 0.05 * length
        assert abs((arrow * across).sum() / arrow.sum()) < 0.02
        assert not arrow[np.abs(along) > length / 2 + 2 / size].any()


def test_the_same_scenes_at_every_size():
    fine, labels = datasets.load("arrow_pointing", limit=20, size=48)
    coarse, again = datasets.load("arrow_pointing", limit=20)
    np.testing.assert_array_equal(labels, again)
    means = fine.reshape(20, 24, 2, 24, 2).mean(axis=(2, 4))
    # A line of a pixel's width is half as wide there.
    assert np.corrcoef(means.ravel(), coarse.ravel())[0, 1] > 0.9
    with pytest.raises(ValueError, match="size must be an integer of at least 16, got 8"):
        datasets.load("arrow_pointing", size=8)


@pytest.mark.parametrize("length", [2, 7, 100])
def test_adding_is_the_sum_of_one_number_in_each_half(length):
    x, y = datasets.load("adding", limit=1_000, length=length)
    marks = x[:, :, 1]
    np.testing.assert_array_equal(marks[:, : length // 2].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, length // 2 :].sum(axis=1), 1)
    np.testing.assert_allclose(y, (x[:, :, 0] * marks).sum(axis=1), rtol=1e-6)
    assert x[:, :, 0].min() >= 0
    assert x[:, :, 0].max() < 1


def test_answering_one_to_adding_has_an_error_of_a_sixth():
    _, y = datasets.load("adding")
    # The variance of the sum of two uniform numbers is 1/6; 5 standard errors over 50,000.
    error = (y.astype(np.float64) - 1) ** 2
    assert error.mean() == pytest.approx(1 / 6, abs=5 * error.std() / np.sqrt(50_000))


@pytest.mark.parametrize(("delay", "symbols"), [(1, 1), (20, 10), (100, 3)])
def test_copy_memory_asks_for_the_symbols_after_the_sign(delay, symbols):
    x, y = datasets.load("copy_memory", limit=300, delay=delay, symbols=symbols)
    tokens = x.argmax(axis=-1)
    np.testing.assert_array_equal(x.sum(axis=-1), 1)
    assert x.shape == (300, delay + 2 * symbols, 10)
    np.testing.assert_array_equal(y[:, -symbols:], tokens[:, :symbols])
    assert (y[:, :-symbols] == 8).all()
    assert set(np.unique(tokens[:, :symbols])) == set(range(8))
    assert (np.argwhere(tokens == 9)[:, 1] == delay + symbols - 1).all()
    assert (tokens == 9).sum() == 300


@pytest.mark.parametrize(("n", "length"), [(2, None), (5, None), (5, 5), (7, 20)])
def test_delayed_match_compares_the_ends_of_the_last_n(n, length):
    x, y, mask = datasets.load("delayed_match", limit=2_000, n=n, length=length, masks=True)
    lengths = mask.sum(axis=1)
    if length is None:
        assert set(lengths) == set(range(n + 2, 4 * n + 2))
    else:
        assert set(lengths) == {length}
    assert not x[~mask].any()
    for sequence, label, end in zip(x[:, :, 0], y, lengths, strict=True):
        assert (sequence[end - n] == sequence[end - 1]) == label
    # 5 standard deviations of the mean of 2,000 fair coins.
    assert abs(y.mean() - 0.5) < 5 * 0.5 / np.sqrt(2_000)


def test_spike_patterns_repeat_exactly_without_noise():
    x, y = datasets.load(
        "spike_patterns", limit=200, classes=4, jitter=0, deletion=0, noise=0, rate=0.05
    )
    for label in range(4):
        assert len({one.tobytes() for one in x[y == label]}) == 1
    assert len({one.tobytes() for one in x}) == 4
    # 5 standard deviations of the spikes of one pattern: 100 x 100 draws of 0.05.
    assert np.abs(x.sum(axis=(1, 2)) - 500).max() < 5 * np.sqrt(500)


def test_spike_patterns_are_as_noisy_as_asked():
    options = {"limit": 400, "classes": 1, "jitter": 0, "rate": 0.05}
    clean, _ = datasets.load("spike_patterns", deletion=0, noise=0, **options)
    lossy, _ = datasets.load("spike_patterns", deletion=0.25, noise=0, **options)
    noisy, _ = datasets.load("spike_patterns", deletion=0, noise=0.01, **options)
    assert ((lossy == 0) | (clean == 1)).all()
    assert lossy.sum() / clean.sum() == pytest.approx(0.75, abs=0.01)
    added = (noisy - clean).sum(axis=(1, 2))
    assert added.min() >= 0
    # The mean of 400 binomial counts, 5 standard errors.
    assert added.mean() == pytest.approx(100, abs=5 * np.sqrt(100 / 400))


def test_only_the_timing_of_spike_patterns_tells_them_apart():
    x, y = datasets.load("spike_patterns", limit=2_000, classes=2)
    mean = [x[y == label].mean(axis=0) for label in range(2)]
    # The nearest mean pattern names the class; the number of spikes hardly does.
    distance = [((x - one) ** 2).sum(axis=(1, 2)) for one in mean]
    assert np.mean((distance[1] < distance[0]) == y) > 0.99
    count = [one.sum() for one in mean]
    assert abs(count[0] - count[1]) < 5 * np.sqrt(2 * 200)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adding", {"length": 1}, "length must be an integer of at least 2, got 1"),
        ("copy_memory", {"delay": 0}, "delay must be a positive integer, got 0"),
        ("copy_memory", {"symbols": 0}, "symbols must be a positive integer, got 0"),
        ("delayed_match", {"n": 1}, "n must be an integer of at least 2, got 1"),
        ("delayed_match", {"n": 5, "length": 4}, "length must be an integer of at least 5"),
        (
            "spike_patterns",
            {"rate": 0},
            "rate must be a finite number above 0 and at most 1",
        ),
        ("spike_patterns", {"jitter": -1}, "jitter must be a finite number at least 0, got -1"),
        (
            "spike_patterns",
            {"deletion": 1},
            "deletion must be a finite number at least 0 and below 1",
        ),
        (
            "spike_patterns",
            {"noise": float("nan")},
            "noise must be a finite number at least 0 and below 1",
        ),
        ("spike_patterns", {"classes": 0}, "classes must be a positive integer, got 0"),
    ],
)
def test_impossible_numbers_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, **options)
