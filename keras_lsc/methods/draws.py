"""What methods draw, by NumPy: the same numbers on every backend."""

import numpy as np


def generator_of(seed: int, method: str) -> np.random.Generator:
    """What a method draws from: another one for each method of the same seed."""
    return np.random.default_rng([seed, *method.encode()])
