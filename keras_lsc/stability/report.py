"""What was measured: radii and gains of every transition, as table, dictionary and picture."""

import html
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from keras_lsc import plot
from keras_lsc.stability.forecast import NewtonForecast
from keras_lsc.stability.lyapunov import LYAPUNOV_HEADER, LyapunovExponents
from keras_lsc.stability.tables import html_table, text_table
from keras_lsc.stability.targets import Target, resolve

OUTLIER_ISOTROPY = 0.5
HEADER = ("transition", "of", "shape", "radius", "std", "gain", "isotropy")
GRADIENT_HEADER = ("layer", "energy", "reach", "forward")
# The columns of words; those of numbers stand to the right.
_TEXTS = 3
_OPTIONAL = ("gradient", "exponents", "unmeasured", "unseen", "not_levelled", "chosen", "newton")
_KEPT = "gradients are kept"
# What the energy sum says, below its largest value.
_ENERGY_MEANS = (
    (0.25, "gradients vanish fast, stabilize before training"),
    (0.5, "gradients vanish, stabilizing may help"),
    (2.0, _KEPT),
    (math.inf, "gradients grow"),
)
# Of largest and smallest energy, below which the gradient that was measured is even.
_EVEN = 3.0
# Outside of these a neuron's spikes say next to nothing about its input.
SILENT_RATE, SATURATED_RATE = 0.001, 0.95


@dataclass(frozen=True)
class TransitionStatistics:
    """One transition over the sample points.

    Attributes:
        name: `layer.kind`, unique in the model: of a layer that is called again, or of another of
            that name, `layer.kind[2]`, ...
        kind: "time", "depth" or "input".
        layer: index of the layer, from 0.
        state: What is differentiated: "state 64+64", "output".
        shape: `(n_out, n_in)` of the Jacobian.
        radius: mean radius.
        radius_std: standard deviation of the radius over the points.
        gain: root mean square gain.
        uncertain: number of points whose radius is an estimate that nothing vouches for.
    """

    name: str
    kind: str
    layer: int
    state: str
    shape: tuple[int, int]
    radius: float
    radius_std: float
    gain: float
    uncertain: int = 0

    @property
    def isotropy(self) -> float:
        """gain/radius: 1 for a spectrum that fills its disc, small where one outlier leads.

        NaN for rectangular transitions, whose radius is their gain, and for a zero radius.
        """
        if self.shape[0] != self.shape[1] or self.radius == 0.0:
            return float("nan")
        return self.gain / self.radius


@dataclass(frozen=True)
class GradientEnergies:
    """The energy of a gradient by what every layer gives out.

    Attributes:
        layers: names of the layers in the order of their calls; of one that is called again also
            "name[2]", ...
        energies: squared gradient, summed over steps and units, mean over sequences.
        reaches: share of the energy from the first quarter of the steps; None for outputs without
            an axis of steps, and where the gradient is zero.
        sequences: number of sequences.
        forward: energy of a small difference, a random one of what the first layers give out, by
            what every layer gives out, over that at the first layers; 0 where it is lost in
            rounding. None if it was not measured.
    """

    layers: tuple[str, ...]
    energies: tuple[float, ...]
    reaches: tuple[float | None, ...]
    sequences: int
    forward: tuple[float, ...] | None = None

    @property
    def energy(self) -> np.ndarray:
        """Energies over that of the last layer, `(L,)`."""
        values = np.asarray(self.energies)
        return values / values[-1] if values[-1] > 0 else np.full(len(values), np.nan)

    @property
    def reach(self) -> np.ndarray:
        """Share of the energy from the first quarter of the steps, `(L,)`; 0.25 if it is even.

        NaN where there is none.
        """
        return np.array([np.nan if reach is None else reach for reach in self.reaches])

    @property
    def spread(self) -> float:
        """Largest energy over the smallest; infinite where a gradient is zero."""
        values = np.asarray(self.energies)
        return float(values.max() / values.min()) if values.min() > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Returns the energies as a dictionary of JSON types."""
        return {
            "layers": list(self.layers),
            "energies": list(self.energies),
            "reaches": list(self.reaches),
            "sequences": self.sequences,
            "forward": None if self.forward is None else list(self.forward),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GradientEnergies":
        """Returns the energies of which `values` is the dictionary, as `to_dict` gives it."""
        layers, energies, reaches = (tuple(values[n]) for n in ("layers", "energies", "reaches"))
        forward = values.get("forward")
        return cls(
            layers,
            energies,
            reaches,
            values["sequences"],
            None if forward is None else tuple(forward),
        )

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table as texts, in the order of `GRADIENT_HEADER`."""
        forward = ("-",) * len(self.layers)
        if self.forward is not None:
            forward = tuple(f"{energy:.3g}" for energy in self.forward)
        return [
            (name, f"{energy:.3g}", "-" if math.isnan(reach) else f"{reach:.2f}", difference)
            for name, energy, reach, difference in zip(
                self.layers, self.energy, self.reach, forward, strict=True
            )
        ]

    @property
    def note(self) -> str:
        """What is to be said below the table."""
        return (
            "energy of the gradient over that at the last layer, the share of it from the first "
            "quarter of the steps, and energy of a small difference over that at the first layer, "
            f"mean over {self.sequences} sequences"
        )

    def __str__(self) -> str:
        return f"{text_table(GRADIENT_HEADER, self.rows, 1)}\n{self.note}"

    def _repr_html_(self) -> str:
        table = html_table("gradient", GRADIENT_HEADER, self.rows, 1)
        return f"{table}<p>{html.escape(self.note)}</p>"


@dataclass(frozen=True)
class StabilityReport:
    """Radii and gains of a network's transitions at random points of its inputs.

    Attributes:
        model: name of the model.
        transitions: Tuple of `TransitionStatistics`.
        layers: number of layers L.
        steps: number of time steps T; 0 for feed-forward networks.
        samples: number of sample points.
        seed: Integer, seed of the draw of the points.
        radius_kind: "spectral", "rms" or "norm".
        firing_rates: mean spikes a step and neuron of every spiking layer, by name; of a layer
            that is called again also as "name[2]", ...
        gradient: `GradientEnergies` of the layers below the head; None where it was not measured.
        exponents: `LyapunovExponents` of the recurrent layers, what many steps do; None where they
            were not asked for.
        unmeasured: why there are no transitions, where radii cannot be measured; else None.
        not_levelled: layers whose scale levelling left, because it is frozen or not known.
        chosen: what method "auto" did, and why; None of other methods.
        unseen: of a model that was watched, what there may be and could not be looked at, a
            sentence each.
        newton: a `NewtonForecast` of every layer that Newton's method may solve: how many
            iterations to expect.
    """

    model: str
    transitions: tuple[TransitionStatistics, ...]
    layers: int
    steps: int
    samples: int
    seed: int
    radius_kind: str = "spectral"
    firing_rates: Mapping[str, float] = field(default_factory=dict)
    gradient: GradientEnergies | None = None
    exponents: LyapunovExponents | None = None
    unmeasured: str | None = None
    not_levelled: tuple[str, ...] = ()
    chosen: str | None = None
    unseen: tuple[str, ...] = ()
    newton: tuple[NewtonForecast, ...] = ()

    @classmethod
    def without_radii(cls, model: str, why: str, seed: int, samples: int = 0) -> "StabilityReport":
        """A report that says why it has no radii.

        Args:
            model: name of the model.
            why: there are none.
            seed: of what else was measured.
            samples: points that were asked for.
        """
        return cls(model, (), layers=0, steps=0, samples=samples, seed=seed, unmeasured=why)

    @property
    def energy(self) -> np.ndarray | None:
        """Energy of the gradient at every layer over that of the last, `(L,)`, or None.

        The gradient of a random functional of what the head reads, by what each layer gives out,
        summed over steps and units: 1 everywhere where it neither vanishes nor explodes with depth.
        """
        return None if self.gradient is None else self.gradient.energy

    @property
    def reach(self) -> np.ndarray | None:
        """Share of that energy from the first quarter of the steps, `(L,)`, or None."""
        return None if self.gradient is None else self.gradient.reach

    @property
    def time(self) -> np.ndarray:
        """Mean radius in time of every recurrent layer, `(L,)`; empty for feed-forward models."""
        return self.per_layer("time") if self.steps else np.zeros(0)

    @property
    def depth(self) -> np.ndarray:
        """Mean radius in depth of every layer, `(L,)`; NaN where only an input lies below."""
        return self.per_layer("depth")

    @property
    def input(self) -> float | None:
        """Mean radius of the input transition(s), or None where there is none."""
        radii = [row.radius for row in self.transitions if row.kind == "input"]
        return float(np.mean(radii)) if radii else None

    def per_layer(self, kind: str, figure: Literal["radius", "gain"] = "radius") -> np.ndarray:
        """Mean radius or gain of every layer's transitions of one kind.

        Args:
            kind: "time", "depth" or "input".
            figure: "radius" or "gain".

        Returns:
            `(L,)` floats, NaN for a layer without such a transition.
        """
        values = np.full(self.layers, np.nan)
        for layer in range(self.layers):
            rows = [row for row in self.transitions if row.layer == layer and row.kind == kind]
            if rows:
                values[layer] = np.mean([getattr(row, figure) for row in rows])
        return values

    def wanted(self, target: Target) -> dict[str, float]:
        """The radii that a target asks of this network, by the kind of the transition."""
        rho_time, rho_depth = resolve(target, self.layers, self.steps)
        return {"time": rho_time, "depth": rho_depth}

    def deviations(self, target: Target) -> dict[str, float]:
        """|mean radius - target| of every transition in time and depth, by name."""
        wanted = self.wanted(target)
        return {
            row.name: abs(row.radius - wanted[row.kind])
            for row in self.transitions
            if row.kind in wanted
        }

    def max_deviation(self, target: Target) -> float:
        """Largest |mean radius - target| over the transitions in time and depth.

        Args:
            target: Target, as `LSCPretrainer` takes it.

        Returns:
            A float; NaN if a radius is NaN.

        Raises:
            ValueError: the target is no target, or the network has no trained transition.
        """
        deviations = list(self.deviations(target).values())
        if not deviations:
            raise ValueError(
                f"Model {self.model!r} has only input transitions, which have no target."
            )
        return float(np.max(deviations))

    def samples_for(self, standard_error: float) -> int:
        """Number of points at which every mean radius in time and depth is known so closely.

        Args:
            standard_error: Standard error of a mean radius.

        Returns:
            (largest standard deviation of a radius / standard error)^2, rounded up.

        Example:
            >>> row = TransitionStatistics("a.time", "time", 0, "state 8", (8, 8), 0.7, 0.2, 0.7)
            >>> StabilityReport("net", (row,), 1, 20, 64, 0, "spectral").samples_for(0.01)
            400
        """
        spread = max((row.radius_std for row in self.transitions if row.kind != "input"), default=0)
        return math.ceil(round((spread / standard_error) ** 2, 6))

    @property
    def outliers(self) -> list[TransitionStatistics]:
        """Transitions whose radius is led by an outlier of the spectrum: isotropy below 0.5."""
        return [row for row in self.transitions if row.isotropy < OUTLIER_ISOTROPY]

    @property
    def non_finite(self) -> list[TransitionStatistics]:
        """Transitions whose radius or gain is NaN or infinite."""
        figures = ((row, (row.radius, row.radius_std, row.gain)) for row in self.transitions)
        return [row for row, values in figures if not np.isfinite(values).all()]

    @property
    def silent_or_saturated(self) -> dict[str, float]:
        """Firing rates below 0.001 or above 0.95 of spiking layers, by name."""
        rates = self.firing_rates.items()
        return {name: r for name, r in rates if not SILENT_RATE <= r <= SATURATED_RATE}

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a dictionary of JSON types."""
        rows = []
        for row in self.transitions:
            isotropy = None if np.isnan(row.isotropy) else row.isotropy
            rows.append({**asdict(row), "shape": list(row.shape), "isotropy": isotropy})
        content = {
            **asdict(self),
            "transitions": rows,
            "gradient": None if self.gradient is None else self.gradient.to_dict(),
            "exponents": None if self.exponents is None else self.exponents.to_dict(),
            "not_levelled": list(self.not_levelled),
            "unseen": list(self.unseen),
            "newton": [asdict(forecast) for forecast in self.newton],
        }
        # Of what was not measured a report says nothing.
        return {name: value for name, value in content.items() if value or name not in _OPTIONAL}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StabilityReport":
        """Returns the report of which `values` is the dictionary, as `to_dict` gives it."""
        rows = []
        for row in values["transitions"]:
            given = {name: value for name, value in row.items() if name != "isotropy"}
            rows.append(TransitionStatistics(**{**given, "shape": tuple(row["shape"])}))
        gradient = values.get("gradient")
        if gradient is not None:
            gradient = GradientEnergies.from_dict(gradient)
        exponents = values.get("exponents")
        parts = {
            "transitions": tuple(rows),
            "gradient": gradient,
            "exponents": None if exponents is None else LyapunovExponents.from_dict(exponents),
            "not_levelled": tuple(values.get("not_levelled", ())),
            "unseen": tuple(values.get("unseen", ())),
            "newton": tuple(NewtonForecast(**row) for row in values.get("newton", ())),
        }
        return cls(**{**values, **parts})

    def __str__(self) -> str:
        parts = [text_table(HEADER, self.rows, _TEXTS)] if self.transitions else []
        if self.gradient is not None:
            parts.append(text_table(GRADIENT_HEADER, self.gradient.rows, 1))
        if self.exponents is not None:
            parts.append(text_table(LYAPUNOV_HEADER, self.exponents.rows, 1))
        return "\n".join([*parts, *self.notes])

    def _repr_html_(self) -> str:
        """The same as tables of a notebook."""
        tables = html_table(self.model, HEADER, self.rows, _TEXTS) if self.transitions else ""
        if self.gradient is not None:
            tables += html_table("gradient", GRADIENT_HEADER, self.gradient.rows, 1)
        if self.exponents is not None:
            tables += html_table("exponents", LYAPUNOV_HEADER, self.exponents.rows, 1)
        notes = "<br>".join(html.escape(note) for note in self.notes)
        return f"{tables}<p>{notes}</p>"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table of the transitions as texts, in the order of `HEADER`."""
        lines: list[tuple[str, ...]] = []
        for row in self.transitions:
            isotropy = "-" if np.isnan(row.isotropy) else f"{row.isotropy:.2f}"
            flag = " !" if row.isotropy < OUTLIER_ISOTROPY else ""
            lines.append(
                (
                    row.name,
                    row.state,
                    f"{row.shape[0]}x{row.shape[1]}",
                    f"{row.radius:.3f}",
                    f"{row.radius_std:.3f}",
                    f"{row.gain:.3f}",
                    isotropy + flag,
                )
            )
        return lines

    @property
    def energy_sum(self) -> float | None:
        """gain_t^2 + gain_l^2, mean gains in time and in depth: 1 keeps a gradient's energy.

        Of a network's default start it tells beforehand whether pre-training is worth trying: in
        the experiments it helped all networks below 0.25, a third of those from 0.25 to 0.5, and
        one in sixteen above.

        Returns:
            A float; None for a network without transitions in both time and depth.

        Source: the energy law of `keras_lsc.stability.theory.propagate`.
        """
        gains = [
            [row.gain for row in self.transitions if row.kind == kind] for kind in ("time", "depth")
        ]
        if not all(gains):
            return None
        return float(sum(np.mean(of_kind) ** 2 for of_kind in gains))

    @property
    def notes(self) -> list[str]:
        """What is to be said below a table of the transitions, a sentence each."""
        notes = []
        if self.transitions:
            kind, points = self.radius_kind, self.samples
            notes.append(f"{kind} radius, mean over {points} points, seed {self.seed}")
        if self.unmeasured is not None:
            notes.append(f"no radii: {self.unmeasured}")
        notes.extend(f"not seen: {what}" for what in self.unseen)
        if self.gradient is not None:
            notes.append(self.gradient.note)
        if self.exponents is not None:
            notes.extend(note for note in self.exponents.notes if note not in notes)
        notes.extend(forecast.note for forecast in self.newton)
        if self.chosen is not None:
            notes.append(self.chosen)
        if self.not_levelled:
            notes.append(
                f"not levelled, frozen or of unknown weights: {', '.join(self.not_levelled)}"
            )
        energy = self.energy_sum
        if energy is not None and math.isfinite(energy):
            meaning = next(text for most, text in _ENERGY_MEANS if energy < most)
            is_even = self.gradient is not None and self.gradient.spread < _EVEN
            if is_even and meaning != _KEPT:
                meaning = "a law of single steps, but the gradient itself is even"
            notes.append(f"gain_t^2 + gain_l^2 is {energy:.2f} (1 keeps a gradient): {meaning}")
        if self.outliers:
            notes.append(
                "! isotropy below 0.5: the radius is that of an outlier, not of the spectrum"
            )
        uncertain = [row.name for row in self.transitions if row.uncertain]
        if uncertain:
            notes.append(f"estimates, too large to be computed exactly: {', '.join(uncertain)}")
        if self.non_finite:
            names = ", ".join(row.name for row in self.non_finite)
            notes.append(f"not finite, states or derivatives overflow: {names}")
        if self.firing_rates:
            rates = ", ".join(f"{name} {rate:.4f}" for name, rate in self.firing_rates.items())
            notes.append(f"firing rates: {rates}")
        return notes

    def plot(self, ax: Any = None, label: str | None = None) -> Any:
        """Draws radius and gain of every transition; `keras_lsc.plot.radii` compares two reports.

        Args:
            ax: matplotlib `Axes` to draw on; a new figure without it.
            label: name of this report in the legend.

        Returns:
            The matplotlib `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: `ax` holds the report of a network with other transitions.
        """
        kinds = [
            kind
            for kind in ("input", "time", "depth")
            if any(row.kind == kind for row in self.transitions)
        ]
        return plot.radii(self, ax=ax, labels=(label or "", ""), kinds=kinds)
