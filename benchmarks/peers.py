"""Seconds of forward and backward of other libraries' spiking layers, for benchmarks/layers.py.

    python benchmarks/peers.py '[{"neuron": "lif", "recurrent": false, "batch": 16, ...}]'

Prints one line of JSON for every case, library and number of threads. A library that is not
installed, or has no such neuron, gives a row with the reason.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

LIBRARIES = ("snntorch", "norse", "spikingjelly", "sinabs")
TAU = 10.0
# Seconds after which three samples are enough.
LONGEST = 3.0


def spikes(case: dict[str, Any]) -> torch.Tensor:
    """Inputs `(steps, batch, units)`, a tenth of them spikes."""
    shape = (case["steps"], case["batch"], case["units"])
    x = np.random.default_rng(0).random(shape) < 0.1
    return torch.as_tensor(x.astype("float32")).requires_grad_(True)


def snntorch(case: dict[str, Any]) -> Callable[[], None]:
    """Leaky, or RLeaky with a full recurrent matrix; stepped, as its tutorials do."""
    import snntorch

    if case["neuron"] == "alif":
        raise NotImplementedError("no adaptive LIF neuron")
    x, units = spikes(case), case["units"]
    project = torch.nn.Linear(units, units)
    beta = float(np.exp(-1 / TAU))
    neuron = snntorch.Leaky(beta=beta)
    if case["recurrent"]:
        neuron = snntorch.RLeaky(beta=beta, linear_features=units)

    def run() -> None:
        current, outputs = project(x), []
        state = neuron.init_rleaky() if case["recurrent"] else (neuron.init_leaky(),)
        for t in range(case["steps"]):
            state = neuron(current[t], *state)
            outputs.append(state[0])
            state = state if case["recurrent"] else state[1:]
        torch.stack(outputs).mean().backward()

    return run


def norse(case: dict[str, Any]) -> Callable[[], None]:
    """LIF and LSNN, and their recurrent forms, which hold the input weights themselves."""
    from norse.torch.module import lif, lsnn

    x, units = spikes(case), case["units"]
    project = torch.nn.Linear(units, units)
    module, plain, recurrent = {
        "lif": (lif, "LIF", "LIFRecurrent"),
        "alif": (lsnn, "LSNN", "LSNNRecurrent"),
    }[case["neuron"]]
    layer = getattr(module, recurrent)(units, units) if case["recurrent"] else None
    layer = layer or getattr(module, plain)()

    def run() -> None:
        outputs, _ = layer(x if case["recurrent"] else project(x))
        outputs.mean().backward()

    return run


def spikingjelly(case: dict[str, Any]) -> Callable[[], None]:
    """LIFNode over all steps; inside LinearRecurrentContainer for recurrent weights."""
    from spikingjelly.activation_based import functional, layer, neuron

    if case["neuron"] == "alif":
        raise NotImplementedError("no adaptive LIF neuron")
    x, units = spikes(case), case["units"]
    project = torch.nn.Linear(units, units)
    if case["recurrent"]:
        node = neuron.LIFNode(tau=TAU, decay_input=False, step_mode="s")
        node = layer.LinearRecurrentContainer(node, units, units)
        node.step_mode = "m"
    else:
        node = neuron.LIFNode(tau=TAU, decay_input=False, step_mode="m")

    def run() -> None:
        functional.reset_net(node)
        node(project(x)).mean().backward()

    return run


def sinabs(case: dict[str, Any]) -> Callable[[], None]:
    """LIF and ALIF, and their recurrent forms."""
    import sinabs.layers

    x, units = spikes(case), case["units"]
    x = x.detach().transpose(0, 1).contiguous().requires_grad_(True)
    project = torch.nn.Linear(units, units)
    options: dict[str, Any] = {"tau_mem": TAU}
    if case["neuron"] == "alif":
        options["tau_adapt"] = 100.0
    if case["recurrent"]:
        options["rec_connect"] = torch.nn.Linear(units, units, bias=False)
    name = case["neuron"].upper() + ("Recurrent" if case["recurrent"] else "")
    layer = getattr(sinabs.layers, name)(**options)

    def run() -> None:
        layer.reset_states()
        layer(project(x)).mean().backward()

    return run


def samples(run: Callable[[], None], repeats: int) -> list[float]:
    """Seconds of single calls, after one that is not counted; fewer, but three, of slow ones."""
    run()
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < repeats and sum(taken) < LONGEST):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


def rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one case: every library, with one thread and with a thread per core."""
    found = []
    for name in LIBRARIES:
        row: dict[str, Any] = {"library": name}
        try:
            importlib.import_module(name)
            run = globals()[name](case)
        except (ImportError, NotImplementedError) as reason:
            found.append({**row, "failed": f"{type(reason).__name__}: {reason}"})
            continue
        for threads in sorted({1, os.cpu_count() or 1}):
            torch.set_num_threads(threads)
            found.append({**row, "threads": threads, "seconds": samples(run, case["repeats"])})
    return found


def main() -> None:
    """Measures the cases given as JSON in the first argument."""
    for case in json.loads(sys.argv[1]):
        print(json.dumps(rows(case)), flush=True)


if __name__ == "__main__":
    main()
