"""What a diagnosis says, on a page."""

import html
import math
from dataclasses import dataclass
from typing import Any

from keras_lsc import plot
from keras_lsc.diagnosis import thresholds
from keras_lsc.diagnosis.checkup import Checkup
from keras_lsc.diagnosis.findings import Finding
from keras_lsc.diagnosis.trial import RateTrial
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.stability.tables import html_table, text_table

HEADER = ("layer", "rms", "constant", "saturated", "gradient", "forward")


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a network, and the numbers that tell.

    Attributes:
        model: name of the model.
        findings: Tuple of `Finding`, causes first; empty where nothing is wrong.
        checkup: `Checkup`, activity and gradient of every layer; None where there are none.
        forward: energy of a small difference at every layer over that at the first, or None.
        trial: `RateTrial` of the learning rate; None without targets or an optimizer.
        report: `StabilityReport` of the radii; None where they were not wanted, or not to be had.
        unseen: what could not be looked at and why, a sentence each.
    """

    model: str
    findings: tuple[Finding, ...]
    checkup: Checkup | None = None
    forward: tuple[float, ...] | None = None
    trial: RateTrial | None = None
    report: StabilityReport | None = None
    unseen: tuple[str, ...] = ()

    @property
    def kind(self) -> str | None:
        """The kind of the first finding; None where nothing is wrong."""
        return self.findings[0].kind if self.findings else None

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """What is to be said first."""
        if self.findings:
            return str(self.findings[0])
        if self._energy_sum < thresholds.WEAK_STEPS:
            advice = (
                "Steps in time and depth keep little of a gradient, though: keras_lsc.stabilize("
                "model, x) helped all such networks in this project's experiments."
            )
        else:
            advice = (
                "Leave this start alone; if it does not learn, look at the data, the loss and the "
                "metric."
            )
        return (
            "healthy: signals and gradients arrive at every layer and no unit is stuck. " + advice
        )

    @property
    def _energy_sum(self) -> float:
        """That of the report; infinite where there is none."""
        found = None if self.report is None else self.report.energy_sum
        return math.inf if found is None or math.isnan(found) else found

    @property
    def gradient(self) -> GradientEnergies | None:
        """The energies of the gradient at the layers below the head, or None."""
        if self.checkup is None or not self.checkup.stages:
            return None
        energies = tuple(layer.energy for layer in self.checkup.stages)
        names = tuple(layer.name for layer in self.checkup.stages)
        return GradientEnergies(names, energies, (None,) * len(names), self.checkup.sequences)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table as texts, in the order of `HEADER`."""
        if self.checkup is None:
            return []
        top = self.gradient.energies[-1] if self.gradient else math.nan
        forward = self.forward or (math.nan,) * len(self.checkup.layers)
        return [
            (
                layer.name,
                f"{layer.rms:.3g}",
                f"{layer.constant:.0%}",
                "-" if layer.saturated is None else f"{layer.saturated:.0%}",
                f"{layer.energy / top:.3g}" if top > 0 else "-",
                "-" if math.isnan(difference) else f"{difference:.3g}",
            )
            for layer, difference in zip(self.checkup.layers, forward, strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """What is to be said below the table, a sentence each."""
        notes = []
        if self.checkup is not None:
            notes.append(
                "rms and share of constant units and of saturated outputs; energy of the gradient "
                "over that at the top layer, and of a small difference over that at the first"
            )
            if self.checkup.memory is not None:
                notes.append(
                    f"memory: the last {self.checkup.memory:.0f} of {self.checkup.steps:.0f} steps "
                    "hold 99 % of the gradient of the last output"
                )
        if self.trial is not None:
            notes.append(_of_trial(self.trial))
        if self.report is not None:
            notes.extend(note for note in self.report.notes if note.startswith("! "))
        if math.isfinite(self._energy_sum):
            share = next(share for most, share in thresholds.HELPED if self._energy_sum < most)
            notes.append(
                f"gain_t^2 + gain_l^2 is {self._energy_sum:.2f} (1 keeps a gradient): stabilizing "
                f"helped {share} of such networks in this project's experiments"
            )
        return [*notes, *(f"not looked at: {what}" for what in self.unseen)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the diagnosis as a dictionary of JSON types."""
        return {
            "model": self.model,
            "kind": self.kind,
            "verdict": self.verdict,
            "findings": [finding.to_dict() for finding in self.findings],
            "layers": [dict(zip(HEADER, row, strict=True)) for row in self.rows],
            "memory": None if self.checkup is None else self.checkup.memory,
            "steps": None if self.checkup is None else self.checkup.steps,
            "learning_rate": None if self.trial is None else vars(self.trial),
            "report": None if self.report is None else self.report.to_dict(),
            "unseen": list(self.unseen),
        }

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.findings:
            lines.append(f"  because: {self.findings[0].evidence}")
        for finding in self.findings[1:]:
            lines.append(f"also {finding}")
        if self.rows:
            lines.extend(["", text_table(HEADER, self.rows, 1)])
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        """The same as a page of a notebook."""
        parts = [f"<p><b>{html.escape(self.verdict)}</b></p>"]
        if self.findings:
            parts.append(f"<p>because: {html.escape(self.findings[0].evidence)}</p>")
        for finding in self.findings[1:]:
            parts.append(f"<p>{html.escape(f'also {finding}')}</p>")
        if self.rows:
            parts.append(html_table(self.model, HEADER, self.rows, 1))
        notes = "<br>".join(html.escape(note) for note in self.notes)
        return "".join([*parts, f"<p>{notes}</p>"])

    def plot(self, ax: Any = None) -> Any:
        """Draws the energy of the gradient at every layer, with `keras_lsc.plot.energies`.

        Args:
            ax: matplotlib `Axes` to draw on; a new figure without it.

        Returns:
            The matplotlib `Axes`.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: nothing was measured, as of a network with weights that are no numbers.
        """
        if self.gradient is None:
            raise ValueError(f"There is no gradient to draw: {self.verdict}")
        return plot.energies({self.model: self.gradient}, ax=ax)


def _of_trial(trial: RateTrial) -> str:
    if trial.holds is None:
        return f"learning rate: the loss grows at every one tried, down to {trial.fails:.3g}"
    limit = (
        f"{trial.fails:.3g} does not" if trial.fails is not None else "and no larger one was tried"
    )
    return f"learning rate {trial.rate:.3g}: in a few steps {trial.holds:.3g} holds, {limit}"
