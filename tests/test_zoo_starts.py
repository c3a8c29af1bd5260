"""Starts: a recipe's draw and a few numbers, and nothing else, are the network."""

import io
from pathlib import Path

import keras
import numpy as np
import pytest
from harness import exported

from keras_lsc import zoo
from keras_lsc.layers.parameters import orthogonal
from keras_lsc.zoo import networks, start_file
from keras_lsc.zoo.resolver import locate
from keras_lsc.zoo.start_file import StartFile, content_of, expanded, numbers_of

TINY = "test_gru_parity_d2_rhovar"
Damaged = zoo.DamagedCheckpointError


def drawn():
    """Weights of a layer of four gates, of an embedding and of a vector."""
    generator = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 8), "a/bias": (8,), "b/embeddings": (5, 7), "b/scale": ()}
    return {
        name: generator.standard_normal(shape).astype("float32") for name, shape in shapes.items()
    }


def start(numbers):
    """The file of the tiny checkpoint with other numbers."""
    recipe = zoo.info(TINY).recipe
    return StartFile(Path("changed.npz"), content_of(numbers), recipe)


@pytest.fixture(scope="module")
def numbers():
    return locate(TINY).file.numbers()


def test_a_matrix_whose_blocks_are_scaled_is_a_number_a_block():
    before = drawn()
    scales = np.array([0.5, 2.0, 1.0, 3.0], "float32")
    kernel = before["a/kernel"] * np.repeat(scales, 2)
    found = numbers_of(before, {**before, "a/kernel": kernel})
    assert set(found) == {"a/kernel", "fingerprint"}
    np.testing.assert_allclose(found["a/kernel"], scales, rtol=1e-6)
    np.testing.assert_allclose(expanded(before, found)["a/kernel"], kernel, rtol=1e-6)


@pytest.mark.parametrize("name", list(drawn()))
def test_whatever_became_of_a_weight_it_comes_back(name):
    """Scaled as a whole it is one number; anything else is stored as it is."""
    before = drawn()
    moved = before[name] + np.random.default_rng(1).standard_normal(before[name].shape)
    for value, is_stored in ((1.7 * before[name], before[name].ndim < 2), (moved, True)):
        value = value.astype("float32")
        found = numbers_of(before, {**before, name: value})
        assert (found[name].shape == value.shape) == is_stored
        np.testing.assert_allclose(expanded(before, found)[name], value, rtol=2e-6)


def test_a_start_is_the_network_that_was_pretrained(numbers):
    """The certificate was measured on these weights; nothing was drawn by Keras."""
    model = zoo.load(TINY)
    initial = networks.weights_of(zoo.load(TINY, weights="initial"))
    values = networks.weights_of(model)
    assert set(numbers) - {"fingerprint"} == {
        name for name in values if not np.array_equal(values[name], initial[name])
    }
    for name, value in expanded(initial, numbers).items():
        np.testing.assert_array_equal(values[name], value)
    assert len(content_of(numbers)) == zoo.info(TINY).bytes < 3000


@pytest.mark.once
def test_every_weight_that_differs_is_found(numbers):
    """By ten roundings, whether it comes from the file or is drawn."""
    values = networks.weights_of(zoo.load(TINY))
    known = start_file.fingerprint(values)
    for name, value in values.items():
        if not value.any():
            continue
        generator = np.random.default_rng(2)
        noise = generator.standard_normal(value.shape)
        noise *= 1e-4 * np.linalg.norm(value) / np.linalg.norm(noise)
        changed = {**numbers, name: (value + noise).astype("float32")}
        with pytest.raises(Damaged, match=name):
            start(changed).model()
        rounded = {**values, name: value * np.float32(1 + 1e-7)}
        assert abs(start_file.fingerprint(rounded) - known).max() <= 1e-6 * known.max()


@pytest.mark.once
@pytest.mark.parametrize("shape", [(1, 4), (42, 168), (300, 900), (300, 899), (500, 130), (64, 64)])
def test_orthogonal_draws_are_the_factor_of_householder(shape):
    """However it is computed: starts were built with LAPACK's; the diagonal of R is positive."""
    found = orthogonal(shape, np.random.default_rng(3))
    drawn = np.random.default_rng(3).standard_normal((max(shape), min(shape)))
    q, r = np.linalg.qr(drawn)
    expected = q * np.sign(np.diag(r))
    expected = expected if shape[0] >= shape[1] else expected.T
    np.testing.assert_allclose(found, expected, atol=1e-13)
    assert (found.astype("float32") == expected.astype("float32")).mean() > 0.999


@pytest.mark.once
def test_the_fingerprint_of_a_large_weight_is_its_norm_and_projections():
    """Summed part by part, as of a small one."""
    value = np.random.default_rng(4).standard_normal(3 * start_file._PART // 2).astype("float32")
    ((norm, *projections),) = start_file.fingerprint({"a": value})
    raw = np.random.PCG64(0).random_raw(2 * (len(value) // 64 + 1)).astype("<u8")
    bits = np.unpackbits(raw.view("uint8")).reshape(2, -1)[:, : len(value)].astype(bool)
    exact = [np.where(row, -value, value).sum(dtype="float64") for row in bits]
    np.testing.assert_allclose([norm, *projections], [np.linalg.norm(value), *exact], rtol=1e-6)


@pytest.mark.once
def test_a_numpy_that_draws_other_numbers_is_refused(monkeypatch):
    changed = {"kernel": lambda shape, generator: generator.random(shape)}
    monkeypatch.setattr(networks, "_DRAWS", {**networks._DRAWS, **changed})
    with pytest.raises(Damaged, match=r"NumPy .* draws other"):
        zoo.load(TINY)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layer_1/gru_cell/kernel": np.ones(5, "float32")}, r"shape \(5,\)"),
        ({"layer_1/gru_cell/kernel": np.ones(0, "float32")}, r"shape \(0,\)"),
        ({"layer_1/gru_cell/kernel": np.ones(3)}, "float64"),
        ({"layer_1/gru_cell/kernel": np.full(3, np.nan, "float32")}, "layer_1/gru_cell/kernel"),
        ({"layer_9/kernel": np.ones(1, "float32")}, "layer_9/kernel"),
        ({"fingerprint": np.ones((2, 3))}, "no fingerprint"),
        ({"fingerprint": np.full((8, 3), np.nan)}, "are not those"),
    ],
)
def test_numbers_that_do_not_fit_are_damage(changes, match, numbers):
    with pytest.raises(Damaged, match=match):
        start({**numbers, **changes}).model()


@pytest.mark.once
def test_a_flipped_bit_is_damage_or_changes_nothing(tmp_path):
    """And so is a file that is cut off, compressed, pickled, or none at all."""
    content = locate(TINY).file.content
    sound = networks.weights_of(zoo.load(TINY))
    for bit in np.random.default_rng(0).choice(8 * len(content), 150, replace=False):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        try:
            model = StartFile(tmp_path / "x.npz", bytes(changed), zoo.info(TINY).recipe).model()
        except Damaged:
            continue
        for name, value in networks.weights_of(model).items():
            np.testing.assert_allclose(value, sound[name], atol=1e-5 * np.linalg.norm(sound[name]))
    pickled, compressed = io.BytesIO(), io.BytesIO()
    np.savez(pickled, fingerprint=np.array([{}], dtype=object))
    np.savez_compressed(compressed, fingerprint=np.zeros((8, 3)))
    for other in (b"", b"x", content[:-100], pickled.getvalue(), compressed.getvalue()):
        with pytest.raises(Damaged, match=r"x\.npz"):
            StartFile(tmp_path / "x.npz", other, zoo.info(TINY).recipe).model()


def test_an_exported_checkpoint_is_the_same_network_with_its_certificate():
    path = exported(TINY)
    ours, theirs = zoo.load(TINY), keras.saving.load_model(path, compile=False)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    known = dict(zoo.info(TINY).certificate)
    # What is said of the trained weights goes with these.
    known.pop("trained")
    assert locate(path).file.certificate() == known


@pytest.mark.parametrize(
    ("path", "error"),
    [("model.h5", ValueError), ("absent/model.keras", FileNotFoundError), (None, ValueError)],
)
def test_an_export_to_no_place_is_refused(path, error, tmp_path):
    given = path if path is None else tmp_path / path
    with pytest.raises(error):
        zoo.export(TINY, given)
    assert list(tmp_path.iterdir()) == []
