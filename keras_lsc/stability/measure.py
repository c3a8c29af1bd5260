"""Measures the radii of a model at random points of its inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.stability import lapack
from keras_lsc.stability.accuracy import MEASURE, Accuracy
from keras_lsc.stability.forecast import NewtonForecast, forecasts
from keras_lsc.stability.jacobians import JacobianProbe
from keras_lsc.stability.lyapunov import lyapunov
from keras_lsc.stability.probe import ModelProbe
from keras_lsc.stability.radius import (
    RadiusKind,
    is_gain,
    radii_and_gains,
)
from keras_lsc.stability.report import StabilityReport, TransitionStatistics
from keras_lsc.stability.stages import Stages, has_stages
from keras_lsc.stability.taps import ROWS
from keras_lsc.stability.transitions import TransitionMap, Transitions
from keras_lsc.stability.transitions.any_model import draw_and_find, transitions_of

Tensor = Any
_CHUNK = 32
NO_RADII = "no recurrent layer was seen to run, of which there could be radii in time"


@keras.saving.register_keras_serializable(package="keras_lsc")
class Probe(ModelProbe):
    """A model whose output is the radii and gains of another.

    Args:
        model: the model to measure.
        radius: "spectral", "rms" or "norm".
        transition_map: the model's transitions, if they were found before.
        accuracy: Accuracy of the radii.
        transitions: which are measured, by index; all without it.
    """

    def __init__(
        self,
        model: keras.Model,
        radius: RadiusKind = "spectral",
        transition_map: Transitions | None = None,
        accuracy: Accuracy = MEASURE,
        transitions: Sequence[int] | None = None,
    ):
        transition_map = transition_map or TransitionMap(model)
        super().__init__(model, "probe")
        self.radius = radius
        self.transition_map = transition_map
        self.accuracy = accuracy
        rows = transition_map.transitions
        self.rows = [rows[k] for k in (range(len(rows)) if transitions is None else transitions)]
        self._certifier = Certifier(transition_map, radius, accuracy)

    def call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Returns "radius" and "gain", and the Jacobians' sizes "n_out" and "n_in".

        All are `(points, transitions)`, and so are "weight", 1 where there is such a transition and
        0 where there is none, and "is_certain", whether the radius is known to be close. With
        spiking layers also "rate" and "rate_weight", `(points, layers)`; and "jacobians" holds
        those that were formed, by the name of the transition.
        """
        *x, position = inputs
        points = self.transition_map.sample(x, position)
        columns: dict[str, list[Tensor]] = {"radius": [], "gain": [], "n_out": [], "n_in": []}
        columns["is_certain"] = []
        ones = ops.ones_like(position)
        jacobians: dict[str, Tensor] = {}
        linearized = [row.linearize(points) for row in self.rows]
        found = radii_and_gains(linearized, self.radius, self.accuracy)
        for row, measured in zip(self.rows, found, strict=True):
            if measured.jacobians is not None and self.accuracy.certify:
                jacobians[row.name] = measured.jacobians
            columns["radius"].append(measured.radius)
            columns["gain"].append(measured.gain)
            is_certain = measured.is_certain
            if is_certain is None:  # nobody asked
                is_certain = ops.zeros_like(measured.radius, dtype="bool")
            columns["is_certain"].append(is_certain)
            for name, size in zip(("n_out", "n_in"), measured.shape, strict=True):
                columns[name].append(ops.full_like(measured.radius, size))
        columns["weight"] = _or_ones([row.weight(points) for row in self.rows], ones)
        rates = points.firing_rates()
        if rates:
            columns["rate"] = rates
            columns["rate_weight"] = _or_ones(points.firing_weights(), ones)
        stacked = {name: ops.stack(values, axis=-1) for name, values in columns.items()}
        return {**stacked, "jacobians": jacobians} if jacobians else stacked

    def report(self, rows: list[np.ndarray], samples: int, seed: int) -> StabilityReport:
        """Measures at `samples` points of these rows and returns the report.

        Raises:
            ValueError: every sequence is padding from end to end.
        """
        chunks = []
        for part, count in chunks_of_points(rows, samples, seed):
            found = self.predict_on_batch(part)
            if self.accuracy.certify:
                found = self._certifier.make_certain(found, part, count)
            chunks.append({name: values[:count] for name, values in found.items()})
        result = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        statistics = []
        for k, transition in enumerate(self.transition_map.transitions):
            valid = result["weight"][:, k] > 0
            refuse_no_points(transition.name, valid)
            # Where float32 holds a gain, it need not hold its square.
            radius, gain = (result[of][valid, k].astype("float64") for of in ("radius", "gain"))
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
                    uncertain=int((~result["is_certain"][valid, k]).sum()),
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
            unseen=_unseen(self.transition_map),
        )


class Certifier:
    """Measures again, by other means, the points for whose radii powers cannot vouch.

    LAPACK finds them on the host, up to a size of 1024. Above 512, where that takes seconds a
    point, more products are taken first; radii above 1024 that these leave open stay estimates, as
    do the gains of Jacobians with more outputs.

    Args:
        transition_map: Transitions of the model.
        radius: "spectral", "rms" or "norm".
        accuracy: Accuracy that the radii were measured with.
    """

    _PRODUCTS = 256
    _LARGE, _LARGEST = 512, 1024

    def __init__(self, transition_map: Transitions, radius: RadiusKind, accuracy: Accuracy):
        self._map = transition_map
        self._radius = radius
        self._accuracy = accuracy._replace(krylov=self._PRODUCTS)
        self._may_take_more = accuracy.krylov < self._PRODUCTS
        # Compiled functions, by the transitions they are of.
        self._closer: dict[tuple[int, ...], Probe] = {}
        self._formed: dict[tuple[int, ...], JacobianProbe] = {}

    def make_certain(
        self, result: dict[str, Any], part: list[np.ndarray], count: int
    ) -> dict[str, np.ndarray]:
        """Returns what a `Probe` predicted of some points, with radii in place of estimates.

        Args:
            result: Result of the probe.
            part: What it was given.
            count: how many of the points are asked for, the first ones.
        """
        jacobians: dict[str, np.ndarray] = result.get("jacobians", {})
        # What a backend hands out cannot always be written to.
        result = {name: np.array(values) for name, values in result.items() if name != "jacobians"}
        # A radius that is not finite is refused elsewhere.
        result["is_certain"] |= ~np.isfinite(result["radius"]) | (result["weight"] == 0)
        result["is_certain"][count:] = True
        sides = np.maximum(result["n_out"], result["n_in"])[0]
        shapes = zip(result["n_out"][0], result["n_in"][0], strict=True)
        # A gain that is an estimate stays one: neither finds it.
        sides[[is_gain(self._radius, *shape) for shape in shapes]] = np.inf
        if self._may_take_more:
            for column, closer in self._again(
                result, (sides > self._LARGE) & (sides < np.inf), part
            ):
                better = ~result["is_certain"][:, column]
                result["radius"][better, column] = closer["radius"][better]
                result["is_certain"][better, column] = closer["is_certain"][better]
        unsure = self._unsure(result, sides <= self._LARGEST)
        names = [row.name for row in self._map.transitions]
        missing = tuple(column for column in unsure if names[column] not in jacobians)
        if missing:
            of = _covering(self._formed, missing)
            if of not in self._formed:
                self._formed[of] = JacobianProbe(self._map, of)
            jacobians = {**jacobians, **self._formed[of].predict_on_batch(part)["jacobian"]}
        ask = lapack.norms if self._radius == "norm" else lapack.radii
        for column in unsure:
            asked = ~result["is_certain"][:, column]
            result["radius"][asked, column] = ask(jacobians[names[column]][asked])
            result["is_certain"][asked, column] = True
        return result

    def _again(
        self, result: dict[str, np.ndarray], large: np.ndarray, part: list[np.ndarray]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        unsure = self._unsure(result, large)
        if not unsure:
            return
        of = _covering(self._closer, unsure)
        if of not in self._closer:
            self._closer[of] = Probe(self._map.model, self._radius, self._map, self._accuracy, of)
        found = self._closer[of].predict_on_batch(part)
        for column in unsure:
            k = of.index(column)
            yield column, {name: found[name][:, k] for name in ("radius", "is_certain")}

    @staticmethod
    def _unsure(result: dict[str, np.ndarray], among: np.ndarray) -> tuple[int, ...]:
        is_unsure = (~result["is_certain"]).any(axis=0) & among
        return tuple(int(column) for column in np.flatnonzero(is_unsure))


def _covering(known: Mapping[tuple[int, ...], Any], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The transitions of a compiled function that has all that are wanted, or of one to compile."""
    for have in known:
        if set(wanted) <= set(have):
            return have
    # What was unsure at other points will be so again.
    return tuple(sorted(set(wanted).union(*known)))


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


def check_points(samples: Any, seed: Any) -> tuple[int, int]:
    """Returns the number of points and the seed of their draw as integers.

    Raises:
        ValueError: they are not, or out of range.
    """
    return (
        arguments.positive_integer("samples", samples),
        arguments.integer("seed", seed, at_least=0),
    )


def chunks_of_points(
    rows: list[np.ndarray], samples: int, seed: int
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Draws points and yields them a few at a time.

    Functions are compiled for a number of points, so the last chunk is filled up with others.

    Returns:
        Pairs of the rows with the position in each, and of how many points count.
    """
    generator = np.random.default_rng([seed, 1])
    chosen = np.resize(generator.permutation(len(rows[0])), samples)
    position = generator.random(samples).astype("float32")
    size = min(samples, _CHUNK)
    for start in range(0, samples, size):
        count = min(size, samples - start)
        points = np.resize(np.arange(start, start + count), size)
        yield [*(array[chosen[points]] for array in rows), position[points]], count


def at_enough_points(
    rough: StabilityReport,
    report_at: Callable[[int], StabilityReport],
    standard_error: float,
    most: int,
) -> StabilityReport:
    """A report whose means are certain enough: the rough one, or one at more points.

    Args:
        rough: what is known so far.
        report_at: measures again at so many points.
        standard_error: of the mean radii that is wanted.
        most: largest number of points.
    """
    needed = min(rough.samples_for(standard_error), most)
    return report_at(needed) if needed > rough.samples else rough


def measure(
    model: keras.Model,
    x: Any,
    samples: int = 64,
    seed: int = 0,
    radius: RadiusKind = "spectral",
    gradient: bool = True,
    exponents: int = 0,
) -> StabilityReport:
    """Measures radius and RMS gain of every local transition of a model, in time and depth.

    And, by one backward pass, the energy of the whole gradient at every layer, and by two forward
    passes that of a small difference.

    The points (a sequence, a time step of it) are drawn by NumPy, so the same weights, data and
    seed give the same radii on every backend. The weights are not changed.

    A model with a `call` of its own, or with layers that call recurrent ones in theirs, is watched:
    the layers that run have radii in time, and what is not seen is named in `unseen`. Of what lies
    between them nothing is known, so that there are no radii in depth; the energies are those of
    any model.

    Args:
        model: a built `keras.Model` of any kind, recurrent or feed-forward.
        x: inputs of the model `(rows, steps, ...)` in a form that `fit` takes: arrays, or a dataset
            of batches with or without labels (`keras.utils.PyDataset`, `tf.data.Dataset`, torch
            `DataLoader`). Sequences that are masked from end to end have no transitions and are
            left out of the means.
        samples: number of points.
        seed: Integer, seed of the draw of the points.
        radius: "spectral" (largest modulus of an eigenvalue), "norm" (largest singular value) or
            "rms" (the RMS gain).
        gradient: whether to measure the energy of the gradient as well.
        exponents: number of leading Lyapunov exponents of every recurrent layer to measure as well,
            what many steps do where a radius says what one does; see `keras_lsc.lyapunov`. The
            iterations that are expected of layers solved by Newton's method are predicted from
            them; from the radius in time without them.

    Returns:
        A `StabilityReport`; print it for a table.

    Raises:
        TypeError: `model` is no Keras model, or x is not numeric.
        ValueError: the model is not built, has nothing to measure or an unsupported part, its
            weights or radii are not finite, x has NaN or the wrong shape or nothing but padding, or
            another argument is out of range.
        RuntimeError: a model that is watched makes other calls than when it was looked at.

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
    arguments.flag("gradient", gradient)
    arguments.integer("exponents", exponents, at_least=0)
    found, rows, structure = draw_and_find(model, x, samples, seed)
    has_gradient = gradient and has_stages(model)
    if found.transitions:
        report = Probe(model, radius, found).report(rows, samples, seed)
    else:
        report = _without_transitions(found, has_gradient, seed, samples)
    if report.non_finite:
        first = report.non_finite[0]
        raise ValueError(
            f"{len(report.non_finite)} transition(s) of model {model.name!r} have no finite radius "
            f"or gain, the first of them {first.name!r} (radius {first.radius}, gain "
            f"{first.gain}): states or derivatives overflow, though every weight is finite. Scale "
            "the weights or the inputs down, or compute in a wider dtype."
        )
    if exponents:
        report = replace(report, exponents=lyapunov(model, x, exponents, seed=seed))
    report = replace(report, newton=_forecasts(model, report))
    if not has_gradient:
        return report
    few = [array[:ROWS] for array in rows]
    stages = Stages(model, few, structure)
    energies = stages.measure(few, np.random.default_rng(seed), forward=True)
    return replace(report, gradient=energies)


def _forecasts(model: keras.Model, report: StabilityReport) -> tuple[NewtonForecast, ...]:
    measured, radii = {}, {}
    if report.exponents is not None:
        of_layers = zip(report.exponents.layers, report.exponents.exponents, strict=True)
        measured = {name: values[0] for name, values in of_layers}
    if report.radius_kind == "spectral":
        rows = [row for row in report.transitions if row.kind == "time"]
        radii = {row.name.removesuffix(".time"): row.radius for row in rows}
    return forecasts(model, report.steps, measured, radii)


def transitions_or_why(
    model: keras.Model, rows: list[np.ndarray], structure: Any
) -> tuple[Transitions | None, str]:
    """The transitions of a model, or None, and why it has no radii.

    Args:
        model: a built model of any kind.
        rows: a few sequences, one array an input, flat.
        structure: a nest of the inputs that the model takes.
    """
    try:
        found = transitions_of(model, rows, structure)
    except (TypeError, ValueError) as error:
        return None, str(error)
    return (found if found.transitions else None), NO_RADII


def _without_transitions(
    found: Transitions, has_gradient: bool, seed: int, samples: int
) -> StabilityReport:
    """The report of a model in which no recurrent layer was seen to run.

    Raises:
        ValueError: there are no energies to report either.
    """
    name = found.model.name
    if not has_gradient:
        raise ValueError(f"Model {name!r} has no radii: {'; '.join([NO_RADII, *found.unseen])}.")
    report = StabilityReport.without_radii(name, NO_RADII, seed, samples)
    return replace(report, unseen=_unseen(found))


def _unseen(found: Transitions) -> tuple[str, ...]:
    return (*([found.no_depth] if found.no_depth else []), *found.unseen)
