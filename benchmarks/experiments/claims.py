"""What the comparisons of all networks say together, in the form of the paper's summary."""

from __future__ import annotations

from benchmarks.experiments import statistics
from benchmarks.experiments.summary import Network
from benchmarks.experiments.tables import COMPARISONS, MODES, TARGETS, in_mode, markdown, share


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
    for target in TARGETS:
        found = [network.compare(target, f"{target}, weights") for network in networks]
        intervals = [interval for interval in found if interval is not None]
        if intervals:
            better = statistics.share(sum(i.value > 0 for i in intervals), len(intervals))
            clearly = sum(i.is_above_zero for i in intervals)
            worse = sum(i.is_below_zero for i in intervals)
            rows.append([target, str(len(intervals)), share(better), str(clearly), str(worse)])
    header = ["target", "settings", "scales beat weights", "clearly", "clearly worse"]
    return markdown(header, rows)
