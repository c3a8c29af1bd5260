"""What `keras_lsc.spiking.operations` counts beside what NeuroBench counts of the same network.

    pip install neurobench
    KERAS_BACKEND=torch python -m benchmarks.operations

Two layers of LIF neurons without recurrence go to snnTorch by way of NIR, with their weights, some
of which are zero; NeuroBench runs the copy with its hooks. Written to
`benchmarks/results/operations.json`.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
from neurobench.models import SNNTorchModel
from snntorch.import_nir import import_from_nir

from benchmarks.environment import environment
from keras_lsc.convert import to_nir
from keras_lsc.layers import LIF
from keras_lsc.spiking import operations

RESULTS = Path(__file__).parent / "results" / "operations.json"
ROWS, STEPS, FEATURES, UNITS = 16, 50, 40, (32, 16)


class Stepped(torch.nn.Module):
    """The network of a NIR graph over whole sequences, as NeuroBench calls networks."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the spikes `(T, B, units)` of sequences `(B, T, features)`."""
        state, spikes = None, []
        for t in range(x.shape[1]):
            output, state = self.network(x[:, t], state)
            spikes.append(output[0] if isinstance(output, tuple) else output)
        return torch.stack(spikes)


def network() -> keras.Sequential:
    """A network whose neurons fire, with a third of its connections pruned."""
    generator = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((STEPS, FEATURES))])
    for units in UNITS:
        model.add(
            LIF(
                units,
                recurrent=False,
                reset="multiplicative-2",
                return_sequences=True,
                kernel_initializer=keras.initializers.RandomNormal(0.1, 0.8, seed=units),
            )
        )
    for layer in model.layers:
        kernel = keras.ops.convert_to_numpy(layer.cell.kernel)
        layer.cell.kernel.assign(kernel * (generator.random(kernel.shape) > 1 / 3))
    return model


def of_neurobench(model: keras.Sequential, x: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """What NeuroBench counts of a copy of a model, and the spikes of that copy."""
    peer = SNNTorchModel(Stepped(import_from_nir(to_nir(model)).to("cpu")), custom_forward=True)
    peer.register_hooks()
    data = (torch.as_tensor(x, device="cpu"), torch.zeros(len(x)))
    with torch.no_grad():
        spikes = peer(data[0])
        products = SynapticOperations()(peer, spikes, data)
    found = {
        "dense": float(products["Dense"]),
        "synaptic": float(products["Effective_ACs"] + products["Effective_MACs"]),
        "activation_sparsity": float(ActivationSparsity()(peer, spikes, data)),
        "connection_sparsity": float(ConnectionSparsity()(peer)),
        "footprint": float(Footprint()(peer)),
    }
    return found, spikes.numpy()


def main() -> None:
    """Counts both ways and writes what was found."""
    x = (np.random.default_rng(1).random((ROWS, STEPS, FEATURES)) < 0.2).astype("float32")
    model = network()
    theirs, spikes = of_neurobench(model, x)
    differing = int((spikes != keras.ops.convert_to_numpy(model(x))).sum())
    counted = operations(model, x).to_dict()
    found: dict[str, Any] = {
        "environment": environment(),
        "neurobench": version("neurobench"),
        "differing_spikes": differing,
        "rows": {name: {"keras_lsc": counted[name], "neurobench": theirs[name]} for name in theirs},
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, row in found["rows"].items():
        print(f"{name:20s} {row['keras_lsc']:12.4f} {row['neurobench']:12.4f}")
    print(f"{differing} spikes differ")


if __name__ == "__main__":
    main()
