"""What `StabilityMonitor` costs at its default, of the time of the same training without it.

    KERAS_BACKEND=jax python -m benchmarks.monitor [--only TEXT ...] [--quick]

Two trainings of one network run in turn in one process, an epoch of one and an epoch of the other,
with callbacks that wake at the ends of epochs alone, and with the monitor besides. An epoch is of
as many updates as lie between two measurements of radii, so that each has one, and two looks. The
first epoch, in which functions are compiled, is left out. Every row is added to
`benchmarks/results/monitor_<backend>.json` when it is done; what is there is skipped: delete a row
to have it measured again. `--quick` has small networks and few epochs, and writes to `build/`
instead.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import environment
from benchmarks.levelling import network
from benchmarks.timing import summary
from keras_lsc.callbacks import StabilityMonitor
from keras_lsc.callbacks.monitor import LOOKS_FOR_RADII
from keras_lsc.diagnosis import Finding

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BATCH, CLASSES = 64, 10
# Pairs of epochs, at least and at most, and seconds that they are to take.
LEAST, MOST, SECONDS = 4, 60, 40
# Cell, units, depth, steps and features.
NETWORKS = {
    "LSTM 1x32": ("LSTM", 32, 1, 28, 28),
    "LSTM 2x128": ("LSTM", 128, 2, 28, 28),
    "GRU 4x64": ("GRU", 64, 4, 28, 28),
    "LIF 2x64": ("LIF", 64, 2, 28, 28),
}


class Turns(keras.callbacks.Callback):
    """Seconds of the epochs of trainings that run in turn, each in a thread of its own.

    By the clock, and of the processors: others on the machine change the former far more.
    """

    lock = threading.Condition()
    running: "list[Turns]"

    def __init__(self, running: "list[Turns]"):
        super().__init__()
        self.running = running
        self.seconds: list[tuple[float, float]] = []
        running.append(self)

    def wait(self) -> None:
        """Waits until it is the turn of this training."""
        with self.lock:
            self.lock.wait_for(lambda: self.running[0] is self)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an epoch when the others have ended theirs."""
        del epoch, logs
        self.wait()
        self.begun = _now()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets the next training have its turn."""
        del epoch, logs
        clock, processors = _now()
        self.seconds.append((clock - self.begun[0], processors - self.begun[1]))
        with self.lock:
            self.running.append(self.running.pop(0))
            self.lock.notify_all()


class Timed(StabilityMonitor):
    """Counts the seconds of its looks."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Has had none."""
        self.looks: list[float] = []
        super().on_train_begin(logs)

    def _look(self) -> list[Finding]:
        begun = time.perf_counter()
        found = super()._look()
        self.looks.append(time.perf_counter() - begun)
        return found


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def measured(name: str, quick: bool) -> dict[str, Any]:
    """Seconds of an update with and without the monitor."""
    cell, units, depth, steps, features = NETWORKS[name]
    units, wanted = (8, 1) if quick else (units, SECONDS)

    def compiled() -> keras.Model:
        model = network(cell, units, depth, (steps, features))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    generator = np.random.default_rng(0)
    monitor = Timed(generator.standard_normal((BATCH, steps, features)))
    # Of an epoch, in which one look measures radii.
    updates = LOOKS_FOR_RADII * monitor.every
    x = generator.standard_normal((BATCH * updates, steps, features)).astype("float32")
    y = generator.integers(0, CLASSES, len(x))
    running: list[Turns] = []
    alone = Turns([])
    compiled().fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[alone])
    pairs = int(np.clip(wanted / (2 * alone.seconds[-1][0]), 2 if quick else LEAST, MOST))
    without, with_monitor = Turns(running), Turns(running)

    def train(callbacks: list[keras.callbacks.Callback]) -> threading.Thread:
        options = {"batch_size": BATCH, "epochs": pairs + 1, "verbose": 0, "callbacks": callbacks}
        return threading.Thread(target=compiled().fit, args=(x, y), kwargs=options)

    # As it begins, the second compiles what looks: before the first has its second epoch.
    threads = [train([without]), train([monitor, with_monitor])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first epoch of each compiles.
    found = np.array([without.seconds, with_monitor.seconds])[:, 1:] / updates
    clock, processors = found[..., 0], found[..., 1]
    # The first look, which compiles, is before the first update.
    by_epoch = np.reshape(monitor.looks[1:], (-1, LOOKS_FOR_RADII))[1:]
    looks = np.sum(by_epoch, axis=1) / updates
    return {
        "network": name,
        "every": monitor.every,
        "without": summary(list(clock[0])),
        "with": summary(list(clock[1])),
        "cost": summary(list(clock[1] / clock[0] - 1.0)),
        "looks": summary(list(looks / clock[1])),
        "first_look": monitor.looks[0],
        "processor_cost": summary(list(processors[1] / processors[0] - 1.0)),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measures what is not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="networks whose name has the text")
    parser.add_argument("--quick", action="store_true", help="small networks, to try the script")
    arguments = parser.parse_args()
    folder = ROOT / "build" if arguments.quick else RESULTS
    folder.mkdir(exist_ok=True)
    path = folder / f"monitor_{keras.backend.backend()}.json"
    stored = json.loads(path.read_text()) if path.exists() and not arguments.quick else {}
    rows = stored.get("rows", [])
    for name in NETWORKS:
        is_known = any(row["network"] == name for row in rows)
        if is_known or not any(text in name for text in arguments.only):
            continue
        row = measured(name, arguments.quick)
        rows.append(row)
        rows.sort(key=lambda one: list(NETWORKS).index(one["network"]))
        print(
            f"{name}: {row['cost']['median']:+.1%}, in looks {row['looks']['median']:.1%}",
            flush=True,
        )
        path.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
