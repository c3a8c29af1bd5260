"""Path counts, the exact toy law, the energy law, and the gradients they are about."""

import itertools
import math
from fractions import Fraction

import keras
import matplotlib as mpl
import numpy as np
import pytest
from harness import NumpyCell, mostly_once, randomized, recurrent_model, sequences
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_lsc
from keras_lsc.stability.targets import resolve
from keras_lsc.stability.theory import (
    PascalRNN,
    coherent_bound,
    energy_summed_over_time,
    far_corner_radius,
    number_of_paths,
    propagate,
)

mpl.use("Agg")
RADII = st.floats(0.05, 0.95)


@pytest.mark.parametrize(("steps", "depth"), list(itertools.product(range(5), range(5))))
def test_number_of_paths_by_enumeration(steps, depth):
    orders = {order for order in itertools.product("tl", repeat=steps + depth)
              if order.count("t") == steps}  # fmt: skip
    assert number_of_paths(steps, depth) == len(orders)


@settings(max_examples=20, deadline=None)
@given(rho_time=RADII, rho_depth=RADII, depth=st.integers(1, 5), delay=st.integers(0, 8))
def test_pascal_law_is_the_derivative_of_the_network(rho_time, rho_depth, depth, delay):
    network = PascalRNN(rho_time, rho_depth, depth)
    x = np.linspace(-1, 1, delay + 3)
    change = np.zeros_like(x)
    change[2] = 1.0
    # The network is linear: a difference is the derivative, whatever its size.
    derivative = network.run(x + change)[2 + delay] - network.run(x)[2 + delay]
    assert derivative == pytest.approx(network.gradient(delay), rel=1e-9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(rho_time=RADII, rho_depth=RADII, depth=st.integers(1, 6), steps=st.integers(1, 30))
def test_pascal_sums(rho_time, rho_depth, depth, steps):
    network = PascalRNN(rho_time, rho_depth, depth)
    ones = network.run(np.ones(steps))
    assert ones[-1] == pytest.approx(network.gradient_sum(steps), rel=1e-9)
    assert network.gradient_sum() >= network.gradient_sum(steps) * (1 - 1e-9)
    assert network.gradient_sum() == pytest.approx(network.gradient_sum(2000), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(rho_time=RADII, depth=st.integers(1, 12))
def test_amplitudes_that_share_one_sum_to_one(rho_time, depth):
    assert PascalRNN(rho_time, 1 - rho_time, depth).gradient_sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("depth", "steps"), [(1, 4), (3, 7), (10, 100)])
def test_radius_one_grows_like_a_binomial(depth, steps):
    network = PascalRNN(1.0, 1.0, depth)
    assert network.gradient_sum(steps) == math.comb(depth + steps - 1, depth)
    assert network.gradient_sum() == math.inf


def test_far_corner_of_the_unbalanced_member():
    rho_time, rho_depth = resolve("unbalanced", depth=3, steps=300)
    assert coherent_bound(rho_time, rho_depth, 300, 3) == pytest.approx(0.225, rel=0.01)
    assert coherent_bound(0.5, 0.5, 300, 3) < 1e-80


@settings(max_examples=15, deadline=None)
@given(rho_time=RADII, rho_depth=RADII, depth=st.integers(1, 4), steps=st.integers(1, 7))
def test_propagate_counts_paths(rho_time, rho_depth, depth, steps):
    grid = propagate([rho_time] * depth, [rho_depth] * depth, steps)
    expected = [
        [
            coherent_bound(rho_time, rho_depth, steps - 1 - t, depth - 1 - layer)
            for layer in range(depth)
        ]
        for t in range(steps)
    ]
    np.testing.assert_allclose(grid, expected, rtol=1e-9)


def test_propagate_of_unequal_layers_is_the_gradient_of_a_scalar_network():
    """h_{t,l} = a_l h_{t-1,l} + b_l h_{t,l-1}, its states disturbed one by one."""
    time, depth, steps = [0.3, 0.9, 0.5], [7.0, 0.4, 1.2], 5

    def last(disturbance):
        state = np.zeros(3)
        for t in range(steps):
            below = 0.0
            for k in range(3):
                state[k] = time[k] * state[k] + depth[k] * below + disturbance[t, k]
                below = state[k]
        return state[-1]

    units = np.eye(steps * 3).reshape(-1, steps, 3)
    expected = np.array([last(unit) for unit in units]).reshape(steps, 3)
    np.testing.assert_allclose(propagate(time, depth, steps), expected, rtol=1e-12)


@pytest.mark.parametrize("rho_time", [0.2, 0.5**0.5, 0.9])
@pytest.mark.parametrize("rho_depth", [0.5, 0.5**0.5, 1.3])
def test_energy_summed_over_time_is_what_propagate_sums_to(rho_time, rho_depth):
    grid = propagate([rho_time**2] * 4, [rho_depth**2] * 4, steps=400)
    expected = [energy_summed_over_time(rho_time, rho_depth, below) for below in (3, 2, 1, 0)]
    np.testing.assert_allclose(grid.sum(axis=0), expected, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(rho_time=RADII, below=st.integers(0, 50))
def test_energies_that_share_one_are_flat_in_depth(rho_time, below):
    rho_depth = math.sqrt(1 - rho_time**2)
    top = energy_summed_over_time(rho_time, rho_depth, 0)
    assert energy_summed_over_time(rho_time, rho_depth, below) == pytest.approx(top)


@pytest.mark.parametrize("rho_time", [1.0, 1.5, -0.1, float("nan")])
def test_endless_energy_needs_a_radius_below_one(rho_time):
    with pytest.raises(ValueError, match="0 <= rho_time < 1") as caught:
        energy_summed_over_time(rho_time, 0.5, 1)
    assert repr(rho_time) in str(caught.value)


@pytest.mark.once
@settings(max_examples=30, deadline=None)
@given(depth=st.integers(1, 30), steps=st.integers(1, 1000))
def test_targets_satisfy_their_identities(depth, steps):
    time, layer = resolve("unbalanced", depth, steps)
    assert time + layer == pytest.approx(1.0)
    assert time * depth == pytest.approx(layer * steps)
    time, layer = resolve("variance-unbalanced", depth, steps)
    assert time**2 + layer**2 == pytest.approx(1.0)
    assert time**2 * depth == pytest.approx(layer**2 * steps)
    time, layer = resolve("variance", depth, steps)
    assert time == layer == pytest.approx(1 / math.sqrt(2))
    assert resolve(0.5, depth, steps) == (0.5, 0.5)
    assert resolve(1, depth, steps) == (1.0, 1.0)
    assert resolve((0.25, 2), depth, steps) == (0.25, 2.0)
    assert resolve([0.25, 2], depth, steps) == (0.25, 2.0)


@pytest.mark.parametrize("target", ["variance", "unbalanced", "variance-unbalanced"])
def test_without_time_all_energy_goes_through_depth(target):
    assert resolve(target, depth=4, steps=0)[1] == 1.0


@pytest.mark.parametrize("target", [0.5**0.5, np.float64(0.5), np.float32(0.5), np.int64(1)])
def test_numbers_of_numpy_are_targets(target):
    assert resolve(target, 2, 3) == (float(target), float(target))


def disturbed_output(cells, x, disturbance):
    """The last output of stacked cells when `disturbance[l][t]` is added to their states."""
    below = x
    for cell, noise in zip(cells, disturbance, strict=True):
        state, outputs = np.zeros(cell.size), []
        for inputs, extra in zip(below, noise, strict=True):
            _, state = cell.step(inputs, state)
            state = state + extra
            # In these cells the output is the first part of the state.
            outputs.append(state[: cell.units])
        below = outputs
    return below[-1]


def energies_by_differences(cells, x):
    """|d output / d state|_F^2 of every step and layer, `(T, L)`."""
    energies = np.zeros((len(x), len(cells)))
    zero = [np.zeros((len(x), cell.size)) for cell in cells]
    for t, layer in np.ndindex(*energies.shape):
        for unit in np.eye(cells[layer].size) * 1e-5:
            ahead, behind = ([part.copy() for part in zero] for _ in range(2))
            ahead[layer][t] += unit
            behind[layer][t] -= unit
            slope = disturbed_output(cells, x, ahead) - disturbed_output(cells, x, behind)
            energies[t, layer] += np.square(slope / 2e-5).sum()
    return energies


def references(model):
    cells = []
    for layer in model.layers:
        cells.append(NumpyCell(layer.cell))
        cells[-1].units = layer.units
    return cells


@pytest.mark.parametrize(
    "make", mostly_once([layers.SimpleRNN, layers.LSTM, layers.GRU], {layers.LSTM})
)
def test_gradient_grid_equals_finite_differences(make, rng):
    """With one output unit the random functional is a factor, which the scale divides out."""
    model = randomized(
        keras.Sequential(
            [keras.Input((4, 2)), make(3, return_sequences=True), make(3, return_sequences=True),
             make(1)]
        )
    )  # fmt: skip
    x = sequences(rng, batch=1, steps=4, features=2)
    grid = keras_lsc.gradient_grid(model, x, samples=1)
    exact = energies_by_differences(references(model), x[0].astype("float64"))
    np.testing.assert_allclose(grid.measured, exact / exact[-1, -1], rtol=2e-3, atol=1e-6)


def test_gradient_grid_of_many_functionals_is_the_frobenius_norm(rng):
    model = randomized(
        keras.Sequential(
            [keras.Input((4, 2)), layers.SimpleRNN(3, return_sequences=True), layers.SimpleRNN(3)]
        )
    )
    x = sequences(rng, batch=1, steps=4, features=2)
    grid = keras_lsc.gradient_grid(model, np.repeat(x, 4000, axis=0), samples=4000)
    exact = energies_by_differences(references(model), x[0].astype("float64"))
    # Five standard errors of a mean of 4000 squares.
    np.testing.assert_allclose(grid.measured, exact / exact[-1, -1], rtol=0.12)


def test_gradient_grid_of_a_dense_stage(rng):
    """What goes through a stage between the layers is part of the gradient."""
    model = recurrent_model("tanh", depth=2, units=3, between=lambda: [layers.Dense(3)])
    x = sequences(rng)
    some = keras_lsc.gradient_grid(model, x, samples=8).measured
    middle = model.layers[1]
    middle.kernel.assign(middle.kernel.value * 0)
    none = keras_lsc.gradient_grid(model, x, samples=8).measured
    assert (some[:, 0] > 0).all()
    np.testing.assert_array_equal(none[:, 0], 0.0)


def test_isotropic_linear_network_obeys_the_energy_law(rng):
    """Independent orthogonal matrices over sqrt(2): energies are flat in depth."""
    n, depth, steps = 48, 4, 24
    model = keras.Sequential([keras.Input((steps, n))])
    for _ in range(depth):
        model.add(layers.SimpleRNN(n, activation="linear", return_sequences=True, use_bias=False))
    model.set_weights(
        [np.linalg.qr(rng.standard_normal((n, n)))[0] / np.sqrt(2) for _ in range(2 * depth)]
    )
    grid = keras_lsc.gradient_grid(model, sequences(rng, 64, steps, n), samples=64)
    np.testing.assert_allclose(grid.report.time, 0.5**0.5, rtol=2e-3)
    measured, predicted = grid.energy_per_layer(), grid.predicted_energy_per_layer()
    np.testing.assert_allclose(measured, predicted, rtol=0.25)
    assert measured.max() < 1.25 * measured.min()
    assert (grid.measured <= grid.bound * 1.5 + 1e-6).all()
    assert grid.measured[-1, -1] == pytest.approx(1.0)


def test_gradient_grid_draws_both_maps(rng):
    axes = keras_lsc.gradient_grid(recurrent_model("gru"), sequences(rng), samples=8).plot()
    assert [ax.get_title(loc="left") for ax in axes] == ["measured", "predicted"]
    assert all(ax.get_images()[0].get_array().shape == (2, 5) for ax in axes)


def test_gradient_grid_refuses_a_feed_forward_model(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(3)], name="flat")
    with pytest.raises(ValueError, match="'flat' is feed-forward"):
        keras_lsc.gradient_grid(model, rng.standard_normal((8, 4)))


@pytest.mark.parametrize(
    "layer",
    [
        layers.GRU(3, go_backwards=True, name="turned"),
        layers.Bidirectional(layers.GRU(3), name="turned"),
    ],
    ids=["backwards", "bidirectional"],
)
def test_gradient_grid_refuses_to_run_backwards(layer, rng):
    model = keras.Sequential([keras.Input((5, 4)), layer])
    with pytest.raises(ValueError, match=r"'turned.*runs backwards"):
        keras_lsc.gradient_grid(model, sequences(rng))


def test_gradient_of_a_dead_network_goes_nowhere(rng):
    model = recurrent_model("relu", depth=1)
    model.set_weights([0 * w - (w.ndim == 1) for w in model.get_weights()])
    # The last output is its own last state even there; nothing before it counts.
    grid = keras_lsc.gradient_grid(model, sequences(rng), samples=8)
    np.testing.assert_array_equal(grid.measured[:-1], 0.0)


@pytest.mark.parametrize(("steps", "layers"), [(5, 1), (28, 2), (28, 8), (6, 6), (1, 3)])
def test_far_corner_radius_keeps_the_energy_of_the_gradient_there(steps, layers):
    energy = far_corner_radius(steps, layers) ** 2
    assert propagate([energy] * layers, [energy] * layers, steps)[0, 0] == pytest.approx(1)


def test_far_corner_radius_falls_with_depth_and_rises_with_length():
    assert far_corner_radius(28, 2) > far_corner_radius(28, 8) > math.sqrt(0.5)
    assert far_corner_radius(784, 2) > far_corner_radius(28, 2)
    assert far_corner_radius(5, 1) == 1
    assert far_corner_radius(1000, 1000) == pytest.approx(math.sqrt(0.5), abs=2e-3)


@pytest.mark.parametrize(("steps", "layers"), [(1, 1), (0, 3), (5, 0), (-2, 9)])
def test_far_corner_radius_of_a_grid_without_two_corners_is_an_error(steps, layers):
    with pytest.raises(ValueError, match="no transitions"):
        far_corner_radius(steps, layers)


@pytest.mark.parametrize(("steps", "depth"), [(3, 2), (2000, 2000), (5000, 3), (3, 5000)])
@pytest.mark.parametrize("radii", [(0.5, 0.5), (0.25, 0.75), (0.0, 0.5), (1.0, 0.0)])
def test_bounds_where_their_factors_are_no_floats(steps, depth, radii):
    time, layer = map(Fraction, radii)  # exact in binary
    exact = math.comb(steps + depth, depth) * time**steps * layer**depth
    assert coherent_bound(*radii, steps, depth) == pytest.approx(float(exact), rel=1e-9)
    exact = math.comb(steps + depth - 1, depth - 1) * time**steps * layer**depth
    assert PascalRNN(*radii, depth).gradient(steps) == pytest.approx(float(exact), rel=1e-9)


def test_a_bound_too_large_for_a_float_is_infinite():
    assert coherent_bound(2.0, 2.0, 5000, 5000) == math.inf
    assert coherent_bound(0.0, 1.0, 0, 3) == 1.0


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: number_of_paths(-1, 2), "steps"),
        (lambda: number_of_paths(2, 1.5), "layers"),
        (lambda: coherent_bound(-0.5, 0.5, 1, 1), "rho_time"),
        (lambda: coherent_bound(0.5, float("nan"), 1, 1), "rho_depth"),
        (lambda: propagate([0.5], [0.5, 0.5], 3), "got 1 and 2"),
        (lambda: propagate([], [], 3), "got 0 and 0"),
        (lambda: propagate([0.5, float("nan")], [0.5, 0.5], 3), r"time_factors\[1\]"),
        (lambda: propagate([0.5], [0.5], 0), "steps"),
        (lambda: energy_summed_over_time(0.5, "a", 1), "rho_depth"),
        (lambda: energy_summed_over_time(0.5, 0.5, -1), "layers_below_top"),
        (lambda: far_corner_radius(0, 2), "steps"),
        (lambda: far_corner_radius(3, 2.5), "layers"),
        (lambda: PascalRNN(0.5, 0.5, 0), "layers"),
        (lambda: PascalRNN(-0.5, 0.5, 2), "rho_time"),
        (lambda: PascalRNN(0.5, 0.5, 2).gradient(-1), "delay"),
        (lambda: PascalRNN(0.5, 0.5, 2).gradient_sum(1.5), "steps"),
        (lambda: PascalRNN(0.5, 0.5, 2).run(np.ones((2, 3))), "inputs"),
    ],
)
def test_wrong_arguments_of_the_theory(make, part):
    with pytest.raises(ValueError, match=part):
        make()


@pytest.mark.parametrize("factors", [None, 3, "ab", b"ab", {}, print, 0.5])
def test_factors_that_are_no_list(factors):
    with pytest.raises(ValueError, match="time_factors must be a list"):
        propagate(factors, [0.5, 0.5], steps=2)
    with pytest.raises(ValueError, match="depth_factors must be a list"):
        propagate([0.5, 0.5], factors, steps=2)


@pytest.mark.parametrize("below", [0, 1, 2, 7])
def test_energies_and_sums_too_large_for_a_float_are_infinite(below):
    rho_t, rho_l = Fraction(1, 2), Fraction(3, 4)
    wanted = (rho_l**2 / (1 - rho_t**2)) ** below / (1 - rho_t**2)
    assert energy_summed_over_time(0.5, 0.75, below) == pytest.approx(float(wanted), rel=1e-14)
    largest = energy_summed_over_time(0.5, 1e300, below)
    assert largest == (math.inf if below else pytest.approx(4 / 3))
    assert PascalRNN(0.5, 1e300, below + 2).gradient_sum() == math.inf
    assert PascalRNN(0.5, 0.75, below + 1).gradient_sum() == pytest.approx(1.5 ** (below + 1))
