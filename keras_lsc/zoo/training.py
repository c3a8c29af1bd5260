"""The training of a fine-tuning: Keras' `fit`, with the weights of the best epoch in the end."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.diagnosis.trial import loss_by_rate
from keras_lsc.stability.data import in_order, input_structure
from keras_lsc.stability.devices import batch_sizes, whole_batches
from keras_lsc.zoo import heads
from keras_lsc.zoo.task_data import TaskData

# Of the search for a learning rate: rows of its batch, and what is tried.
_TRIAL_ROWS, _RATES = 256, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
_CROSS_ENTROPY = "cross_entropy"


@dataclass(frozen=True)
class Training:
    """How training went.

    Attributes:
        history: From loss and metric, and "val_" with them for validation, to their values at
            every epoch.
        best_epoch: Epoch whose weights were kept, counted from 1; 0 where nothing was trained.
        seconds: Seconds that it took, compilation and validation included.
    """

    history: Mapping[str, list[float]]
    best_epoch: int
    seconds: float


def compile_for(model: keras.Model, task: datasets.TaskInfo, learning_rate: float) -> None:
    """Compiles a network with Adam and the loss and metric of a task.

    Args:
        model: Network whose head fits the task.
        task: What is known of the task.
        learning_rate: Learning rate of Adam.
    """
    optimizer = keras.optimizers.Adam(learning_rate)
    if task.target == "value":
        model.compile(optimizer, task.loss, metrics=[task.metric])
        return
    logits = heads.gives_logits(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    metric = (
        # Its exponential is the perplexity; the loss may have regularisation in it besides.
        keras.metrics.SparseCategoricalCrossentropy(_CROSS_ENTROPY, from_logits=logits)
        if task.metric == "perplexity"
        else keras.metrics.SparseCategoricalAccuracy(task.metric)
    )
    model.compile(optimizer, loss, metrics=[metric])


def find_learning_rate(model: keras.Model, data: TaskData) -> float:
    """Returns the learning rate below the one at which some training steps lower the loss most.

    They are steps on one batch, which stands a larger rate than a whole training does.

    Args:
        model: Network whose head fits the task; it is left as it was, but compiled.
        data: Its split "train" is used.

    Raises:
        FloatingPointError: The loss is not finite at any learning rate.
    """
    batches = data.splits["train"]
    count = min(len(batches.examples), _TRIAL_ROWS)
    x, mask = batches.examples.inputs[:count], batches.examples.mask(np.arange(count))
    compile_for(model, data.task, _RATES[0])
    structure = input_structure(model)
    rows = in_order({"x": x, "mask": mask} if batches.masks else x, structure)
    losses = loss_by_rate(model, structure, rows, batches.examples.targets[:count], _RATES)
    best = int(np.argmin(losses))
    if not np.isfinite(losses[best]):
        raise FloatingPointError(
            f"The loss of {model.name!r} is not finite at any learning rate from {_RATES[0]:g} to "
            f"{_RATES[-1]:g}. keras_lsc.diagnose tells why."
        )
    return _RATES[max(0, best - 1)]


def train(
    model: keras.Model,
    data: TaskData,
    *,
    epochs: int,
    stopping: keras.callbacks.EarlyStopping,
    callbacks: Sequence[keras.callbacks.Callback],
    class_weight: Mapping[int, float] | None,
    verbose: str | int,
) -> Training:
    """Trains a compiled network.

    Args:
        model: The network.
        data: Its splits "train" and "validation" are used.
        epochs: The most epochs; 0 trains nothing.
        stopping: Ends training, and knows which epoch was best.
        callbacks: Further callbacks.
        class_weight: As `fit` takes it.
        verbose: As `fit` takes it.

    Raises:
        FloatingPointError: The loss is not finite in the first epoch; the weights are what they
            were.
    """
    if not epochs:
        return Training({}, 0, 0.0)
    before = model.get_weights()
    start = time.perf_counter()
    # The batches have an order of their own, which the seed determines.
    splits = [data.splits[split] for split in ("train", "validation")]
    with whole_batches(*(size for batches in splits for size in _sizes(batches))):
        fitted = model.fit(
            data.splits["train"],
            validation_data=data.splits["validation"],
            epochs=epochs,
            shuffle=False,
            callbacks=[stopping, *callbacks],
            class_weight=class_weight,
            verbose=verbose,
        )
    seconds = time.perf_counter() - start
    history = _history(fitted.history)
    if not np.isfinite(history["loss"][0]):
        model.set_weights(before)
        raise FloatingPointError(
            f"The loss of {model.name!r} is {history['loss'][0]} in its first epoch. Choose a "
            f"learning_rate below {float(model.optimizer.learning_rate):g}, or a start whose "
            "gradients do not explode: keras_lsc.measure tells."
        )
    return Training(history, stopping.best_epoch + 1, seconds)


def watchers(
    task: datasets.TaskInfo,
    patience: int,
    checkpoint: str | os.PathLike[str] | None,
    tensorboard: str | os.PathLike[str] | None,
) -> tuple[keras.callbacks.EarlyStopping, list[keras.callbacks.Callback]]:
    """Returns what ends training, and the callbacks that end it on NaN, save and draw.

    Args:
        task: What is known of the task.
        patience: Epochs without improvement after which training ends.
        checkpoint: File of the best model, or None.
        tensorboard: Folder of the curves, or None.
    """
    metric = _CROSS_ENTROPY if task.metric == "perplexity" else task.metric
    best = {"monitor": f"val_{metric}", "mode": "max" if metric == "accuracy" else "min"}
    stopping = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True, **best)
    others: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN()]
    if checkpoint is not None:
        path = os.fspath(checkpoint)
        others.append(keras.callbacks.ModelCheckpoint(path, save_best_only=True, **best))
    if tensorboard is not None:
        others.append(keras.callbacks.TensorBoard(os.fspath(tensorboard)))
    return stopping, others


def check_tensorboard() -> None:
    """Checks that Keras can write for TensorBoard.

    Raises:
        ImportError: TensorFlow or TensorBoard is not installed.
    """
    for package in ("tensorflow", "tensorboard"):
        if find_spec(package) is None:
            raise ImportError(
                f"Keras writes for TensorBoard with TensorFlow and TensorBoard; {package} is not "
                'installed: pip install "keras-lsc[tensorflow]" tensorboard, or leave tensorboard '
                "out."
            )


def evaluate(model: keras.Model, batches: datasets.Batches) -> dict[str, float]:
    """Returns loss and metric of a compiled network on a split."""
    with whole_batches(*_sizes(batches)):
        figures = model.evaluate(batches, return_dict=True, verbose=0)
    found = _history({name: [value] for name, value in figures.items()})
    return {name: values[0] for name, values in found.items()}


def _sizes(batches: datasets.Batches) -> tuple[int, ...]:
    return batch_sizes(len(batches.examples), batches.batch_size)


def _history(history: Mapping[str, list[float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, values in history.items():
        if name.endswith(_CROSS_ENTROPY):
            perplexity = name.replace(_CROSS_ENTROPY, "perplexity")
            found[perplexity] = [float(np.exp(value)) for value in values]
        else:
            found[name] = [float(value) for value in values]
    return found
