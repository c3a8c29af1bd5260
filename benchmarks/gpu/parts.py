"""The parts of benchmarks/gpu/run.sh, each in a process of its own.

    KERAS_BACKEND=jax python benchmarks/gpu/parts.py layers --device gpu --out FOLDER --work FOLDER

What a part returns is put into FOLDER/gpu.json under its name and backend, beside what is there.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import environment
from keras import ops
from layers import forward_and_backward
from pretraining import network, spikes
from timing import seconds, summary

import keras_lsc
from keras_lsc import backend, layers, zoo
from keras_lsc.callbacks import UpdateCounter

REPEATS = 10
# Of the zoo: a checkpoint of each kind of cell, on generated data, which any machine has.
CHECKPOINTS = ("gru_adding_d2_rhovar", "lstm_adding_d2_rhovar", "lru_adding_d3_rhovar")


def wait(x: Any) -> None:
    """Until the device has finished."""
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(x)
    else:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a call that has been made twice before."""
    for _ in range(2):
        wait(call())
    return summary([seconds(lambda: wait(call())) for _ in range(REPEATS)])


def roofline(is_gpu: bool) -> dict[str, Any]:
    """What the device does at most: bytes/s of a copy, FLOP/s of a product of matrices."""
    size, width = (2**29, 8192) if is_gpu else (2**22, 512)
    x = ops.ones((size,), "float32")
    scale = backend.as_graph(lambda x: x * 1.5)
    copy = timed(lambda: scale(x))
    product = backend.as_graph(ops.matmul)
    rows = {"copy": {"seconds": copy, "bytes_per_s": 8 * size / copy["median"]}}
    for dtype in ("float32", "bfloat16"):
        normal = np.random.default_rng(0).standard_normal((width, width))
        a = ops.cast(ops.convert_to_tensor(normal.astype("float32")), dtype)
        taken = timed(lambda a=a: product(a, a))
        rows[f"matmul_{dtype}"] = {"seconds": taken, "flop_per_s": 2 * width**3 / taken["median"]}
    return rows


def layers_of(is_gpu: bool) -> dict[str, Any]:
    """Forward and backward of neurons and of linear recurrent units."""
    batch, steps, units, features = (16, 500, 16_384, 64) if is_gpu else (4, 50, 128, 16)
    long = 10_000 if is_gpu else 500
    generator = np.random.default_rng(0)
    events = (generator.random((batch, steps, features)) < 0.1).astype("float32")
    signal = generator.standard_normal((1, long, 128)).astype("float32")
    options: dict[str, Any] = {"return_sequences": True}
    cases = {
        "lif": (layers.LIF, {"units": units, "recurrent": False}, events),
        "alif": (layers.ALIF, {"units": units, "recurrent": False}, events),
        "lif_recurrent": (layers.LIF, {"units": min(units, 1024)}, events),
        "lru": (layers.LRU, {"units": 128}, signal),
    }
    rows = {}
    for name, (make, sizes, x) in cases.items():
        for dtype, width in (("float32", 4), ("mixed_bfloat16", 2)):
            layer = make(**sizes, **options, dtype=dtype)
            taken = timed(forward_and_backward(layer, x))
            # The least that any implementation reads and writes of the sequences of units: current
            # and output, and the gradients of both.
            moved = 4 * width * x.shape[0] * x.shape[1] * sizes["units"]
            rows[f"{name}_{dtype}"] = {
                "shape": [*x.shape[:2], sizes["units"]],
                "seconds": taken,
                "least_bytes_per_s": moved / taken["median"],
            }
            print(name, dtype, f"{1e3 * taken['median']:.2f} ms")
    return rows


def pretraining(is_gpu: bool) -> dict[str, Any]:
    """Updates beside training steps, whether they stay on the device, and all of `stabilize`."""
    steps, inputs = (200, 784) if is_gpu else (20, 16)
    x = spikes(512, steps, inputs)
    labels = np.zeros(32, dtype="int32")
    rows: dict[str, Any] = {}
    for cell, units in (("lstm", 42), ("gru", 53)):
        model = network(cell, units, 2, steps, inputs)
        model.compile("adam", "sparse_categorical_crossentropy")
        pretrainer = keras_lsc.LSCPretrainer(network(cell, units, 2, steps, inputs))
        pretrainer.compile()
        batch = ops.convert_to_tensor(x[:32])
        rows[cell] = {
            "training_step": timed(lambda model=model: model.train_on_batch(x[:32], labels)),
            "update": timed(lambda p=pretrainer: p.train_on_batch(x[:32])),
            "stays_on_the_device": stays_on_the_device(pretrainer, batch),
        }
        for method in ("lsc", "level"):
            counter = UpdateCounter()
            watched = {"callbacks": (counter,)} if method == "lsc" else {}
            model = network(cell, units, 2, steps, inputs)
            taken = seconds(
                lambda model=model, method=method, watched=watched: keras_lsc.stabilize(
                    model, x, method=method, verbose=0, **watched
                )
            )
            rows[cell][method] = {"seconds": taken, "updates": counter.updates}
        print(cell, rows[cell])
    return rows


def stays_on_the_device(pretrainer: Any, batch: Any) -> bool | None:
    """Whether an update moves nothing between host and device; None where nothing tells.

    JAX raises at any transfer; state and batch are there before.
    """
    if keras.backend.backend() != "jax":
        return None
    import jax

    state = (
        [v.value for v in pretrainer.trainable_variables],
        [v.value for v in pretrainer.non_trainable_variables],
        [v.value for v in pretrainer.metrics_variables],
    )
    gradient = jax.jit(jax.grad(pretrainer.compute_loss_and_updates, has_aux=True))
    wait(gradient(*state, batch, None, None))
    with jax.transfer_guard("disallow"):
        wait(gradient(*state, batch, None, None))
    return True


def outputs_of(name: str) -> np.ndarray:
    model = zoo.load(name)
    shape = (8, *(50 if n is None else n for n in model.inputs[0].shape[1:]))
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return ops.convert_to_numpy(model(x))


def known() -> list[str]:
    there = zoo.names(hidden=True)
    return [name for name in CHECKPOINTS if name in there]


def reference(work: Path) -> dict[str, Any]:
    """Outputs of checkpoints on the CPU, kept for `zoo_of`."""
    np.savez(
        work / f"{keras.backend.backend()}.npz", **{name: outputs_of(name) for name in known()}
    )
    return {"device": backend.device_name()}


def zoo_of(work: Path) -> dict[str, Any]:
    """Checkpoints loaded, verified, and their outputs beside those of the CPU."""
    rows = {}
    with np.load(work / f"{keras.backend.backend()}.npz") as on_cpu:
        for name in known():
            outputs = outputs_of(name)
            taken = seconds(lambda name=name: zoo.load(name))
            verified = zoo.verify(name)
            rows[name] = {
                "load_seconds": taken,
                "passed": verified.passed,
                "radius_difference": verified.difference,
                "output_difference": float(abs(outputs - on_cpu[name]).max()),
            }
            print(name, rows[name])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("roofline", "layers", "pretraining", "reference", "zoo"))
    parser.add_argument("--device", choices=("gpu", "cpu"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    is_gpu = given.device == "gpu"
    part = {
        "roofline": lambda: roofline(is_gpu),
        "layers": lambda: layers_of(is_gpu),
        "pretraining": lambda: pretraining(is_gpu),
        "reference": lambda: reference(given.work),
        "zoo": lambda: zoo_of(given.work),
    }[given.part]()
    path = given.out / "gpu.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    name = keras.backend.backend()
    found.setdefault(name, {"environment": environment(), "device": backend.device_name()})
    found[name][given.part] = part
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
