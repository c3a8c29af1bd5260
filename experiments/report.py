"""Writes RESULTS.md, DETAILS.md, their pictures and index of lines from the stored runs alone,
and the table "When does it help?" into the README.

    python -m experiments.report [--check]

Every figure of the tables is found again in `results/trace.json`: experiment, network and start
lead to the learning rate that was chosen and to the line of each seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from experiments import (
    advice,
    aggregate,
    blind,
    defaults,
    energies,
    findings,
    flossing,
    memory_length,
    methods,
    missing,
    optimum,
    peers,
    sparsity,
    storage,
    tables,
    timescales,
)
from experiments.settings import (
    FOLDER,
    Experiment,
    experiment_names,
    read_experiment,
)
from experiments.summary import LEAST_SEEDS, Network, networks

# The order of the report; whatever else there is follows.
_ORDER = ("recurrent", "targets", "lstm", "feed_forward", "state_space", "long_dependencies")
_README = FOLDER.parent / "README.md"
_BEGIN, _END = "<!-- experiments:begin -->", "<!-- experiments:end -->"
# More starts than that are counted where they lack seeds, and not named.
_MOST_NAMED = 60
# A rank correlation takes more networks than that.
_LEAST_CORRELATED = 5
# Those with a runner of their own.
_RUNNERS = (timescales, sparsity, defaults, flossing, blind)
# Experiments whose starts are the paper's: what the summary and the advice rest on.
_COMPARED = ("recurrent", "feed_forward", "state_space", "long_dependencies")


def write_report(folder: Path = FOLDER, check: bool = False) -> bool:
    """Writes the report of a folder of experiments.

    Args:
        folder: with the TOML files and `results`.
        check: only compare with what is written.

    Returns:
        Whether texts and index were the same as before.
    """
    found = read_networks(folder)
    others = {module: read_runs(module, folder) for module in _RUNNERS}
    experiments = {name: read_experiment(folder / f"{name}.toml") for name in found}
    contents = {
        folder / "RESULTS.md": _results(experiments, found, others, folder == FOLDER),
        folder / "DETAILS.md": _details(experiments, found),
        folder / "results" / "trace.json": json.dumps(trace(found), indent=1) + "\n",
    }
    if folder == FOLDER:
        contents[_README] = _with_summary(_README.read_text(encoding="utf-8"), found)
    if not check:
        draw(found, others[timescales], others[defaults], folder / "figures")
    same = True
    for path, content in contents.items():
        same = same and path.exists() and path.read_text(encoding="utf-8") == content
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
    return same


def read_networks(folder: Path = FOLDER) -> dict[str, list[Network]]:
    """The networks of every experiment of a folder, in the order of the report."""
    return {
        name: networks(storage.read_rows(folder / "results" / f"{name}.jsonl"))
        for name in _ordered(experiment_names(folder))
    }


def read_runs(module: Any, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The runs of a folder that a module with a runner of its own has made."""
    return storage.read_rows(folder / "results" / module.FOLDER.name / f"{missing.NAME}.jsonl")


def _with_summary(readme: str, found: dict[str, list[Network]]) -> str:
    """The README with the table of the experiments between its marks."""
    before, rest = readme.split(_BEGIN)
    _, after = rest.split(_END)
    table = advice.short_range_table(advice.verdicts(compared(found)))
    return f"{before}{_BEGIN}\n\n{table.strip()}\n\n{_END}{after}"


def trace(found: dict[str, list[Network]]) -> dict[str, Any]:
    """From experiment, network and start to the lines behind the figures."""
    index: dict[str, Any] = {}
    for name, members in found.items():
        for network in members:
            for start in network.starts.values():
                rows = start.chosen_rows or {
                    seed: start.rows[start.learning_rates[0], seed] for seed in start.seeds
                }
                index.setdefault(name, {}).setdefault(network.label, {})[start.label] = {
                    "learning_rate": start.learning_rate,
                    "lines": {
                        str(seed): f"results/{name}.jsonl:{row['line']}"
                        for seed, row in sorted(rows.items())
                    },
                }
    return index


def draw(
    found: dict[str, list[Network]],
    constants: list[dict[str, Any]],
    drawn: list[dict[str, Any]],
    folder: Path,
) -> None:
    """Draws every picture there is data for."""
    # matplotlib is needed by no other part of the report.
    from experiments import pictures

    pictures.theory(folder / "theory.png")
    pictures.time_constants(constants, folder / f"{_TIMESCALES}.png")
    pictures.default_starts(drawn, folder / f"{_DEFAULTS}.png")
    pictures.when_it_helps(advice.verdicts(compared(found)), folder / f"{_WHEN_IT_HELPS}.png")
    for name, members in found.items():
        if name == "gradients":
            pictures.gradient_grids(members, folder / "gradients.png")
            pictures.gradients_by_depth(members, folder / f"{_BY_DEPTH}.png")
        elif name == "targets":
            pictures.target_sweep(members, folder / "targets.png")
        elif name == "long_dependencies":
            pictures.solved_by_length(members, folder / "long_dependencies.png")
        elif name == "methods":
            pictures.methods_compared(members, folder / "methods.png")
        else:
            pictures.starts_compared(members, folder / f"{name}.png")


def _ordered(names: list[str]) -> list[str]:
    first = [name for name in _ORDER if name in names]
    return first + [name for name in names if name not in first]


def compared(found: dict[str, list[Network]]) -> list[Network]:
    """The networks that the summary and the advice rest on."""
    return [network for name in _COMPARED for network in found.get(name, [])]


def _results(
    experiments: dict[str, Experiment],
    found: dict[str, list[Network]],
    others: dict[Any, list[dict[str, Any]]],
    is_ours: bool,
) -> str:
    parts = [_head(found), _short(found, is_ours)]
    if others[defaults]:
        parts += [_DEFAULT_STARTS, findings.DEFAULTS if is_ours else "", _picture(_DEFAULTS)]
        parts += [defaults.table(others[defaults])]
    parts += [_section(experiments[name], found[name]) for name in found]
    if others[timescales]:
        parts += [_TIME_CONSTANTS, findings.TIMESCALES if is_ours else "", _picture(_TIMESCALES)]
        parts += [timescales.table(others[timescales])]
    if others[sparsity]:
        parts += [_SPARSITY, findings.SPARSITY if is_ours else ""]
        parts += [sparsity.table(others[sparsity])]
    if others[flossing]:
        parts += [_FLOSSING, findings.FLOSSING if is_ours else ""]
        parts += [flossing.table(others[flossing])]
    if chosen := blind.choices(others[blind], found):
        parts += [_BLIND, findings.BLIND if is_ours else "", blind.table(chosen)]
    parts += [_THEORY, _missing(experiments, found)]
    return _joined(parts)


def _details(experiments: dict[str, Experiment], found: dict[str, list[Network]]) -> str:
    parts = [_DETAILS_HEAD]
    parts += [_detailed_section(experiments[name], found[name]) for name in found]
    return _joined(parts)


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _head(found: dict[str, list[Network]]) -> str:
    rows = [
        row
        for members in found.values()
        for network in members
        for start in network.starts.values()
        for row in start.rows.values()
    ]
    status = Counter(row["status"] for row in rows)
    versions = sorted(
        {
            f"{r['environment']['backend']} {r['environment']['backend_version']} with Keras "
            f"{r['environment']['keras']}"
            for r in rows
        }
    )
    starts = {(r["start"]["seconds"], json.dumps(r["start"]["radii"])) for r in rows
              if "radii" in r["start"]}  # fmt: skip
    hours = sum(row.get("training", {}).get("seconds", 0) for row in rows)
    hours += sum(seconds for seconds, _ in starts)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(status.items())) or "none"
    made_with = "; ".join(versions) or "no backend"
    return f"""
# Does it help?

Generated by `make report` from the runs in `experiments/results`; do not edit. Runs:
{counts}; {hours / 3600:.1f} hours of pre-training and training by the clock (on a
shared machine); {made_with}.

{_HOW_TO_READ}"""


def _short(found: dict[str, list[Network]], is_ours: bool) -> str:
    networks_compared = compared(found)
    said = advice.verdicts(networks_compared)
    parts = ["## In short", "### Advice"]
    if is_ours:
        parts += [findings.SUMMARY, findings.BY_CELL, findings.BEST_TARGET, findings.CLOSING]
        parts += [findings.BEFOREHAND, findings.LEVELLED]
    if said:
        parts += [_RANGE_NOTE, advice.range_table(said), advice.cell_table(said)]
        parts += [_CORRELATION_NOTE, advice.depth_table(said), _correlations(found, said)]
        parts += [optimum.nearer_target_table(networks_compared)]
        parts += [_VERDICT_NOTE, _picture(_WHEN_IT_HELPS), advice.verdict_table(said)]
    else:
        parts += [f"No network has {LEAST_SEEDS} seeds of both starts yet, so there is no advice."]
    parts += ["### The paper's summary", _SUMMARY_NOTE, aggregate.paper_form(networks_compared)]
    parts += ["### Scales or weights", aggregate.mode_comparison(networks_compared)]
    return _joined(parts)


def _correlations(found: dict[str, list[Network]], said: list[advice.Verdict]) -> str:
    """Whether what is known beforehand goes with what training finds."""
    known = [verdict for verdict in said if verdict.energy_sum is not None]
    correlations = {
        "distance of the energy sum from 1, fall of the test error": (
            advice.distance_correlation(known) if len(known) > _LEAST_CORRELATED else None
        ),
        "far-corner radius, best target of the sweep": optimum.corner_correlation(
            found.get("targets", [])
        ),
    }
    rows = [
        [name, str(one.count), f"{one.value:.2f}", f"{one.p_value:.2g}"]
        for name, one in correlations.items()
        if one is not None
    ]
    return tables.markdown(["", "networks", "Spearman's correlation", "p"], rows) if rows else ""


def _section(experiment: Experiment, members: list[Network]) -> str:
    parts = [f"## {experiment.title}", " ".join(experiment.question.split())]
    if not members:
        return _joined([*parts, "No runs yet."])
    trained = [network for network in members if network.setting.epochs]
    if experiment.name == "methods":
        return _joined([*parts, *_methods_parts(trained)])
    if experiment.name == "gradients":
        parts += ["Eight layers of LSTM:", _picture(experiment.name)]
        parts += ["Both cells at every depth:", _picture(_BY_DEPTH)]
        parts += [_ENERGY_NOTE, energies.energy_table(members)]
    if experiment.name == "targets":
        parts += ["### The best target", optimum.law_table(members)]
        parts += [optimum.optimum_table(members), _picture("targets")]
    if experiment.name == "long_dependencies":
        parts += ["### The longest solved", _picture(experiment.name)]
        parts += [memory_length.longest_table(members)]
    if trained:
        parts += ["### Test metric", tables.metrics_table(trained)]
        if experiment.name not in ("targets", "long_dependencies"):
            parts += [_picture(experiment.name)]
        distances = aggregate.distance_table(trained)
        if distances:
            parts += ["### Distance from the best start", _DISTANCE_NOTE, distances]
        said = advice.verdicts(trained)
        if experiment.name not in _COMPARED and said:
            parts += ["### The best pre-trained start", advice.verdict_table(said)]
    return _joined(parts)


def _methods_parts(members: list[Network]) -> list[str]:
    parts = [findings.METHODS, _METHODS_NOTE, methods.summary_table(members), _picture("methods")]
    for depth in methods.depths(members):
        parts += [f"### {depth} layers", methods.accuracy_table(members, depth)]
    return parts


def _detailed_section(experiment: Experiment, members: list[Network]) -> str:
    trained = [network for network in members if network.setting.epochs]
    if not trained:
        return ""
    parts = [f"## {experiment.title}"]
    for mode, suffix in tables.MODES:
        table = tables.differences_table(trained, suffix)
        if table:
            parts += [f'### Paired differences, mode "{mode}"', table]
    parts += ["### The starts", _STARTS_NOTE, tables.starts_table(trained)]
    table = energies.energy_table(trained)
    if table:
        parts += ["### Gradient energies", _ENERGY_NOTE, table]
    return _joined(parts)


def _picture(name: str) -> str:
    return f"![{name}](figures/{name}.png)"


def _missing(experiments: dict[str, Experiment], found: dict[str, list[Network]]) -> str:
    lines = []
    for name, members in found.items():
        done = {
            row["id"]
            for network in members
            for start in network.starts.values()
            for row in start.rows.values()
        }
        missing = [setting for setting in experiments[name].settings if setting.id not in done]
        lines.append(
            [name, str(len(experiments[name].settings)), str(len(missing)),
             ", ".join(_too_few(members)) or "none"]
        )  # fmt: skip
    header = ["experiment", "runs asked for", "not run yet", "starts without four trained seeds"]
    return (
        "## Runs asked for, and missing\n\n"
        + _MISSING_NOTE
        + "\n\n"
        + tables.markdown(header, lines)
    )


def _too_few(members: list[Network]) -> list[str]:
    found = []
    unfinished = [s for n in members for s in n.starts.values() if not s.is_finished]
    if len(unfinished) > _MOST_NAMED:
        return [f"{len(unfinished)} of {sum(len(network.starts) for network in members)}"]
    for network in members:
        starts = [
            f"{start.label} {len(start.reached)} of {len(start.seeds)}"
            for start in network.starts.values()
            if network.setting.epochs and not start.is_finished
        ]
        if starts:
            found.append(f"{network.label} ({'; '.join(starts)})")
    return found


_HOW_TO_READ = f"""
**How to read it.** A run is one network, one start, one seed. All starts of a seed begin from the
same initial weights and see the same batches. The *default* start is these weights; "variance",
1, 0.5, "unbalanced", pairs and "far corner" (the far-corner radius, explained under "Which target")
are targets of the pre-training, of mode "scales" unless "weights" is said. The learning rate of
each start is the one with the best mean validation metric; the weights of the best validation are
tested, on the test split, once. Means have Student's 95 % interval over the seeds, whose number is
in brackets; differences are paired by seed, positive where the first is better, in points of
accuracy or in natural logarithms of perplexity or squared error, and bold where the interval leaves
out zero. Starts with fewer than {LEAST_SEEDS} seeds are in italics and enter no claim. Nothing is
corrected for the number of comparisons: of twenty true ties one is bold by chance.

[DETAILS.md](DETAILS.md) has the paired differences, what was measured of every start, and the
gradients before training. `results/trace.json` leads from every figure to its lines, and `python -m
experiments.run --repeat ID` makes the run of a line again.""".strip()

_SPARSITY = f"""
## From many spikes to few

Spiking networks that are to fire at a rate of {sparsity.Setting.wanted:g}: do they learn better if
they begin at one half, and a penalty rises between 1/5 and 3/5 of the epochs (high), than if they
begin at the wanted rate with the whole penalty (low)? The sparsity schedule of arXiv 2202.00282,
`callbacks.SparsitySchedule`. Reduced: two layers of {sparsity.Setting.units} LIF neurons, the rows
of scikit-learn's digits and the parity of two bits that eight others follow, 20 epochs, one
learning rate. Accuracies and rates are those of the last epoch.""".strip()

_FLOSSING = f"""
## Gradient flossing

Delayed XOR, the task of arXiv 2312.17306, from starts whose leading Lyapunov exponents are driven
to zero (`stabilize(method="flossing")`) and from others. Reduced: two layers of
{flossing.Setting.units} tanh units, the parity of two bits so many steps ago, 4,000 sequences,
{flossing.Setting.epochs} epochs, of two learning rates that with the better validation. Test
accuracies in per cent; one half is chance. The exponent is the largest of each layer before
training, a mean; the seconds, with compilation, a median on a shared machine.""".strip()

_BLIND = f"""
## What `best_start` chooses

Races of `keras_lsc.best_start` on networks of these experiments, which see the training and
validation digits and no stored run, and may train {blind.BUDGET:g} times as long as one training.
Choice ahead of default: test accuracy of what the race chose, trained as all others, minus that of
the default start at the learning rate that all its stored runs would choose, in points, with the
interval over seeds; best start: that with the best validation of all stored runs that raced.
Cost: training steps of a race over those of one training.""".strip()

_DEFAULT_STARTS = f"""
## Everyone's defaults

What does a gradient meet before anything is trained? Stacks of 1 to 10 layers of
{defaults.Setting.units} units as the constructors of each library draw them, with its own biases,
decays, thresholds, resets and surrogates, {defaults.SEEDS} seeds; weights are carried over to Keras
by `keras_lsc.convert` or by assignment (`experiments/peers.py`), and outputs and gradients of both
are equal, which a test holds. They read {defaults.Setting.sequences} digits of MNIST, a row of 28
pixels a step; spiking ones as spikes, each pixel firing as often as it is bright. Where a library
gives neurons alone, a Linear layer of its framework stands before them. snnTorch has no default of
the decay beta: it is {peers.BETA:g}, as in the examples of its docstrings. spyx' neurons give out
their spikes a step later than here. Norse's surrogate is 1/(1 + |u|)², whatever its parameter alpha
says.

Radii and exponents are those of stacks of ten layers, the radii means over layers, the exponent the
largest of all layers. Energy: of the gradient of the last step's output of the top layer, that at
the bottom layer over that at the top one (geometric mean). Reach: the share of the energy at the
input that belongs to the first quarter of the steps, 0.25 if it is even. Firing rates: bottom and
top layer of ten, spikes a neuron and step. 0 is less than the least float32 number, and "-" a share
of so little. Grey lines are at a radius of 1/√2, an energy that is kept, an even share, and an
exponent of 0.""".strip()

_DETAILS_HEAD = """
# Details of the experiments

Generated by `make report`, as [RESULTS.md](RESULTS.md) is, which says how to read it.""".strip()

_WHEN_IT_HELPS, _BY_DEPTH = "when_it_helps", "gradients_by_depth"
_TIMESCALES, _DEFAULTS = "timescales", "defaults"

_METHODS_NOTE = f"""
Good: mean test accuracy within {methods.NEAR:g} points of the best start of the network, of so many
networks that have it. Orders of magnitude: |log10| of the gradient's energy at the bottom layer
over that at the top one, before training, the median over the networks; so are the radius in time
(mean over layers) and the seconds of the start, with its measurements and compilation, and of the
training. In the tables of accuracies, per cent on the test split, the best start of a network is
bold; "none" stands for a method that found no start.""".strip()

_TIME_CONSTANTS = """
## Trained time constants

Do time constants grow with the memory that a task needs? The experiment of arXiv 2309.12927 with
`layers.LeakyRNN`: N-parity and N-delayed-match, n growing by 1 when the accuracy of an epoch
exceeds 98 %, that of the one head that is asked (single head) or of every head, one for each n so
far (multi-head). Reduced: 64 units instead of 500, n to 14 at most, 120 epochs of 100 updates of
128 sequences, Adam with 3e-3 instead of SGD; all sequences are new.""".strip()

_VERDICT_NOTE = """
Ratio of test errors: of the best pre-trained start to the default one; below 1 pre-training is
better. An error is the share of wrong answers, the perplexity, or the squared error. Energy sum:
gain_t² + gain_l² of the default start, mean over its transitions, which the energy law wants to
be 1. The pre-trained starts are several and have more tries on validation than the default one
has; the paper's summary below compares them one by one. Errors of a task of long dependencies that
is solved from both starts are small, and their ratio means little: "The longest solved" has what
counts there.""".strip()

_RANGE_NOTE = """
By this sum, on how many networks the best pre-trained start, and those of the single targets by
scales, are clearly better and clearly worse than the default one:""".strip()

_CORRELATION_NOTE = """
The same by the number of layers, and how what is known before training goes with what training
finds:""".strip()

_SUMMARY_NOTE = """
In what share of settings (network, task, length, clipping) the mean over seeds of one start is
better than that of another, with Wilson's 95 % interval, which takes the settings for independent
although some share data and weights. "Clearly": the paired interval leaves out zero.""".strip()

_DISTANCE_NOTE = """
Test error of a start over that of the best start of the same network (geometric means over the
seeds): 1 on every network would be a start that is never beaten.""".strip()

_ENERGY_NOTE = """
Energy of the gradient before training, geometric means over the seeds: that of the bottom layer
over that of the top one, each summed over time, and the factor per step back in time (from 4 to 16
steps back, summed over layers). Measured, by the energy law from the measured gains (energies add),
and by the coherent bound (amplitudes add). The gains are means over all directions of the state:
where it has unlike parts, as the LSTM's cell and output, the gradient follows the one that decays
least, and more comes back in time than either says.""".strip()

_STARTS_NOTE = """
Means over transitions and seeds. A learning rate with a star is at the edge of those tried: a
better one may lie beyond. The seconds of a start are those of pre-training and of measuring radii
and gradients, with compilation the first time; of the default start, of measuring alone.""".strip()

_THEORY = """
## The two laws

The number of gradient paths between two points of the grid is a binomial coefficient. When all
paths point the same way, as in the scalar PascalRNN, amplitudes add, and rho_t + rho_l = 1 keeps
the gradient; in an isotropic network their energies add, and rho_t² + rho_l² = 1 keeps it.

![theory](figures/theory.png)"""

_MISSING_NOTE = """
`make experiments` goes on with what is missing. A start that did not reach its target in the
updates it was given is a result, and not run again. For starts without four trained seeds: of how
many seeds the target was reached.""".strip()


def main() -> None:
    """Writes the report, or says that it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the report is out of date")
    options = parser.parse_args()
    same = write_report(check=options.check)
    if options.check and not same:
        sys.exit("RESULTS.md differs from the runs: python -m experiments.report")


if __name__ == "__main__":
    main()
