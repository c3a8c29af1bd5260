"""Measures the radii of a model at random points of its inputs."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.stability.data import draw_rows
from keras_lsc.stability.radius import (
    EXACT,
    Accuracy,
    RadiusKind,
    check_radius_kind,
    radii_and_gains,
)
from keras_lsc.stability.report import StabilityReport, TransitionStatistics
from keras_lsc.stability.transitions import TransitionMap

Tensor = Any
_CHUNK = 32


@keras.saving.register_keras_serializable(package="keras_lsc")
class Probe(keras.Model):
    """A model whose output is the radii and gains of another, so `predict` compiles and runs it.

    Args:
        model: the model to measure.
        radius: "spectral", "rms" or "norm".
        transition_map: the model's transitions, if they were found before.
        accuracy: of the radii.
    """

    def __init__(
        self,
        model: keras.Model,
        radius: RadiusKind = "spectral",
        transition_map: TransitionMap | None = None,
        accuracy: Accuracy = EXACT,
    ):
        transition_map = transition_map or TransitionMap(model)
        super().__init__(name=f"probe_of_{model.name}")
        self.model = model
        self.radius = radius
        self.transition_map = transition_map
        self.accuracy = accuracy
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False  # XLA takes minutes to compile what runs for seconds

    def call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Returns "radius" and "gain", and the Jacobians' sizes "n_out" and "n_in".

        All are `(points, transitions)`; with spiking layers also "rate", `(points, layers)`.
        """
        *x, position = inputs
        points = self.transition_map.sample(x, position)
        columns: dict[str, list[Tensor]] = {"radius": [], "gain": [], "n_out": [], "n_in": []}
        linearized = [row.linearize(points) for row in self.transition_map.transitions]
        for measured in radii_and_gains(linearized, self.radius, self.accuracy):
            columns["radius"].append(measured.radius)
            columns["gain"].append(measured.gain)
            for name, size in zip(("n_out", "n_in"), measured.shape, strict=True):
                columns[name].append(ops.full_like(measured.radius, size))
        rates = points.firing_rates()
        if rates:
            columns["rate"] = rates
        return {name: ops.stack(values, axis=-1) for name, values in columns.items()}

    def report(self, rows: list[np.ndarray], samples: int, seed: int) -> StabilityReport:
        """Measures at `samples` points of these rows and returns the report."""
        chunks = [self.predict_on_batch(part) for part in chunks_of_points(rows, samples, seed)]
        result = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        statistics = [
            TransitionStatistics(
                name=transition.name,
                kind=transition.kind,
                layer=transition.layer,
                state=transition.state,
                shape=(int(result["n_out"][0, k]), int(result["n_in"][0, k])),
                radius=float(result["radius"][:, k].mean()),
                radius_std=float(result["radius"][:, k].std()),
                gain=float(np.sqrt(np.square(result["gain"][:, k]).mean())),
            )
            for k, transition in enumerate(self.transition_map.transitions)
        ]
        return StabilityReport(
            model=self.model.name,
            transitions=tuple(statistics),
            layers=self.transition_map.depth,
            steps=self.transition_map.steps(rows),
            samples=samples,
            seed=seed,
            radius_kind=self.radius,
            firing_rates={
                layer.name: float(result["rate"][:, k].mean())
                for k, layer in enumerate(self.transition_map.spiking_layers)
            },
        )


def chunks_of_points(rows: list[np.ndarray], samples: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Draws points and yields them a few at a time: the rows, and the position in each."""
    generator = np.random.default_rng([seed, 1])
    chosen = np.resize(generator.permutation(len(rows[0])), samples)
    position = generator.random(samples).astype("float32")
    for start in range(0, samples, _CHUNK):
        part = slice(start, start + _CHUNK)
        yield [*(array[chosen[part]] for array in rows), position[part]]


def check_samples(samples: int) -> None:
    """Raises ValueError if `samples` is no number of points."""
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a positive integer, got {samples!r}.")


def measure(
    model: keras.Model,
    x: Any,
    samples: int = 64,
    seed: int = 0,
    radius: RadiusKind = "spectral",
) -> StabilityReport:
    """Measures radius and RMS gain of every local transition of a model, in time and depth.

    The points (a sequence, a time step of it) are drawn by NumPy, so the same weights, data and
    seed give the same radii on every backend. The weights are not changed.

    Args:
        model: a built Sequential or functional `keras.Model`, recurrent or feed-forward.
        x: inputs of the model `(rows, steps, ...)`: arrays, or a dataset of batches with or
            without labels (`keras.utils.PyDataset`, `tf.data.Dataset`, torch `DataLoader`).
        samples: number of points.
        seed: of the draw of the points.
        radius: "spectral" (largest modulus of an eigenvalue), "norm" (largest singular value) or
            "rms" (the RMS gain).

    Returns:
        A `StabilityReport`; print it for a table.

    Raises:
        TypeError: `model` is not a Sequential or functional Keras model, or x is not numeric.
        ValueError: the model has no transitions or an unsupported part, or x has NaN or the
            wrong shape.

    Source: arXiv 2308.12075, section 2 (Local Stability Condition).

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> report = keras_lsc.measure(model, np.random.normal(size=(64, 20, 3)))
        >>> report.time.shape
        (2,)
    """
    check_radius_kind(radius)
    check_samples(samples)
    probe = Probe(model, radius)
    rows = draw_rows(x, samples, seed, model.inputs)
    return probe.report(rows, samples, seed)
