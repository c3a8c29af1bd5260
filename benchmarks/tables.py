"""Writes benchmarks/RESULTS.md from the JSON of the benchmarks.

    python benchmarks/tables.py [--check]

`--check` only compares.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "torch"}
ZOO_CELLS = {"alif": "ALIF", "lif": "LIF", "lru": "LRUBlock"}
TARGETS = ("variance", "1.0", "0.5", "unbalanced")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pretraining() -> str:
    """Cost of an update and time to tolerance on every backend."""
    rows, environments = [], []
    for backend, name in BACKENDS.items():
        path = RESULTS / f"pretraining_{backend}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        environment = result["environment"]
        environments.append(f"{name} {environment['backend_version']}")
        for update in result["update"]:
            step, cost = update["training_step"], update["pretraining_update"]
            rows.append(
                [
                    name,
                    f"{update['cell'].upper()} 2x{update['units']}",
                    f"{1e3 * step['median']:.0f} ms",
                    f"{1e3 * cost['median']:.0f} ms",
                    f"{update['ratio']:.2f}",
                ]
            )
    header = ["backend", "network", "training step", "update", "ratio"]
    where = (
        f"On {environment['cores']} CPU cores (Keras {environment['keras']}, "
        f"{', '.join(environments)}): medians, 200 steps of 784 inputs, batch 32. "
        "Command: `make bench`."
    )
    return f"{table(header, rows)}\n\n{where}"


def time_to_tolerance() -> str:
    """Seconds to the tolerance on every backend, of a first and of a second network."""
    columns = {}
    for backend, name in BACKENDS.items():
        path = RESULTS / f"pretraining_{backend}.json"
        if path.exists():
            rows = json.loads(path.read_text()).get("time_to_tolerance", [])
            columns[name] = {
                (row["cell"], row["sequences"], str(row["target"])): row for row in rows
            }
    settings = list(dict.fromkeys(key for rows in columns.values() for key in rows))

    def made(row: dict[str, Any] | None) -> str:
        if row is None:
            return "not measured"
        if "failed" in row:
            return "failed"
        one, two = row["first"], row["second"]
        return (
            f"{one['seconds']:.0f} s ({one['updates']}), {two['seconds']:.0f} s ({two['updates']})"
        )

    body = [
        [cell.upper(), sequences, target, *(made(rows.get(key)) for rows in columns.values())]
        for key in settings
        for cell, sequences, target in [key]
    ]
    note = (
        "`stabilize` to a tolerance of 0.02 of two layers (LSTM of 42 units, GRU of 53; 200 steps "
        "of 784 inputs), compilation and the check on held-out sequences included: of a first "
        "network of a process and of a second one of the same shapes, and in brackets the number "
        "of measurements and updates."
    )
    return f"{table(['cell', 'sequences', 'target', *columns], body)}\n\n{note}"


def scaling() -> str:
    """Cost of an update with width and depth."""
    columns = {}
    for backend, name in BACKENDS.items():
        path = RESULTS / f"pretraining_{backend}.json"
        if path.exists():
            rows = json.loads(path.read_text())["scaling"]
            columns[name] = {(row["depth"], row["units"]): row for row in rows}
    sizes = sorted({size for rows in columns.values() for size in rows})

    def cell(row: dict[str, Any]) -> str:
        if "failed" in row:
            return "failed"
        return f"{row['update']['median']:.2f} s, {row['peak_memory_gb']:.1f} GB"

    body = [
        [f"{depth}x{units}", *(cell(rows[depth, units]) for rows in columns.values())]
        for depth, units in sizes
    ]
    note = (
        "Seconds of one update of an LSTM, and peak memory of the process, framework included "
        "(batch 8, 35 steps of 300 inputs)."
    )
    return f"{table(['LSTM', *columns], body)}\n\n{note}"


def grid() -> str:
    """How many settings reach their target."""
    rows = []
    for backend, name in BACKENDS.items():
        lines = lines_of(RESULTS / f"grid_{backend}.jsonl")
        found = [row for row in lines if row["cell"] not in ZOO_CELLS]
        for mode in ("scales", "weights"):
            of_mode = [row for row in found if row["mode"] == mode]
            if not of_mode:
                continue
            reached = [row for row in of_mode if row["reached"]]
            drift = [edge for row in reached for edge in row["isotropy_to_its_start"]]
            rows.append(
                [
                    name,
                    f'`"{mode}"`',
                    f"{len(reached)} of {len(of_mode)}",
                    f"{max(row['deviation'] for row in reached):.3f}",
                    f"{max(row['updates'] for row in reached)}",
                    f"{min(drift):.2f} to {max(drift):.2f}",
                ]
            )
    header = ["backend", "mode", "reached 0.02", "worst of these", "most updates"]
    note = (
        "LSTM, GRU, tanh, relu and sigmoid RNNs of 32 units, depth 2 and 5, targets `variance`, "
        "1, 0.5 and `unbalanced` on sequential MNIST, and dense networks of depth 30 (relu, sin, "
        "cos; target 1). What does not get there in the default of 400 updates begins again with "
        "1,200. The last column is the isotropy after pre-training relative to the initialiser's. "
        "Command: `make grid`."
    )
    return f"{table([*header, 'isotropy kept'], rows)}\n\n{note}{failures()}"


def failures() -> str:
    """The settings of the grid that did not reach their target, by name."""
    rows = [row for name in BACKENDS for row in lines_of(RESULTS / f"grid_{name}.jsonl")]
    failed = [
        f"{row['cell']} {row['depth']}x{row['units']} at {row['target']} ({row['mode']}: "
        f"{row['deviation']:.3f})"
        for row in rows
        if not row["reached"] and row["cell"] not in ZOO_CELLS
    ]
    return f" Not reached: {', '.join(failed)}." if failed else ""


def grid_of_layers() -> str:
    """How far spiking and state-space networks are from every target."""
    body = []
    for backend, name in BACKENDS.items():
        networks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in lines_of(RESULTS / f"grid_{backend}.jsonl"):
            if row["cell"] in ZOO_CELLS:
                key = (row["cell"], row["depth"], row["units"], row["input"])
                networks.setdefault(key, []).append(row)
        for (cell, depth, units, source), rows in sorted(networks.items()):
            of_target = {str(row["target"]): deviation(row) for row in rows}
            rates = [rate for row in rows for rate in row["firing_rates"].values()]
            body.append(
                [
                    name,
                    f"{ZOO_CELLS[cell]} {depth}x{units}",
                    source,
                    *(of_target.get(target, "not run") for target in TARGETS),
                    f"{min(rates):.2f} to {max(rates):.2f}" if rates else "",
                ]
            )
    if not body:
        return "No spiking or state-space network was stabilised."
    lines = [row for name in BACKENDS for row in lines_of(RESULTS / f"grid_{name}.jsonl")]
    found = [row for row in lines if row["cell"] in ZOO_CELLS]
    reached = [row for row in found if row["reached"]]
    header = ["backend", "network", "input", *(f"`{target}`" for target in TARGETS)]
    note = (
        "Largest |mean radius - target| of a transition on digits that `stabilize` (tolerance "
        '0.02, mode `"scales"`; 400 updates, and 1,200 from the start where these do not do) never '
        f"saw. On those that it holds out {len(reached)} of {len(found)} networks are within it, "
        f"{max(row['deviation'] for row in reached):.3f} at most. "
        "Input: rows of pixels (28 steps), or 784 trains of at most one spike (100 steps). "
        "Measured at 256 to 1,024 points, which leaves a standard error of about 0.01 where radii "
        "differ much from point to point, as those of deep spiking networks with target 1 do. The "
        "last column has the smallest and the largest firing rate of a layer over the targets. "
        "Command: `make grid`."
    )
    return f"{table([*header, 'firing rates'], body)}\n\n{note}"


def deviation(row: dict[str, Any]) -> str:
    """How far a stabilised network is from its target, or that it is not stabilised."""
    if row["reached"]:
        return f"{row['deviation_on_unseen']:.3f}"
    return f"not reached ({row['deviation']:.3f})"


def scaled() -> str:
    """What large networks cost, and by which powers of their sizes that grows."""
    chapters = []
    for backend, name in BACKENDS.items():
        result = stored(f"scaling_{backend}.json")
        if not result:
            continue
        by_size: dict[tuple[Any, ...], dict[str, str]] = {}
        for row in result["rows"]:
            key = tuple(row[of] for of in ("cell", "units", "depth", "steps", "points"))
            by_size.setdefault(key, {})[row["work"]] = (
                "not done"
                if "failed" in row
                else f"{row['seconds']['median']:.2g} s, {row['memory_gb']:.1f} GB"
            )
        works = ("update", "pass", "measure")
        header = ["cell", "units", "layers", "steps", "points", *works]
        body = [
            [*map(str, key), *(found.get(work, "not measured") for work in works)]
            for key, found in by_size.items()
        ]
        powers = [
            [
                of["sweep"],
                of["cell"],
                of["work"],
                f"{of['sizes'][0]:g} to {of['sizes'][-1]:g}",
                f"{of['seconds']:.2f}",
                f"{of['memory']:.2f}",
            ]
            for of in result["exponents"]
        ]
        grown = ["grows", "cell", "work", "from", "seconds", "memory"]
        parts = [f"{name}:", table(header, body)]
        if powers:
            parts += ["By which power of a size they grow:", table(grown, powers)]
        chapters.append("\n\n".join(parts))
    if not chapters:
        return "Large networks were not timed."
    note = (
        "An update of pre-training, a pass of levelling and a measurement of stacks of recurrent "
        "layers on 64 random features, medians of later calls, and the peak memory of a process of "
        "its own, libraries and compilation included. What is not done took more than 14 GB, or "
        "longer than its limit; the JSON says which. Memory grows beyond that of the libraries. "
        "Command: `python -m benchmarks.scaling`."
    )
    return "\n\n".join([*chapters, note])


def layers() -> str:
    """One layer beside other libraries."""
    found = {
        name: json.loads(path.read_text())
        for backend, name in BACKENDS.items()
        if (path := RESULTS / f"layers_{backend}.json").exists()
    }
    if not found:
        return "The layers were not timed."
    return f"{neurons(found)}\n\n{state_space(found)}"


def neurons(found: dict[str, Any]) -> str:
    """Spiking layers beside the fastest of the other libraries."""
    cases = [
        [size["neuron"], size["recurrent"], size["batch"], size["steps"], size["units"]]
        for size in next(iter(found.values()))["neurons"]
    ]
    body = []
    for index, (neuron, recurrent, *size) in enumerate(cases):
        rows = [result["neurons"][index] for result in found.values()]
        peers = {row["fastest_peer"] for row in rows}
        theirs = [fastest(row["rows"], row["fastest_peer"]) for row in rows]
        body.append(
            [
                f"{neuron.upper()}{', recurrent' if recurrent else ''}",
                " x ".join(map(str, size)),
                f"{', '.join(sorted(peers))}: {milliseconds(min(theirs))} to "
                f"{milliseconds(max(theirs))} ms",
                *(
                    f"{milliseconds(fastest(row['rows'], 'keras_lsc'))} ms "
                    f"({times(row['times_faster'])})"
                    for row in rows
                ),
            ]
        )
    header = ["layer", "batch x steps x neurons", "fastest peer", *found]
    environment = next(iter(found.values()))["environment"]
    peers = {name: v for name, v in environment["peers"].items() if name not in ("torch", "jax")}
    note = (
        "Milliseconds of forward and backward of one layer, input projection included: medians, "
        "and in brackets how many times as fast as the fastest of "
        f"{', '.join(f'{name} {version}' for name, version in peers.items())} (torch "
        f"{environment['peers']['torch']}; with one thread or {environment['cores']}, the faster "
        "counts), which are measured right after each backend. "
        f"{environment['cores']} CPU cores. Command: `make layers`.{threads(found)}"
    )
    return f"{table(header, body)}\n\n{note}"


def threads(found: dict[str, Any]) -> str:
    """Advice on torch's threads."""
    if BACKENDS["torch"] not in found:
        return ""
    cases = [
        [row for row in case["rows"] if row["library"] == "keras_lsc"]
        for case in found[BACKENDS["torch"]]["neurons"]
    ]
    best = [min(rows, key=lambda row: row["seconds"]["median"])["threads"] for rows in cases]
    return (
        f" On torch one thread was faster in {best.count(1)} of {len(best)} cases, a thread "
        "per core in the others; processes that share the cores want one each "
        "(`OMP_NUM_THREADS=1`)."
    )


def state_space(found: dict[str, Any]) -> str:
    """The LRU's scan beside a loop and plain JAX."""
    body = []
    for name, result in found.items():
        for row in result["lru"]:
            own = fastest(row["rows"], "keras_lsc")
            plain = fastest(row["rows"], "plain JAX")
            body.append(
                [
                    name,
                    f"{row['batch']} x {row['steps']} x {row['units']}",
                    f"{milliseconds(own)} ms",
                    f"{milliseconds(fastest(row['rows'], 'Keras RNN'))} ms "
                    f"({times(row['times_faster'])})",
                    f"{milliseconds(plain)} ms ({times(plain / own)})",
                ]
            )
    header = ["backend", "batch x steps x units", "`LRU`", "`RNN(LRUCell)`, a loop", "plain JAX"]
    note = (
        "Milliseconds of forward and backward of one state-space layer: medians, and in brackets "
        "how many times as fast `LRU` is."
    )
    return f"{table(header, body)}\n\n{note}"


def parallel() -> str:
    """ParaGRU by Newton's method beside loops, on every backend."""
    body = []
    for backend, name in BACKENDS.items():
        for case in stored(f"parallel_{backend}.json").get("speed", []):
            ways = case["ways"]
            of_way = {way: row["seconds"]["median"] for way, row in ways.items()}
            other = "torch.nn.GRU" if backend == "torch" else "keras.layers.GRU"
            is_whole = {"newton", "loop"} <= set(ways)
            body.append(
                [
                    name,
                    str(case["batch"]),
                    f"{case['steps']:,}",
                    *(
                        spread(ways[way]["seconds"]) if way in ways else ""
                        for way in ("newton", "loop")
                    ),
                    times(of_way["loop"] / of_way["newton"]) if is_whole else "",
                    *(
                        milliseconds(of_way[way]) if way in of_way else ""
                        for way in ("MinGRU", other, "jax.lax.scan")
                    ),
                ]
            )
    header = ["backend", "batch", "steps", "Newton", "loop", "faster", "`MinGRU`", "GRU"]
    note = (
        "Milliseconds of `ParaGRU` forward and backward, 64 units, 8 features, one thread of a "
        "shared CPU: median and quartiles. *GRU* is `torch.nn.GRU` on torch and "
        "`keras.layers.GRU` elsewhere, "
        "another recurrence, with full matrices. What is missing was left out, because a call "
        "would have taken over two minutes, or not reached. The machine did other work meanwhile: "
        "compare what is in one row. Command: `make bench`."
    )
    return f"{table([*header, '`jax.lax.scan`'], body)}\n\n{note}"


def spread(taken: dict[str, float]) -> str:
    """A median with its quartiles."""
    middle, low, high = (milliseconds(taken[edge]) for edge in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def iterations() -> str:
    """Newton's iterations for a GRU at several starts."""
    rows = stored("parallel_curve.json").get("curve", [])
    lengths = sorted({row["steps"] for row in rows})
    body = []
    for start in dict.fromkeys(str(row["start"]) for row in rows):
        found = [row for row in rows if str(row["start"]) == start]
        cells = []
        for steps in lengths:
            of_length = {row["solver"]: row for row in found if row["steps"] == steps}
            counts = [
                str(row["iterations"]) if row["has_converged"] else f"over {row['iterations']}"
                for row in (of_length["newton"], of_length["quasi"])
            ]
            cells.append(f"{counts[0]} / {counts[1]} ({of_length['newton']['predicted']})")
        first = found[0]
        body.append([start, f"{first['radius']:.2f}", f"{first['exponent']:+.3f}", *cells])
    header = ["start", "radius", "exponent", *(f"T = {steps:,}" for steps in lengths)]
    note = (
        "Scans until convergence by the whole Jacobian / by its diagonal (predicted by "
        "`predicted_iterations` from the exponent), for the lower of two GRU layers of 16 units on "
        "white noise, one seed; *radius* and *exponent* are in time."
    )
    return f"{table(header, body)}\n\n{note}"


def trainings() -> str:
    """Newton's iterations while networks train, with and without a penalty on the radii."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in stored("parallel_training.json").get("training", []):
        start = "default" if row["start"] is None else f"{row['start'][0]:g}"
        penalty = "none" if row["penalty"] is None else f"{row['penalty'][0]:g}"
        for layer, taken in row["iterations"].items():
            group = groups.setdefault((start, f"{row['rate']:g}", penalty, f"`{layer}`"), [])
            group.append(
                {
                    "first": taken[0],
                    "last": taken[-1],
                    "most": max(taken),
                    "loops": 100 * statistics.fmean(row["loops"][layer]),
                    "radius": row["radius"][layer],
                    "loss": row["loss"][-1],
                }
            )

    def each(found: list[dict[str, Any]], what: str, digits: int) -> str:
        return ", ".join(f"{of[what]:.{digits}f}" for of in found)

    body = [
        [
            *group,
            *(each(found, what, 1) for what in ("first", "last", "most")),
            f"{each(found, 'loops', 0)} %",
            ", ".join(f"{of['radius'][0]:.2f} to {of['radius'][-1]:.2f}" for of in found),
            each(found, "loss", 4),
        ]
        for group, found in groups.items()
    ]
    header = ["start", "rate", "penalty", "layer", "first", "last", "most", "loops", "radius"]
    note = (
        "Iterations a batch in the first and the last of 12 epochs and in that with most; the "
        "share of batches that were left to the loop; radius in time after the first and the last "
        "epoch; and the last loss (a network that gives the mean has 0.167); of each seed. *start* "
        "and *penalty* are targets in time, of `stabilize` and of `RadiusRegularizer`, every other "
        "update. The adding problem, 300 steps, two layers of `ParaGRU(16)`, 50 batches of 16 an "
        "epoch, Adam, JAX. Command: `KERAS_BACKEND=jax python benchmarks/parallel.py --training`."
    )
    return f"{table([*header, 'loss'], body)}\n\n{note}"


def fastest(rows: list[dict[str, Any]], library: str) -> float:
    """Seconds of a library with the better number of threads."""
    return min(r["seconds"]["median"] for r in rows if r["library"] == library and "seconds" in r)


def times(ratio: float) -> str:
    """How many times as fast, with a digit more where it is close."""
    return f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"


def milliseconds(seconds: float) -> str:
    """With two digits at least."""
    return f"{1e3 * seconds:.0f}" if seconds >= 0.01 else f"{1e3 * seconds:.1f}"


def accuracy() -> str:
    """Validation accuracy of the two starts, seed by seed."""
    rows = []
    for backend, name in BACKENDS.items():
        found = lines_of(RESULTS / f"accuracy_{backend}.jsonl")
        for start in ("default", "stabilized"):
            runs = sorted((r for r in found if r["start"] == start), key=lambda r: r["seed"])
            if runs:
                accuracies = [f"{row['validation_accuracy'][-1]:.3f}" for row in runs]
                rows.append([name, start, *accuracies])
    seeds = max(len(row) for row in rows) - 2
    header = ["backend", "start", *(f"seed {seed}" for seed in range(seeds))]
    note = (
        "Validation accuracy of the 5-layer sigmoid RNN (64 units) after 3 epochs on 17,000 "
        "digits, Adam at 1e-3. Command: `python benchmarks/accuracy.py`."
    )
    return f"{table(header, rows)}\n\n{note}"


def loader() -> str:
    """What a batch costs beside the training step that it feeds."""
    rows = []
    for backend, name in BACKENDS.items():
        path = RESULTS / f"datasets_{backend}.json"
        if path.exists():
            row = json.loads(path.read_text())["loader_against_step"]
            rows.append(
                [
                    name,
                    f"{1e3 * row['batch']['median']:.2f} ms",
                    f"{1e3 * row['training_step']['median']:.0f} ms",
                    f"{100 * row['share_of_a_step']:.1f} %",
                    f"{100 * row['reading_share_of_a_step']:.1f} %",
                ]
            )
    if not rows:
        return "The loader of sMNIST was not timed."
    header = ["backend", "batch of sMNIST", "training step", "share", "reading it once"]
    note = (
        "A batch of 64 digits from `keras_lsc.datasets.batches` beside a training step of a "
        "2-layer LSTM (128 units) on it. Command: `make bench`."
    )
    return f"{table(header, rows)}\n\n{note}"


def comparison() -> str:
    """The same checkpoints on every backend: how far apart, how fast."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("compare_*.json"))]
    if not found:
        return "No checkpoint was compared across backends."
    rows = [
        [one["model"] if k == 0 else "", *compared(row)]
        for one in found
        for k, row in enumerate(one["rows"])
    ]
    header = ["checkpoint", "backend", "radius", "output", "gradient", "compile"]
    header += ["training step", "pre-training step", "memory"]
    machine = found[0]["machine"]
    loads = [one["machine"]["load"] for one in found]
    threads = machine["threads"] and f"OMP_NUM_THREADS={machine['threads']} "
    note = (
        "Differences to the first backend: largest of a radius, largest of an output, relative "
        "norm of all gradients; the first calls beyond later ones (training + pre-training); "
        f"medians of {min(calls(one) for one in found)} steps or more and in brackets the least; "
        "peak memory of the process. "
        f"Batches of {found[0]['inputs']['shape'][0]} validation sequences of the checkpoint's "
        f"data, on {machine['cores']} CPU cores (load before it {min(loads):g} to "
        f"{max(loads):g}). Command: `{threads or ''}make compare`."
    )
    return f"{table(header, rows)}\n\n{note}"


def compared(row: dict[str, Any]) -> list[str]:
    """The cells of one backend."""
    name = BACKENDS[row["backend"]]
    if row["failed"]:
        return [f"{name}: {row['failed']}", *[""] * 7]
    kinds = ("radius_difference", "output_difference", "gradient_difference")
    differences = [
        "" if row[kind] is None else f"{row[kind]:.0e}" if row[kind] else "0" for kind in kinds
    ]
    steps = [row["training"], row["pretraining"]]
    return [
        f"{name} ({row['device']})",
        *differences,
        " + ".join(f"{step['compile']:.1f}" for step in steps) + " s",
        *(f"{1e3 * step['median']:.0f} ms ({1e3 * step['least']:.0f})" for step in steps),
        f"{row['host_memory'] / 1e9:.2f} GB",
    ]


def levelling() -> str:
    """What levelling costs: a pass beside a training step, and the whole beside pre-training."""
    body = []
    ratios: list[float] = []
    speedups: list[float] = []
    for backend, name in BACKENDS.items():
        result = stored(f"levelling_{backend}.json")
        passes = {row["network"]: row for row in result.get("cost", [])}
        wholes = {(row["network"], row["method"]): row for row in result.get("whole", [])}
        for network in dict.fromkeys([*passes, *(network for network, _ in wholes)]):
            cells = [""] * 6
            if network in passes:
                row = passes[network]
                ratios.append(row["ratio"])
                cells[:3] = [spread_of(row[of]) for of in ("training_step", "gradient_pass")] + [
                    f"{row['ratio']:.2f}"
                ]
            level, lsc = (wholes.get((network, method)) for method in ("level", "lsc"))
            if level:
                cells[3] = whole_time(level, "passes", wholes)
            if lsc:
                cells[4] = whole_time(lsc, "updates", wholes)
            if level and lsc and not level["is_lower_bound"]:
                speedup = lsc["seconds"] / level["seconds"]
                if speedup >= 10 or not lsc["is_lower_bound"]:
                    speedups.append(speedup)
                cells[5] = f"{'over ' if lsc['is_lower_bound'] else ''}{times(speedup)}"
            body.append([name, network, *cells])
    if not body:
        return "Levelled starts were not timed."
    header = ["backend", "network", "training step", "pass", "ratio"]
    header += ['method `"level"`', 'method `"lsc"`', "times faster"]
    in_a_tenth = "networks are levelled in at most a tenth of the time of pre-training"
    note = (
        "A pass measures the energy of the gradient at every layer, on 64 sequences; the training "
        "step is one of Adam on the same 64. Medians of a process in which they take turns, and in "
        "brackets the quartiles. The two methods are the whole of `stabilize`, compilation and "
        "report included (of the first it is also said when its passes were done), with the passes "
        "of the first and the updates of the second (target `variance`). What did not end in the "
        "time that it was given is a lower bound, beside what the updates that a narrower network "
        "of the same depth needs would take. "
        f"{of_goal(ratios, lambda ratio: ratio <= 1.2, 'passes cost at most 1.2 steps')}"
        f"{of_goal(speedups, lambda speedup: speedup >= 10, in_a_tenth)}"
        "Command: `python -m benchmarks.levelling`."
    )
    return f"{table(header, body)}\n\n{note}"


def of_goal(values: list[float], is_met: Callable[[float], bool], what: str) -> str:
    """How many of some figures meet their goal."""
    if not values:
        return ""
    return f"{sum(map(is_met, values))} of {len(values)} {what}. "


def spread_of(samples: dict[str, float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (milliseconds(samples[of]) for of in ("low", "median", "high"))
    return f"{middle} ms ({low} to {high})"


def whole_time(row: dict[str, Any], counted: str, wholes: dict[Any, dict[str, Any]]) -> str:
    """Seconds of one `stabilize`, or what is known of them."""
    count = f"{row.get(counted, 0)} {counted}"
    if "levelled_after" in row:
        count += f", done after {row['levelled_after']:.1f} s"
    if not row["is_lower_bound"]:
        missed = "" if row["reached"] else ", not reached"
        return f"{row['seconds']:.1f} s ({count}{missed})"
    about = ""
    narrower = wholes.get((row["narrower"], row["method"]))
    if row.get("update") and narrower and not narrower["is_lower_bound"]:
        needed = narrower["updates"]
        expected = row["first_update_after"] + (needed - 1) * row["update"]["median"]
        if needed > row["updates"]:
            about = f"; {needed} would take {expected:.0f} s"
    return f"over {row['seconds']:.0f} s ({count}{about})"


def levelled_grid() -> str:
    """How level every cell gets at every depth."""
    found = {
        name: rows
        for backend, name in BACKENDS.items()
        if (rows := stored(f"levelling_{backend}.json").get("grid"))
    }
    if not found:
        return "No network was levelled."
    depths = sorted({row["depth"] for rows in found.values() for row in rows})
    body = []
    for name, rows in found.items():
        by_cell = {(row["cell"], row["depth"]): row for row in rows}
        for cell in dict.fromkeys(row["cell"] for row in rows):
            ratios = [levelled(by_cell.get((cell, depth))) for depth in depths]
            body.append([name, cell, *ratios])
    every = [row for rows in found.values() for row in rows]
    reached = [row for row in every if row["reached"]]
    refused = [
        f"{row['cell']} {row['depth']} on {name} ({row['reason'].rstrip('.')})"
        for name, rows in found.items()
        for row in rows
        if not row["reached"]
    ]
    worst = max((row["spread"] for row in reached), default=math.nan)
    most = max((row["passes"] for row in reached), default=0)
    longest = max((row["seconds"] for row in every), default=0.0)
    note = (
        "Largest energy of the gradient over the smallest, of all layers below the head, on 512 "
        'sequences that `stabilize(method="level")` never saw, and in brackets the same before. '
        f"Networks of {every[0]['units']} units on rows of digits, spiking ones on digits as "
        f"spikes; by their depth. {len(reached)} of {len(every)} are levelled, to {worst:.2f} at "
        f"most, in at most {most} passes; none took longer than {longest:.0f} s, compilation and "
        "report included. Command: `python -m benchmarks.levelling --parts grid`."
    )
    told = "\n".join(f"- {one}" for one in refused)
    header = ["backend", "cell", *(f"depth {depth}" for depth in depths)]
    return f"{table(header, body)}\n\n{note}" + (f"\n\nRefused:\n\n{told}" if told else "")


def levelled(row: dict[str, Any] | None) -> str:
    """Largest over smallest energy of a network, or that it was refused."""
    if row is None:
        return ""
    before = "not finite" if row["spread_before"] is None else f"{row['spread_before']:.3g}"
    if not row["reached"]:
        return f"refused ({before})"
    return f"{row['spread']:.2f} ({before})"


def truth() -> str:
    """What was tried to make a number wrong, or a wrong input pass."""
    rows = []
    for backend, name in BACKENDS.items():
        radii = stored(f"radius_{backend}.json").get("families", {})
        rows += [truth_row(f"radius: {family}", name, one) for family, one in radii.items()]
    for backend, name in BACKENDS.items():
        kinds = stored(f"fuzz_{backend}.json").get("kinds", {})
        rows += [truth_row(f"damaged: {kind}", name, one) for kind, one in kinds.items()]
    kills = stored("kills.json")
    rows += [truth_row(f"killed: {kind}", "", one) for kind, one in kills.items()]
    if not rows:
        return "Nothing was tried yet."
    header = ["what", "backend", "tried", "right", "refused well", "wrong"]
    sums = [sum(int(row[column]) for row in rows if row[column]) for column in range(2, 6)]
    note = (
        "Radii of matrices of every family, and their gradients, beside float64 LAPACK (where it, "
        "of the matrix and of its transpose or in float32, tells radii more than 0.001 apart, none "
        "is wanted); damaged files, "
        "command lines and arguments, and tiny networks with random weights (`make fuzz`); "
        "processes killed while they write. *Refused well*: a documented error with a message. "
        "*Wrong*: another number, an undocumented error, a hang, or too much memory."
    )
    return f"{table(header, [*rows, ['all', '', *map(str, sums)]])}\n\n{note}"


def stored(name: str) -> dict[str, Any]:
    """The JSON of a benchmark; nothing where it was not run."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


def truth_row(what: str, backend: str, counts: dict[str, Any]) -> list[str]:
    """The counts of a kind, whichever of them it has."""
    wrong = counts.get("wrong", counts.get("failed", 0))
    figures = (counts.get("tried"), counts.get("right"), counts.get("refused"), wrong)
    return [what, backend, *("" if figure is None else str(figure) for figure in figures)]


def calls(one: dict[str, Any]) -> int:
    """The fewest timed calls of a comparison."""
    ran = [row for row in one["rows"] if not row["failed"]]
    return min(row[step]["calls"] for row in ran for step in ("training", "pretraining"))


WRITTEN = {
    "onnx": "ONNX",
    "tf_saved_model": "SavedModel",
    "litert": "TFLite",
    "torch": "torch.export",
}


def exports() -> str:
    """Which layer goes into which format from which backend."""
    columns: dict[str, dict[str, str]] = {}
    versions = []
    for backend, name in BACKENDS.items():
        result = stored(f"exports_{backend}.json")
        if not result:
            continue
        versions.append(f"{name} {result['environment']['backend_version']}")
        for row in result["rows"]:
            column = columns.setdefault(f"{WRITTEN[row['format']]}, {name}", {})
            column[row["layer"]] = exported(row)
    names = list(dict.fromkeys(layer for column in columns.values() for layer in column))
    body = [
        [f"`{layer}`", *(column.get(layer, "") for column in columns.values())] for layer in names
    ]
    note = (
        "Largest difference from the outputs of Keras on zeros, rows of digits and random inputs, "
        "in batches of three sizes, of layers in float32 that `keras_lsc.export` wrote, run by "
        f"onnxruntime, TensorFlow and torch ({', '.join(versions)}); TFLite takes one sequence "
        "at a time. Spikes of `LIF` and `ALIF` "
        "are exactly 0 or 1. Where it says no, the exporter raises or the runtime refuses the "
        "file; what has no column, the backend does not write. Command: `KERAS_BACKEND=torch "
        "python benchmarks/exports.py`, and so for each."
    )
    return f"{table(['layer', *columns], body)}\n\n{note}"


def exported(row: dict[str, Any]) -> str:
    """How far a layer is off in a format, or that it does not run."""
    if "failed" in row or not row.get("only_0_or_1", True):
        return "no"
    largest = max(row["differences"].values())
    return f"{largest:.0e}" if largest else "0"


COUNTED = {
    "dense": "products with weights, of one input",
    "synaptic": "those of two factors that are not zero",
    "activation_sparsity": "share of neurons and steps without a spike",
    "connection_sparsity": "share of weights that are zero",
    "footprint": "bytes",
}


def operations() -> str:
    """Operations of a spiking network beside those that NeuroBench counts."""
    found = stored("operations.json")
    rows = [
        [what, *(f"{found['rows'][name][of]:,.8g}" for of in ("keras_lsc", "neurobench"))]
        for name, what in COUNTED.items()
    ]
    note = (
        "Two layers of LIF neurons, a third of whose connections are pruned, and their copy in "
        f"snnTorch by way of NIR, of whose spikes {found['differing_spikes']} differ. Of "
        "snnTorch, NeuroBench counts thresholds, decays and the voltages of the last batch among "
        "the bytes. Command: `KERAS_BACKEND=torch python -m benchmarks.operations`."
    )
    header = ["", "`keras_lsc.spiking.operations`", f"NeuroBench {found['neurobench']}"]
    return f"{table(header, rows)}\n\n{note}"


def monitor() -> str:
    """What the monitor adds to a training."""
    body, costs = [], []
    for backend, name in BACKENDS.items():
        for row in stored(f"monitor_{backend}.json").get("rows", []):
            costs.append(row["looks"]["median"])
            updates = [spread_of(row[of]) for of in ("without", "with")]
            shares = [row[of] for of in ("looks", "cost", "processor_cost")]
            cells = ["{median:.1%} ({low:.1%} to {high:.1%})".format(**of) for of in shares]
            body.append([name, row["network"], *updates, *cells, f"{row['first_look']:.1f} s"])
    if not body:
        return "The monitor was not timed."
    header = ["backend", "network", "update", "with the monitor", "share of looks"]
    header += ["longer by the clock", "by processors", "first look"]
    note = (
        "Updates of Adam on 64 sequences of 28 steps and features, and the same with "
        "`StabilityMonitor` at its default, which looks every 100 updates, and every 200 at radii. "
        "Two trainings take turns in one process, 200 updates of one and 200 of the other; "
        "medians, and in brackets the quartiles, of such pairs. The share of looks is that of an "
        "epoch's time in which the monitor measures; the first look compiles, and is not in it. By "
        "how much epochs took longer, by the clock and in seconds of the processors, is uncertain "
        "by more than 3 %: others used the machine at the same time. JAX and TensorFlow were "
        "measured when every look measured radii, and from three forward passes. "
        f"{of_goal(costs, lambda cost: cost <= 0.03, 'take at most 3 % of the time for looks')}"
        "Command: `python -m benchmarks.monitor`."
    )
    return f"{table(header, body)}\n\n{note}"


def main() -> None:
    """Writes the page, or says that it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    options = parser.parse_args()
    path, written = RESULTS.parent / "RESULTS.md", results()
    if not options.check:
        path.write_text(written)
    elif not path.exists() or path.read_text() != written:
        sys.exit(f"{path.name} differs from the JSON: run `python benchmarks/tables.py`.")


def results() -> str:
    """All tables, a chapter each."""
    parts = {
        "An update beside a training step": pretraining(),
        "Time to the targets": time_to_tolerance(),
        "An update, by width and depth": scaling(),
        "Large networks": scaled(),
        "Spiking and state-space layers beside other libraries": layers(),
        "Recurrences without a loop": parallel(),
        "Newton's iterations, by start and length": iterations(),
        "Newton's iterations while a network trains": trainings(),
        "One checkpoint on every backend": comparison(),
        "Does `stabilize` reach its target?": grid(),
        "And with spiking and state-space layers?": grid_of_layers(),
        "Levelling beside training and pre-training": levelling(),
        "Which networks get level?": levelled_grid(),
        "What the monitor costs": monitor(),
        "Accuracy of the two starts": accuracy(),
        "Which layer goes into which format?": exports(),
        "What a spiking network computes": operations(),
        "Loading data": loader(),
        "Every number true": truth(),
    }
    chapters = "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items())
    return (
        "# Benchmarks\n\nGenerated by `python benchmarks/tables.py` from the JSON in `results/`."
        f"\n\n{chapters}\n"
    )


if __name__ == "__main__":
    main()
