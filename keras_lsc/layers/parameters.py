"""Parameters of cells: given as a number or an initialiser, kept positive, drawn by NumPy."""

import math
import numbers
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments

Tensor = Any

# Of what is held by its logarithm: far from where float32 under- or overflows.
_SMALLEST, _LARGEST = 1e-30, 1e30
# From so many rows a column on, the condition number of what is drawn is below 4; and the size of
# triangular blocks that are inverted.
_TALL, _BLOCK = 3, 128


def initializer(value: Any, name: str, *, must_be_positive: bool = True) -> Any:
    """Returns an initialiser, constant for a number.

    Raises:
        ValueError: a number that float32 cannot hold, or that is not positive where it must be;
            or what is neither a number nor an initialiser.
    """
    if isinstance(value, str | dict) or callable(value):
        return keras.initializers.get(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        kind = "a positive number" if must_be_positive else "a number"
        raise ValueError(f"{name} must be {kind} or an initialiser, got {value!r}.")
    # A negative number is told that it must be positive, a tiny one how large.
    found = arguments.number(name, value, above=0 if must_be_positive else -math.inf)
    least = _SMALLEST if must_be_positive else -_LARGEST
    return keras.initializers.Constant(
        arguments.number(name, found, at_least=least, at_most=_LARGEST)
    )


def positive_weight(cell: Any, name: str, values: Any, trainable: bool) -> Any:
    """Adds the weight `log_<name>`, `(units,)`, so that its exponential stays positive.

    Args:
        cell: with its number of `units`.
        name: Name of the parameter.
        values: initialiser of the parameter itself; what it draws that is not positive
            becomes 1e-3.
        trainable: whether the weight is.

    Returns:
        The weight, a logarithm.
    """

    def logarithms(shape: tuple, dtype: Any = None) -> Tensor:
        drawn = ops.convert_to_tensor(values(shape, dtype=dtype))
        return ops.log(ops.where(drawn >= _SMALLEST, drawn, ops.full_like(drawn, 1e-3)))

    return cell._add_parameter(f"log_{name}", (cell.units,), logarithms, trainable)


def numpy_generator(seed: int | None, stream: int = 0) -> np.random.Generator:
    """A generator whose draws no backend compiles, and that are the same on every backend.

    Args:
        seed: without one that of `keras.utils.set_random_seed` holds.
        stream: another one for each use of the same seed.
    """
    return np.random.default_rng([random.getrandbits(63) if seed is None else seed, stream])


def orthogonal(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Draws a matrix with orthonormal rows or columns, whichever are fewer, uniformly."""
    drawn = generator.standard_normal((max(shape), min(shape)))
    q = _orthonormal(drawn)
    return q if shape[0] >= shape[1] else q.T


def _orthonormal(a: np.ndarray) -> np.ndarray:
    """The factor Q of a matrix, of which that of R has a positive diagonal."""
    rows, columns = a.shape
    if rows < _TALL * columns:
        q, r = np.linalg.qr(a)
        return q * np.sign(np.diag(r))
    # The same factor in a third of the time, to rounding: so tall a draw is well conditioned.
    q = a.copy()
    _divide(q, np.linalg.cholesky(a.T @ a).T)
    return q


def _divide(a: np.ndarray, r: np.ndarray) -> None:
    """Makes a matrix A, in place, that X of which X R = A; R is upper triangular."""
    half = len(r) // 2
    if len(r) <= _BLOCK:
        a[:] = a @ np.linalg.inv(r)
        return
    _divide(a[:, :half], r[:half, :half])
    a[:, half:] -= a[:, :half] @ r[:half, half:]
    _divide(a[:, half:], r[half:, half:])


def glorot_blocks(widths: Sequence[int], generator: np.random.Generator) -> Callable[..., Any]:
    """Returns an initialiser of kernels side by side, each of so many columns and drawn by itself.

    Args:
        widths: number of columns of each.
        generator: what they are drawn by.
    """

    def draw(shape: tuple, **_: Any) -> np.ndarray:
        parts = [glorot_uniform((shape[0], width), generator) for width in widths]
        return np.concatenate(parts, axis=1)

    return draw


def glorot_uniform(shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Draws a kernel as Keras' initialiser of this name does, within sqrt(6 / (n_in + n_out))."""
    limit = math.sqrt(6.0 / sum(shape))
    return generator.uniform(-limit, limit, shape)
