"""What the default start of every library does to a gradient, one layer deep to ten.

    python -m experiments.defaults [--seeds 2] [--hours 1]

Layers of Keras, torch, Flax and of simulators of spiking neurons, with the weights that their own
constructors draw; see `experiments.peers`. Nothing is trained. A run is one stack; finished ones
are skipped. It is quickest with KERAS_BACKEND=torch, which compiles nothing, and needs JAX, torch
and what `benchmarks/requirements.txt` names.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from experiments import storage
from experiments.measures import rounded
from experiments.missing import run_missing
from experiments.peers import PEERS, Peer, Size
from experiments.tables import markdown
from keras_lsc import datasets

FOLDER = storage.FOLDER / "defaults"
DEPTHS = (1, 2, 5, 10)
SEEDS = 2
# Below it nothing is left: the least float32 that is not denormal.
NOTHING = 1e-38

Row = dict[str, Any]
Array = np.ndarray

# What is no default, or no other than one that is measured.
LEFT_OUT = {
    "snntorch Synaptic, RSynaptic, Alpha": "two decays and no default of either",
    "norse LSNN, LSNNRecurrent": "adaptive; see LIF, LIFRecurrent",
    "spyx CuBaLIF, RCuBaLIF, ALIF": "see LIF, RLIF",
    "spikingjelly ParametricLIFNode": "starts as LIFNode",
}


@dataclass(frozen=True)
class Setting:
    """Everything that makes a run.

    Attributes:
        name: that of one of `PEERS`.
        depth: number of layers.
        seed: of the weights, and of what is drawn to measure.
        units: of every layer.
        sequences: digits that are read, 28 rows of 28 pixels each.
        samples: points at which transitions are measured.
    """

    name: str
    depth: int
    seed: int
    units: int = 64
    sequences: int = 256
    samples: int = 32

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has."""
        return storage.identity(asdict(self))


def settings(seeds: int = SEEDS) -> list[Setting]:
    """All runs, a seed after the other."""
    return [
        Setting(peer.name, depth, seed)
        for seed, depth, peer in itertools.product(range(seeds), DEPTHS, PEERS)
    ]


def peer_of(name: str) -> Peer:
    """The layer of a name."""
    (peer,) = [peer for peer in PEERS if peer.name == name]
    return peer


@cache
def digits(sequences: int, is_spiking: bool) -> Array:
    """Rows of digits `(sequences, 28, 28)`; as spikes, a pixel fires as often as it is bright."""
    x, _ = datasets.load("smnist", "train", limit=sequences, download=False)
    if not is_spiking:
        return x
    return (np.random.default_rng(0).random(x.shape) < x).astype("float32")


def run(setting: Setting) -> Row:
    """Draws one stack and measures it; the gradient is that of the last step of its top layer.

    Args:
        setting: of the run.

    Returns:
        What a line of the results has: figures of every layer, bottom to top.
    """
    begin = time.perf_counter()
    peer = peer_of(setting.name)
    x = digits(setting.sequences, peer.is_spiking)
    stack = peer.draw(Size(x.shape[-1], setting.units, setting.depth, setting.seed)).model
    found = measured(stack, x, setting)
    keras.backend.clear_session()
    return {
        "id": setting.id,
        "setting": asdict(setting),
        "environment": environment(),
        "versions": peer.versions,
        **found,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def measured(stack: keras.Model, x: Array, setting: Setting) -> Row:
    """Radii, energies, reach, exponents and firing rates of the layers of a stack.

    Energies and reach are of the gradient by the input and by what every layer gives out.
    """
    # Gradients are taken by what layers give out: this one gives out the input.
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Identity(), *stack.layers])
    report = keras_lsc.measure(
        model, x, samples=setting.samples, seed=setting.seed, gradient=False, exponents=1
    )
    gradient = keras_lsc.gradient_energies(model, x, seed=setting.seed)
    return {
        "time": rounded([row.radius for row in report.transitions if row.kind == "time"]),
        "depth": rounded([row.radius for row in report.transitions if row.kind == "depth"]),
        "energies": rounded(gradient.energies),
        "reach": rounded(gradient.reach),
        "exponents": rounded([of_layer[0] for of_layer in report.exponents.exponents]),
        "firing_rates": rounded(list(report.firing_rates.values())),
    }


def _told(row: Row) -> str:
    return f"{row['seconds']} s, {row['time']} {row['energies']} {row['firing_rates']}"


def main() -> None:
    """Runs what is missing."""
    run_missing(__doc__, FOLDER, SEEDS, settings, run, _told)


if __name__ == "__main__":
    main()
