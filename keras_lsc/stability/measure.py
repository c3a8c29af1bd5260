"""Measures the radii of a model at random points of its inputs."""

from collections.abc import Iterator
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.radius import (
    EXACT,
    Accuracy,
    RadiusKind,
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
        # Its inputs are those of the model, which casts them itself.
        super().__init__(name=f"probe_of_{model.name}", autocast=False)
        self.model = model
        self.radius = radius
        self.transition_map = transition_map
        self.accuracy = accuracy
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False  # XLA takes minutes to compile what runs for seconds

    def call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Returns "radius" and "gain", and the Jacobians' sizes "n_out" and "n_in".

        All are `(points, transitions)`, and so is "weight": 1 where there is such a transition, 0
        where there is none. With spiking layers also "rate" and "rate_weight",
        `(points, layers)`.
        """
        *x, position = inputs
        points = self.transition_map.sample(x, position)
        columns: dict[str, list[Tensor]] = {"radius": [], "gain": [], "n_out": [], "n_in": []}
        ones = ops.ones_like(position)
        linearized = [row.linearize(points) for row in self.transition_map.transitions]
        for measured in radii_and_gains(linearized, self.radius, **self.accuracy._asdict()):
            columns["radius"].append(measured.radius)
            columns["gain"].append(measured.gain)
            for name, size in zip(("n_out", "n_in"), measured.shape, strict=True):
                columns[name].append(ops.full_like(measured.radius, size))
        columns["weight"] = _or_ones(
            [row.weight(points) for row in self.transition_map.transitions], ones
        )
        rates = points.firing_rates()
        if rates:
            columns["rate"] = rates
            columns["rate_weight"] = _or_ones(points.firing_weights(), ones)
        return {name: ops.stack(values, axis=-1) for name, values in columns.items()}

    def report(self, rows: list[np.ndarray], samples: int, seed: int) -> StabilityReport:
        """Measures at `samples` points of these rows and returns the report.

        Raises:
            ValueError: every sequence is padding from end to end.
        """
        chunks = [self.predict_on_batch(part) for part in chunks_of_points(rows, samples, seed)]
        result = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        statistics = []
        for k, transition in enumerate(self.transition_map.transitions):
            valid = result["weight"][:, k] > 0
            refuse_no_points(transition.name, valid)
            radius, gain = result["radius"][valid, k], result["gain"][valid, k]
            statistics.append(
                TransitionStatistics(
                    name=transition.name,
                    kind=transition.kind,
                    layer=transition.layer,
                    state=transition.state,
                    shape=(int(result["n_out"][0, k]), int(result["n_in"][0, k])),
                    radius=float(radius.mean()),
                    radius_std=float(radius.std()),
                    gain=float(np.sqrt(np.square(gain).mean())),
                )
            )
        rates = {}
        for k, name in enumerate(self.transition_map.spiking_names):
            rates[name] = float(result["rate"][result["rate_weight"][:, k] > 0, k].mean())
        return StabilityReport(
            model=self.model.name,
            transitions=tuple(statistics),
            layers=self.transition_map.depth,
            steps=self.transition_map.steps(rows),
            samples=samples,
            seed=seed,
            radius_kind=self.radius,
            firing_rates=rates,
        )


def _or_ones(weights: list[Tensor | None], ones: Tensor) -> list[Tensor]:
    return [ones if weight is None else weight for weight in weights]


def refuse_no_points(name: str, valid: np.ndarray) -> None:
    """Raises ValueError if a transition exists at none of the points."""
    if not valid.any():
        raise ValueError(
            f"Transition {name!r} exists at none of the {len(valid)} points drawn: the sequences "
            "have no valid step there, they are padding from end to end. Give x with sequences "
            "that are not, or draw more samples."
        )


def refuse_non_finite_weights(model: keras.Model) -> None:
    """Raises ValueError if weights of a model are NaN or infinite; names the first of them."""
    bad = []
    for weight in model.weights:
        if "float" in weight.dtype:
            values = ops.convert_to_numpy(ops.cast(weight, "float32"))
            count = int((~np.isfinite(values)).sum())
            bad.extend([(weight.path, count, values.size)] if count else [])
    if bad:
        path, count, size = bad[0]
        others = f", and {len(bad) - 1} more weight(s) hold some" if len(bad) > 1 else ""
        raise ValueError(
            f"Weight {path!r} of model {model.name!r} has {count} NaN or infinite of {size} "
            f"values{others}: there is nothing to measure. Load weights from before it diverged, "
            "or make the model anew."
        )


def check_points(samples: Any, seed: Any) -> tuple[int, int]:
    """Returns the number of points and the seed of their draw as integers.

    Raises:
        ValueError: they are not, or out of range.
    """
    return (
        arguments.positive_integer("samples", samples),
        arguments.integer("seed", seed, at_least=0),
    )


def chunks_of_points(rows: list[np.ndarray], samples: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Draws points and yields them a few at a time: the rows, and the position in each."""
    generator = np.random.default_rng([seed, 1])
    chosen = np.resize(generator.permutation(len(rows[0])), samples)
    position = generator.random(samples).astype("float32")
    for start in range(0, samples, _CHUNK):
        part = slice(start, start + _CHUNK)
        yield [*(array[chosen[part]] for array in rows), position[part]]


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
        x: inputs of the model `(rows, steps, ...)` in a form that `fit` takes: arrays, or a dataset
            of batches with or without labels (`keras.utils.PyDataset`, `tf.data.Dataset`, torch
            `DataLoader`). Sequences that are masked from end to end have no transitions and are
            left out of the means.
        samples: number of points.
        seed: of the draw of the points.
        radius: "spectral" (largest modulus of an eigenvalue), "norm" (largest singular value) or
            "rms" (the RMS gain).

    Returns:
        A `StabilityReport`; print it for a table.

    Raises:
        TypeError: `model` is not a Sequential or functional Keras model, or x is not numeric.
        ValueError: the model has no transitions or an unsupported part, its weights or radii are
            not finite, x has NaN or the wrong shape or nothing but padding, or another argument is
            out of range.

    Source: arXiv 2308.12075, section 2 (Local Stability Condition).

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> report = keras_lsc.measure(model, np.random.normal(size=(64, 20, 3)))
        >>> report.time.shape
        (2,)
    """
    arguments.one_of("radius", radius, get_args(RadiusKind))
    samples, seed = check_points(samples, seed)
    probe = Probe(model, radius)
    refuse_non_finite_weights(model)
    rows = draw_rows(x, samples, seed, input_structure(model))
    report = probe.report(rows, samples, seed)
    if report.non_finite:
        first = report.non_finite[0]
        raise ValueError(
            f"{len(report.non_finite)} transition(s) of model {model.name!r} have no finite radius "
            f"or gain, the first of them {first.name!r} (radius {first.radius}, gain "
            f"{first.gain}): states or derivatives overflow, though every weight is finite. Scale "
            "the weights or the inputs down, or compute in a wider dtype."
        )
    return report
