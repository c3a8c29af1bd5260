"""One checkpoint on every backend: the same numbers? how fast? how much memory?

A process has one Keras backend, so each runs in a process of its own (`keras_lsc.backend_run`),
on whichever device it chooses; this one touches none.
"""

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc import datasets
from keras_lsc.arguments import integer, number, positive_integer, text
from keras_lsc.zoo import archive, loading, sources

BACKENDS = ("jax", "tensorflow", "torch")
_LEARNING_RATE = 1e-3
# The name of an input transition; a layer with several has numbers behind them.
_INPUT = re.compile(r"\.input(\[.*\])?$")


@dataclass(frozen=True)
class Timing:
    """Seconds of a step.

    Attributes:
        compile: of the first call beyond a later one.
        least: of the later calls, which says most where other programs run besides.
        median: of the later calls.
        low: their lower quartile.
        high: their upper quartile.
        calls: how many later calls there were.
    """

    compile: float
    least: float
    median: float
    low: float
    high: float
    calls: int


@dataclass(frozen=True)
class BackendRow:
    """What came of one backend.

    Attributes:
        backend: "jax", "tensorflow" or "torch".
        failed: why there are no figures, or None.
        is_absent: whether that is because the backend is not installed.
        device: that its tensors were on.
        versions: of the backend, Keras and NumPy.
        radii: mean radius of every transition.
        radius_difference: largest difference of a radius to the first backend that ran; None for
            that one.
        output_difference: largest difference of an output to that backend.
        gradient_difference: norm of the difference of the gradients to that backend, over the
            norm of its gradients.
        training: of a step of Adam on the batch.
        pretraining: of an update towards stability on the batch.
        host_memory: peak resident memory in bytes, the framework included.
        device_memory: peak in bytes; None where the device does not tell.
    """

    backend: str
    failed: str | None = None
    is_absent: bool = False
    device: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    radii: Mapping[str, float] = field(default_factory=dict)
    radius_difference: float | None = None
    output_difference: float | None = None
    gradient_difference: float | None = None
    training: Timing | None = None
    pretraining: Timing | None = None
    host_memory: int | None = None
    device_memory: int | None = None


@dataclass(frozen=True)
class BackendComparison:
    """One checkpoint on every backend.

    Attributes:
        model: name of the checkpoint, or path of the file.
        sha256: of the file.
        data: which sequences the batch is made of.
        inputs: shape, dtype and sha256 of the batch, and under "labels" where its targets are
            from; empty where no backend ran.
        samples: points of the radii.
        seed: of these points and of what is drawn.
        machine: system, number of cores; load: how many programs ran on them, this one not
            counted, None where the system does not tell; threads: OMP_NUM_THREADS, or None.
        rows: a `BackendRow` each.
    """

    model: str
    sha256: str
    data: str
    inputs: Mapping[str, Any]
    samples: int
    seed: int
    machine: Mapping[str, Any]
    rows: tuple[BackendRow, ...]

    @property
    def ran(self) -> tuple[BackendRow, ...]:
        """The rows with figures."""
        return tuple(row for row in self.rows if row.failed is None)

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON types."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BackendComparison":
        """Makes a comparison from `to_dict`."""
        rows = []
        for row in values["rows"]:
            timings = {
                name: None if row[name] is None else Timing(**row[name])
                for name in ("training", "pretraining")
            }
            rows.append(BackendRow(**{**row, **timings}))
        return cls(**{**values, "rows": tuple(rows)})

    def __str__(self) -> str:
        header = (
            *("backend", "version", "device", "radii", "radius", "output", "gradient"),
            *("compile", "training step", "pre-training step", "host", "device"),
        )
        lines = [header, *(_cells(row) for row in self.ran)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        table += [
            f"{row.backend.ljust(widths[0])}  {row.failed}" for row in self.rows if row.failed
        ]
        about = f"{self.model}: {self.data}"
        if self.inputs:
            shape = " x ".join(map(str, self.inputs["shape"]))
            about += f", batch {shape}, labels {self.inputs['labels']}"
        if not self.ran:
            return "\n".join([about, "", *table[1:]])
        note = (
            f"radius, output, gradient: difference to {self.ran[0].backend} (largest, largest, "
            "relative norm); compile: first call beyond a later one, training + pre-training; "
            "steps: median (quartiles); host, device: peak memory\n"
            f"{self.machine['cores']} cores, load {self.machine['load']} before, "
            f"{self.machine['system']}, radii of {self.samples} points, seed {self.seed}"
        )
        return "\n".join([about, "", *table, "", note])


def _cells(row: BackendRow) -> tuple[str, ...]:
    assert row.training is not None
    assert row.pretraining is not None
    # Input transitions are not what pre-training drives.
    radii = [radius for name, radius in row.radii.items() if not _INPUT.search(name)]
    differences = (row.radius_difference, row.output_difference, row.gradient_difference)
    compiled = f"{row.training.compile:.1f} + {row.pretraining.compile:.1f} s"
    return (
        row.backend,
        row.versions.get(row.backend, "?"),
        str(row.device),
        f"{np.min(radii):.3f} to {np.max(radii):.3f}" if radii else "-",
        *("-" if difference is None else f"{difference:.1e}" for difference in differences),
        compiled,
        _milliseconds(row.training),
        _milliseconds(row.pretraining),
        _gigabytes(row.host_memory),
        _gigabytes(row.device_memory),
    )


def _milliseconds(timing: Timing) -> str:
    values = (1e3 * seconds for seconds in (timing.median, timing.low, timing.high))
    median, low, high = (f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{median} ms ({low} to {high})"


def _gigabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2f} GB"


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
) -> BackendComparison:
    """Runs one checkpoint on every installed backend, each in a process of its own.

    All read the same file and the same batch: of `dataset`; without it, of the data of the
    checkpoint's certificate where that is prepared; else drawn from a normal distribution (tokens:
    uniformly) in the shape of the network's inputs. Where the data has no labels that fit the
    head, they are drawn too. Nothing is fetched, and dropout is off but in the timed steps.

    Args:
        name: of a checkpoint of the zoo, or the path of a `.keras` file.
        dataset: one of `keras_lsc.datasets.names()`; its validation split is read.
        options: of the dataset.
        backends: which to run; the differences are to the first that does.
        batch_size: sequences of the batch.
        samples: points (sequence, time step) at which the radii are measured.
        repeats: timed calls of each step; fewer, but three, where they take more than 30 s.
        seed: of what is drawn, by NumPy, and of the points.
        timeout: seconds after which a backend is given up.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        cache_dir: folder of fetched checkpoints.

    Returns:
        A `BackendComparison`; a backend that is absent or fails is a row with the reason.

    Raises:
        UnknownCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: as
            `keras_lsc.zoo.load`.
        DatasetUnavailableError: `dataset` is not on this computer.
        ValueError: an unknown backend or dataset, or a number of no use.

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
    file = _file(name, cache_dir)
    machine = _machine()
    data, x, y = _data(name, dataset, options or {}, batch_size, data_dir)
    task = {
        "file": str(file.absolute()),
        "batch_size": batch_size,
        "samples": samples,
        "repeats": repeats,
        "seed": seed,
        "learning_rate": _LEARNING_RATE,
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
                    row = _with_differences(row, outputs, gradients, *first)
            rows.append(row)
    return BackendComparison(
        model=name,
        sha256=archive.sha256(file),
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


def _file(name: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    cache = Path(cache_dir) if cache_dir else None
    if loading.is_path(name):
        return loading.file_of(name, None, cache)
    return sources.find(name, loading.find_info(name).sha256, cache)


def _data(
    name: str,
    dataset: str | None,
    options: Mapping[str, Any],
    batch_size: int,
    data_dir: str | os.PathLike[str] | None,
) -> tuple[str, np.ndarray | None, np.ndarray | None]:
    """What the data is, inputs and targets; None for both where they are to be drawn."""
    chosen = dict(options)
    if dataset is not None:
        return _read(dataset, chosen, batch_size, data_dir)
    if loading.is_path(name):
        return "normally distributed inputs", None, None
    recipe = loading.find_info(name).recipe
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
    chosen = dict(options)
    if datasets.info(dataset).kind != "generated":
        chosen |= {"data_dir": data_dir, "download": False}
    x, y = datasets.load(dataset, "validation", limit=batch_size, **chosen)
    return f"the first {len(x)} validation sequences of {dataset}", x, y


def _run(backend: str, folder: Path, timeout: float) -> BackendRow:
    if importlib.util.find_spec(backend) is None:
        reason = f'not installed: pip install "keras-lsc[{backend}]"'
        return BackendRow(backend, failed=reason, is_absent=True)
    # The package may be used from a checkout that is not installed.
    package = str(Path(__file__).parents[1])
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "keras_lsc.backend_run", str(folder)],
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


def _with_differences(
    row: BackendRow,
    outputs: np.ndarray,
    gradients: np.ndarray,
    first: BackendRow,
    first_outputs: np.ndarray,
    first_gradients: np.ndarray,
) -> BackendRow:
    distance = np.linalg.norm(gradients - first_gradients)
    size = np.linalg.norm(first_gradients)
    return replace(
        row,
        # NaN, where a radius is, is the largest.
        radius_difference=float(
            np.max([abs(row.radii[name] - first.radii[name]) for name in row.radii])
        ),
        output_difference=float(np.abs(outputs - first_outputs).max()),
        gradient_difference=float(distance / size) if size else float(distance),
    )
