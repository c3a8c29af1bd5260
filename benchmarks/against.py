"""What an update and `measure` cost in this tree beside another one, in turn on the same machine.

    KERAS_BACKEND=jax python benchmarks/against.py PATH_OF_ANOTHER_CHECKOUT

Every round starts a process a tree, which times one network at a time; the ratio is that of the
medians over all rounds. Writes `benchmarks/results/against_<backend>.json`.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROUNDS, REPEATS = 3, 5


def networks() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Small and large, dense and matrix-free: `(model, x)` of each."""
    import keras
    import numpy as np

    import keras_lsc

    def recurrent(layer: Callable, units: int, depth: int, steps: int, inputs: int) -> Callable:
        def make() -> tuple[Any, Any]:
            keras.utils.set_random_seed(0)
            x = (np.random.default_rng(0).random((32, steps, inputs)) < 0.05).astype("float32")
            stack = [layer(units, return_sequences=True) for _ in range(depth)]
            return keras.Sequential([keras.Input((steps, inputs)), *stack]), x

        return make

    return {
        "LSTM 2x42": recurrent(keras.layers.LSTM, 42, 2, 100, 128),
        "GRU 2x53": recurrent(keras.layers.GRU, 53, 2, 100, 128),
        "LIF 2x128": recurrent(keras_lsc.layers.LIF, 128, 2, 100, 128),
        "GRU 1x300": recurrent(keras.layers.GRU, 300, 1, 20, 128),
    }


def timed(repeats: int) -> dict[str, Any]:
    """Seconds of an update and of `measure` for every network, in this process."""
    import keras_lsc

    # What the other tree does not measure is not compared.
    takes_gradient = "gradient" in inspect.signature(keras_lsc.measure).parameters
    of_radii = {"gradient": False} if takes_gradient else {}
    found: dict[str, Any] = {}
    for name, make in networks().items():
        model, x = make()
        pretrainer = keras_lsc.LSCPretrainer(model)
        pretrainer.compile()
        calls = {
            "update": lambda pretrainer=pretrainer, x=x: pretrainer.train_on_batch(x),
            "measure": lambda model=model, x=x: keras_lsc.measure(model, x, samples=32, **of_radii),
        }
        for call, function in calls.items():
            seconds = []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                function()
                seconds.append(time.perf_counter() - start)
            found[f"{call}, {name}"] = {"first": seconds[0], "then": seconds[1:]}
            print(f"{call}, {name}: {seconds}", file=sys.stderr, flush=True)
    return found


def run(tree: Path) -> dict[str, Any]:
    """`timed` in a process that imports the package of `tree`."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, __file__, "--timed"]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Times both trees in turn, prints the ratios and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timed:
        print(json.dumps(timed(REPEATS)))
        return
    import keras
    import numpy as np
    from environment import environment

    rounds = [(run(ROOT), run(options.other.resolve())) for _ in range(ROUNDS)]
    rows = []
    for name in rounds[0][0]:
        row: dict[str, Any] = {"what": name}
        for index, tree in enumerate(("here", "other")):
            then = [value for both in rounds for value in both[index][name]["then"]]
            low, middle, high = np.percentile(then, (25, 50, 75))
            first = float(np.median([both[index][name]["first"] for both in rounds]))
            row[tree] = {"median": middle, "low": low, "high": high, "n": len(then), "first": first}
        row["ratio"] = row["here"]["median"] / row["other"]["median"]
        rows.append(row)
        print(
            f"{name:22} {row['ratio']:.2f}  first {row['here']['first']:.1f} s, "
            f"before {row['other']['first']:.1f} s",
            flush=True,
        )
    path = RESULTS / f"against_{keras.backend.backend()}.json"
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=options.other,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    result = {"environment": environment(), "other": head, "rows": rows}
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
