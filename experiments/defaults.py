"""What the default start of every library does to a gradient, one layer deep to ten.

    python -m experiments.defaults [--seeds 2] [--hours 1]

Layers of Keras, torch, Flax and of simulators of spiking neurons, with the weights that their own
constructors draw; see `experiments.peers`. Nothing is trained. A run is one stack; finished ones
are skipped. It is quickest with KERAS_BACKEND=torch, which compiles nothing, and needs JAX, torch
and what `benchmarks/requirements.txt` names.
"""

from __future__ import annotations

import itertools
import math
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
_ENDS = (DEPTHS[0], DEPTHS[-1])
SEEDS = 2
# Energies below the least float32 number are none. Of an energy of 784 pixels and steps that is not
# far above it, parts are lost: they have no shares.
NOTHING, LEAST_SHARED = 1e-38, 1e-35

Row = dict[str, Any]
Array = np.ndarray

# Layers beside those of `PEERS`, and why they have no row.
LEFT_OUT = {
    "snntorch Synaptic, RSynaptic, Alpha": "no default of two decays",
    "norse LSNN, LSNNRecurrent": "an adaptive threshold, not measured",
    "spyx CuBaLIF, RCuBaLIF, ALIF": "a second state, not measured",
    "spikingjelly ParametricLIFNode": "starts as LIFNode does",
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


def by_depth(rows: Sequence[Row], name: str) -> dict[int, list[Row]]:
    """The runs of a layer, one a seed, by the depth of the stack."""
    of_layer = [row for row in rows if row["setting"]["name"] == name]
    depths = sorted({row["setting"]["depth"] for row in of_layer})
    return {
        depth: [row for row in of_layer if row["setting"]["depth"] == depth] for depth in depths
    }


def names(rows: Sequence[Row]) -> list[str]:
    """The layers that have runs, in the order of `PEERS`."""
    found = {row["setting"]["name"] for row in rows}
    return [peer.name for peer in PEERS if peer.name in found]


def mean_of(rows: Sequence[Row], figure: str) -> float:
    """Mean over layers and seeds of the radii "time" or "depth"; NaN where there is none."""
    values = [value for row in rows for value in row[figure]]
    return float(np.mean(values)) if values else math.nan


def largest_exponent(rows: Sequence[Row]) -> float:
    """The largest exponent of all layers, mean over the seeds."""
    return float(np.mean([max(row["exponents"]) for row in rows]))


def fall(rows: Sequence[Row]) -> float:
    """Energy of the gradient at the bottom layer over that at the top: geometric mean of seeds."""
    # The first is that of the input.
    return _geometric([row["energies"][1] / row["energies"][-1] for row in rows])


def reach(rows: Sequence[Row]) -> float:
    """Share of the gradient's energy at the input that is of the first quarter of the steps.

    NaN where next to no energy is left.
    """
    if min(row["energies"][0] for row in rows) < LEAST_SHARED:
        return math.nan
    return _geometric([row["reach"][0] for row in rows])


def rates(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Firing rates of the bottom and of the top layer; None of layers without spikes."""
    found = [row["firing_rates"] for row in rows if row["firing_rates"]]
    if not found:
        return None
    bottom, top = (float(np.mean([of_layers[end] for of_layers in found])) for end in (0, -1))
    return bottom, top


def first_silent(rows: Sequence[Row]) -> int:
    """The lowest layer, counted from 1, from which on no neuron fires in any seed."""
    of_layers = zip(*(row["firing_rates"] for row in rows), strict=True)
    return max((layer for layer, found in enumerate(of_layers, 1) if any(found)), default=0) + 1


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, NOTHING)))))


def label(row: Row) -> str:
    """Library, its version and the layer."""
    peer = peer_of(row["setting"]["name"])
    release = row["versions"][peer.library].partition("+")[0]
    return f"{peer.library} {release} {peer.layer}"


def table(rows: Sequence[Row]) -> str:
    """What was measured of every layer, and which were left out."""
    lines = []
    for name in names(rows):
        stacks = by_depth(rows, name)
        deepest = stacks[max(stacks)]
        fired = rates(deepest)
        lines.append(
            [label(deepest[0]), *(f"{mean_of(deepest, kind):.2g}" for kind in ("time", "depth")),
             *(power(fall(stacks[depth])) if depth in stacks else "-" for depth in DEPTHS[1:]),
             *(power(reach(stacks[depth])) if depth in stacks else "-" for depth in _ENDS),
             f"{largest_exponent(deepest):+.2f}",
             "" if fired is None else " to ".join(f"{rate:.2g}" for rate in fired)]
        )  # fmt: skip
    lines += [[f"_{name}: {why}_", *[""] * 9] for name, why in LEFT_OUT.items()]
    header = [
        "layer",
        "radius in time",
        "in depth",
        *(f"energy, bottom over top of {depth}" for depth in DEPTHS[1:]),
        *(f"reach through {depth}" for depth in _ENDS),
        "largest exponent",
        "firing rate, bottom to top",
    ]
    return markdown(header, lines)


def power(value: float) -> str:
    """A number of any size: two digits, or the power of ten."""
    if math.isnan(value):
        return "-"
    if value <= NOTHING:
        return "0"
    return f"{value:.2g}" if value >= 1e-2 else f"{value:.0e}".replace("e-0", "e-")


def _told(row: Row) -> str:
    return f"{row['seconds']} s, {row['time']} {row['energies']} {row['firing_rates']}"


def main() -> None:
    """Runs what is missing."""
    run_missing(__doc__, FOLDER, SEEDS, settings, run, _told)


if __name__ == "__main__":
    main()
