"""Recurrences without a loop: seconds beside loops, and iterations against radius and length.

    KERAS_BACKEND=torch python benchmarks/parallel.py [--quick] [--curve | --training]

Prints tables and writes `benchmarks/results/parallel_<backend>.json` or, of Newton's iterations,
`parallel_curve.json` with --curve and, of every epoch of a few trainings with and without a penalty
on the radii, `parallel_training.json` with --training. The recurrence of `ParaGRU`
is taken by Newton's method and by the package's own loop, forward and backward; in the same run,
`keras.layers.GRU` or, on torch, `torch.nn.GRU` of as many units, and on JAX the same recurrence
written with `jax.lax.scan`. Then Newton's iterations for a GRU at several starts and lengths.
"""

import argparse
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from environment import environment
from layers import forward_and_backward
from pretraining import RESULTS, seconds, summary

import keras_lsc
from keras_lsc import layers
from keras_lsc.layers import parallel

UNITS = 64
FEATURES = 8
# By the number of sequences: more of the longest would need many gigabytes.
LENGTHS = {1: (256, 1024, 4096, 16_384, 65_536), 16: (256, 1024, 4096, 16_384)}
# Seconds after which a case needs no more than three samples.
LONGEST = 2.0
# Seconds of a first call after which one more has to do.
TOO_LONG = 10.0
# Seconds of a call, as expected from the length before, from which on a way is left out.
OUT_OF_BOUNDS = 120.0
STARTS: tuple[Any, ...] = ("default", "level", 0.5, "variance", 1.0)
CURVE_LENGTHS = (100, 1000, 10_000, 100_000)
CURVE_UNITS = 16
# The adding problem, at a learning rate at which a memory is learned, and at one that is too high.
TRAINING_STEPS, TRAINING_UNITS, TRAINING_LAYERS = 300, 16, 2
UPDATES, EPOCHS, TRAINING_BATCH, RATES = 50, 12, 16, (0.01, 0.05)
# Radius in time and depth of the start, None for that of the initialisers; and of the penalty.
TRAINED_STARTS: tuple[Any, ...] = (None, (1.0, 0.5))
PENALTIES: tuple[Any, ...] = (None, (0.75, 0.5), (0.9, 0.5))
SEEDS = 2


def taken(run: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of the first call, which may compile, and a summary of the following ones."""
    first, samples = seconds(run), []
    least = 1 if first > TOO_LONG else 3
    while len(samples) < least or (len(samples) < repeats and sum(samples) < LONGEST):
        samples.append(seconds(run))
    return {"first_call": first, "seconds": summary(samples)}


def torch_gru(x: np.ndarray) -> Callable[[], Any]:
    """torch.nn.GRU, forward and backward."""
    import torch

    layer = torch.nn.GRU(FEATURES, UNITS, batch_first=True)
    given = torch.as_tensor(x).requires_grad_(True)
    return lambda: torch.autograd.grad(layer(given)[0].mean(), [*layer.parameters(), given])


def lax_scan(layer: keras.Layer, x: np.ndarray) -> Callable[[], Any]:
    """The recurrence of ParaGRU in plain JAX, forward and backward."""
    import jax
    import jax.numpy as jnp

    weights = [weight.value for weight in layer.weights]

    def mean(weights: list[Any], x: Any) -> Any:
        kernel, recurrent, bias = weights
        to_update, to_reset, to_new = jnp.split(recurrent[0], 3)

        def step(h: Any, drive: Any) -> tuple[Any, Any]:
            update, reset, new = jnp.split(drive, 3, axis=-1)
            update = jax.nn.sigmoid(to_update * h + update)
            reset = jax.nn.sigmoid(to_reset * h + reset)
            h = (1 - update) * h + update * jnp.tanh(to_new * (reset * h) + new)
            return h, h

        drive = jnp.swapaxes(x, 0, 1) @ kernel + bias
        return jnp.mean(jax.lax.scan(step, jnp.zeros((x.shape[0], UNITS)), drive)[1])

    gradient = jax.jit(jax.grad(mean, argnums=(0, 1)))
    given = jnp.asarray(x)
    return lambda: jax.block_until_ready(gradient(weights, given))


def speeds(batches: Iterable[int], most: int | None, repeats: int) -> Iterator[dict[str, Any]]:
    """All sizes of some batches, of each from short to long, or the first ones."""
    for batch in batches:
        seen: dict[str, list[float]] = {}
        for steps in LENGTHS[batch][:most]:
            out = {name for name, of_way in seen.items() if expected(of_way) > OUT_OF_BOUNDS}
            yield (row := speed(batch, steps, repeats, out))
            for name, way in row["ways"].items():
                seen.setdefault(name, []).append(way["seconds"]["median"])


def expected(seen: list[float]) -> float:
    """Seconds at four times the length, if they grow as before, which may be faster than it."""
    growth = max(4.0, seen[-1] / seen[-2]) if len(seen) > 1 else 4.0
    return growth * seen[-1]


def speed(batch: int, steps: int, repeats: int, out: set[str]) -> dict[str, Any]:
    """One size: every way to take it but those that would take too long."""
    x = np.random.default_rng(0).standard_normal((batch, steps, FEATURES)).astype("float32")
    para = {
        solver: layers.ParaGRU(UNITS, solver=solver, seed=0, return_sequences=True)
        for solver in ("newton", "loop")
    }
    ways: dict[str, Callable[[], Callable[[], Any]]] = {
        solver: functools.partial(forward_and_backward, layer, x) for solver, layer in para.items()
    }
    min_gru = layers.MinGRU(UNITS, seed=0, return_sequences=True)
    ways["MinGRU"] = lambda: forward_and_backward(min_gru, x)
    if keras.backend.backend() == "torch":
        ways["torch.nn.GRU"] = lambda: torch_gru(x)
    else:
        gru = keras.layers.GRU(UNITS, return_sequences=True)
        ways["keras.layers.GRU"] = lambda: forward_and_backward(gru, x)
    if keras.backend.backend() == "jax":
        ways["jax.lax.scan"] = lambda: lax_scan(para["loop"], x)
    rows = {name: taken(make(), repeats) for name, make in ways.items() if name not in out}
    result = {
        "batch": batch,
        "steps": steps,
        "units": UNITS,
        "ways": rows,
        "left_out": sorted(out & set(ways)),
    }
    shown = "  ".join(
        f"{name} {1e3 * row['seconds']['median']:.1f} ms" for name, row in rows.items()
    )
    print(f"batch {batch}  T {steps}  {shown}", flush=True)
    return result


def started(start: Any, x: np.ndarray) -> tuple[keras.Model, float]:
    """A GRU from one of the starts, and its radius in time."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, x.shape[-1])),
            *(keras.layers.GRU(CURVE_UNITS, return_sequences=True) for _ in range(2)),
        ]
    )
    if start == "level":
        keras_lsc.stabilize(model, x, method="level", verbose=0)
    elif start != "default":
        keras_lsc.stabilize(model, x, target=start, tolerance=0.05, verbose=0)
    return model, float(keras_lsc.measure(model, x, samples=32).time[0])


def curve(lengths: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Iterations against start and length, of the lower of two GRU layers."""
    generator = np.random.default_rng(0)
    short = generator.standard_normal((32, 40, FEATURES)).astype("float32")
    for start in STARTS:
        model, radius = started(start, short)
        exponent = float(keras_lsc.lyapunov(model, short, k=1).exponents[0][0])
        for steps in lengths:
            x = generator.standard_normal((1, steps, FEATURES)).astype("float32")
            for solver in ("newton", "quasi"):
                began = time.perf_counter()
                found = parallel.solve(
                    model.layers[0].cell, x, solver=solver, max_iterations=100, fallback=False
                )
                row = {
                    "start": start,
                    "steps": steps,
                    "solver": solver,
                    "first_call": time.perf_counter() - began,
                    "radius": radius,
                    "exponent": exponent,
                    "iterations": found.iterations,
                    "has_converged": found.has_converged,
                    "residual": found.residual,
                    "agreement": found.agreement,
                    "predicted": parallel.predicted_iterations(exponent, steps),
                }
                print(
                    f"{start!s:9s} radius {radius:.2f}  exponent {exponent:+.3f}  T {steps:6d}  "
                    f"{solver:6s} {row['iterations']:3d} iterations {row['first_call']:6.2f} s "
                    f"{'' if row['has_converged'] else 'not converged'}",
                    flush=True,
                )
                yield row


def trainings(epochs: int, known: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Newton's iterations, radii and losses of every epoch, for each start, rate and penalty.

    Those that are known are not trained again.
    """
    task = {"limit": UPDATES * TRAINING_BATCH, "length": TRAINING_STEPS}
    x, _ = keras_lsc.datasets.load("adding", **task)
    cases = itertools.product(TRAINED_STARTS, RATES, PENALTIES, range(SEEDS))
    for start, rate, penalty, seed in cases:
        case = {
            "start": None if start is None else list(start),
            "rate": rate,
            "penalty": None if penalty is None else list(penalty),
            "seed": seed,
        }
        if any(case.items() <= row.items() for row in known):
            continue
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input(x.shape[1:])])
        for k in range(TRAINING_LAYERS):
            whole = {"return_sequences": k + 1 < TRAINING_LAYERS, "solver": "newton"}
            name = f"gru_{k}"
            model.add(layers.ParaGRU(TRAINING_UNITS, name=name, **whole))
        model.add(keras.layers.Dense(1))
        if start is not None:
            keras_lsc.stabilize(model, x, target=start, tolerance=0.05, verbose=0)
        model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), "mse")
        monitor = keras_lsc.callbacks.StabilityMonitor(x, every=UPDATES, on_alarm=lambda _: None)
        callbacks = [monitor]
        if penalty is not None:
            callbacks.append(keras_lsc.callbacks.RadiusRegularizer(x, penalty, every=2))
        batches = keras_lsc.datasets.batches("adding", batch_size=TRAINING_BATCH, **task)
        began = time.perf_counter()
        seen = model.fit(
            batches, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
        ).history
        names = [f"gru_{k}" for k in range(TRAINING_LAYERS)]
        row = {
            **case,
            "seconds": time.perf_counter() - began,
            "loss": seen["loss"],
            "iterations": {name: seen[f"iterations/{name}"] for name in names},
            "loops": {name: seen[f"loops/{name}"] for name in names},
            "radius": {name: seen[f"radius/{name}.time"] for name in names},
        }
        for name in names:
            taken = row["iterations"][name]
            print(
                f"{start!s:10s}  rate {rate}  penalty {penalty!s:11s}  seed {seed}  {name}  "
                f"iterations {taken[0]:.1f} to "
                f"{taken[-1]:.1f}, at most {max(taken):.1f}  loops {max(row['loops'][name]):.2f}  "
                f"radius {row['radius'][name][0]:.3f} to {row['radius'][name][-1]:.3f}  "
                f"loss {seen['loss'][-1]:.4f}  {row['seconds']:.0f} s",
                flush=True,
            )
        yield row


def main() -> None:
    """Runs everything and writes the JSON file of this backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats; no JSON")
    parser.add_argument("--batch", type=int, choices=LENGTHS, help="of one size; others are kept")
    parser.add_argument("--curve", action="store_true", help="iterations by start and length")
    parser.add_argument("--training", action="store_true", help="iterations by epoch and penalty")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "environment": {**environment(), "threads": os.environ.get("OMP_NUM_THREADS")}
    }
    part = "training" if options.training else "curve" if options.curve else "speed"
    name = keras.backend.backend() if part == "speed" else part
    path = RESULTS / f"parallel_{name}.json"
    if options.training:
        known = json.loads(path.read_text())["training"] if path.exists() else []
        rows = (
            trainings(2, []) if options.quick else itertools.chain(known, trainings(EPOCHS, known))
        )
    elif options.curve:
        rows = curve(CURVE_LENGTHS[: 1 if options.quick else None])
    else:
        batches = LENGTHS if options.batch is None else (options.batch,)
        rows = speeds(batches, 2, 3) if options.quick else speeds(batches, None, 10)
        if options.batch is not None and not options.quick:
            known = json.loads(path.read_text())["speed"]
            rows = itertools.chain([row for row in known if row["batch"] != options.batch], rows)
    result[part] = []
    for row in rows:
        result[part].append(row)
        if not options.quick:
            # After every row: the last sizes take longest, and may be interrupted.
            path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
