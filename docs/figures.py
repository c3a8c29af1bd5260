"""Draws the pictures of the handbook, from a small network and the digits, from random nets, and
from what the benchmarks of the parallel layers found.

KERAS_BACKEND=jax python docs/figures.py
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib import lines, pyplot

import keras_lsc
from keras_lsc.stability.critical import critical, residual_growth

FOLDER = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
DPI = 110
WIDTH, DEPTH = 500, 50
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "sin": np.sin,
    "gelu": lambda z: 0.5 * z * (1.0 + np.vectorize(math.erf)(z / math.sqrt(2.0))),
}
# Of the critical variance of the weights.
FACTORS = {1.0: "-", 0.7: ":", 1.4: "--"}


def main() -> None:
    """Writes the pictures."""
    newton()
    pretraining()
    criticality()


def newton() -> None:
    """Newton's iterations by the length and the start, and while a network trains."""
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(keras_lsc.plot.WIDTH, 3.0), layout="constrained"
    )
    found = json.loads((RESULTS / "parallel_curve.json").read_text())["curve"]
    starts = list(dict.fromkeys(row["start"] for row in found))
    for index, start in enumerate(starts):
        for solver, line in (("newton", "-"), ("quasi", "--")):
            rows = [row for row in found if (row["start"], row["solver"]) == (start, solver)]
            label = f"{start}, radius {rows[0]['radius']:.2f}" if solver == "newton" else None
            steps, iterations = ([row[of] for row in rows] for of in ("steps", "iterations"))
            left.semilogx(steps, iterations, f"C{index}{line}", label=label)
    left.set(xlabel="steps", ylabel="iterations, 100 at most", ylim=(0, 165))
    left.set_title("GRU, whole Jacobians (-) and diagonals (--)", fontsize=8, loc="left")
    left.legend(title="start", fontsize=6, title_fontsize=6, loc="upper left")
    trained = json.loads((RESULTS / "parallel_training.json").read_text())["training"]
    cases: dict[str, dict[str, Any]] = {
        "default": {"start": None, "penalty": None},
        "radius 1": {"start": [1.0, 0.5], "penalty": None},
        "radius 1, penalty to 0.75": {"start": [1.0, 0.5], "penalty": [0.75, 0.5]},
    }
    slowest = min(row["rate"] for row in trained)
    for index, (name, case) in enumerate(cases.items()):
        for row in trained:
            if row["rate"] == slowest and case.items() <= row.items():
                most = np.max(list(row["iterations"].values()), axis=0)
                label = name if row["seed"] == 0 else None
                right.plot(np.arange(1, len(most) + 1), most, f"C{index}-", label=label)
    right.set(xlabel="epoch of training", ylabel="iterations a batch", ylim=(0, 78))
    right.set_xticks(range(2, len(most) + 1, 2))
    right.set_title("ParaGRU, adding problem, a line a seed", fontsize=8, loc="left")
    right.legend(title="start", fontsize=6, title_fontsize=6, loc="upper left")
    figure.savefig(FOLDER / "newton.png", dpi=DPI, metadata={"Software": None})


def criticality() -> None:
    """Energies of gradients and variances of signals over the depth of random nets."""
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(keras_lsc.plot.WIDTH, 3.0), layout="constrained"
    )
    layers = np.arange(DEPTH + 1)
    for index, name in enumerate(ACTIVATIONS):
        for factor, line in FACTORS.items():
            left.semilogy(layers, gradient_energies(name, factor), f"C{index}{line}")
    left.set(xlabel="layers", ylabel="energy of a difference", title="random nets")
    handles = [lines.Line2D([], [], color=f"C{k}") for k in range(len(ACTIVATIONS))]
    handles += [lines.Line2D([], [], color="grey", linestyle=line) for line in FACTORS.values()]
    names = [*ACTIVATIONS, *(f"{factor:g} C_W" for factor in FACTORS)]
    left.legend(handles, names, fontsize=6, ncols=2)
    scales = {"1/√L": DEPTH**-0.5, "2/√L": 2 * DEPTH**-0.5, "1": 1.0}
    for index, (name, scale) in enumerate(scales.items()):
        right.semilogy(layers, residual_variances(scale), f"C{index}", label=name)
        theory = [1.0, *(residual_growth(int(k), scale) for k in layers[1:])]
        right.semilogy(layers, theory, "k:", linewidth=1)
    right.set(xlabel=f"layers of L = {DEPTH}", ylabel="variance of the signal", title="residual")
    right.legend(title="factor of a branch", fontsize=6, title_fontsize=6)
    figure.savefig(FOLDER / "critical.png", dpi=DPI, metadata={"Software": None})


def gradient_energies(name: str, factor: float) -> list[float]:
    """How large a small difference of the inputs is after every layer, its mean square."""
    generator, function, found = np.random.default_rng(0), ACTIVATIONS[name], critical(name)
    # Where no variance stays, or only a vanishing one, one is as good as another.
    z = math.sqrt(found.signal or 1.0) * generator.standard_normal((WIDTH, 20))
    tangent = generator.standard_normal(z.shape)
    energies = [float(np.mean(tangent**2))]
    for _ in range(DEPTH):
        weights = generator.standard_normal((WIDTH, WIDTH))
        weights *= math.sqrt(factor * found.weight_variance / WIDTH)
        bias = math.sqrt(found.bias_variance) * generator.standard_normal((WIDTH, 1))
        slope = (function(z + 1e-6) - function(z - 1e-6)) / 2e-6
        z, tangent = weights @ function(z) + bias, weights @ (slope * tangent)
        energies.append(float(np.mean(tangent**2)))
    return energies


def residual_variances(scale: float) -> list[float]:
    """The variance of the signal after every residual layer, of critical branches of relu."""
    generator = np.random.default_rng(1)
    z = generator.standard_normal((WIDTH, 20))
    variances = [float(np.mean(z**2))]
    for _ in range(DEPTH):
        weights = math.sqrt(2.0 / WIDTH) * generator.standard_normal((WIDTH, WIDTH))
        z = z + scale * (weights @ np.maximum(z, 0.0))
        variances.append(float(np.mean(z**2)))
    return variances


def pretraining() -> None:
    """Eigenvalues and gradients before and after pre-training."""
    keras.utils.set_random_seed(0)
    x, _ = keras_lsc.datasets.load("digits", limit=512)
    model = keras.Sequential([keras.Input((8, 8))])
    for _ in range(5):
        model.add(keras.layers.SimpleRNN(64, activation="sigmoid", return_sequences=True))

    before = keras_lsc.eigenvalues(model, x, samples=4)
    grid_before = keras_lsc.gradient_grid(model, x, samples=64)
    keras_lsc.stabilize(model, x, verbose=0)
    after = keras_lsc.eigenvalues(model, x, samples=4)
    grid_after = keras_lsc.gradient_grid(model, x, samples=64)

    names = [name for name in before if name.endswith(".time")]
    ax = keras_lsc.plot.eigenvalues(before[names[2]], after[names[2]], target=0.5**0.5)
    ax.figure.savefig(FOLDER / "eigenvalues.png", dpi=DPI, metadata={"Software": None})

    grids = {"default start": grid_before, "after pre-training": grid_after}
    figure, panels = pyplot.subplots(
        len(grids), figsize=(keras_lsc.plot.WIDTH, 3.6), layout="constrained"
    )
    keras_lsc.plot.gradient_grids(grids, panels)
    figure.savefig(FOLDER / "gradients.png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    main()
