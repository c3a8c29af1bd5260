"""The demonstration: one network from its default start and from a stabilised one."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from keras_lsc import datasets, plot
from keras_lsc.arguments import flag, integer, one_of, positive_integer
from keras_lsc.stability.measure import measure
from keras_lsc.stability.parametrization import Mode
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.targets import Target, resolve
from keras_lsc.stabilization import stabilize

_CLASSES = 10
CELLS = ("sigmoid", "tanh", "relu", "lstm", "gru")
# Keras runs a recurrent layer on torch one operation at a time, at many times the cost.
_EXAMPLES = {"jax": 20_000, "tensorflow": 20_000, "torch": 10_000}
_VALIDATION_SHARE = 0.15
_MAX_UPDATES = 400
# Training accuracy is drawn as a mean over this many batches.
_SMOOTHING = 20

_LABELS = {"default": "default initialisation", "stabilized": "after pre-training"}


@dataclass(frozen=True)
class DemoSettings:
    """What the demonstration runs.

    Attributes:
        cell: one of `CELLS`: the activation of a SimpleRNN, or a gated cell.
        depth: number of recurrent layers.
        units: Units of each of them.
        target: Target, as `stabilize` takes it.
        mode: "scales" or "weights".
        epochs: Epochs of the training after the pre-training; None for what suits the task.
        examples: training and validation sequences together; None for what suits the backend.
        batch_size: Batch size of the training; None for what suits the task.
        seed: Integer, seed of the initial weights, the pre-training and the order of the training
            data.
        download: whether MNIST may be fetched when it is not on this computer.
    """

    cell: str = "sigmoid"
    depth: int = 5
    units: int = 64
    target: Target = "variance"
    mode: Mode = "scales"
    epochs: int | None = None
    examples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    download: bool = True


@dataclass(frozen=True)
class Task:
    """The data of the demonstration, why it is this one, and how long it is trained on.

    A digit of 28 rows takes fewer epochs than one of 8: there are more of them.
    """

    name: str
    title: str
    description: str
    reason: str
    epochs: int
    batch_size: int
    learning_rate: float
    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray


@dataclass
class Curve:
    """Accuracies of one training.

    Attributes:
        training: Metric of every batch, before the network was updated on it.
        validation: before the training and after every epoch.
        seconds: Seconds that the training took.
    """

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found; "default" and "stabilized" name the two networks."""

    settings: DemoSettings
    backend: str
    task: Task
    reports: dict[str, StabilityReport]
    updates: int
    seconds_of_pretraining: float
    curves: dict[str, Curve]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as a dictionary of JSON types, without the data."""
        return {
            "settings": asdict(self.settings),
            "backend": self.backend,
            "task": {
                "name": self.task.name,
                "reason": self.task.reason,
                "epochs": self.task.epochs,
                "batch_size": self.task.batch_size,
                "training_sequences": len(self.task.x),
                "validation_sequences": len(self.task.x_validation),
            },
            "reports": {name: report.to_dict() for name, report in self.reports.items()},
            "updates": self.updates,
            "seconds_of_pretraining": self.seconds_of_pretraining,
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
        }


class Listener(Protocol):
    """Who is told what the demonstration does, as it does it."""

    def say(self, text: str) -> None:
        """Takes a sentence."""

    def show(self, title: str, report: StabilityReport) -> None:
        """Takes a table."""

    def track(self, title: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
        """Opens a progress bar; what it gives is called after every step, with a remark."""


def run(settings: DemoSettings, listener: Listener) -> DemoResult:
    """Measures and stabilises a network, then trains it from both starts.

    Args:
        settings: What to run.
        listener: who is told.

    Returns:
        A `DemoResult`.

    Raises:
        ValueError: a setting is not a possible one; the message says which are.
        NotStabilizedError: the target was not reached.
    """
    _check(settings)
    backend = keras.backend.backend()
    examples = settings.examples or _EXAMPLES[backend]
    task = load_task(examples, settings.download)
    task = replace(
        task,
        epochs=settings.epochs or task.epochs,
        batch_size=settings.batch_size or task.batch_size,
    )
    listener.say(f"{task.description}: {task.reason}.")
    listener.say(
        f"{len(task.x):,} sequences to train on, {len(task.x_validation):,} to validate on, "
        f"{task.epochs} epochs, backend {backend}."
    )
    is_limited = len(task.x) + len(task.x_validation) == examples < max(_EXAMPLES.values())
    if settings.examples is None and is_limited:
        listener.say(
            f"Fewer than the {max(_EXAMPLES.values()):,} sequences of the other backends: Keras "
            f"runs recurrent layers step by step on {backend}. Choose with --examples; "
            "accuracies of unequal numbers cannot be compared."
        )
    model = make_network(settings, task)
    starts = {"default": model.get_weights()}
    reports = {"default": measure(model, task.x, seed=settings.seed)}
    listener.show("Default initialisation", reports["default"])

    started = time.perf_counter()
    with listener.track("pre-training", _MAX_UPDATES) as advance:
        watcher = _Watcher(lambda logs: advance(f"off by {logs['max_deviation']:.3f} at most"))
        reports["stabilized"] = stabilize(
            model,
            task.x,
            settings.target,
            mode=settings.mode,
            max_updates=_MAX_UPDATES,
            seed=settings.seed,
            callbacks=(watcher,),
            verbose=0,
        )
    seconds = time.perf_counter() - started
    starts["stabilized"] = model.get_weights()
    rho_time, rho_depth = resolve(settings.target, settings.depth, task.x.shape[1])
    listener.show(
        f"After {watcher.updates} updates ({seconds:.0f} s) "
        f"to radius {rho_time:.3f} in time and {rho_depth:.3f} in depth",
        reports["stabilized"],
    )
    curves = {}
    for name, weights in starts.items():
        model.set_weights(weights)
        curves[name] = _train(model, _LABELS[name], task, settings, listener)
    return DemoResult(settings, backend, task, reports, watcher.updates, seconds, curves)


def load_task(examples: int, download: bool = True) -> Task:
    """Returns sequential MNIST, or the digits of scikit-learn where MNIST is not to be had.

    Args:
        examples: training and validation sequences together, at most.
        download: whether MNIST may be fetched.

    Returns:
        A `Task` whose `reason` says why it is this one.

    Raises:
        ModuleNotFoundError: neither is there, and scikit-learn is not installed.
    """
    try:
        x, y = datasets.load("smnist", "train", limit=examples, download=download)
    except (datasets.DatasetUnavailableError, ModuleNotFoundError) as error:
        x, y = datasets.load("digits", "train", limit=examples)
        why = str(error).partition(". ")[0]
        make = partial(
            Task,
            name="digits",
            title="small digits",
            description="Small handwritten digits (8 rows of 8 pixels, one row a step)",
            reason=f"they come with scikit-learn; sequential MNIST is not available here ({why})",
            epochs=12,
            batch_size=32,
            learning_rate=3e-3,
        )
    else:
        make = partial(
            Task,
            name="smnist",
            title="sequential MNIST",
            description="Sequential MNIST (28 rows of 28 pixels, one row a step)",
            reason="real data, read from this computer",
            epochs=3,
            batch_size=64,
            learning_rate=1e-3,
        )
    kept = len(x) - max(1, round(_VALIDATION_SHARE * len(x)))
    return make(x=x[:kept], y=y[:kept], x_validation=x[kept:], y_validation=y[kept:])


def make_network(settings: DemoSettings, task: Task) -> keras.Model:
    """Returns the network of the demonstration, as Keras initialises it."""
    keras.utils.set_random_seed(settings.seed)
    model = keras.Sequential([keras.Input(task.x.shape[1:])], name=f"{settings.cell}_network")
    for layer in range(1, settings.depth + 1):
        options = {"return_sequences": layer < settings.depth, "name": f"layer_{layer}"}
        if settings.cell == "lstm":
            model.add(keras.layers.LSTM(settings.units, **options))
        elif settings.cell == "gru":
            model.add(keras.layers.GRU(settings.units, **options))
        else:
            model.add(keras.layers.SimpleRNN(settings.units, activation=settings.cell, **options))
    model.add(keras.layers.Dense(_CLASSES, activation="softmax", name="readout"))
    return model


def draw(result: DemoResult, path: Path) -> None:
    """Writes the picture: radii before and after on the left, learning curves on the right.

    Args:
        result: Result of `run`.
        path: Path of the picture; its suffix chooses the format.

    Raises:
        ValueError: matplotlib does not know the format.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06, wspace=0.04)
    figure = Figure(figsize=(10, 4.6), dpi=160, layout=layout)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    _draw_radii(left, result)
    _draw_curves(right, result)
    settings, task = result.settings, result.task
    kind = settings.cell.upper() if settings.cell in ("lstm", "gru") else f"{settings.cell} RNN"
    figure.suptitle(
        f"{settings.depth}-layer {kind} of {settings.units} units on {task.title}, before and "
        "after pre-training to stability",
        fontsize=12,
        fontweight="bold",
    )
    figure.supxlabel(
        f"{len(task.x):,} training and {len(task.x_validation):,} validation sequences, "
        f"target {settings.target!r}, mode {settings.mode!r}, seed {settings.seed}, "
        f"backend {result.backend}",
        fontsize=8,
        color="0.35",
    )
    figure.savefig(path)


def _draw_radii(ax: Any, result: DemoResult) -> None:
    before, after = (result.reports[name] for name in _LABELS)
    plot.radii(before, after, result.settings.target, ax)
    ax.set_title("Radii and gains of the local transitions", fontsize=11, loc="left")


def _draw_curves(ax: Any, result: DemoResult) -> None:
    batches = max(len(curve.training) for curve in result.curves.values())
    per_epoch = batches / result.task.epochs
    width = min(_SMOOTHING, batches)
    for curve, (color, _) in zip(result.curves.values(), plot.STYLES, strict=False):
        smooth = np.convolve(curve.training, np.ones(width) / width, mode="valid")
        at = (np.arange(len(smooth)) + (width + 1) / 2) / per_epoch
        ax.plot(at, smooth, color=color, linewidth=1, alpha=0.55)
    chance = 1 / _CLASSES
    ax.axhline(chance, color="k", linestyle=":", linewidth=1, label="chance")
    histories = {
        _LABELS[name]: [{"val_accuracy": curve.validation}] for name, curve in result.curves.items()
    }
    plot.learning_curves(histories, ax=ax, first_epoch=0, connected=False)
    ax.set_xlim(0, result.task.epochs)
    ax.set_ylim(0, 1)
    ax.set_ylabel("accuracy")
    ax.set_title("Accuracy (points: validation, lines: training)", fontsize=11, loc="left")


def _train(
    model: keras.Model, name: str, task: Task, settings: DemoSettings, listener: Listener
) -> Curve:
    keras.utils.set_random_seed(settings.seed)
    model.compile(
        optimizer=keras.optimizers.Adam(task.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    curve = Curve()
    batches = int(np.ceil(len(task.x) / task.batch_size))
    validation = (task.x_validation, task.y_validation)
    started = time.perf_counter()
    with listener.track(f"training, {name}", task.epochs * batches) as advance:
        watcher = _Watcher(lambda logs: advance(f"accuracy {logs['accuracy']:.3f}"))
        curve.validation.append(float(model.evaluate(*validation, verbose=0)[1]))
        history = model.fit(
            task.x,
            task.y,
            batch_size=task.batch_size,
            epochs=task.epochs,
            validation_data=validation,
            callbacks=[watcher],
            verbose=0,
        )
    curve.seconds = time.perf_counter() - started
    curve.validation += [float(value) for value in history.history["val_accuracy"]]
    means = np.reshape(watcher.accuracies, (task.epochs, batches))
    # Keras gives the mean since the start of the epoch; differences of the sums are the batches'.
    sizes = np.full(batches, task.batch_size)
    sizes[-1] = len(task.x) - task.batch_size * (batches - 1)
    sums = np.diff(means * np.cumsum(sizes), axis=1, prepend=0.0)
    curve.training = [float(value) for value in np.clip(sums / sizes, 0, 1).ravel()]
    return curve


class _Watcher(keras.callbacks.Callback):
    """Tells of every update, and keeps the accuracies where there are any."""

    def __init__(self, tell: Callable[[dict[str, float]], None]):
        super().__init__()
        self.tell = tell
        self.updates = 0
        self.accuracies: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        del batch
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.updates += 1
        if "accuracy" in values:
            self.accuracies.append(values["accuracy"])
        self.tell(values)


def _check(settings: DemoSettings) -> None:
    one_of("cell", settings.cell, CELLS)
    one_of("mode", settings.mode, ("scales", "weights"))
    for name in ("depth", "units"):
        positive_integer(name, getattr(settings, name))
    for name in ("epochs", "batch_size"):
        if getattr(settings, name) is not None:
            positive_integer(name, getattr(settings, name))
    if settings.examples is not None:
        integer("examples", settings.examples, at_least=8)
    integer("seed", settings.seed, at_least=0)
    flag("download", settings.download)
    resolve(settings.target, settings.depth, steps=1)
