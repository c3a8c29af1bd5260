"""The gradient of a network at every time step and layer, beside what its radii predict."""

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments, backend, plot
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.measure import Probe, check_points
from keras_lsc.stability.probe import ModelProbe
from keras_lsc.stability.recorder import state_shapes
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.theory import propagate
from keras_lsc.stability.transitions import TransitionMap

Tensor = Any


@dataclass(frozen=True)
class GradientGrid:
    """Gradient energies over time and depth.

    Attributes:
        measured: `(T, L)` mean squared norm of the gradient of a random functional of the last
            output by the state of layer l after step t; relative to the last point, so its last
            entry is 1.
        predicted: `(T, L)` the same by the energy law from the measured gains or radii.
        bound: `(T, L)` the same by the coherent bound: the square of its amplitude.
        report: the `StabilityReport` whose radii were used.
    """

    measured: np.ndarray
    predicted: np.ndarray
    bound: np.ndarray
    report: StabilityReport

    def energy_per_layer(self) -> np.ndarray:
        """Measured energy summed over time, `(L,)`, bottom to top layer."""
        return self.measured.sum(axis=0)

    def predicted_energy_per_layer(self) -> np.ndarray:
        """Predicted energy summed over time, `(L,)`, bottom to top layer."""
        return self.predicted.sum(axis=0)

    def plot(self, axes: Any = None) -> Any:
        """Draws measured and predicted norms as two maps of time and layer.

        Args:
            axes: two matplotlib `Axes`; a new figure without them.

        Returns:
            The two `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        grids = {"measured": self.measured, "predicted": self.predicted}
        return plot.gradient_grids(grids, axes)


def gradient_grid(
    model: keras.Model,
    x: Any,
    samples: int = 64,
    seed: int = 0,
    by: Literal["gain", "radius"] = "gain",
) -> GradientGrid:
    """Measures the gradient energy at every (t, layer) and predicts it from local figures.

    A random linear functional of the last recurrent layer's last output is differentiated by the
    state of every layer after every step; the energy is the mean over sequences of the squared
    norm. Where a cell's output is not one of its states (a readout of the state), only what
    flows on through time is seen at that layer.

    Args:
        model: a built recurrent model whose recurrent layers follow one another, all forward and
            with equally many steps.
        x: its inputs, as `measure` takes them.
        samples: number of sequences.
        seed: Integer, seed of the draw of the sequences, the points and the functional.
        by: What the law is given. A gradient without a preferred direction changes its length by
            the RMS "gain"; the spectral "radius" is the gain of a large isotropic transition.

    Returns:
        A `GradientGrid`.

    Raises:
        ValueError: the model is feed-forward, has a recurrent layer that runs backwards, or two
            with different numbers of steps; its weights or gradients are not finite; another
            argument is out of range.

    Source: this project's energy law, `keras_lsc.stability.theory.propagate` of squared gains.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> keras_lsc.gradient_grid(model, np.random.normal(size=(8, 20, 3))).measured.shape
        (20, 2)
    """
    arguments.one_of("by", by, ("gain", "radius"))
    samples, seed = check_points(samples, seed)
    found = TransitionMap(model)
    probe = Probe(model, transition_map=found)
    refuse_non_finite_weights(model)
    rows = draw_rows(x, samples, seed, input_structure(model))
    energies = _EnergyProbe(model, found, rows)
    report = probe.report(rows, samples, seed)
    generator = np.random.default_rng([seed, 2])
    width = energies.output_width
    functional = generator.standard_normal((len(rows[0]), width)) / np.sqrt(width)
    measured = energies.predict_on_batch([*rows, functional.astype("float32")])
    measured = np.mean(measured, axis=0)
    if report.non_finite or not np.isfinite(measured).all():
        raise ValueError(
            f"The gradients of model {model.name!r} are not finite: states or derivatives "
            "overflow, though every weight is finite. Scale the weights or the inputs down, or "
            "compute in a wider dtype."
        )
    if not measured[-1, -1] > 0:
        raise ValueError(
            f"The last output of model {model.name!r} has no gradient by its own last state: "
            "either the network is saturated or silent, and no energy is left to compare, or its "
            "outputs are not among its states, as in state-space layers, of which there is no "
            "such grid."
        )
    time, depth = (np.nan_to_num(report.per_layer(kind, by)) for kind in ("time", "depth"))
    return GradientGrid(
        measured=measured / measured[-1, -1],
        predicted=propagate(list(time**2), list(depth**2), len(measured)),
        bound=propagate(list(time), list(depth), len(measured)) ** 2,
        report=report,
    )


class _EnergyProbe(ModelProbe):
    """A model whose output is the gradient energy `(batch, T, L)` of another."""

    def __init__(self, model: keras.Model, transition_map: TransitionMap, rows: list[np.ndarray]):
        super().__init__(model, "energy_probe")
        self.transition_map = transition_map
        self.directions = transition_map.forward_directions(rows)
        self.steps = transition_map.steps(rows)
        self.output_width = transition_map.recurrent_calls[-1].outputs[0].shape[-1]

    def call(self, inputs: list[Tensor]) -> Tensor:
        *x, functional = inputs
        steps = self.steps
        batch = ops.shape(functional)[0]
        cells = [cell for direction in self.directions for cell in direction.cells]
        sizes = [sum(int(np.prod(s)) for s in state_shapes(cell)) for cell in cells]

        def last_output(flat: Tensor) -> Tensor:
            noise = _split(ops.reshape(flat, (batch, steps, sum(sizes))), sizes)
            output = self.transition_map.perturbed_output(x, noise)
            output = output if len(output.shape) == 2 else output[:, -1]
            output = ops.cast(output, functional.dtype)
            return ops.sum(output * functional, axis=-1, keepdims=True)

        zeros = ops.zeros((batch, steps * sum(sizes)), dtype=ops.dtype(functional))
        value, pullback = backend.vjp(last_output, zeros)
        gradient = ops.reshape(pullback(ops.ones_like(value)), (batch, steps, sum(sizes)))
        parts = _split(gradient, sizes)
        return ops.stack([ops.sum(part**2, axis=-1) for part in parts], axis=-1)


def _split(x: Tensor, sizes: list[int]) -> list[Tensor]:
    boundaries = [sum(sizes[: k + 1]) for k in range(len(sizes) - 1)]
    return ops.split(x, boundaries, axis=-1) if boundaries else [x]
