"""Kills processes with SIGKILL at random moments, and checks what they leave.

    python fuzz/kills.py --kills 200 [--seed 0] [--output benchmarks/results/kills.json]

Kinds: `save` (keras_lsc.zoo.save into one folder), `download` (of a checkpoint from a slow
server), `collect` (entries of finished builds into an index), `build`
(keras_lsc.zoo.build.build_all with its children) and `resume` (pre-training with ModelCheckpoint,
taken up again). Of each is written how often it was tried, and how often what was left was right
or wrong; the exit code is 1 where anything was wrong. Processes are copies of this one, which
imports everything and computes nothing, so that most of a killed one's life is spent with what it
is killed at; a build is started as `build_all` starts it.
"""

import argparse
import contextlib
import copy
import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("KERAS_BACKEND", "jax")
# What one copy has compiled, the next need not: a killed one would spend its life compiling.
_COMPILED = tempfile.TemporaryDirectory(prefix="kills-compiled-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import https_server  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_lsc  # noqa: E402
from keras_lsc import files, zoo  # noqa: E402
from keras_lsc.stability.report import StabilityReport, TransitionStatistics  # noqa: E402
from keras_lsc.workers import local  # noqa: E402
from keras_lsc.zoo import build as building  # noqa: E402
from keras_lsc.zoo import registry, sources  # noqa: E402
from keras_lsc.zoo.keras_file import KerasFile  # noqa: E402
from keras_lsc.zoo.recipes import Recipe  # noqa: E402

TINY = "test_sigmoid_parity_d2_rhovar"
# Large enough to be cut off half-way.
SERVED = ROOT / "zoo" / "starts" / "sigmoid_smnist_d2_rho1_weights.npz"
# Of a hundred kills; a build and a resumption take many seconds each.
SHARES = {"save": 40, "download": 35, "collect": 15, "build": 3, "resume": 7}
EPOCHS = 16


class Process:
    """A copy of this process that runs `function`, tells lines of JSON, and can be killed."""

    def __init__(self, function: Callable[..., None], *arguments: Any):
        self._end, begin = os.pipe()
        self._told, self._rest, self.is_over = [], b"", False
        self.process = os.fork()
        if self.process:
            os.close(begin)
            return
        code = 1
        try:
            function(lambda line: os.write(begin, json.dumps(line).encode() + b"\n"), *arguments)
            code = 0
        except BaseException:  # noqa: BLE001, all of it is told to the parent, which raises it
            os.write(begin, json.dumps({"failed": traceback.format_exc()}).encode() + b"\n")
        finally:
            os._exit(code)

    def tells(self, seconds: float = 0.0) -> list[Any]:
        """All it has told, after waiting for so long or for its end."""
        until = time.monotonic() + seconds
        while not self.is_over:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._end], [], [], left)[0]:
                break
            block = os.read(self._end, 65536)
            self.is_over = not block
            *lines, self._rest = (self._rest + block).split(b"\n")
            self._told += [json.loads(line) for line in lines]
        return self._told

    def wait_for(self, key: str, seconds: float = 300.0) -> Any:
        """What it tells under a key, once it does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.tells(0.02):
                if "failed" in line:
                    raise AssertionError(line["failed"])
                if key in line:
                    return line[key]
            if self.is_over:
                break
        raise AssertionError(f"a process never told {key!r}")

    def kill(self) -> list[Any]:
        """Kills it; returns all it has told."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        told = self.tells(10.0)
        os.close(self._end)
        return told


def require(condition: bool, what: str) -> None:
    """Raises AssertionError, with optimisation too."""
    if not condition:
        raise AssertionError(what)


# save


def report_of(number: int) -> StabilityReport:
    row = TransitionStatistics("dense.depth", "depth", 0, "output", (8, 8), 1.0, 0.0, 1.0)
    return StabilityReport("own", (row,), 1, 0, 1, number)


def number_of(folder: Path) -> int:
    """The number of the save that a folder has, whole and unmixed."""
    weights = zoo.load(str(folder)).get_weights()
    numbers = {float(value) for weight in weights for value in np.unique(weight)}
    within = KerasFile.read(folder / "model.keras").certificate()
    require(within is not None, "no certificate within the model")
    numbers.add(float(within["stabilized"]["seed"]))
    beside = folder / "certificate.json"
    if beside.exists():
        content = json.loads(beside.read_text())
        numbers.add(float(content["stabilized"]["seed"]))
        require(content["sha256"] == files.sha256(folder / "model.keras"), "another sha256")
    require(len(numbers) == 1, f"a mix of the saves {sorted(numbers)}")
    return int(numbers.pop())


def saves(tell: Callable[[Any], Any], folder: Path) -> None:
    number = number_of(folder) if folder.exists() and any(folder.glob("model.keras")) else 0
    tell({"found": number})
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(8)])
    while True:
        number += 1
        model.set_weights([np.full(w.shape, number, "float32") for w in model.get_weights()])
        zoo.save(model, folder, report_of(number))
        left = sorted(path.name for path in folder.iterdir())
        require(left == ["certificate.json", "model.keras"], f"{left} after a save")
        tell({"saved": number})


def kill_saves(count: int, chance: random.Random, folder: Path) -> Iterator[str | None]:
    saved = 0
    for last in range(count + 1):
        process = Process(saves, folder / "own")
        try:
            found = process.wait_for("found")
            require(saved <= found <= saved + 1, f"save {found} where {saved} was done")
            problem = None
        except AssertionError as error:
            found, problem = saved, str(error)
        if last:
            yield problem
        if last < count and problem is None:
            process.wait_for("saved")
            process.tells(chance.uniform(0.0, 0.3))
        told = process.kill()
        failures = [line["failed"] for line in told if "failed" in line]
        if failures and problem is None:
            raise AssertionError(failures[0])
        saved = max([found, *(line["saved"] for line in told if "saved" in line)])


# download


def serves(tell: Callable[[Any], Any], content: bytes) -> None:
    with https_server.serving({"/x.keras": [https_server.slowly(content, 0.2)]}) as server:
        tell({"address": server.address})
        time.sleep(100_000)


def downloads(tell: Callable[[Any], Any], address: str, digest: str, cache: Path) -> None:
    while True:
        path = sources.fetch(address, digest, cache).path
        tell({"fetched": str(path)})
        path.unlink()


def kill_downloads(count: int, chance: random.Random, folder: Path) -> Iterator[str | None]:
    os.environ["SSL_CERT_FILE"] = str(https_server.CERTIFICATE)
    content = SERVED.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    server = Process(serves, content)
    address = f"{server.wait_for('address')}/x.keras"
    try:
        for _ in range(count):
            process = Process(downloads, address, digest, folder)
            process.tells(chance.uniform(0.0, 0.5))
            told = process.kill()
            try:
                require(not any("failed" in line for line in told), str(told))
                for path in folder.rglob("x.keras"):
                    require(path.read_bytes() == content, "half a file where it is looked for")
                path = sources.fetch(address, digest, folder).path
                require(path.read_bytes() == content, "another file")
                left = [part.name for part in path.parent.iterdir()]
                require(left == ["x.keras"], f"{left} after a download")
                path.unlink()
                yield None
            except (AssertionError, OSError) as error:
                yield str(error)
    finally:
        server.kill()


# collect


def entry_of(number: int) -> tuple[str, dict[str, Any], bytes]:
    """Entry and file of a build that is finished, one of its own for every number."""
    entry = copy.deepcopy(registry.read_index(ROOT / "zoo" / registry.INDEX)[TINY])
    recipe = replace(Recipe.from_dict(entry["certificate"]["recipe"]), depth=number % 20 + 1)
    recipe = replace(recipe, seed=number)
    content = f"build {number}".encode()
    entry["certificate"]["recipe"] = recipe.to_dict()
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    return recipe.name, entry, content


def collects(tell: Callable[[Any], Any], folder: Path, number: int) -> None:
    tell({"ready": True})
    while True:
        number += 1
        name, entry, content = entry_of(number)
        building.leave(name, entry, content, folder)
        tell({"left": [name, number]})
        building.collect(folder)


def kill_collects(count: int, chance: random.Random, folder: Path) -> Iterator[str | None]:
    wanted: dict[str, int] = {}
    for start in range(count):
        # Two at a time, of which one is killed.
        both = [Process(collects, folder, 10_000 * (2 * start + k)) for k in range(2)]
        for process in both:
            process.wait_for("ready")
        both[0].tells(chance.uniform(0.05, 0.6))
        told = [both[0].kill()]
        both[1].tells(0.05)
        told.append(both[1].kill())
        try:
            for name, number in (
                line["left"] for lines in told for line in lines if "left" in line
            ):
                wanted[name] = max(number, wanted.get(name, 0))
            require("failed" not in str(told), str(told))
            building.collect(folder)
            entries = registry.read_index(folder / registry.INDEX)
            require(wanted.keys() <= entries.keys(), "entries were lost")
            for name, entry in entries.items():
                path = building.start_path(folder, name)
                require(files.sha256(path) == entry["sha256"], f"{name} has another file")
            yield None
        except (AssertionError, OSError) as error:
            yield str(error)


# build


def builds(tell: Callable[[Any], Any], folder: Path) -> None:
    recipe = Recipe.from_dict(
        registry.read_index(ROOT / "zoo" / registry.INDEX)[TINY]["certificate"]["recipe"]
    )

    class Told(local.Child):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            tell({"child": self.process.pid})

    local.Child = Told
    problems: list[str | None] = []
    building.build_all([recipe], folder, 1, lambda _, problem: problems.append(problem))
    require(problems in ([], [None]), str(problems))
    require(building.is_built(recipe, folder), "nothing was built")
    tell({"built": True})


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    with contextlib.suppress(FileNotFoundError):
        return state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def kill_builds(count: int, chance: random.Random, folder: Path) -> Iterator[str | None]:
    for number in range(count):
        zoo_folder = folder / str(number)
        zoo_folder.mkdir()
        process = Process(builds, zoo_folder)
        child = process.wait_for("child")
        process.tells(chance.uniform(0.0, 30.0))
        if number % 2:
            # Its worker alone: another one does the job.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            process.tells(chance.uniform(0.0, 30.0))
            child = [line["child"] for line in process.tells() if "child" in line][-1]
        told = process.kill()
        until = time.monotonic() + 20
        while is_running(child) and time.monotonic() < until:
            time.sleep(0.05)
        again = Process(builds, zoo_folder)
        try:
            require("failed" not in str(told), str(told))
            require(not is_running(child), "a build outlives its parent")
            again.wait_for("built")
            left = list((zoo_folder / "building").glob("*"))
            require(not left, f"{left} after a build")
            yield None
        except AssertionError as error:
            yield str(error)
        finally:
            again.kill()


# resume


def stabilizes(tell: Callable[[Any], Any], folder: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((64, 8, 3)).astype("float32")
    layers = [keras.layers.SimpleRNN(6, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((8, 3)), *layers])
    model.set_weights([0.3 * generator.standard_normal(w.shape) for w in model.get_weights()])
    before = [weight.numpy().copy() for weight in model.weights]
    pretrainer = keras_lsc.LSCPretrainer(model, target=0.9)
    pretrainer.compile(keras.optimizers.Adam(0.02))
    # The state of the optimiser is restored where there is one to restore to.
    pretrainer.optimizer.build(pretrainer.trainable_variables)
    folder.mkdir(exist_ok=True)
    first = 0
    # The newest that is whole: Keras writes a file for every epoch, and writes it in place.
    for path in sorted(folder.glob("*.weights.h5"), reverse=True):
        with contextlib.suppress(OSError, KeyError, ValueError):
            pretrainer.load_weights(path)
            first = int(path.name.split(".")[0])
            break
    tell({"begun": first})
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            str(folder / "{epoch:04d}.weights.h5"), save_weights_only=True
        ),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: tell({"epoch": epoch + 1})),
    ]
    pretrainer.fit(
        x,
        batch_size=16,
        initial_epoch=first,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    report = keras_lsc.measure(model, x, samples=64)
    ratios = [
        weight.numpy() / old
        for weight, old in zip(model.weights, before, strict=True)
        if len(old.shape) == 2
    ]
    spread = max(float(np.ptp(ratio) / abs(ratio.mean())) for ratio in ratios)
    tell({"deviation": report.max_deviation(0.9), "spread": spread})


def kill_resumptions(count: int, chance: random.Random, folder: Path) -> Iterator[str | None]:
    whole = Process(stabilizes, folder / "whole")
    expected = whole.wait_for("deviation")
    whole.kill()
    for number in range(count):
        place = folder / str(number)
        process = Process(stabilizes, place)
        process.wait_for("epoch")
        process.tells(chance.uniform(0.0, 0.5))
        told = process.kill()
        again = Process(stabilizes, place)
        try:
            found = again.wait_for("deviation")
            done = [line["epoch"] for line in told if "epoch" in line]
            first = again.wait_for("begun")
            # What is told of an epoch is told after its file is written.
            require(first >= max(done), f"taken up at {first}, where {max(done)} was done")
            require(again.wait_for("spread") < 1e-3, "more than a scale of a matrix was moved")
            require(
                abs(found - expected) < 1e-4,
                f"{found:.4f} from the target, {expected:.4f} without a kill",
            )
            yield None
        except AssertionError as error:
            yield str(error)
        finally:
            again.kill()


KINDS = {
    "save": kill_saves,
    "download": kill_downloads,
    "collect": kill_collects,
    "build": kill_builds,
    "resume": kill_resumptions,
}


def share(kills: int) -> dict[str, int]:
    """How many kills of each kind there are: one at least, and all together `kills`."""
    counts = {kind: max(1, kills * part // 100) for kind, part in SHARES.items()}
    counts["save"] += kills - sum(counts.values())
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills processes and checks what they leave.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="one kind, with all the kills")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/kills.json")
    given = parser.parse_args()
    if given.kills < len(KINDS):
        parser.error(f"--kills must be at least {len(KINDS)}, got {given.kills}")
    # The copies compute; this process does not, and so has no threads that they could miss.
    warnings.filterwarnings("ignore", message=".*fork.*")
    # Where TensorFlow is installed this imports it, once instead of in every copy.
    keras.saving.serialize_keras_object(keras.layers.Dense(1))
    counts = {given.only: given.kills} if given.only else share(given.kills)
    found: dict[str, dict[str, int]] = {}
    for kind, count in counts.items():
        found[kind] = {"tried": 0, "right": 0, "wrong": 0}
        start = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix=f"kills-{kind}-"))
        try:
            for problem in KINDS[kind](count, random.Random(f"{given.seed} {kind}"), folder):
                found[kind]["tried"] += 1
                found[kind]["wrong" if problem else "right"] += 1
                if problem:
                    print(f"{kind} {found[kind]['tried']}: {problem}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{kind}: {found[kind]}, {time.monotonic() - start:.0f} s", flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if any(row["wrong"] for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
