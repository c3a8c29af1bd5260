"""Surrogate gradients: exact spikes, and the formula in every mode of differentiation."""

import keras
import numpy as np
import pytest
from harness import ROOT, gradients, run_python, to_numpy
from keras import ops

from keras_lsc.layers import surrogates
from keras_lsc.layers.surrogates import SHAPES, Surrogate

U = np.array([-2.3, -0.9, -0.4, -0.1, 0.0, 0.05, 0.3, 0.7, 1.6, 4.0], "float32")
GAMMA, S, Q = 0.6, 1.3, 3.5


def formulas(x):
    """The paper's table, in NumPy and float64."""
    r = np.abs(x)
    sigmoid = 1 / (1 + np.exp(-4 * x))
    return {
        "rectangular": (r < 0.5) * 1.0,
        "triangular": np.maximum(0, 1 - r),
        "exponential": np.exp(-2 * r),
        "gaussian": np.exp(-np.pi * x**2),
        "sigmoid_derivative": 4 * sigmoid * (1 - sigmoid),
        "fast_sigmoid": (1 + 2 * r) ** -2,
        "cauchy": 1 / (1 + (np.pi * x) ** 2),
        "q_pseudo_spike": (1 + 2 * r / (Q - 1)) ** -Q,
    }


def expected(name):
    return GAMMA * formulas(S * U.astype("float64"))[name]


def make(name):
    return Surrogate(name, dampening=GAMMA, sharpness=S, tail=Q)


def test_all_shapes_of_the_paper_are_there():
    assert set(formulas(U)) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_spikes_are_exactly_zero_or_one(name, rng):
    u = np.concatenate([U, rng.standard_normal(1000) * 10, [1e-30, -1e-30, 1e30, -1e30]])
    u = u.astype("float32")
    np.testing.assert_array_equal(to_numpy(make(name)(u)), (u > 0).astype("float32"))


@pytest.mark.parametrize("name", SHAPES)
def test_derivative_is_the_formula(name):
    np.testing.assert_allclose(
        to_numpy(make(name).derivative(U)), expected(name), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", SHAPES)
def test_vjp(name):
    (gradient,) = gradients(lambda u: ops.sum(make(name)(u)), [], U)
    assert np.count_nonzero(gradient) >= 4
    np.testing.assert_allclose(gradient, expected(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_jvp(name):
    tangent = np.linspace(-1, 1, len(U)).astype("float32")
    spikes, found = ops.jvp(
        make(name), (ops.convert_to_tensor(U),), (ops.convert_to_tensor(tangent),)
    )
    np.testing.assert_array_equal(to_numpy(spikes), (U > 0).astype("float32"))
    np.testing.assert_allclose(to_numpy(found), tangent * expected(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_vectorised_map_of_a_derivative(name):
    """A Jacobian whose rows are mapped, as the engine and ops.vectorized_map take it."""
    from keras_lsc import backend

    rows = np.stack([U, U[::-1]])
    jacobian = to_numpy(backend.jacobian(make(name), ops.convert_to_tensor(rows)))
    for row, found in zip((expected(name), expected(name)[::-1]), jacobian, strict=True):
        np.testing.assert_allclose(found, np.diag(row), rtol=1e-5, atol=1e-6)

    def directional(tangent):
        return ops.jvp(make(name), (ops.convert_to_tensor(U),), (tangent,))[1]

    basis = ops.eye(len(U))
    if keras.backend.backend() == "torch":
        # torch refuses forward mode inside vmap under a Keras scope; its rows are mapped above.
        columns = np.stack([to_numpy(directional(row)) for row in basis])
    else:
        columns = to_numpy(ops.vectorized_map(directional, basis))
    np.testing.assert_allclose(columns, np.diag(expected(name)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_height_and_area_are_one(name):
    step = 1e-3
    x = step * (np.arange(-500_000, 500_000) + 0.5)
    # Of the area, the heavy tails keep outside: the fast sigmoid 1/1000, Cauchy 1/2500.
    area = step * np.sum(formulas(x)[name])
    assert area == pytest.approx(1.0, abs=1.1e-3)
    surrogate = Surrogate(name)
    far = to_numpy(surrogate.primitive(np.float32([-1e6, 1e6])))
    assert far[1] - far[0] == pytest.approx(surrogate.dampening, abs=1e-4)
    assert to_numpy(Surrogate(name, dampening=1.0).derivative(np.float32([0.0])))[0] == 1.0


def test_tail_joins_the_fast_sigmoid_and_the_exponential():
    shape = SHAPES["q_pseudo_spike"].derivative
    u = ops.convert_to_tensor(U)
    np.testing.assert_allclose(
        to_numpy(shape(u, 2.0)), formulas(U)["fast_sigmoid"], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        to_numpy(shape(u, 1e4)), formulas(U)["exponential"], rtol=5e-3, atol=1e-6
    )


@keras.saving.register_keras_serializable(package="test_surrogates")
def half_tanh(x):
    return 0.5 * ops.tanh(x)


def test_own_primitive():
    surrogate = surrogates.get(half_tanh)
    wanted = 0.5 / np.cosh(U) ** 2
    np.testing.assert_allclose(to_numpy(surrogate.derivative(U)), wanted, atol=1e-6)
    (gradient,) = gradients(lambda u: ops.sum(surrogate(u)), [], U)
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize("shape", ["cauchy", half_tanh])
def test_configuration_round_trip(shape):
    surrogate = Surrogate(shape, 0.3, 2.0, 4.0)
    again = surrogates.get(keras.saving.serialize_keras_object(surrogate))
    assert again.get_config() == surrogate.get_config()
    np.testing.assert_array_equal(to_numpy(again.derivative(U)), to_numpy(surrogate.derivative(U)))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Surrogate("box"), "shape must be one of 'rectangular', .*, got 'box'"),
        (lambda: Surrogate(["cauchy"]), "shape must be one of"),
        (lambda: Surrogate(dampening=0.0), "dampening must be a positive finite number, got 0.0"),
        (lambda: Surrogate(dampening=True), "dampening must be a positive finite number"),
        (lambda: Surrogate(sharpness=-1.0), "sharpness must be a positive finite number"),
        (lambda: Surrogate(sharpness=float("inf")), "sharpness must be a positive finite number"),
        (lambda: Surrogate("q_pseudo_spike", tail=1.0), "tail must be a finite number above 1"),
        (lambda: surrogates.get(3), "Cannot make a surrogate of 3"),
    ],
)
def test_wrong_use(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


def test_the_table_in_the_documentation_is_the_one_of_the_code():
    assert (ROOT / "docs" / "surrogates.md").read_text() == surrogates.page()


def test_the_picture_shows_every_shape():
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    figure = surrogates.plot()
    titles = [panel.get_title().split(",")[0].replace(" ", "_") for panel in figure.axes]
    assert titles == list(SHAPES)
    pyplot.close(figure)


@pytest.mark.once
def test_a_custom_gradient_would_not_do():
    """The trap that the formula avoids: TensorFlow's vectorised map drops custom gradients."""
    program = """
import keras, numpy as np
from keras import ops
from keras_lsc.layers.surrogates import Surrogate
u = ops.convert_to_tensor(np.float32([0.1, -0.2]))
found = ops.vectorized_map(lambda t: ops.jvp(Surrogate(), (u,), (t,))[1], ops.eye(2))
print(float(ops.min(ops.abs(ops.diag(found)))) > 0.1)
"""
    assert run_python(program, backend="tensorflow").strip() == "True"
