"""Levelled starts: what a pass costs, what the whole costs, and which networks get level.

    KERAS_BACKEND=jax python -m benchmarks.levelling [--parts cost whole grid] [--only TEXT ...]
        [--cap SECONDS] [--quick]

`cost` is a pass of the gradient's measurement beside a training step, in turn; `whole` is
`stabilize` with method "level" beside method "lsc"; `grid` is how level every cell gets at every
depth, on sequences that `stabilize` never saw. Every row has a process of its own, which is ended
after so many seconds, and is added to `benchmarks/results/levelling_<backend>.json` when it is
done; what is there is skipped: delete a row to have it measured again. A row of `whole` that did
not end in time holds a lower bound, and is tried again with a larger cap. `--quick` has small
networks, and writes to `build/` instead.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lsc
from benchmarks.environment import environment
from benchmarks.rows import is_wanted, with_row
from benchmarks.timing import in_turn, seconds, summary
from keras_lsc import datasets, files
from keras_lsc.levelling import Leveller
from keras_lsc.stability.energies import draw
from keras_lsc.stability.stages import Stages

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PARTS = ("cost", "whole", "grid")
BATCH, REPEATS = 64, 7
SEQUENCES, UNSEEN, CLASSES = 4000, 512, 10
# Steps of a spiking digit.
SPIKE_STEPS = 20
# Of data without a file: steps, and features of one.
NOISE = (35, 64)

# Cell, units and depth, and the data.
NETWORKS = {
    "LSTM 10x32": ("LSTM", 32, 10, "rows"),
    "GRU 20x32": ("GRU", 32, 20, "rows"),
    "LSTM 2x128": ("LSTM", 128, 2, "noise"),
    "LRUBlock 3x32": ("LRUBlock", 32, 3, "rows"),
    "LSTM 2x1300": ("LSTM", 1300, 2, "noise"),
    "GRU 20x256": ("GRU", 256, 20, "rows"),
}
# Those that are stabilised as a whole, with a narrower one that needs about as many updates.
NARROWER = {"LSTM 2x1300": "LSTM 2x128", "GRU 20x256": "GRU 20x32"}
UNITS, DEPTHS = 32, (2, 5, 10, 20)
GRID = (
    *("LSTM", "GRU", "tanh", "relu", "sigmoid", "LIF", "ALIF", "LRUBlock"),
    *("bidirectional GRU", "convolutions", "attention in GRU", "norms in LSTM", "subclassed GRU"),
)
FEED_FORWARD, FEED_FORWARD_DEPTH = ("Dense tanh", "Dense relu"), 30
SPIKING = ("LIF", "ALIF")
# Read out by the mean over the steps, as the networks of the zoo are.
AVERAGED = (*SPIKING, "LRUBlock", "convolutions")

Setting = dict[str, Any]
Tell = Callable[..., None]


def settings(part: str) -> Iterator[Setting]:
    """Every row of a part."""
    if part == "cost":
        yield from ({"network": name} for name in NETWORKS)
    elif part == "whole":
        for name in (*NARROWER.values(), *NARROWER):
            yield from ({"network": name, "method": method} for method in ("level", "lsc"))
    else:
        yield from ({"cell": cell, "depth": depth} for depth in DEPTHS for cell in GRID)
        yield from ({"cell": cell, "depth": FEED_FORWARD_DEPTH} for cell in FEED_FORWARD)


@cache
def data(source: str, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Sequences and labels: rows of digits, digits as spikes, or noise."""
    limit = SEQUENCES // 8 if quick else SEQUENCES
    if source == "noise":
        generator = np.random.default_rng(0)
        x = generator.standard_normal((limit, *NOISE)).astype("float32")
        return x, generator.integers(0, CLASSES, limit)
    if source == "spikes":
        return datasets.load("smnist_latency", limit=limit, download=False, steps=SPIKE_STEPS)
    try:
        return datasets.load("smnist", limit=limit, download=False)
    except datasets.DatasetUnavailableError:
        return datasets.load("digits", limit=limit)


def layer(cell: str, units: int, index: int, **options: Any) -> keras.Layer:
    """A recurrent layer."""
    if cell == "bidirectional GRU":
        return keras.layers.Bidirectional(keras.layers.GRU(units // 2, **options))
    if cell == "LRUBlock":
        return keras_lsc.layers.LRUBlock(units, seed=index, **options)
    if cell in SPIKING:
        return getattr(keras_lsc.layers, cell)(units, **options)
    gated = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}
    if cell in gated:
        return gated[cell](units, **options)
    return keras.layers.SimpleRNN(units, activation=cell, **options)


def recurrent(cell: str, units: int, depth: int) -> list[keras.Layer]:
    """A stack of recurrent layers, the last of which gives out its last step only, or every one."""
    return [
        layer(cell, units, k, return_sequences=cell in AVERAGED or k < depth - 1)
        for k in range(depth)
    ]


class Subclassed(keras.Model):
    """A stack in a list, with a call of its own."""

    def __init__(self, units: int, depth: int):
        super().__init__()
        self.stack, self.readout = recurrent("GRU", units, depth), keras.layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        for one in self.stack:
            x = one(x)
        return self.readout(x)


def network(cell: str, units: int, depth: int, shape: tuple[int, ...]) -> keras.Model:
    """A built network with a dense head."""
    keras.utils.set_random_seed(0)
    readout = keras.layers.Dense(CLASSES)
    if cell == "subclassed GRU":
        model = Subclassed(units, depth)
        model(np.zeros((2, *shape), "float32"))
        return model
    if cell == "attention in GRU":
        hidden = inputs = keras.Input(shape)
        for k, one in enumerate(recurrent("GRU", units, depth)):
            if k == depth // 2:
                hidden = keras.layers.MultiHeadAttention(2, units // 2)(hidden, hidden)
            hidden = one(hidden)
        return keras.Model(inputs, readout(hidden))
    stack: list[keras.Layer] = []
    if cell in FEED_FORWARD:
        activation = cell.removeprefix("Dense ")
        stack = [keras.layers.Dense(units, activation) for _ in range(depth)]
        stack.insert(0, keras.layers.Flatten())
    elif cell == "convolutions":
        options = {"padding": "same", "activation": "relu"}
        stack = [keras.layers.Conv1D(units, 3, **options) for _ in range(depth)]
    elif cell == "norms in LSTM":
        for one in recurrent("LSTM", units, depth):
            stack += [one, keras.layers.LayerNormalization()]
        stack.pop()
    else:
        stack = recurrent(cell, units, depth)
    if cell == "LRUBlock":
        stack.insert(0, keras.layers.Dense(units))
    if cell in AVERAGED:
        stack.append(keras.layers.GlobalAveragePooling1D())
    return keras.Sequential([keras.Input(shape), *stack, readout])


def named(name: str, quick: bool) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A network of `NETWORKS` with its sequences and labels."""
    cell, units, depth, source = NETWORKS[name]
    x, labels = data(source, quick)
    if quick:
        units, depth = min(units, 16), 2
    return network(cell, units, depth, x.shape[1:]), x, labels


def cost(setting: Setting, quick: bool, tell: Tell) -> Setting:
    """Seconds of a pass of the gradient's measurement and of a training step, in turn."""
    model, x, labels = named(setting["network"], quick)
    x, labels = x[:BATCH], labels[:BATCH]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    rows, structure = draw(model, x, BATCH, 0)
    stages = Stages(model, rows, structure)
    generator = np.random.default_rng(0)
    calls = {
        "training_step": lambda: model.train_on_batch(x, labels),
        "gradient_pass": lambda: stages.measure(rows, generator),
    }
    first = {name: seconds(call) for name, call in calls.items()}
    tell(first=first)
    for call in calls.values():
        call()
    row: Setting = in_turn(calls, REPEATS)
    row["ratio"] = row["gradient_pass"]["median"] / row["training_step"]["median"]
    return {**row, "first_call": first, "load": os.getloadavg()[0]}


@contextmanager
def watched(tell: Tell) -> Iterator[None]:
    """Tells of every pass of `stabilize` and of the end of all, which its report does not hold."""
    level, one_pass = Leveller.level, Leveller._pass

    def told_level(self: Leveller, *arguments: Any) -> int:
        try:
            return level(self, *arguments)
        finally:
            tell(levelled=True)

    def told_pass(self: Leveller, times: int) -> Any:
        found = one_pass(self, times)
        tell(passes=1)
        return found

    Leveller.level, Leveller._pass = told_level, told_pass
    try:
        yield
    finally:
        Leveller.level, Leveller._pass = level, one_pass


class TellUpdates(keras.callbacks.Callback):
    """Tells of every update."""

    def __init__(self, tell: Tell):
        super().__init__()
        self._tell = tell

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del batch, logs
        self._tell(updates=1)


def whole(setting: Setting, quick: bool, tell: Tell) -> Setting:
    """Stabilises one network; its times are those of what is told."""
    model, x, _ = named(setting["network"], quick)
    options: dict[str, Any] = {"method": setting["method"], "verbose": 0}
    if setting["method"] == "lsc":
        options["callbacks"] = (TellUpdates(tell),)
    tell(began=True)
    reason = None
    with watched(tell):
        try:
            keras_lsc.stabilize(model, x, **options)
        except (keras_lsc.NotLevelledError, keras_lsc.NotStabilizedError) as error:
            reason = first_sentence(error)
    tell(ended=True)
    return {"reached": reason is None, "reason": reason, "load": os.getloadavg()[0]}


def times(told: list[dict[str, Any]], end: float) -> Setting:
    """What a row of `whole` holds of what its process told, until it ended or was ended."""

    def at(kind: str) -> list[float]:
        return [one["time"] for one in told if kind in one]

    (began,) = at("began")
    ended = at("ended")
    row: Setting = {
        "seconds": (ended[0] if ended else end) - began,
        "is_lower_bound": not ended,
    }
    if passes := at("passes"):
        row |= {"passes": len(passes), "first_pass_after": passes[0] - began}
    if levelled := at("levelled"):
        # What comes then is the report: radii, and a look at held-out sequences.
        row["levelled_after"] = levelled[0] - began
    if updates := at("updates"):
        row |= {"updates": len(updates), "first_update_after": updates[0] - began}
        row["update"] = summary(np.diff(updates).tolist()) if len(updates) > 1 else None
    return row


def first_sentence(error: Exception) -> str:
    """The first sentence, or line, of a message."""
    return str(error).split("\n")[0].split(". ")[0].rstrip(".:") + "."


def grid(setting: Setting, quick: bool, tell: Tell) -> Setting:
    """Levels one network, and measures it on sequences that this never saw."""
    cell, depth = setting["cell"], setting["depth"]
    x, _ = data("spikes" if cell in SPIKING else "rows", quick)
    unseen = min(UNSEEN, len(x) // 3)
    x, fresh = x[:-unseen], x[-unseen:]
    model = network(cell, UNITS, depth, x.shape[1:])
    rows, structure = draw(model, fresh, unseen, 0)
    stages = Stages(model, rows, structure)

    def spread() -> float | None:
        found = stages.measure(rows, np.random.default_rng(7)).spread
        return found if np.isfinite(found) else None

    before, reason, after = spread(), None, None
    start = time.perf_counter()
    passes: list[Any] = []
    with watched(lambda **what: passes.append(what) if "passes" in what else tell(**what)):
        try:
            keras_lsc.stabilize(model, x, method="level", verbose=0)
        except (keras_lsc.NotLevelledError, FloatingPointError) as error:
            reason = first_sentence(error)
    elapsed = time.perf_counter() - start
    if reason is None:
        after = spread()
    return {
        "units": UNITS,
        "shape": list(x.shape[1:]),
        "stages": len(stages.calls),
        "reached": reason is None,
        "reason": reason,
        "passes": len(passes),
        "seconds": round(elapsed, 1),
        "spread_before": before,
        "spread": after,
    }


MEASURES = {"cost": cost, "whole": whole, "grid": grid}


def tell(**what: Any) -> None:
    """A line for the process that waits, with the time."""
    print(json.dumps({"time": time.time(), **what}), flush=True)


def measured(part: str, setting: Setting, quick: bool, cap: float) -> Setting | None:
    """A row, from a process of its own; None where it failed or was ended without a bound."""
    command = [sys.executable, "-m", "benchmarks.levelling"]
    command += ["--row", json.dumps([part, setting, quick])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=cap, check=False
        )
    except subprocess.TimeoutExpired as error:
        out, why = (error.stdout or b"").decode(), f"not done after {cap:g} seconds"
    else:
        out, why = done.stdout, done.stderr.strip()[-2000:]
    end = time.time()
    told = [json.loads(line) for line in out.splitlines()]
    rows = [one["row"] for one in told if "row" in one]
    is_late = not rows and why.startswith("not done")
    if part == "whole" and (rows or (is_late and any("began" in one for one in told))):
        late = {"cap": cap, "narrower": NARROWER.get(setting["network"])}
        return {**setting, **times(told, end), **(rows[0] if rows else late)}
    if not rows:
        print(f"{part} {setting}: {why}", file=sys.stderr, flush=True)
        return None
    return {**setting, **rows[0]}


def main() -> int:
    """Measures what is missing in the file of this backend; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="+", default=[], help="rows with all of these values")
    parser.add_argument("--cap", type=float, default=540, help="seconds of a row (540)")
    parser.add_argument("--quick", action="store_true", help="small networks, to try it")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        part, setting, quick = options.row
        row = MEASURES[part](setting, quick, tell)
        tell(row={**row, "library_tree": environment()["library_tree"]})
        return 0
    folder = ROOT / "build" if options.quick else RESULTS
    path = folder / f"levelling_{keras.backend.backend()}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    failed = False
    for part in options.parts:
        every = list(settings(part))
        if options.quick:
            every = [one for one in every if one.get("depth") not in DEPTHS[1:]]
            every = [one for one in every if one.get("network") not in NARROWER]
        for setting in every:
            rows = result.get(part, [])
            if not is_wanted(setting, rows, options.only, options.cap):
                continue
            row = measured(part, setting, options.quick, options.cap)
            if row is None:
                failed = True
                continue
            print(part, json.dumps(row), flush=True)
            ordered = with_row(rows, row, setting, settings(part))
            result |= {"environment": environment(), "batch": BATCH, part: ordered}
            folder.mkdir(exist_ok=True)
            files.write_json(path, result)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
