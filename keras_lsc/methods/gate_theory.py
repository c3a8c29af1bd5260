"""How the energy of a small difference in the states of LSTM and GRU grows in a step.

In a wide layer with independent entries of variance sigma^2 / units, what a difference makes of one
gate is nearly orthogonal to what it makes of another, so that squared derivatives, averaged over
units, say how the energies of differences in h and c are carried on. The leading eigenvalue of that
small matrix is the growth. The averages are taken along real sequences that a layer with the very
matrix runs through, in place of integrals over Gaussian laws of what it may read.

Source: Gilboa et al., arXiv 1901.08987, sections 3 and 4.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Gates(NamedTuple):
    """A layer of gates, in Keras' order.

    Attributes:
        read: what every gate is given at every step but for the states, `(steps, rows, gates *
            units)`, biases included.
        recurrent: `(units, gates * units)`, drawn with a sigma of 1.
        bias: what is added to the product with the states, `(gates * units,)`.
    """

    read: Array
    recurrent: Array
    bias: Array


def lstm_growth(gates: Gates, sigma: float) -> float:
    """How much the energy of a difference in h and c grows in a step of an LSTM."""
    h = c = np.zeros(gates.read.shape[1:2] + gates.recurrent.shape[:1])
    found = []
    for read in gates.read:
        i, f, g, o = np.split(read + sigma * (h @ gates.recurrent) + gates.bias, 4, axis=-1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        squared = (c * f * (1 - f)) ** 2 + (g * i * (1 - i)) ** 2 + (i * (1 - g**2)) ** 2
        c = f * c + i * g
        bent = np.tanh(c)
        h = o * bent
        cc, ch = np.mean(f**2), sigma**2 * np.mean(squared)
        through = np.mean((o * (1 - bent**2)) ** 2)
        own = sigma**2 * np.mean((bent * o * (1 - o)) ** 2)
        found.append([[cc, ch], [through * cc, through * ch + own]])
    return float(np.abs(np.linalg.eigvals(np.mean(_later(found), axis=0))).max())


def gru_growth(gates: Gates, sigma: float, reset_after: bool) -> float:
    """How much the energy of a difference in h grows in a step of a GRU."""
    units = len(gates.recurrent)
    h = np.zeros((gates.read.shape[1], units))
    found = []
    for read in gates.read:
        first = read[:, : 2 * units] + gates.bias[: 2 * units]
        z, r = np.split(_sigmoid(first + sigma * (h @ gates.recurrent[:, : 2 * units])), 2, axis=-1)
        kept = h if reset_after else r * h
        product = sigma * (kept @ gates.recurrent[:, 2 * units :]) + gates.bias[2 * units :]
        n = np.tanh(read[:, 2 * units :] + (r * product if reset_after else product))
        if reset_after:
            inside = r**2 + (product * r * (1 - r)) ** 2
        else:
            inside = np.mean(r**2) + sigma**2 * np.mean((h * r * (1 - r)) ** 2)
        through = ((1 - z) * (1 - n**2)) ** 2 * inside
        found.append(np.mean(z**2 + sigma**2 * (((h - n) * z * (1 - z)) ** 2 + through)))
        h = z * h + (1 - z) * n
    return float(np.mean(_later(found)))


def smallest_at_rest(growth: Callable[[float], float]) -> float | None:
    """The smallest sigma at which the growth is 1, or None."""
    far, factor = 0.02, 1.5
    if growth(far) >= 1.0:
        return None
    while growth(far) < 1.0:
        far *= factor
        if far > 100.0:
            return None
    near = far / factor
    for _ in range(10):
        middle = np.sqrt(near * far)
        near, far = (middle, far) if growth(middle) < 1.0 else (near, middle)
    return float(far)


def _later(found: list) -> list:
    """The last half of the steps: before it, states come from zero."""
    return found[len(found) // 2 :]


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0)))
