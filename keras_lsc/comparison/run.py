"""Running one checkpoint on every backend, each in a process of its own."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc import datasets
from keras_lsc.arguments import integer, number, positive_integer, text
from keras_lsc.comparison.report import BackendComparison, BackendRow, Timing, with_differences
from keras_lsc.zoo.resolver import Located, locate

BACKENDS = ("jax", "tensorflow", "torch")
_LEARNING_RATE = 1e-3


def compare_backends(
    name: str,
    *,
    dataset: str | None = None,
    options: Mapping[str, Any] | None = None,
    backends: Sequence[str] = BACKENDS,
    batch_size: int = 32,
    samples: int = 256,
    repeats: int = 20,
    seed: int = 0,
    timeout: float = 900.0,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    imports: Sequence[str] = (),
) -> BackendComparison:
    """Runs one checkpoint on every installed backend, each in a process of its own.

    All read the same file and the same batch: of `dataset`; without it, of the data of the
    checkpoint's certificate where that is prepared; else drawn from a normal distribution (tokens:
    uniformly) in the shape of the network's inputs. Where the data has no labels that fit the
    head, they are drawn too. Nothing is fetched, and dropout is off but in the timed steps.

    Args:
        name: Name of a checkpoint of the zoo, or the path of a `.keras` file.
        dataset: One of `keras_lsc.datasets.names()`; its validation split is read.
        options: Options of the dataset.
        backends: Which to run; the differences are to the first that does.
        batch_size: Number of sequences of the batch.
        samples: Number of points (sequence, time step) at which the radii are measured.
        repeats: Timed calls of each step; fewer, but three, where they take more than 30 s.
        seed: Seed of what is drawn, by NumPy, and of the points.
        timeout: Seconds after which a backend is given up.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        cache_dir: Folder of fetched checkpoints.
        imports: Names of modules, with cells of your own, that every process imports first.

    Returns:
        A `BackendComparison`; a backend that is absent or fails is a row with the reason.

    Raises:
        UnknownCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: As
            `keras_lsc.zoo.load`.
        DatasetUnavailableError: `dataset` is not on this computer.
        ValueError: An unknown backend or dataset, or a number of no use.

    Example:
        >>> from keras_lsc.comparison import compare_backends
        >>> comparison = compare_backends("test_gru_parity_d2_rhovar")  # doctest: +SKIP
        >>> [row.backend for row in comparison.ran]  # doctest: +SKIP
        ['jax', 'tensorflow', 'torch']
    """
    name = text("name", name, advice="Give the name of a checkpoint, or the path of a file.")
    _check_backends(backends)
    batch_size = positive_integer("batch_size", batch_size)
    samples = positive_integer("samples", samples)
    repeats = positive_integer("repeats", repeats)
    seed = integer("seed", seed, at_least=0)
    # Python waits at most as many milliseconds as an int of C has.
    timeout = number("timeout", timeout, above=0, at_most=1e6, advice="It is in seconds.")
    located = locate(name, cache_dir=cache_dir)
    machine = _machine()
    data, x, y = _data(located, dataset, options or {}, batch_size, data_dir)
    task = {
        # The process has another folder for its own.
        "name": name if located.recipe else str(located.path.absolute()),
        "sha256": located.file.sha256,
        "batch_size": batch_size,
        "samples": samples,
        "repeats": repeats,
        "seed": seed,
        "learning_rate": _LEARNING_RATE,
        "imports": [text("imports", module) for module in imports],
    }
    rows: list[BackendRow] = []
    inputs: dict[str, Any] = {}
    first: tuple[BackendRow, np.ndarray, np.ndarray] | None = None
    for backend in backends:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
            if x is not None:
                np.save(folder / "x.npy", x)
            if y is not None:
                np.save(folder / "y.npy", y)
            row = _run(backend, folder, timeout)
            if row.failed is None:
                inputs = json.loads((folder / "result.json").read_text())["inputs"]
                outputs, gradients = (
                    np.load(folder / f"{name}.npy") for name in ("outputs", "gradients")
                )
                first = first or (row, outputs, gradients)
                if row is not first[0]:
                    row = with_differences(row, outputs, gradients, *first)
            rows.append(row)
    return BackendComparison(
        model=name,
        sha256=located.file.sha256,
        data=data,
        inputs=inputs,
        samples=samples,
        seed=seed,
        machine=machine,
        rows=tuple(rows),
    )


def _check_backends(backends: Sequence[str]) -> None:
    is_list = isinstance(backends, list | tuple)
    known = is_list and bool(backends) and all(backend in BACKENDS for backend in backends)
    if known and len(set(backends)) == len(backends):
        return
    given = ",".join(map(str, backends)) if is_list else backends
    raise ValueError(
        f"backends={given!r} must be a list that names one or more of {', '.join(BACKENDS)}, "
        "each once."
    )


def _machine() -> dict[str, Any]:
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    system = f"{platform.system()} {platform.machine()}"
    threads = os.environ.get("OMP_NUM_THREADS")
    return {"system": system, "cores": os.cpu_count(), "load": load, "threads": threads}


def _data(
    located: Located,
    dataset: str | None,
    options: Mapping[str, Any],
    batch_size: int,
    data_dir: str | os.PathLike[str] | None,
) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """What the data is, inputs and targets; None for both where they are to be drawn."""
    chosen = dict(options)
    if dataset is not None:
        return _read(dataset, chosen, batch_size, data_dir)
    recipe = located.recipe
    if recipe is None:
        return "normally distributed inputs", None, None
    try:
        return _read(recipe.dataset, {**recipe.options, **chosen}, batch_size, data_dir)
    except (datasets.DatasetUnavailableError, ModuleNotFoundError):
        return (
            f"normally distributed inputs, since {recipe.dataset} is not prepared here",
            None,
            None,
        )


def _read(
    dataset: str,
    options: Mapping[str, Any],
    batch_size: int,
    data_dir: str | os.PathLike[str] | None,
) -> tuple[str, np.ndarray, np.ndarray]:
    chosen = {**options, "data_dir": data_dir, "download": False}
    x, y = datasets.load(dataset, "validation", limit=batch_size, **chosen)
    return f"the first {len(x)} validation sequences of {dataset}", x, y


def _run(backend: str, folder: Path, timeout: float) -> BackendRow:
    if importlib.util.find_spec(backend) is None:
        reason = f'not installed: pip install "keras-lsc[{backend}]"'
        return BackendRow(backend, failed=reason, is_absent=True)
    # What this process can import, that one can: the package may be used from a checkout.
    search = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), *sys.path)))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "keras_lsc.comparison.worker", str(folder)],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return BackendRow(backend, failed=f"given up after {timeout:g} s; see timeout")
    if done.returncode:
        printed = [line for line in done.stderr.splitlines() if line.strip()]
        reason = printed[-1].strip() if printed else f"exit code {done.returncode}"
        return BackendRow(backend, failed=f"failed: {reason}")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return BackendRow(
        backend=backend,
        device=result["device"],
        versions=result["versions"],
        radii=result["radii"],
        training=_timing(result["times"]["training"]),
        pretraining=_timing(result["times"]["pretraining"]),
        host_memory=result["host_memory"],
        device_memory=result["device_memory"],
    )


def _timing(seconds: Mapping[str, Any]) -> Timing:
    later = seconds["later"]
    least, low, median, high = map(float, np.percentile(later, (0, 25, 50, 75)))
    compiled = max(0.0, seconds["first"] - median)
    return Timing(compiled, least, median, low, high, calls=len(later))
