"""Recurrences solved for all steps at once: they are what the loop gives, or the loop is taken."""

import warnings

import keras
import numpy as np
import pytest
from harness import OscillatorCell, gradients, sequences, to_numpy, value_and_gradient
from keras import ops

from keras_lsc import layers
from keras_lsc.layers import parallel

LAYERS = {"gru": layers.ParaGRU, "lstm": layers.ParaLSTM, "leaky": layers.ParaLeaky}
# Of the recurrent weights: as drawn, where the state is soon forgotten, and where it hardly is.
SCALES = {"contractive": 1.0, "barely": 3.0}


def twins(name, scale, units=4, features=3, **options):
    """The same layer by Newton's method and by the loop."""
    pair = [
        LAYERS[name](units, solver=solver, seed=1, return_sequences=True, **options)
        for solver in ("newton", "loop")
    ]
    for layer in pair:
        layer.build((None, None, features))
        for weight in layer.weights:
            if weight.name in ("recurrent", "peephole"):
                weight.assign(scale * to_numpy(weight))
    return pair


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LAYERS)
def test_newton_is_the_loop(name, scale, rng):
    """Outputs to 1e-5 and gradients to 1e-4, with a mask in the middle of the sequence."""
    newton, loop = twins(name, SCALES[scale])
    x = sequences(rng, batch=2, steps=100, features=3)
    mask = np.ones((2, 100), bool)
    mask[0, 40:60] = mask[1, -10:] = False

    def functional(layer):
        return lambda x: ops.sum(ops.sin(layer(x, mask=ops.convert_to_tensor(mask))))

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has not converged")
        np.testing.assert_allclose(to_numpy(newton(x)), to_numpy(loop(x)), atol=1e-5)
    found, expected = (
        gradients(functional(layer), layer.trainable_variables, x) for layer in (newton, loop)
    )
    for one, other in zip(found, expected, strict=True):
        size = np.abs(other).max()
        assert size > 1e-2
        np.testing.assert_allclose(one, other, atol=1e-4 * max(size, 1.0))


@pytest.mark.once(on="jax")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("steps", [1_000, 10_000])
def test_long_sequences(name, steps, rng):
    for scale in SCALES.values():
        newton, loop = twins(name, scale)
        x = sequences(rng, batch=1, steps=steps, features=3)
        value, gradient = value_and_gradient(lambda x, f=newton: ops.mean(ops.sin(f(x))), x)
        expected, other = value_and_gradient(lambda x, f=loop: ops.mean(ops.sin(f(x))), x)
        assert value == pytest.approx(expected, abs=1e-5)
        np.testing.assert_allclose(gradient, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("name", LAYERS)
def test_the_jacobian_is_that_of_differences(name, rng):
    """The entries of a cell's Jacobian against central differences of its step."""
    layer, _ = twins(name, 2.0, dtype="float64" if keras.backend.backend() != "jax" else None)
    cell = layer.cell
    drive = ops.convert_to_tensor(
        rng.standard_normal((5, 4 * cell.gates)), dtype=cell.compute_dtype
    )
    states = [rng.standard_normal((5, 4)) for _ in cell.state_size]
    # Central differences in float32 are good to a thousandth.
    epsilon, tolerance = (1e-2, 2e-3) if cell.compute_dtype == "float32" else (1e-5, 1e-8)

    def after(states):
        states = tuple(ops.convert_to_tensor(s, dtype=cell.compute_dtype) for s in states)
        return [to_numpy(s) for s in cell.advanced(cell._vectors(), states, drive)]

    as_tensors = tuple(ops.convert_to_tensor(s, dtype=cell.compute_dtype) for s in states)
    new, jacobian = cell.linearised(cell._vectors(), as_tensors, drive)
    for one, other in zip(new, after(states), strict=True):
        np.testing.assert_allclose(to_numpy(one), other, rtol=1e-6)
    count = len(states)
    for column in range(count):
        up, down = ([s.copy() for s in states] for _ in range(2))
        up[column] += epsilon
        down[column] -= epsilon
        slopes = [(p - q) / (2 * epsilon) for p, q in zip(after(up), after(down), strict=True)]
        for row in range(count):
            entry = to_numpy(jacobian[row * count + column])
            np.testing.assert_allclose(entry, slopes[row], atol=tolerance)


@pytest.mark.once
def test_a_leaky_unit_forgets_by_its_time_constant():
    """Without input or recurrence h decays by exp(-1 / tau), also where that is 1 to rounding."""
    layer = layers.ParaLeaky(3, tau=1.0, solver="loop")
    layer.build((None, None, 1))
    layer.cell.recurrent.assign(0.0 * to_numpy(layer.cell.recurrent))
    tau = np.float32([0.5, 20.0, 1e5])
    layer.cell.log_tau.assign(np.log(tau))
    x = np.zeros((1, 1000, 1), "float32")
    left = to_numpy(layer(x, initial_state=[np.ones((1, 3), "float32")]))[0]
    np.testing.assert_allclose(left, np.exp(-1000 / tau.astype("float64")), rtol=1e-4, atol=1e-30)


def chaotic(units=12, seed=0):
    cell = keras.layers.SimpleRNNCell(
        units,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        recurrent_initializer="orthogonal",
    )
    cell.build((None, 3))
    generator = np.random.default_rng(3)
    cell.recurrent_kernel.assign(4.0 * generator.standard_normal((units, units)) / units**0.5)
    return cell


def test_chaos_is_left_to_the_loop(rng):
    cell, x = chaotic(), sequences(rng, batch=1, steps=200, features=3)
    expected = to_numpy(keras.layers.RNN(cell, return_sequences=True)(x))
    with pytest.warns(UserWarning, match="has not converged in 5 iterations"):
        found = parallel.solve(cell, x, max_iterations=5)
    assert not found.has_converged
    # The first steps, before rounding has grown: chaos doubles it every step or two.
    np.testing.assert_allclose(to_numpy(found.outputs)[:, :8], expected[:, :8], atol=1e-4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has not converged")
        kept = parallel.solve(cell, x, max_iterations=5, fallback=False)
    assert not kept.has_converged
    assert kept.residual > 1e-2
    # After k iterations the first k steps are those of the loop, whatever the dynamics.
    np.testing.assert_allclose(to_numpy(kept.outputs)[:, :3], expected[:, :3], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("solver", ["newton", "damped"])
def test_iterates_that_overflow_are_no_solution(rng, solver, seed):
    """Infinitely long steps counted as small beside infinite states, and states were NaN."""
    cell, x = chaotic(seed=seed), sequences(rng, batch=1, steps=200, features=3)
    found = parallel.solve(cell, x, solver=solver, fallback=False)
    assert not found.has_converged
    assert np.isfinite(found.residual)
    assert np.abs(to_numpy(found.outputs)).max() <= 1.0


def test_any_cell_is_solved(rng):
    x = sequences(rng, batch=2, steps=60, features=3)
    for cell in (keras.layers.GRUCell(4), OscillatorCell(4)):
        expected = to_numpy(keras.layers.RNN(cell, return_sequences=True)(x))
        for solver in ("newton", "quasi", "damped"):
            found = parallel.solve(cell, x, solver=solver)
            assert found.has_converged, solver
            assert found.residual < 1e-4
            assert found.agreement < 1e-4
            np.testing.assert_allclose(to_numpy(found.outputs), expected, atol=3e-5)


def test_gradients_of_a_solved_cell_are_those_of_the_loop(rng):
    cell, x = keras.layers.LSTMCell(4), sequences(rng, batch=2, steps=40, features=3)
    layer = keras.layers.RNN(cell, return_sequences=True)
    layer.build(x.shape)
    start = [rng.standard_normal((2, 4)).astype("float32") for _ in range(2)]

    def solved(x, h, c):
        return ops.sum(ops.sin(parallel.solve(cell, x, [h, c], solver="quasi").outputs))

    def stepped(x, h, c):
        return ops.sum(ops.sin(layer(x, initial_state=[h, c])))

    found, expected = (gradients(f, cell.trainable_variables, x, *start) for f in (solved, stepped))
    for one, other in zip(found, expected, strict=True):
        size = np.abs(other).max()
        assert size > 1e-3
        np.testing.assert_allclose(one, other, atol=1e-4 * max(size, 1.0))


def test_second_derivatives_are_refused(rng):
    newton, loop = twins("gru", 1.0)
    x = sequences(rng, batch=1, steps=6, features=3)

    def slope(layer):
        return lambda x: ops.sum(_gradient(lambda y: ops.sum(layer(y)), x) ** 2)

    value_and_gradient(slope(loop), x)
    with pytest.raises(NotImplementedError, match='Use solver="loop"'):
        value_and_gradient(slope(newton), x)


def _gradient(function, x):
    """A gradient that can be differentiated again."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        return jax.grad(function)(x)
    if name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    import torch

    return torch.autograd.grad(function(x), x, create_graph=True)[0]


@pytest.mark.once
def test_halves_are_the_whole(rng):
    """The states do not depend on how a sequence is cut."""
    newton, _ = twins("lstm", 3.0, return_state=True)
    x = sequences(rng, batch=2, steps=101, features=3)
    whole, *last = map(to_numpy, newton(x))
    for cut in (1, 50, 97):
        first, *between = newton(x[:, :cut])
        second, *end = newton(x[:, cut:], initial_state=between)
        joined = np.concatenate([to_numpy(first), to_numpy(second)], axis=1)
        np.testing.assert_allclose(joined, whole, atol=1e-5)
        for state, expected in zip(end, last, strict=True):
            np.testing.assert_allclose(to_numpy(state), expected, atol=1e-5)


@pytest.mark.once
def test_lower_precision_is_that_of_its_products(rng):
    """States stay in float32, so that bfloat16 costs the same as in the loop."""
    x = sequences(rng, batch=2, steps=100, features=3)
    newton, loop = twins("gru", 3.0, dtype="mixed_bfloat16")
    found, expected = (to_numpy(ops.cast(layer(x), "float32")) for layer in (newton, loop))
    np.testing.assert_allclose(found, expected, atol=2**-8)
    cell = keras.layers.GRUCell(4, dtype="bfloat16", recurrent_initializer="glorot_uniform")
    exact = keras.layers.GRUCell(4)
    exact.build((None, 3))
    found = parallel.solve(cell, x)
    exact.set_weights([to_numpy(ops.cast(w, "float32")) for w in cell.weights])
    assert found.has_converged
    difference = to_numpy(ops.cast(found.outputs, "float32")) - to_numpy(
        parallel.solve(exact, x).outputs
    )
    assert np.abs(difference).max() < 0.05


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((keras.layers.LSTM(3), np.zeros((1, 2, 3))), TypeError, "give `layer.cell`"),
        ((keras.layers.GRUCell(3), np.zeros((2, 3))), ValueError, "x must be \\(batch, T, feat"),
        (
            (keras.layers.GRUCell(3), np.zeros((1, 2, 3)), np.zeros((1, 4))),
            ValueError,
            "initial_state must have states of shapes \\[\\(3,\\)\\]",
        ),
    ],
)
def test_wrong_use_of_solve(arguments, error, message):
    with pytest.raises(error, match=message):
        parallel.solve(*arguments)


@pytest.mark.once
def test_wrong_options_of_solve():
    cell, x = keras.layers.GRUCell(2), np.zeros((1, 2, 3))
    for options, message in (
        ({"solver": "deer"}, "solver must be one of 'newton', 'quasi', 'damped'"),
        ({"tolerance": 0.0}, "tolerance must be a positive"),
        ({"max_iterations": 0}, "max_iterations must be a positive integer"),
        ({"fallback": None}, "fallback must be True or False"),
        ({"samples": 0}, "samples must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            parallel.solve(cell, x, **options)
