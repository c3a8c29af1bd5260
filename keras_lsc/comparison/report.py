"""What a comparison of backends gives: a row for each, their differences, and the table."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

# The name of an input transition; a layer with several has numbers behind them.
_INPUT = re.compile(r"\.input(\[.*\])?$")


@dataclass(frozen=True)
class Timing:
    """Seconds of a step.

    Attributes:
        compile: Seconds of the first call beyond a later one.
        least: Least of the later calls, which says most where other programs run besides.
        median: Median of the later calls.
        low: Their lower quartile.
        high: Their upper quartile.
        calls: How many later calls there were.
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
        failed: Why there are no figures, or None.
        is_absent: Whether that is because the backend is not installed.
        device: Device that its tensors were on.
        versions: Versions of the backend, Keras and NumPy.
        radii: Mean radius of every transition.
        radius_difference: Largest difference of a radius to the first backend that ran; None for
            that one.
        output_difference: Largest difference of an output to that backend.
        gradient_difference: Norm of the difference of the gradients to that backend, over the
            norm of its gradients.
        training: Times of a step of Adam on the batch.
        pretraining: Times of an update towards stability on the batch.
        host_memory: Peak resident memory in bytes, the framework included.
        device_memory: Peak in bytes; None where the device does not tell.
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
        model: Name of the checkpoint, or path of the file.
        sha256: The sha256 of the file.
        data: Which sequences the batch is made of.
        inputs: Shape, dtype and sha256 of the batch, and under "labels" where its targets are
            from; empty where no backend ran.
        samples: Number of points of the radii.
        seed: Seed of these points and of what is drawn.
        machine: System, number of cores; load: how many programs ran on them, this one not
            counted, None where the system does not tell; threads: OMP_NUM_THREADS, or None.
        rows: A `BackendRow` each.
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


def with_differences(
    row: BackendRow,
    outputs: np.ndarray,
    gradients: np.ndarray,
    first: BackendRow,
    first_outputs: np.ndarray,
    first_gradients: np.ndarray,
) -> BackendRow:
    """Returns the row of a backend with its differences to the first that ran."""
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
