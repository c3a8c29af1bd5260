"""Scans of matrices against the loop they stand for."""

import numpy as np
import pytest
from harness import to_numpy

from keras_lsc.layers.parallel.affine import BLOCKS, DENSE, DIAGONAL, affine_scan

# Below, at and above the length of a block, and two levels of blocks.
LENGTHS = (5, 16, 17, 300)


def problem(rng, algebra, length):
    """Matrices and vectors of an algebra, and the same as dense ones, `(T, rows, n, n)`."""
    if algebra is DENSE:
        dense = rng.standard_normal((length, 2, 3, 3)) / 3
        drive = rng.standard_normal((length, 2, 3))
        return (dense,), (drive,), dense, drive
    size = 2 if algebra is BLOCKS else 1
    entries = [rng.standard_normal((length, 2, 3)) / 2 for _ in range(size * size)]
    vectors = [rng.standard_normal((length, 2, 3)) for _ in range(size)]
    dense = np.stack(entries, axis=-1).reshape(length, 6, size, size)
    return entries, vectors, dense, np.stack(vectors, axis=-1).reshape(length, 6, size)


def looped(dense, drive, start, reverse):
    h, states = start, np.zeros_like(drive)
    for t in range(len(drive))[::-1] if reverse else range(len(drive)):
        h = np.einsum("rij,rj->ri", dense[t], h) + drive[t]
        states[t] = h
    return states


def run(algebra, a, b, start, **options):
    a, b, start = (tuple(np.float32(part) for part in parts) for parts in (a, b, start))
    found = [to_numpy(part) for part in affine_scan(algebra, a, b, start, **options)]
    return found[0] if algebra is DENSE else np.stack(found, axis=-1)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("algebra", [DIAGONAL, BLOCKS, DENSE], ids=["diagonal", "blocks", "dense"])
def test_states_are_those_of_the_loop(rng, algebra, reverse):
    for length in LENGTHS:
        a, b, dense, drive = problem(rng, algebra, length)
        start = [rng.standard_normal(part.shape[1:]) for part in b]
        flat = start[0] if algebra is DENSE else np.stack(start, axis=-1).reshape(drive.shape[1:])
        expected = looped(dense, drive, flat, reverse)
        found = run(algebra, a, b, start, reverse=reverse)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-5)


@pytest.mark.parametrize("algebra", [BLOCKS, DENSE], ids=["blocks", "dense"])
def test_the_length_of_a_block_changes_nothing(rng, algebra):
    a, b, *_ = problem(rng, algebra, 100)
    start = [rng.standard_normal(part.shape[1:]) for part in b]
    first, *others = (run(algebra, a, b, start, block=block) for block in (16, 3, 128))
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)


@pytest.mark.once
def test_a_scan_of_wide_matrices_is_the_same(rng):
    a = rng.standard_normal((40, 1, 70, 70)) / 10
    b, start = rng.standard_normal((40, 1, 70)), np.zeros((1, 70))
    expected = looped(a, b, start, False)
    np.testing.assert_allclose(run(DENSE, (a,), (b,), (start,)), expected, atol=2e-5)
