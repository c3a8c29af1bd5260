"""Radii and gains, against closed forms, LAPACK and finite differences."""

import keras
import numpy as np
import pytest
from harness import largest_modulus, to_numpy, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.sparse import linalg

from keras_lsc.stability.radius import (
    check_radius_kind,
    radius_and_gain,
    rms_gain,
    spectral_norm,
    spectral_radius,
)


def radius_of(matrices):
    return to_numpy(spectral_radius(ops.convert_to_tensor(np.asarray(matrices, dtype="float32"))))


def gradient_of_radius(matrix):
    return value_and_gradient(spectral_radius, np.asarray(matrix, dtype="float32"))


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def linear(matrix):
    """Rows x -> M x."""
    matrix = ops.convert_to_tensor(np.asarray(matrix, dtype="float32"))
    return lambda x: ops.matmul(x, ops.transpose(matrix))


def rotation(radius, angle):
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("n", [1, 2, 17, 128])
def test_orthogonal_matrices_have_radius_norm_and_gain_one(n, rng):
    matrix = ops.convert_to_tensor(orthogonal(rng, n).astype("float32"))
    for measure in (spectral_radius, spectral_norm, rms_gain):
        assert float(to_numpy(measure(matrix))) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(radius=st.floats(1e-3, 50.0), angle=st.floats(0.1, 3.0))
def test_scaled_rotation(radius, angle):
    """r = sqrt(det M) for a complex pair, so dr/dM = (r/2) M^-T."""
    matrix = rotation(radius, angle)
    value, gradient = gradient_of_radius(matrix)
    assert value == pytest.approx(radius, rel=1e-3)
    np.testing.assert_allclose(gradient, radius / 2 * np.linalg.inv(matrix).T, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 4)),
        np.eye(4, k=1),
        np.eye(9, k=-1) * 30,
        np.triu(np.arange(25.0).reshape(5, 5), k=1),
        np.outer([1.0, 2.0], [2.0, -1.0]),
    ],
    ids=["zero", "shift", "large shift", "strictly triangular", "rank one"],
)
def test_nilpotent_matrices_are_exactly_zero(matrix):
    value, gradient = gradient_of_radius(matrix)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(matrix))


@pytest.mark.parametrize("eigenvalue", [0.3, 1.0, -1.5])
def test_jordan_block(eigenvalue):
    value, gradient = gradient_of_radius(eigenvalue * np.eye(3) + np.eye(3, k=1))
    assert value == pytest.approx(abs(eigenvalue), rel=2e-3)
    assert np.isfinite(gradient).all()


def test_one_eigenvalue_may_be_far_above_the_rest():
    matrix = np.diag([1e4, 1e-4, 0.0, 3.0])
    value, gradient = gradient_of_radius(matrix)
    assert value == pytest.approx(1e4, rel=1e-4)
    np.testing.assert_allclose(gradient, np.diag([1.0, 0, 0, 0]), atol=1e-3)


def random_matrices(kind, rng, n=24, count=6):
    for _ in range(count):
        m = rng.standard_normal((n, n)) / np.sqrt(n)
        match kind:
            case "gaussian":
                yield m
            case "symmetric":
                yield m + m.T
            case "antisymmetric":
                yield m - m.T
            case "triangular":
                yield np.triu(rng.uniform(0.1, 1, (n, n)) / n) + np.diag(rng.uniform(0.2, 1, n))
            case "positive":
                yield np.abs(m)
            case "low rank":
                yield m[:, :3] @ rng.standard_normal((3, n))
            case "outlier":
                yield 0.2 * m + np.outer(m[0], m[0])
            case "lstm":
                half = n // 2
                yield np.block(
                    [
                        [0.1 * m[:half, :half], 0.5 * np.eye(half)],
                        [m[half:, :half], np.diag(rng.uniform(0.3, 0.8, half))],
                    ]
                )


@pytest.mark.parametrize(
    "kind",
    [
        "gaussian", "symmetric", "antisymmetric", "triangular",
        "positive", "low rank", "outlier", "lstm",
    ],
)  # fmt: skip
def test_equals_lapack(kind, rng):
    matrices = np.stack(list(random_matrices(kind, rng)))
    np.testing.assert_allclose(radius_of(matrices), largest_modulus(matrices), rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.sampled_from([1, 2, 9, 40]), scale=st.floats(1e-3, 1e3))
def test_radius_scales_with_the_matrix_and_is_the_same_transposed(seed, n, scale):
    matrix = np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n)
    expected = largest_modulus(matrix)
    np.testing.assert_allclose(radius_of(scale * matrix), scale * expected, rtol=1e-3)
    np.testing.assert_allclose(radius_of(matrix.T), expected, rtol=1e-3)


def matrix_led_by(leader, rng, n=12):
    """A matrix that is not normal, whose leading eigenvalue, or pair, is 1.3 times the next."""
    spectrum = np.diag(rng.uniform(-1, 1, n))
    spectrum[:2, :2] = rotation(1.3, 0.7) if leader == "complex pair" else np.diag([-1.3, 0.2])
    basis = orthogonal(rng, n) + 0.5 * rng.standard_normal((n, n)) / np.sqrt(n)
    return basis @ spectrum @ np.linalg.inv(basis)


def exact_gradient(matrix):
    """Re(conj(lambda)/|lambda| u v^T / (u^T v)) from LAPACK's eigenvectors."""
    values, right = np.linalg.eig(matrix)
    left = np.linalg.inv(right)
    k = np.argmax(np.abs(values))
    return np.real(np.conj(values[k]) / np.abs(values[k]) * np.outer(left[k], right[:, k]))


LEADERS = ["real", "complex pair"]


@pytest.mark.parametrize("leader", LEADERS)
def test_gradient_is_that_of_the_dominant_eigenvalue(leader, rng):
    for _ in range(4):
        matrix = matrix_led_by(leader, rng)
        _, gradient = gradient_of_radius(matrix)
        expected = exact_gradient(matrix)
        assert np.abs(gradient - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("leader", LEADERS)
def test_gradient_equals_finite_differences(leader, rng):
    matrix = matrix_led_by(leader, rng)
    _, gradient = gradient_of_radius(matrix)
    for _ in range(5):
        direction = rng.standard_normal(matrix.shape)
        change = largest_modulus(matrix + 1e-6 * direction) - largest_modulus(
            matrix - 1e-6 * direction
        )
        assert (gradient * direction).sum() == pytest.approx(change / 2e-6, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 6), (30, 1)], ids=str)
def test_spectral_norm_is_the_largest_singular_value(shape, rng):
    matrices = rng.standard_normal((4, *shape)).astype("float32")
    expected = np.linalg.norm(matrices.astype("float64"), ord=2, axis=(-2, -1))
    np.testing.assert_allclose(
        to_numpy(spectral_norm(ops.convert_to_tensor(matrices))), expected, rtol=1e-3
    )
    left, _, right = np.linalg.svd(matrices[0])
    _, gradient = value_and_gradient(spectral_norm, matrices[0])
    np.testing.assert_allclose(gradient, np.outer(left[:, 0], right[0]), atol=5e-3)


def test_norm_and_gain_of_a_zero_matrix_have_gradient_zero():
    for measure in (spectral_norm, rms_gain):
        value, gradient = value_and_gradient(measure, np.zeros((3, 5), dtype="float32"))
        assert value == 0.0
        assert not gradient.any()


def test_gain_is_the_root_mean_square_over_random_directions(rng):
    matrix = rng.standard_normal((12, 12)).astype("float32")
    directions = rng.standard_normal((200_000, 12))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = np.sqrt(np.square(directions @ matrix).sum(axis=1).mean())
    # Relative error of a mean of 200,000 squares, five standard errors.
    assert float(to_numpy(rms_gain(ops.convert_to_tensor(matrix)))) == pytest.approx(
        expected, rel=5e-3
    )


@pytest.mark.parametrize("shape", [(512, 512), (512, 256), (128, 512)], ids=str)
def test_glorot_layer_has_gain_one(shape):
    layer = keras.layers.Dense(shape[1], kernel_initializer="glorot_normal")
    layer.build((None, shape[0]))
    gain = float(to_numpy(rms_gain(ops.transpose(layer.kernel.value))))
    assert gain == pytest.approx(1.0, abs=0.02)


def test_glorot_square_layer_has_radius_one():
    layer = keras.layers.Dense(512, kernel_initializer="glorot_normal")
    layer.build((None, 512))
    radius = float(to_numpy(spectral_radius(layer.kernel.value)))
    # The largest eigenvalue lies outside the unit disc by a fluctuation of order n^(-1/2).
    assert radius == pytest.approx(1.0, abs=0.08)


def test_he_layer_with_relu_has_gain_one(rng):
    layer = keras.layers.Dense(512, kernel_initializer="he_normal", activation="relu")
    layer.build((None, 512))
    x = ops.convert_to_tensor(rng.standard_normal((4, 512)).astype("float32"))
    # Half of the units are silent: half the energy of a matrix of gain sqrt(2).
    measured = radius_and_gain(layer, x, "rms", dense_limit=1024)
    assert to_numpy(measured.gain).mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dense_limit", [0, 256])
@pytest.mark.parametrize("kind", ["spectral", "norm", "rms"])
def test_rectangular_transitions(kind, dense_limit, rng):
    matrix = rng.standard_normal((40, 24)) / 5
    x = ops.zeros((2, 24))
    measured = radius_and_gain(linear(matrix), x, kind, dense_limit=dense_limit)
    gain = np.sqrt(np.square(matrix).sum() * (1 / 40 + 1 / 24) / 2)
    assert measured.shape == (40, 24)
    # The matrix-free gain is an estimate from 8 probes.
    np.testing.assert_allclose(to_numpy(measured.gain), gain, rtol=1e-4 if dense_limit else 0.25)
    radius = np.linalg.norm(matrix, ord=2) if kind == "norm" else to_numpy(measured.gain)
    np.testing.assert_allclose(to_numpy(measured.radius), radius, rtol=2e-3)


@pytest.mark.parametrize(
    ("n", "points"), [(64, 8), (256, 4), pytest.param(1024, 2, marks=pytest.mark.once)]
)
def test_matrix_free_equals_dense_on_the_mean(n, points, rng):
    matrix = rng.standard_normal((n, n)) / np.sqrt(n)
    weights = ops.convert_to_tensor(matrix.T.astype("float32"))
    at = rng.uniform(-0.4, 0.4, (points, n)).astype("float32")
    slopes = 1 - np.tanh(at @ matrix.T) ** 2
    jacobians = slopes[:, :, None] * matrix
    if n > 256:
        # ARPACK run to convergence: LAPACK takes seconds a matrix of this size.
        # A wide basis and a fixed start, or it may settle on a neighbour of the leader.
        leaders = [
            linalg.eigs(j, k=4, ncv=160, v0=np.ones(n), return_eigenvectors=False)
            for j in jacobians
        ]
        exact = np.abs(leaders).max(axis=1)
    else:
        exact = largest_modulus(jacobians)
    measured = radius_and_gain(
        lambda x: ops.tanh(ops.matmul(x, weights)), ops.convert_to_tensor(at), dense_limit=0
    )
    assert to_numpy(measured.radius).mean() == pytest.approx(exact.mean(), rel=0.01)
    gain = np.sqrt(np.square(jacobians).sum(axis=(1, 2)) / n)
    np.testing.assert_allclose(to_numpy(measured.gain), gain, rtol=0.2)


@pytest.mark.parametrize("kind", ["spectral", "norm"])
@pytest.mark.parametrize("leader", LEADERS)
def test_matrix_free_gradient_is_exact_too(leader, kind, rng):
    matrix = matrix_led_by(leader, rng, n=32).astype("float32")

    def mean_radius(weights):
        measured = radius_and_gain(
            lambda x: ops.tanh(ops.matmul(x, ops.transpose(weights))),
            ops.zeros((2, 32)),
            kind,
            dense_limit=0,
        )
        return ops.mean(measured.radius)

    value, gradient = value_and_gradient(mean_radius, matrix)
    if kind == "spectral":
        exact, expected = largest_modulus(matrix), exact_gradient(matrix.astype("float64"))
    else:
        left, sizes, right = np.linalg.svd(matrix)
        exact, expected = sizes[0], np.outer(left[:, 0], right[0])
    assert value == pytest.approx(exact, rel=1e-3)
    assert np.abs(gradient - expected).max() < 5e-3 * np.abs(expected).max()


def degenerate_rows(x, w):
    """A different function of every row; rows do not interact, so all are measured at once."""
    rows = [x[k : k + 1] for k in range(5)]
    functions = [
        ops.zeros_like,
        ops.ones_like,
        lambda row: ops.tanh(ops.stop_gradient(row)),
        lambda row: ops.relu(row - 100.0),
        lambda row: ops.concatenate([row[:, 1:], 0 * row[:, :1]], axis=-1),
    ]
    return w * ops.concatenate([f(row) for f, row in zip(functions, rows, strict=True)], axis=0)


@pytest.mark.parametrize("kind", ["spectral", "norm", "rms"])
@pytest.mark.parametrize("dense_limit", [0, 256])
def test_degenerate_functions_give_numbers(dense_limit, kind, rng):
    x = ops.convert_to_tensor(rng.standard_normal((5, 6)).astype("float32"))

    def total(w):
        measured = radius_and_gain(
            lambda rows: degenerate_rows(rows, w), x, kind, dense_limit=dense_limit
        )
        return ops.sum(measured.radius) + ops.sum(measured.gain)

    value, gradient = value_and_gradient(total, np.ones((), dtype="float32"))
    assert np.isfinite(value)
    assert np.isfinite(gradient)
    measured = radius_and_gain(
        lambda rows: degenerate_rows(rows, 1.0), x, kind, dense_limit=dense_limit
    )
    radius, gain = to_numpy(measured.radius), to_numpy(measured.gain)
    # Zero, constant, ignoring x and dead: no derivative at all. The shift is nilpotent only.
    np.testing.assert_array_equal(radius[:4], 0.0)
    np.testing.assert_array_equal(gain[:4], 0.0)
    shift = {"spectral": 0.0, "norm": 1.0, "rms": np.sqrt(5 / 6)}[kind]
    assert radius[4] == pytest.approx(shift, abs=1e-3 if dense_limit else 0.3)


def test_half_precision_functions_are_measured_in_float32():
    def function(x):
        return ops.cast(0.5 * ops.cast(x, "bfloat16"), "bfloat16")

    measured = radius_and_gain(function, ops.ones((2, 4), dtype="bfloat16"))
    assert keras.backend.standardize_dtype(measured.radius.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(measured.radius), 0.5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["spectral ", "l2", None])
def test_unknown_radius_kind_names_the_known_ones(kind):
    with pytest.raises(ValueError, match="'spectral', 'rms', 'norm'") as caught:
        check_radius_kind(kind)
    assert repr(kind) in str(caught.value)


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e38, 3e38])
def test_what_is_out_of_range_is_infinite_and_never_zero(size):
    matrices = np.full((2, 4, 4), size, "float32")
    with np.errstate(over="ignore"):
        expected = np.float32(4 * size)
    np.testing.assert_allclose(to_numpy(spectral_radius(matrices)), expected, rtol=1e-3)
    np.testing.assert_allclose(to_numpy(spectral_norm(matrices)), expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["spectral", "norm", "rms"])
def test_one_number_is_its_own_radius_without_being_formed(kind):
    x = ops.convert_to_tensor(np.zeros((3, 1), "float32"))
    found = radius_and_gain(lambda x: -0.7 * x, x, kind, dense_limit=0)
    np.testing.assert_allclose(to_numpy(found.radius), 0.7, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(found.gain), 0.7, rtol=1e-5)
