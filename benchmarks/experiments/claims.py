"""What the comparisons say together: the paper's summary, and advice that follows by rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.experiments import statistics
from benchmarks.experiments.summary import LEAST_SEEDS, Network, Start
from benchmarks.experiments.tables import COMPARISONS, in_mode, markdown, share
from keras_lsc import datasets

MODES = (("scales", ""), ("weights", ", weights"))


def paper_form(networks: list[Network]) -> str:
    """In what share of settings one start beats another, per mode, with intervals."""
    rows = []
    for mode, suffix in MODES:
        for pair in COMPARISONS:
            found = [network.compare(*in_mode(pair, suffix)) for network in networks]
            intervals = [interval for interval in found if interval is not None]
            if not intervals:
                continue
            better = share(statistics.share(sum(i.value > 0 for i in intervals), len(intervals)))
            clearly = sum(i.is_above_zero for i in intervals)
            worse = sum(i.is_below_zero for i in intervals)
            rows.append(
                [f"{pair[0]} beats {pair[1]}", mode, str(len(intervals)), better, str(clearly),
                 str(worse)]
            )  # fmt: skip
    header = ["", "mode", "settings", "share", "clearly better", "clearly worse"]
    return markdown(header, rows)


def mode_comparison(networks: list[Network]) -> str:
    """For every target, in what share of settings mode "scales" beats mode "weights"."""
    rows = []
    for target in ("variance", "1", "0.5", "unbalanced"):
        found = [network.compare(target, f"{target}, weights") for network in networks]
        intervals = [interval for interval in found if interval is not None]
        if intervals:
            better = statistics.share(sum(i.value > 0 for i in intervals), len(intervals))
            clearly = sum(i.is_above_zero for i in intervals)
            worse = sum(i.is_below_zero for i in intervals)
            rows.append([target, str(len(intervals)), share(better), str(clearly), str(worse)])
    header = ["target", "settings", "scales beat weights", "clearly", "clearly worse"]
    return markdown(header, rows)


@dataclass(frozen=True)
class Verdict:
    """What one network says of pre-training.

    Attributes:
        network: of which it is said.
        best: label of the pre-trained start with the best validation metric.
        gain: paired difference of its test metric to that of the default start.
    """

    network: Network
    best: str
    gain: statistics.Interval

    @property
    def word(self) -> str:
        """ "helps", "hurts", or "makes no clear difference"."""
        if self.gain.is_above_zero:
            return "helps"
        return "hurts" if self.gain.is_below_zero else "makes no clear difference"


def verdicts(networks: Iterable[Network]) -> list[Verdict]:
    """One verdict a network: the target is chosen on validation, the gain is of the test split."""
    found = []
    for network in networks:
        rivals = [s for s in network.starts.values() if s.setting.target and s.is_finished]
        if not rivals or "default" not in network.starts:
            continue
        best = max(rivals, key=_mean_validation)
        gain = network.compare(best.label, "default")
        if gain is not None:
            found.append(Verdict(network, best.label, gain))
    return found


def _mean_validation(start: Start) -> float:
    return float(np.mean([start.gain_of(value) for value in start.validation.values()]))


def verdict_table(found: list[Verdict]) -> str:
    """The verdicts, one a line."""
    rows = []
    for verdict in found:
        gain = verdict.gain
        rows.append(
            [
                verdict.network.label,
                verdict.best,
                f"{gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] {_unit(verdict.network)}",
                verdict.word,
                str(gain.count),
            ]
        )
    header = ["network", "best pre-trained start", "test, minus default", "pre-training", "seeds"]
    return markdown(header, rows)


def advice(found: list[Verdict]) -> str:
    """One paragraph for users, made of the verdicts by rule."""
    if not found:
        return f"No network has {LEAST_SEEDS} seeds of both starts yet, so there is no advice."
    by_cell: dict[str, list[Verdict]] = {}
    for verdict in found:
        by_cell.setdefault(verdict.network.setting.cell, []).append(verdict)
    sentences = []
    for cell, of_cell in sorted(by_cell.items()):
        for word, sentence in (
            ("helps", "pre-train {cell} networks of {networks}"),
            ("makes no clear difference", "for {cell} of {networks} pre-training changes little"),
            ("hurts", "leave {cell} of {networks} as they start"),
        ):
            chosen = [verdict for verdict in of_cell if verdict.word == word]
            if chosen:
                listed = "; ".join(_place(verdict) for verdict in chosen)
                sentences.append(sentence.format(cell=cell, networks=listed))
    counts = {
        word: sum(verdict.word == word for verdict in found)
        for word in ("helps", "makes no clear difference", "hurts")
    }
    text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    return (
        f"The best pre-trained start, its target chosen on validation, is clearly better than the "
        f"default one on {counts['helps']} of {len(found)} networks, clearly worse on "
        f"{counts['hurts']}, and neither on {counts['makes no clear difference']}. {text}. In "
        "brackets: the start with the best validation, and the gain in test metric "
        "(accuracy in points, perplexity and squared error in logarithms). Elsewhere "
        "measure first; no claim reaches further than the sizes and budgets above."
    )


def _place(verdict: Verdict) -> str:
    setting = verdict.network.setting
    label = verdict.network.label.removeprefix(f"{setting.cell} ")
    depth, _, task = label.partition(", ")
    layers = depth.split("x")[0]
    return f"depth {layers} on {task} ({verdict.best}: {verdict.gain.value:+.2f})"


def _unit(network: Network) -> str:
    name = datasets.info(network.setting.dataset).metric
    return {"accuracy": "points"}.get(name, f"log {name.replace('_', ' ')}")
