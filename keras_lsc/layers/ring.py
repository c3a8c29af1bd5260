"""The initial weights of a linear recurrent unit: eigenvalues drawn from a ring.

Source: arXiv 2303.06349, section 3.4 and appendix A; the common damping is this project's.
"""

import math

import numpy as np

# Away from 0, where a phase has no logarithm.
_LEAST = 1e-4


def damping(max_radius: float) -> float:
    """Returns exp(log_damping): so small that the largest eigenvalue of the ring leaves it room."""
    return -0.5 * math.log(max_radius)


def draw_log_nu(
    shape: tuple[int, ...], generator: np.random.Generator, min_radius: float, max_radius: float
) -> np.ndarray:
    """Draws log_nu so that |lambda|, with the damping, is uniform by area between two radii."""
    low, high = min_radius**2, max_radius**2
    squared_radius = generator.uniform(_LEAST, 1.0, shape) * (high - low) + low
    return np.log(-0.5 * np.log(squared_radius) - damping(max_radius))


def draw_log_theta(
    shape: tuple[int, ...], generator: np.random.Generator, max_phase: float
) -> np.ndarray:
    """Draws log_theta so that the angle of lambda is uniform up to `max_phase`."""
    return np.log(max_phase * generator.uniform(_LEAST, 1.0, shape))


def log_gamma(log_nu: np.ndarray, max_radius: float) -> np.ndarray:
    """Returns log(sqrt(1 - |lambda|^2)): a state as large as its inputs, whichever the radius."""
    rates = np.exp(log_nu.astype("float64")) + damping(max_radius)
    return 0.5 * np.log1p(-np.exp(-2.0 * rates))


def draw_input(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draws the real or the imaginary part of B, `(features, state_units)`."""
    return generator.standard_normal(shape) / math.sqrt(2.0 * shape[0])


def draw_output(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draws the real or the imaginary part of C, `(state_units, units)`, or a full D."""
    return generator.standard_normal(shape) / math.sqrt(shape[0])
