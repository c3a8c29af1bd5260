"""Forward and backward of one layer: LIF and ALIF beside other libraries, the LRU beside a loop.

    KERAS_BACKEND=jax python benchmarks/layers.py [--quick]

Prints tables and writes `benchmarks/results/layers_<backend>.json`. The peers (torch libraries, see
`benchmarks/requirements.txt`) are measured in the same run, right after the layer on the same
sizes, in a process of their own, with one thread and with a thread per core; the faster counts.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import environment
from keras import ops
from pretraining import RESULTS, seconds, summary

from keras_lsc import layers

PEERS = Path(__file__).parent / "peers.py"
# batch, steps, neurons
SIZES = ((16, 100, 128), (32, 200, 128), (128, 200, 256), (16, 1000, 256), (32, 200, 1024))
# batch, steps; one sequence is what a stream or a long recording is
LRU_SIZES = ((16, 1000), (1, 10_000), (16, 10_000))
LRU_UNITS = 128
# Seconds after which three samples are enough.
LONGEST = 3.0


def forward_and_backward(layer: keras.Layer, x: np.ndarray) -> Callable[[], Any]:
    """A function that takes the gradient of the mean output by the weights and the input."""
    x = ops.convert_to_tensor(x)
    layer(x)
    variables = layer.trainable_variables
    values = [variable.value for variable in variables]
    name = keras.backend.backend()
    if name == "jax":
        import jax

        def loss(values: list[Any], x: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return ops.mean(layer(x))

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
        return lambda: jax.block_until_ready(gradient(values, x))
    if name == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradient(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_mean(layer(x))
            return tape.gradient(loss, [*(variable.value for variable in variables), x])

        return lambda: [part.numpy() for part in gradient(x)]
    import torch

    x = x.detach().clone().requires_grad_(True)
    return lambda: torch.autograd.grad(layer(x).mean(), [*values, x], allow_unused=True)


def samples(run: Callable[[], Any], repeats: int) -> tuple[float, list[float]]:
    """Seconds of the first call, which may compile, and of the following ones."""
    first = seconds(run)
    seconds(run)
    taken: list[float] = []
    while len(taken) < 3 or (len(taken) < repeats and sum(taken) < LONGEST):
        taken.append(seconds(run))
    return first, taken


def threads_to_try() -> list[int | None]:
    """One and a thread per core on torch; what the framework chooses elsewhere."""
    return [1, os.cpu_count()] if keras.backend.backend() == "torch" else [None]


def measured(layer: keras.Layer, x: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """A row for every number of threads."""
    rows = []
    for threads in threads_to_try():
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        first, taken = samples(forward_and_backward(layer, x), repeats)
        row = {"threads": threads, "first_call": first, "seconds": summary(taken)}
        rows.append({"library": "keras_lsc", **row})
    return rows


def peers(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The other libraries on the same sizes, in a process without Keras."""
    command = [sys.executable, str(PEERS), json.dumps([case])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [{"library": "peers", "failed": done.stderr.strip()[-500:]}]
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        {**row, "seconds": summary(row["seconds"])} if "seconds" in row else row for row in rows
    ]


def median(row: dict[str, Any]) -> float:
    """Its median, infinite where it failed."""
    return row["seconds"]["median"] if "seconds" in row else float("inf")


def neurons(neuron: str, recurrent: bool, size: tuple, repeats: int) -> dict[str, Any]:
    """One case: the layer, its peers, and how many times faster it is than the fastest."""
    batch, steps, units = size
    case = {"neuron": neuron, "recurrent": recurrent, "batch": batch, "steps": steps}
    case["units"] = units
    make = {"lif": layers.LIF, "alif": layers.ALIF}[neuron]
    x = (np.random.default_rng(0).random((batch, steps, units)) < 0.1).astype("float32")
    layer = make(units, recurrent=recurrent, return_sequences=True)
    own = measured(layer, x, repeats)
    others = peers({**case, "repeats": repeats})
    best = min(others, key=median)
    fastest = None if median(best) == float("inf") else best["library"]
    ratio = median(best) / min(map(median, own)) if fastest else None
    result = {**case, "rows": own + others, "fastest_peer": fastest, "times_faster": ratio}
    show(result)
    return result


def show(result: dict[str, Any]) -> None:
    """Prints the rows of one case."""
    names = ("neuron", "recurrent", "batch", "steps", "units")
    print("  ".join(f"{name} {result[name]}" for name in names if name in result))
    for row in result["rows"]:
        if "seconds" not in row:
            print(f"    {row['library']:16s} -  {row['failed'].splitlines()[-1][:80]}")
            continue
        taken = row["seconds"]
        threads = f"{row['threads']} threads" if row.get("threads") else ""
        spread = f"{1e3 * taken['low']:.1f} to {1e3 * taken['high']:.1f}"
        print(f"    {row['library']:16s} {1e3 * taken['median']:9.1f} ms  ({spread})  {threads}")
    if result.get("times_faster"):
        print(f"    {result['times_faster']:.2f} times as fast as {result['fastest_peer']}")
    sys.stdout.flush()


_PLAIN_JAX = """
import json, sys, time
import jax, jax.numpy as jnp, numpy as np
batch, steps, units, repeats = map(int, sys.argv[1:])
keys = jax.random.split(jax.random.key(0), 6)
normal = jax.random.normal
weights = {
    "nu": jnp.log(-jnp.log(jax.random.uniform(keys[0], (units,), minval=0.5, maxval=0.99))),
    "theta": jnp.log(6.28 * jax.random.uniform(keys[1], (units,), minval=1e-3)),
    "B": normal(keys[2], (2, units, units)) / (2 * units) ** 0.5,
    "C": normal(keys[3], (2, units, units)) / units**0.5,
    "D": normal(keys[4], (units,)),
}

def lru(w, x):
    decay = jnp.exp(-jnp.exp(w["nu"]) + 1j * jnp.exp(w["theta"]))
    gamma = jnp.sqrt(1 - jnp.abs(decay) ** 2)
    drive = (x @ (w["B"][0] + 1j * w["B"][1])) * gamma
    decays = jnp.broadcast_to(decay, drive.shape)
    def join(p, q):
        return q[0] * p[0], q[0] * p[1] + q[1]
    _, h = jax.lax.associative_scan(join, (decays, drive))
    return (h @ (w["C"][0] + 1j * w["C"][1])).real + w["D"] * x

@jax.jit
def gradient(w, x):
    mean = lambda w, x: jnp.mean(jax.vmap(lru, (None, 0))(w, x))
    return jax.grad(mean, argnums=(0, 1))(w, x)

x = jnp.asarray(np.random.default_rng(0).standard_normal((batch, steps, units)), "float32")
taken = []
for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(gradient(weights, x))
    taken.append(time.perf_counter() - start)
print(json.dumps(taken[1:]))
"""


def plain_jax(batch: int, steps: int, units: int, repeats: int) -> dict[str, Any]:
    """The LRU as its authors write it, complex and with JAX's own scan, in its own process."""
    command = [sys.executable, "-c", _PLAIN_JAX, *map(str, (batch, steps, units, repeats))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"library": "plain JAX", "failed": done.stderr.strip()[-500:]}
    return {"library": "plain JAX", "seconds": summary(json.loads(done.stdout.splitlines()[-1]))}


def lru(batch: int, steps: int, repeats: int) -> dict[str, Any]:
    """The LRU by its scan, by a Keras RNN over its cell, and in plain JAX."""
    shape = (batch, steps, LRU_UNITS)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    scan = layers.LRU(LRU_UNITS, return_sequences=True)
    loop = keras.layers.RNN(layers.LRUCell(LRU_UNITS), return_sequences=True)
    rows = measured(scan, x, repeats)
    loops = [{**row, "library": "Keras RNN"} for row in measured(loop, x, max(3, repeats // 5))]
    other = plain_jax(*shape, repeats)
    best = min(map(median, rows))
    result = {
        "neuron": "lru",
        "batch": batch,
        "steps": steps,
        "units": LRU_UNITS,
        "rows": [*rows, *loops, other],
        "fastest_peer": "Keras RNN",
        "times_faster": min(map(median, loops)) / best,
        "times_faster_than_plain_jax": None if "failed" in other else median(other) / best,
    }
    show(result)
    print(f"    beside plain JAX: {result['times_faster_than_plain_jax']}")
    return result


def installed(name: str) -> str | None:
    """Version of a library, or None."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return None


def main() -> None:
    """Runs everything and writes the JSON file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, few repeats; no JSON")
    options = parser.parse_args()
    repeats = 5 if options.quick else 15
    sizes = SIZES[1:2] if options.quick else SIZES
    lengths = LRU_SIZES[:1] if options.quick else LRU_SIZES
    libraries = ("torch", "jax", "snntorch", "norse", "spikingjelly", "sinabs")
    result = {
        "environment": {**environment(), "peers": {name: installed(name) for name in libraries}},
        "neurons": [
            neurons(neuron, recurrent, size, repeats)
            for neuron in ("lif", "alif")
            for recurrent in (False, True)
            for size in sizes
        ],
        "lru": [lru(batch, steps, repeats) for batch, steps in lengths],
    }
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"layers_{keras.backend.backend()}.json"
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
