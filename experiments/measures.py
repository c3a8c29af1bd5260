"""What is measured of a network before it is trained: radii, gains, gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import keras_lsc
from experiments.settings import Setting

SAMPLES = 256
GRADIENT_SAMPLES = 32
# Steps back from the last one at which the gradient's energy is kept.
LAGS = (0, 1, 2, 4, 8, 16, 27, 50, 100, 200, 400, 783)


def rounded(values: Any, digits: int = 4) -> Any:
    """Numbers, or nests of them, with so many significant digits; None for what is not finite."""
    if isinstance(values, list | tuple | np.ndarray):
        return [rounded(value, digits) for value in values]
    if values is None or not np.isfinite(values):
        return None
    return float(f"{float(values):.{digits}g}")


def radii(report: keras_lsc.StabilityReport, setting: Setting) -> dict[str, Any]:
    """Radius, gain and isotropy of every transition, in time and depth, bottom to top layer.

    Args:
        report: of the network.
        setting: whose target the deviation is from.
    """
    rows = [row for row in report.transitions if row.kind != "input"]
    result: dict[str, Any] = {}
    for kind in ("time", "depth"):
        chosen = [row for row in rows if row.kind == kind]
        result[kind] = {
            "radius": rounded([row.radius for row in chosen]),
            "gain": rounded([row.gain for row in chosen]),
            "isotropy": rounded([row.isotropy for row in chosen]),
        }
    if setting.target is not None:
        result["deviation"] = rounded(report.max_deviation(as_target(setting.target)))
    if report.firing_rates:
        result["firing_rates"] = rounded(list(report.firing_rates.values()))
    return result


def signal(model: keras.Model, x: np.ndarray) -> dict[str, Any]:
    """How much of what sequences differ in is left in what the head of a network reads.

    Args:
        model: whose last layer is its head.
        x: sequences.

    Returns:
        "participation": (sum l)^2 / sum l^2 of the eigenvalues l of the units' covariance over the
        sequences, the number of dimensions that they differ in; "correlation": the mean cosine
        between two sequences.
    """
    below = keras.Model(model.inputs, model.layers[-1].input)
    read = below.predict(x[:SAMPLES], batch_size=SAMPLES, verbose=0).astype("float64")
    read = read[:, -1] if read.ndim == 3 else read
    eigenvalues = np.linalg.eigvalsh(np.cov(read, rowvar=False))
    directions = read / np.maximum(np.linalg.norm(read, axis=1, keepdims=True), 1e-30)
    cosines = directions @ directions.T
    count = len(read)
    return {
        "participation": rounded(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()),
        "correlation": rounded((cosines.sum() - np.trace(cosines)) / (count * (count - 1))),
    }


def as_target(target: Any) -> Any:
    """A target as the library takes it: JSON has lists for pairs."""
    return tuple(target) if isinstance(target, list) else target


def gradient_energies(model: keras.Model, x: np.ndarray, whole: bool) -> dict[str, Any] | None:
    """Energies of the gradient along depth and time, measured, by the law, and by the bound.

    Args:
        model: recurrent; of a feed-forward one there is no grid, and nothing is returned.
        x: sequences.
        whole: whether to keep the grid of all layers and steps.

    Returns:
        Energies relative to that of the last state of the top layer: per layer, summed over time;
        per lag back in time, summed over layers. "silent" instead where there is no gradient.
    """
    if not any(hasattr(layer, "cell") for layer in model.layers):
        return None
    try:
        grid = keras_lsc.gradient_grid(model, x, samples=GRADIENT_SAMPLES)
    except ValueError as error:
        return {"silent": str(error)}
    steps = len(grid.measured)
    lags = [lag for lag in LAGS if lag < steps]
    result: dict[str, Any] = {"lags": lags}
    for name in ("measured", "predicted", "bound"):
        energies = getattr(grid, name)
        result[name] = {
            "layers": rounded(energies.sum(axis=0)),
            "lags": rounded(energies.sum(axis=1)[[steps - 1 - lag for lag in lags]]),
        }
        if whole:
            result[name]["grid"] = rounded(energies, digits=3)
    return result
