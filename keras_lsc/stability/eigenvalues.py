"""The eigenvalues of a model's transitions at random points of its inputs."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lsc.stability.jacobians import JacobianProbe
from keras_lsc.stability.measure import (
    check_points,
    chunks_of_points,
    refuse_no_points,
)
from keras_lsc.stability.transitions.any_model import draw_and_find


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of one transition at the sample points.

    Attributes:
        name: Name of the transition, as in a `StabilityReport`.
        kind: "time", "depth" or "input".
        layer: index of the layer, from 0.
        values: `(points, n)` complex eigenvalues of the `n x n` Jacobians, of the points at which
            there is such a transition.
    """

    name: str
    kind: str
    layer: int
    values: np.ndarray

    @property
    def radius(self) -> float:
        """Mean over the points of the largest modulus: the radius that `measure` reports."""
        return float(np.abs(self.values).max(axis=1).mean())


def eigenvalues(
    model: keras.Model, x: Any, samples: int = 16, seed: int = 0
) -> dict[str, Spectrum]:
    """Finds all eigenvalues of every square transition, at the points where `measure` looks.

    The Jacobians are formed and handed to NumPy, so the time grows with the cube of the state.

    Args:
        model: a built model, as `measure` takes it.
        x: its inputs, as `measure` takes them.
        samples: number of points.
        seed: Integer, seed of the draw of the points.

    Returns:
        A `Spectrum` for every transition with a square Jacobian, by the transition's name; others
        have no eigenvalues.

    Raises:
        TypeError, ValueError: as `measure`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8, name="layer")])
        >>> spectra = keras_lsc.eigenvalues(model, np.random.normal(size=(8, 20, 3)), samples=4)
        >>> spectra["layer.time"].values.shape
        (4, 8)
    """
    samples, seed = check_points(samples, seed)
    found, rows, _ = draw_and_find(model, x, samples, seed)
    probe = JacobianProbe(found)
    chunks = []
    for part, count in chunks_of_points(rows, samples, seed):
        parts = probe.predict_on_batch(part)
        chunks.append({of: {name: m[:count] for name, m in parts[of].items()} for of in parts})
    spectra = {}
    for transition in probe.transition_map.transitions:
        matrices, weight = (
            np.concatenate([chunk[of][transition.name] for chunk in chunks])
            for of in ("jacobian", "weight")
        )
        if matrices.shape[1] != matrices.shape[2]:
            continue
        refuse_no_points(transition.name, weight > 0)
        matrices = matrices[weight > 0].astype("float64")
        if not np.isfinite(matrices).all():
            raise ValueError(
                f"The Jacobian of transition {transition.name!r} of model {model.name!r} is not "
                "finite: states or derivatives overflow, though every weight is finite. Scale the "
                "weights or the inputs down, or compute in a wider dtype."
            )
        spectra[transition.name] = Spectrum(
            transition.name,
            transition.kind,
            transition.layer,
            np.linalg.eigvals(matrices),
        )
    return spectra
