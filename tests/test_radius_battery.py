"""Radii on matrices on which they are hard, against LAPACK: values, gradients, and what is known.

The matrices are those of `benchmarks/matrices.py`; `benchmarks/radius.py` tries larger ones too.
"""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import ops

from benchmarks.matrices import FAMILIES, Case, battery
from benchmarks.radius import by_size, judge
from keras_lsc import backend
from keras_lsc.stability.accuracy import CHECK, MEASURE, Accuracy
from keras_lsc.stability.radius import (
    radii_and_gains,
    radius_and_gain,
    rms_gain,
    spectral_norm,
    spectral_radius,
)

GROUPS = by_size(battery((3, 24, 96)), (24, 96))


def test_the_battery_has_more_than_two_hundred_matrices_that_float32_can_tell():
    cases = [case for group in GROUPS.values() for case in group]
    assert len(cases) >= 200
    assert {case.family for case in cases} == {*FAMILIES, "explicit"}
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        truth = np.abs(np.linalg.eigvals(case.matrix.astype("float64"))).max()
        assert abs(np.abs(np.linalg.eigvals(case.matrix)).max() - truth) <= 1e-3 * truth, case.name


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "matrix-free"])
@pytest.mark.parametrize("size", GROUPS)
def test_values_and_gradients_are_those_of_lapack(size, dense):
    verdicts = judge(GROUPS[size], dense)
    wrong = {
        name: verdict
        for name, verdict in verdicts.items()
        if not (verdict.is_right and verdict.gradient_is_right)
    }
    assert not wrong
    # Not by claiming nothing: a good part of the families has a leader with a gradient of its own.
    own = {case.family for case in GROUPS[size] if verdicts[case.name].is_own}
    assert own >= {"gaussian", "positive", "lstm", "condition 1e1"}


@pytest.mark.parametrize("accuracy", [MEASURE, CHECK], ids=["exact", "coarse"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "matrix-free"])
def test_in_a_graph_a_value_that_is_called_certain_is_right(dense, accuracy):
    """What is compiled cannot ask LAPACK; it says which values have to be asked for."""
    cases = GROUPS[24] if dense else [case for case in GROUPS[96] if case.family != "explicit"]
    matrices = np.stack([case.matrix for case in cases])
    accuracy = accuracy._replace(dense_limit=128 if dense else 0, lapack_work=0)
    certain, values = _measured(matrices, accuracy)
    truth = np.abs(np.linalg.eigvals(matrices.astype("float64"))).max(axis=-1)
    tolerance = 1e-3 if accuracy.squarings == MEASURE.squarings else 1e-2
    wrong = np.abs(values - truth) > tolerance * truth
    assert not [case.name for case, bad in zip(cases, certain & wrong, strict=True) if bad]
    # The radii of most matrices that users have need no eigensolver. With few squarings, moduli
    # that are close are not told apart.
    ordinary = {"positive", "rank one", "dead rows", "lstm", "multiple of I"}
    ordinary |= {"gaussian"} if accuracy.squarings == MEASURE.squarings else set()
    unknown = {case.family for case, known in zip(cases, certain, strict=True) if not known}
    assert not unknown & ordinary


def _measured(matrices, accuracy):
    @backend.compiled
    def measure(given):
        (measured,) = radii_and_gains(
            [(lambda x: ops.einsum("pij,pj->pi", given, x), ops.zeros(matrices.shape[:2]))],
            accuracy=accuracy,
        )
        return measured.is_certain, measured.radius

    certain, radius = measure(ops.convert_to_tensor(matrices))
    return to_numpy(certain), to_numpy(radius)


@pytest.mark.once
def test_an_update_asks_for_no_certainty():
    matrices = np.stack([np.eye(5, dtype="float32")])
    given = ops.convert_to_tensor(matrices)
    accuracy = Accuracy(certify=False)
    (measured,) = radii_and_gains(
        [(lambda x: ops.einsum("pij,pj->pi", given, x), ops.zeros((1, 5)))], accuracy=accuracy
    )
    assert measured.is_certain is None


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("measure", [spectral_radius, spectral_norm, rms_gain])
def test_no_scale_in_range_overflows_or_vanishes(measure, scale, rng):
    matrix = (rng.standard_normal((12, 12))).astype("float32")
    expected = float(to_numpy(measure(ops.convert_to_tensor(matrix))))
    scaled = float(to_numpy(measure(ops.convert_to_tensor(np.float32(scale) * matrix))))
    assert scaled == pytest.approx(scale * expected, rel=1e-3)


@pytest.mark.parametrize("measure", [spectral_radius, spectral_norm, rms_gain])
def test_what_is_not_finite_is_not_a_number_of_use(measure):
    for bad in (np.inf, np.nan):
        matrix = np.eye(4, dtype="float32")
        matrix[1, 2] = bad
        assert not np.isfinite(float(to_numpy(measure(ops.convert_to_tensor(matrix)))))


def test_gains_of_low_rank_are_those_of_the_frobenius_norm(rng):
    """Eight random directions alone are off by a quarter where one holds all."""
    n, ranks = 128, np.repeat([1, 4, 20], 8)
    factors = [(rng.standard_normal((n, r)), rng.standard_normal((r, n))) for r in ranks]
    matrices = np.stack([left @ right / n for left, right in factors]).astype("float32")
    given = ops.convert_to_tensor(matrices)
    measured = radius_and_gain(
        lambda x: ops.einsum("pij,pj->pi", given, x), ops.zeros((len(ranks), n)), dense_limit=0
    )
    ratios = to_numpy(measured.gain) / (np.linalg.norm(matrices, axis=(1, 2)) / np.sqrt(n))
    np.testing.assert_allclose(ratios[ranks <= 8], 1.0, rtol=1e-4)
    # Five standard errors of what eight directions leave open beside the eight that are exact.
    mean = np.sqrt(np.mean(ratios[ranks == 20] ** 2))
    assert mean == pytest.approx(1.0, abs=5 * 0.5 * np.sqrt(2 / (8 * 12 * 8)))


def test_a_gain_that_is_a_radius_is_exact_or_called_an_estimate(rng):
    """The radius of 784 inputs on 128 units was off by 2 %, and called certain."""
    matrices = (rng.standard_normal((5, 12, 40)) * 0.8 ** np.arange(12)[:, None]).astype("float32")
    given = ops.convert_to_tensor(matrices)
    linear = (lambda x: ops.einsum("pij,pj->pi", given, x), ops.zeros((5, 40)))
    expected = np.linalg.norm(matrices, axis=(1, 2)) * np.sqrt((1 / 12 + 1 / 40) / 2)
    for kind in ("spectral", "rms"):
        (exact,) = radii_and_gains([linear], kind, Accuracy(dense_limit=0, rows=12))
        np.testing.assert_allclose(to_numpy(exact.radius), expected, rtol=1e-5)
        assert to_numpy(exact.is_certain).all()
        (estimate,) = radii_and_gains([linear], kind, Accuracy(dense_limit=0, rows=11))
        assert not to_numpy(estimate.is_certain).any()


def test_the_report_says_which_gains_are_estimates(rng):
    import keras_lsc

    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(1030), keras.layers.Dense(9)])
    report = keras_lsc.measure(model, rng.standard_normal((8, 300)).astype("float32"), samples=4)
    wide, narrow = report.transitions
    assert (wide.uncertain, narrow.uncertain) == (4, 0)
    kernel = model.layers[1].kernel
    exact = np.linalg.norm(to_numpy(kernel)) * np.sqrt((1 / 9 + 1 / 1030) / 2)
    assert narrow.radius == pytest.approx(exact, rel=1e-5)


def test_leaky_cells_and_gated_layers_above_the_dense_limit(rng):
    """LIF without recurrence is a multiple of I; both were off by hundreds."""
    import keras_lsc

    x = rng.standard_normal((16, 6, 4)).astype("float32")
    model = keras.Sequential([keras.Input((6, 4)), keras_lsc.layers.LIF(300, recurrent=False)])
    report = keras_lsc.measure(model, x, samples=8)
    tau = np.exp(to_numpy(model.layers[0].cell.log_tau.value))
    # The reset subtracts theta times the surrogate slope, which lowers the decay of single units.
    assert 0.8 < report.time[0] <= np.exp(-1 / tau).max() + 1e-4


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "matrix-free"])
def test_no_gradient_of_a_defective_radius_is_called_its_own(dense, rng):
    """Of which the powers, for any coupling, leave vectors that look like those of a simple one."""
    cases = [
        Case("jordan", f"{coupling}, {index}", matrix.astype("float32"))
        for coupling in (1.0, 0.3, 0.1, 0.03, 0.01)
        for index in range(8)
        for matrix in [rng.uniform(0.1, 1.5) * np.eye(2) + coupling * np.eye(2, k=-1)]
    ]
    for name, verdict in judge(cases, dense).items():
        assert verdict.is_right, name
        assert not verdict.is_own, name
