"""The primitives of the backend, those of differentiation against closed forms."""

import keras
import numpy as np
import pytest
from harness import to_numpy, value_and_gradient
from keras import ops

from keras_lsc import backend


def quadratic(matrix):
    """Rows x -> (x A)^2, with the Jacobian 2 diag(x A) A^T."""
    return lambda x: ops.square(ops.matmul(x, ops.convert_to_tensor(matrix)))


@pytest.fixture
def rows(rng):
    return rng.standard_normal((5, 3)).astype("float32")


@pytest.fixture(params=[(3, 3), (3, 7), (3, 1)], ids=str)
def matrix(request, rng):
    return rng.standard_normal(request.param).astype("float32")


def test_jacobian_of_every_row(rows, matrix):
    jacobian = backend.jacobian(quadratic(matrix), ops.convert_to_tensor(rows))
    expected = 2 * np.einsum("po,io->poi", rows @ matrix, matrix)
    np.testing.assert_allclose(to_numpy(jacobian), expected, rtol=1e-5, atol=1e-6)


def test_vjp_of_every_row(rows, matrix, rng):
    cotangent = rng.standard_normal((5, matrix.shape[1])).astype("float32")
    y, pullback = backend.vjp(quadratic(matrix), ops.convert_to_tensor(rows))
    np.testing.assert_allclose(to_numpy(y), (rows @ matrix) ** 2, rtol=1e-5)
    expected = (2 * cotangent * (rows @ matrix)) @ matrix.T
    product = pullback(ops.convert_to_tensor(cotangent))
    np.testing.assert_allclose(to_numpy(product), expected, rtol=1e-4, atol=1e-5)


def test_pullback_can_be_used_again(rows, matrix):
    _, pullback = backend.vjp(quadratic(matrix), ops.convert_to_tensor(rows))
    ones = ops.ones((5, matrix.shape[1]))
    np.testing.assert_array_equal(to_numpy(pullback(ones)), to_numpy(pullback(ones)))
    np.testing.assert_allclose(
        to_numpy(pullback(3 * ones)), 3 * to_numpy(pullback(ones)), rtol=1e-5
    )


def test_every_output_has_a_pullback_of_its_own(rows, rng):
    """And what is not differentiated comes out as it is."""
    first, second = (rng.standard_normal((3, n)).astype("float32") for n in (2, 4))

    def function(x):
        return (quadratic(first)(x), ops.sum(quadratic(second)(x))), {"negative": [x < 0]}

    outputs, pullbacks, others = backend.pullbacks(function, ops.convert_to_tensor(rows))
    np.testing.assert_allclose(to_numpy(outputs[0]), (rows @ first) ** 2, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(outputs[1]), ((rows @ second) ** 2).sum(), rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(others["negative"][0]), rows < 0)
    cotangent = rng.standard_normal((5, 2)).astype("float32")
    of_first = (2 * cotangent * (rows @ first)) @ first.T
    of_second = (2 * 0.5 * (rows @ second)) @ second.T
    found = [
        pullback(ops.convert_to_tensor(one, dtype="float32"))
        for pullback, one in zip(pullbacks, (cotangent, 0.5), strict=True)
    ]
    np.testing.assert_allclose(to_numpy(found[0]), of_first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_numpy(found[1]), of_second, rtol=1e-4, atol=1e-5)


def test_nonlinear_rows_do_not_interact(rows):
    alone = [to_numpy(backend.jacobian(ops.tanh, ops.convert_to_tensor(r[None])))[0] for r in rows]
    together = to_numpy(backend.jacobian(ops.tanh, ops.convert_to_tensor(rows)))
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(
        together, [np.diag(1 - np.tanh(r) ** 2) for r in rows], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "function",
    [lambda x: ops.ones((5, 4)), lambda x: ops.stop_gradient(ops.tile(x[:, :1], (1, 4)))],
    ids=["constant", "stopped"],
)
def test_an_output_that_ignores_the_input_has_zero_derivatives(function, rows):
    x = ops.convert_to_tensor(rows)
    jacobian = to_numpy(backend.jacobian(function, x))
    assert jacobian.shape == (5, 4, 3)
    assert not jacobian.any()
    _, pullback = backend.vjp(function, x)
    product = to_numpy(pullback(ops.ones((5, 4))))
    assert product.shape == (5, 3)
    assert not product.any()


@pytest.mark.parametrize("primitive", ["jacobian", "vjp"])
def test_derivatives_are_differentiable_again(primitive, rows, rng):
    """d/dA of sum |J|^2 for J = 2 diag(x A) A^T."""
    matrix = rng.standard_normal((3, 4)).astype("float32")

    def energy(weights):
        function, x = quadratic(weights), ops.convert_to_tensor(rows)
        if primitive == "jacobian":
            return ops.sum(ops.square(backend.jacobian(function, x)))
        _, pullback = backend.vjp(function, x)
        units = np.eye(4, dtype="float32")
        return sum(ops.sum(ops.square(pullback(ops.tile(u[None], (5, 1))))) for u in units)

    value, gradient = value_and_gradient(energy, matrix)
    y, column_energy = rows @ matrix, (matrix**2).sum(axis=0)
    np.testing.assert_allclose(value, 4 * (y**2 * column_energy).sum(), rtol=1e-4)
    expected = 8 * (rows.T @ (y * column_energy) + matrix * (y**2).sum(axis=0))
    np.testing.assert_allclose(gradient, expected, rtol=1e-3)


def test_no_gradient_blocks_only_what_is_inside(rng):
    x = rng.standard_normal(6).astype("float32")

    def function(x):
        inside = backend.no_gradient(lambda: {"a": [ops.square(x)]})["a"][0]
        return ops.sum(inside * x)

    value, gradient = value_and_gradient(function, x)
    assert value == pytest.approx((x**3).sum(), rel=1e-4)
    np.testing.assert_allclose(gradient, x**2, rtol=1e-5)


def test_jacobian_works_inside_no_gradient(rows):
    x = ops.convert_to_tensor(rows)
    inside = backend.no_gradient(lambda: backend.jacobian(ops.sin, x))
    np.testing.assert_allclose(
        to_numpy(inside), [np.diag(np.cos(r)) for r in rows], rtol=1e-5, atol=1e-6
    )


def test_gradients_by_weights(matrix, rows):
    weight = keras.Variable(matrix)
    unused = keras.Variable(np.ones(2, "float32"))
    x = ops.convert_to_tensor(rows)
    found, zero = backend.gradients(
        lambda: ops.sum(ops.square(ops.matmul(x, weight))), [weight, unused]
    )
    np.testing.assert_allclose(to_numpy(found), 2 * rows.T @ (rows @ matrix), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(zero), np.zeros(2))


def test_the_device_has_a_name_and_may_count_its_memory():
    assert backend.device_name()
    counted = backend.peak_device_memory()
    assert counted is None or counted > 0
