"""The tables of the report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from experiments.networks import INITIALIZATIONS
from experiments.statistics import Interval, mean
from experiments.summary import FAR_CORNER, LEAST_SEEDS, Network, Start
from keras_lsc import datasets

TARGETS = ("variance", "1", "0.5", "unbalanced", FAR_CORNER)
# Modes of pre-training, and what they add to the label of a start.
MODES = (("scales", ""), ("weights", ", weights"))
COMPARISONS = (
    ("0.5", "1"),
    ("0.5", "default"),
    ("1", "default"),
    ("variance", "default"),
    ("variance", "1"),
    ("variance", "0.5"),
    ("unbalanced", "default"),
    ("unbalanced", "variance"),
    (FAR_CORNER, "default"),
    (FAR_CORNER, "variance"),
    (FAR_CORNER, "1"),
    ("1", "glorot"),
    ("1", "he"),
    ("1", "orthogonal"),
)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def metric(network: Network, value: float) -> str:
    """A metric as it is read: accuracy in per cent, perplexity, squared error."""
    name = datasets.info(network.setting.dataset).metric
    return {"accuracy": f"{100 * value:.1f}", "perplexity": f"{value:.3f}"}.get(
        name, f"{value:.2g}"
    )


def difference(interval: Interval) -> str:
    """A paired difference; bold where its interval leaves out zero."""
    text = f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"**{text}**" if interval.is_above_zero or interval.is_below_zero else text


def share(interval: Interval) -> str:
    """A share in per cent with its interval."""
    return f"{100 * interval.value:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def labels_of(networks: Iterable[Network]) -> list[str]:
    """The starts that occur: initialisations, then mode "scales", "weights", other methods."""
    found = {
        start.label: start.setting for network in networks for start in network.starts.values()
    }

    def order(label: str) -> tuple[bool, bool, bool]:
        setting = found[label]
        return setting.method != "lsc", setting.target is not None, setting.mode == "weights"

    return sorted(found, key=order)


def cell(network: Network, start: Start | None) -> str:
    """One test metric: mean over seeds, half width of its interval, number of seeds."""
    if start is None:
        return ""
    if not start.reached:
        return f"not reached (0 of {len(start.seeds)})" if start.seeds else "unfinished"
    if start.learning_rate is None:
        return f"diverged (of {len(start.reached)})"
    values = list(start.test.values())
    middle = mean(values)
    if middle.count < LEAST_SEEDS:
        what = "reached" if len(start.seeds) >= LEAST_SEEDS else "unfinished"
        return f"_{metric(network, middle.value)} ({what}: {middle.count} of {LEAST_SEEDS})_"
    text = f"{metric(network, middle.value)} ± {metric(network, middle.high - middle.value)}"
    return f"{text} ({middle.count})"


def metrics_table(networks: list[Network]) -> str:
    """Test metric of every network from every start."""
    labels = labels_of(networks)
    rows = [
        [network.label, *(cell(network, network.starts.get(label)) for label in labels)]
        for network in networks
    ]
    return markdown(["network", *labels], rows)


def starts_table(networks: list[Network]) -> str:
    """Radius, gain and isotropy of every start, in time and in depth."""
    rows = []
    for network in networks:
        for label in labels_of([network]):
            start = network.starts[label]
            if not start.reached:
                continue
            figures = []
            for kind in ("time", "depth"):
                values = [start.start_figures(kind, f) for f in ("radius", "gain", "isotropy")]
                known = ["-" if value is None else f"{value:.2f}" for value in values]
                figures.append(" / ".join(known))
            steps = [row["training"]["updates_to_threshold"] for row in start.chosen_rows.values()]
            reached = sorted(step for step in steps if step is not None)
            within = f"{len(reached)} of {len(steps)}"
            if reached:
                within += f", {reached[len(reached) // 2]}"
            rates = start.learning_rates
            rate = "-" if start.learning_rate is None else f"{start.learning_rate:g}"
            if len(rates) > 1 and start.learning_rate in (rates[0], rates[-1]):
                rate += " *"
            rows.append(
                [network.label, label, *figures, rate, within if steps else "-", _seconds(start),
                 f"{len(start.reached)}"]
            )  # fmt: skip
    header = [
        "network",
        "start",
        "in time: radius / gain / isotropy",
        "in depth",
        "learning rate",
        "to threshold: seeds, median updates",
        "seconds: start, training",
        "seeds",
    ]
    return markdown(header, rows)


def _seconds(start: Start) -> str:
    """Medians over the seeds of what a start takes with its measurements, and of the training."""
    rows = list(start.chosen_rows.values())
    if not rows:
        return "-"
    before = median(row["start"]["seconds"] for row in rows)
    return f"{before:.1f}, {median(row['training']['seconds'] for row in rows):.1f}"


def differences_table(networks: list[Network], suffix: str) -> str:
    """Paired differences of the starts of one mode.

    Args:
        networks: of an experiment.
        suffix: "" for mode "scales", ", weights" for the other.
    """
    pairs = [
        pair
        for pair in COMPARISONS
        if any(network.compare(*in_mode(pair, suffix)) for network in networks)
    ]
    rows = []
    for network in networks:
        found = [network.compare(*in_mode(pair, suffix)) for pair in pairs]
        if any(found):
            rows.append([network.label, *(difference(i) if i else "" for i in found)])
    header = ["network", *(f"{a} minus {b}" for a, b in pairs)]
    return markdown(header, rows) if rows else ""


def in_mode(pair: tuple[str, str], suffix: str) -> tuple[str, str]:
    """The labels of a comparison in a mode; starts without pre-training have none."""
    first, second = (name if name in INITIALIZATIONS else name + suffix for name in pair)
    return first, second
