"""What is measured of one checkpoint on the backend of this process, for `keras_lsc.comparison`.

    KERAS_BACKEND=torch python -m keras_lsc.comparison.worker FOLDER

The folder holds `task.json` and, where there is data, `x.npy` and `y.npy`; `result.json`,
`outputs.npy` and `gradients.npy` are written to it.
"""

import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import backend
from keras_lsc.files import array_identity
from keras_lsc.pretrainer import LSCPretrainer
from keras_lsc.stability.measure import measure
from keras_lsc.version import installed_versions
from keras_lsc.zoo.heads import gives_logits, output_activation
from keras_lsc.zoo.inputs import draw_inputs
from keras_lsc.zoo.resolver import locate

# Seconds of samples after which three are enough.
_LONGEST = 30.0


def run(folder: Path) -> None:
    """Measures the checkpoint that `task.json` names and writes what was found beside it."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    for module in task["imports"]:
        importlib.import_module(module)
    file = locate(task["name"], sha256=task["sha256"]).file
    model = file.model()
    x, y, labels = _batch(model, folder, task["batch_size"], task["seed"])
    loss = _loss(model, y)
    np.save(folder / "outputs.npy", ops.convert_to_numpy(model(x, training=False)))
    report = measure(model, x, samples=task["samples"], seed=task["seed"], gradient=False)
    np.save(folder / "gradients.npy", _gradients(model, loss, x, y))
    model.compile(keras.optimizers.Adam(task["learning_rate"]), loss)
    pretrainer = LSCPretrainer(file.model(), seed=task["seed"])
    pretrainer.compile()
    times = _seconds(
        {
            "training": lambda: model.train_on_batch(x, y),
            "pretraining": lambda: pretrainer.train_on_batch(x),
        },
        task["repeats"],
    )
    result = {
        "inputs": {**array_identity(x), "labels": labels},
        "device": backend.device_name(),
        "versions": _versions(),
        "radii": {row.name: row.radius for row in report.transitions},
        "times": times,
        "host_memory": _peak_host_memory(),
        "device_memory": backend.peak_device_memory(),
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _batch(
    model: keras.Model, folder: Path, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Inputs, targets, and where the targets are from: the data, or drawn by NumPy."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "networks with one of each can be compared."
        )
    generator = np.random.default_rng(seed)
    is_given = (folder / "x.npy").is_file()
    x = np.load(folder / "x.npy") if is_given else draw_inputs(model, size, generator)
    shape = (len(x), *model.compute_output_shape(x.shape)[1:])
    if (folder / "y.npy").is_file():
        y = np.load(folder / "y.npy")
        is_class = np.issubdtype(y.dtype, np.integer)
        expected = shape[:-1] if is_class else (*shape[:-1], 1)
        fits = y.shape in (expected, shape[:-1]) and (not is_class or y.max() < shape[-1])
        if fits:
            return x, y, "of the data"
    if output_activation(model) == "softmax":
        return x, generator.integers(0, shape[-1], shape[:-1], dtype="int32"), "random"
    return x, generator.standard_normal(shape).astype("float32"), "random"


def _loss(model: keras.Model, y: np.ndarray) -> keras.losses.Loss:
    if np.issubdtype(y.dtype, np.integer):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=gives_logits(model))
    return keras.losses.MeanSquaredError()


def _gradients(
    model: keras.Model, loss: keras.losses.Loss, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """The gradients of all weights in one vector."""
    inputs, targets = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    found = backend.gradients(
        lambda: loss(targets, model(inputs, training=False)), model.trainable_variables
    )
    return np.concatenate([ops.convert_to_numpy(gradient).ravel() for gradient in found])


def _seconds(
    calls: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, dict[str, float | list[float]]]:
    """Seconds of the first call and of `repeats` later ones, taken in turn; fewer of slow ones."""
    first = {name: _timed(call) for name, call in calls.items()}
    later: dict[str, list[float]] = {name: [] for name in calls}
    spent = 0.0
    for repeat in range(repeats):
        if repeat >= 3 and spent > _LONGEST:
            break
        for name, call in calls.items():
            later[name].append(_timed(call))
            spent += later[name][-1]
    return {name: {"first": first[name], "later": later[name]} for name in calls}


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peak_host_memory() -> int | None:
    """Peak resident memory of this process in bytes; None on Windows, which is not asked."""
    # Where there is Linux' own record: the peak of getrusage begins with that of the process that
    # started this one.
    record = Path("/proc/self/status")
    if record.is_file():
        for line in record.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _versions() -> dict[str, str]:
    name = keras.backend.backend()
    found = installed_versions("keras", "numpy", name, f"{name}-cpu")
    # The build without a GPU is a package of its own.
    return {package.removesuffix("-cpu"): number for package, number in found.items()}


if __name__ == "__main__":
    run(Path(sys.argv[1]))
