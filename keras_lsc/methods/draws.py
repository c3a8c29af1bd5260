"""What methods draw, by NumPy: the same numbers on every backend."""

import numpy as np


def generator_of(seed: int, method: str) -> np.random.Generator:
    """What a method draws from: another one for each method of the same seed."""
    return np.random.default_rng([seed, *method.encode()])


def orthonormal(rows: int, columns: int, generator: np.random.Generator) -> np.ndarray:
    """Draws a matrix of orthonormal rows or columns, whichever are fewer, uniformly."""
    q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T
