"""Linear scans against the loop they stand for, forward and backward."""

import numpy as np
import pytest
from harness import gradients, to_numpy
from keras import ops

from keras_lsc import backend
from keras_lsc.layers import scan
from keras_lsc.layers.scan import complex_scan, linear_scan

# Below, at and above the length of a block, and two levels of blocks.
LENGTHS = (1, 16, 17, 300)


def loop(a, b, start, reverse):
    h, states = start, np.zeros_like(b)
    for t in range(len(b))[::-1] if reverse else range(len(b)):
        h = a[t] * h + b[t]
        states[t] = h
    return states


def problem(rng, length, is_constant, is_complex):
    def draw(*shape):
        x = rng.standard_normal(shape)
        return x + 1j * rng.standard_normal(shape) if is_complex else x

    a = draw(4) if is_constant else draw(length, 3, 4)
    # Decays inside the unit circle, as those of any stable recurrence.
    a = a / (1.1 * np.maximum(np.abs(a), 1.0))
    return a, draw(length, 3, 4), draw(3, 4)


def parts(x):
    return x.real.astype("float32"), x.imag.astype("float32")


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("is_constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("length", LENGTHS)
def test_states_are_those_of_the_loop(rng, length, is_constant, reverse, is_complex):
    a, b, start = problem(rng, length, is_constant, is_complex)
    full = np.broadcast_to(a, b.shape)
    expected = loop(full, b, start, reverse)
    if is_complex:
        real, imag = complex_scan(parts(a), parts(b), parts(start), reverse)
        found = to_numpy(real) + 1j * to_numpy(imag)
    else:
        found = to_numpy(linear_scan(*(x.astype("float32") for x in (a, b, start)), reverse))
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("is_constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("length", [5, 40])
def test_gradients_are_those_of_differences(rng, length, is_constant, reverse):
    """Against central differences of the loop in float64, for complex numbers."""
    a, b, start = problem(rng, length, is_constant, True)
    weight = rng.standard_normal(b.shape) + 1j * rng.standard_normal(b.shape)

    def functional(a, b, start):
        states = loop(np.broadcast_to(a, b.shape), b, start, reverse)
        return np.sum(states.real * weight.real + states.imag * weight.imag)

    def by_scan(*flat):
        real, imag = complex_scan(flat[0:2], flat[2:4], flat[4:6], reverse)
        kernel_real, kernel_imag = map(ops.convert_to_tensor, parts(weight))
        return ops.sum(real * kernel_real + imag * kernel_imag)

    found = gradients(by_scan, [], *parts(a), *parts(b), *parts(start))
    arguments = [a, b, start]
    for index, argument in enumerate(arguments):
        pair = found[2 * index : 2 * index + 2]
        for _ in range(5):
            entry = tuple(rng.integers(size) for size in argument.shape)
            for gradient, direction in zip(pair, (1.0, 1j), strict=True):
                values = []
                for sign in (1e-5, -1e-5):
                    changed = argument.copy()
                    changed[entry] += sign * direction
                    values.append(functional(*arguments[:index], changed, *arguments[index + 1 :]))
                slope = (values[0] - values[1]) / 2e-5
                # Sums of some hundred float32 terms of order one.
                assert gradient[entry] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_wide_steps_take_the_loop_and_give_the_same(rng, monkeypatch):
    a, b, start = (x.astype("float32") for x in problem(rng, 40, False, False))

    def functional(a, b, start):
        return ops.sum(ops.sin(linear_scan(a, b, start, reverse=True)))

    blocked = gradients(functional, [], a, b, start)
    monkeypatch.setattr(scan, "_WIDE", 1)
    looped = gradients(functional, [], a, b, start)
    for one, other in zip(blocked, looped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_an_impulse_is_remembered_for_a_hundred_thousand_steps():
    length = 100_000
    decay = np.float32([1.0, 1.0 - 1e-5])
    impulse = np.zeros((length, 2), "float32")
    impulse[0] = 1.0
    last = to_numpy(linear_scan(decay, impulse))[-1]
    # float32 keeps 1 - 1e-5 to 6e-8, which over so many steps is half a percent.
    np.testing.assert_allclose(last, [1.0, np.exp(-1.0)], rtol=6e-3)


def test_strong_decay_neither_overflows_nor_divides(rng):
    b = rng.standard_normal((200, 1, 2)).astype("float32")
    found = to_numpy(linear_scan(np.float32([1e-30, 0.0]), b))
    np.testing.assert_array_equal(found, b)


def test_running_states_in_both_directions():
    steps = ops.convert_to_tensor(np.arange(5, dtype="float32"))
    zero = ops.zeros(())

    def add(state, at):
        return state[0] + at[0], state[1] * 2.0 + at[0]

    total, doubled = backend.running_states(add, (zero, zero), (steps,))
    np.testing.assert_array_equal(to_numpy(total), [0, 1, 3, 6, 10])
    np.testing.assert_array_equal(to_numpy(doubled), [0, 1, 4, 11, 26])
    total, _ = backend.running_states(add, (zero, zero), (steps,), reverse=True)
    np.testing.assert_array_equal(to_numpy(total), [10, 10, 9, 7, 4])


def test_gradient_that_is_given_replaces_the_own():
    function = backend.custom_gradient(
        lambda x, y: (x * y,),
        lambda inputs, outputs, cotangents: (
            lambda: 10.0 * cotangents[0] * inputs[1] + outputs[0],
            None,
        ),
    )
    x, y = np.float32([1.0, 2.0]), np.float32([3.0, 4.0])
    by_x, by_y = gradients(lambda x, y: ops.sum(function(x, y)[0]), [], x, y)
    np.testing.assert_allclose(by_x, 10.0 * y + x * y)
    np.testing.assert_array_equal(by_y, [0.0, 0.0])
