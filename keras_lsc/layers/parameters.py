"""Parameters of cells: given as a number or an initialiser, kept positive, drawn by NumPy."""

import math
import random
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


def initializer(value: Any, name: str, *, must_be_positive: bool = True) -> Any:
    """Returns an initialiser, constant for a number.

    Raises:
        ValueError: a number that is not positive where it must be.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return keras.initializers.get(value)
    if must_be_positive and not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}.")
    return keras.initializers.Constant(float(value))


def positive_weight(cell: Any, name: str, values: Any, trainable: bool) -> Any:
    """Adds the weight `log_<name>`, `(units,)`, so that its exponential stays positive.

    Args:
        cell: with its number of `units`.
        name: of the parameter.
        values: initialiser of the parameter itself; what it draws below 1e-3 becomes 1e-3.
        trainable: whether the weight is.

    Returns:
        The weight, a logarithm.
    """

    def logarithms(shape: tuple, dtype: Any = None) -> Tensor:
        return ops.log(ops.maximum(values(shape, dtype=dtype), 1e-3))

    return cell.add_weight(
        shape=(cell.units,), initializer=logarithms, trainable=trainable, name=f"log_{name}"
    )


def numpy_generator(seed: int | None, stream: int = 0) -> np.random.Generator:
    """A generator whose draws no backend compiles, and that are the same on every backend.

    Args:
        seed: without one that of `keras.utils.set_random_seed` holds.
        stream: another one for each use of the same seed.
    """
    return np.random.default_rng([random.getrandbits(63) if seed is None else seed, stream])


def glorot_uniform(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Draws a kernel as Keras' initialiser of this name does, within sqrt(6 / (n_in + n_out))."""
    limit = math.sqrt(6.0 / sum(shape))
    return generator.uniform(-limit, limit, shape)
