"""Random tiny networks with random weights: what `measure` says of them holds, or is refused."""

import math
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import keras_lsc
from fuzz.kind import RIGHT, Kind, close, require, require_finite
from keras_lsc import layers

_CELLS = {
    "SimpleRNN": keras.layers.SimpleRNN,
    "LSTM": keras.layers.LSTM,
    "GRU": keras.layers.GRU,
    "LIF": layers.LIF,
    "ALIF": layers.ALIF,
    "LRU": layers.LRU,
    "LRUBlock": layers.LRUBlock,
}
# Rounding of float32 in the radius of a matrix whose eigenvectors are badly conditioned.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        cells: of its layers, with their units.
        scale: standard deviation of its weights, relative to 1 / sqrt(rows).
        zeros: share of its weights that are zero.
        steps: of its inputs.
        features: of its inputs.
        seed: of weights and inputs.
    """

    cells: tuple[tuple[str, int], ...]
    scale: float
    zeros: float
    steps: int
    features: int
    seed: int


def _draw(random: np.random.Generator) -> Network:
    depth = int(random.integers(1, 3))
    names = list(_CELLS)
    cells = [(names[random.integers(len(names))], int(random.integers(1, 7))) for _ in range(depth)]
    return Network(
        cells=tuple(cells),
        scale=float(random.choice([0.0, 0.1, 1.0, 1.0, 3.0, 30.0])),
        zeros=float(random.choice([0.0, 0.0, 0.5, 0.95])),
        steps=int(random.integers(2, 7)),
        features=int(random.integers(1, 5)),
        seed=int(random.integers(2**31)),
    )


def _built(given: Network, random: np.random.Generator) -> keras.Model:
    inputs = keras.Input((given.steps, given.features))
    x = inputs
    for number, (cell, units) in enumerate(given.cells):
        is_block = cell == "LRUBlock"
        units = x.shape[-1] if is_block else units
        x = _CELLS[cell](units, return_sequences=True, name=f"{cell.lower()}_{number}")(x)
    model = keras.Model(inputs, x)
    for weight in model.trainable_weights:
        # What is a logarithm or a time constant keeps its place: other layers do not have it.
        if len(weight.shape) == 2:
            drawn = random.normal(size=weight.shape) * given.scale / np.sqrt(weight.shape[0])
            weight.assign(drawn * (random.random(weight.shape) >= given.zeros))
    return model


def _attempt(given: Network, folder: Path) -> str:
    del folder
    random = np.random.default_rng(given.seed)
    model = _built(given, random)
    x = random.normal(size=(12, given.steps, given.features)).astype("float32")
    before = [np.copy(one) for one in model.get_weights()]
    first = keras_lsc.measure(model, x, samples=6, seed=1)
    again = keras_lsc.measure(model, x, samples=6, seed=1)
    norms = keras_lsc.measure(model, x, samples=6, seed=1, radius="norm")
    for one, other, norm in zip(
        first.transitions, again.transitions, norms.transitions, strict=True
    ):
        figures = (one.radius, one.radius_std, one.gain)
        require_finite(figures, f"a figure of {one.name}")
        require(one.radius >= 0 and one.gain >= 0, f"{one.name}: {figures}")
        require(
            figures == (other.radius, other.radius_std, other.gain), f"{one.name} twice differs"
        )
        if one.shape[0] == one.shape[1]:
            most = norm.radius * (1 + _ROUNDING) + _ROUNDING
            require(one.radius <= most, f"{one.name}: radius {one.radius} and norm {norm.radius}")
            # The root mean square of the singular values is below the largest of them, and so is
            # that of many points.
            most = math.hypot(norm.radius, norm.radius_std) * (1 + _ROUNDING) + _ROUNDING
            require(one.gain <= most, f"{one.name}: gain {one.gain} and norm {most}")
        require(close(one.gain, norm.gain, _ROUNDING), f"{one.name}: gain {one.gain}, {norm.gain}")
    for one, other in zip(before, model.get_weights(), strict=True):
        require(np.array_equal(one, other), "measuring changed a weight")
    return RIGHT


NETWORKS = Kind(
    "network",
    4,
    _draw,
    _attempt,
    (ValueError, FloatingPointError),
    on_every_backend=True,
    # Every measurement compiles; there are three.
    seconds=120,
)
