"""Training a checkpoint, or a model of one's own, on a task."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_lsc import arguments, datasets
from keras_lsc.arguments import flag, integer, number, one_of, positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.zoo import fitting, loading, sources

_SPLITS = ("train", "validation", "test")
_CROSS_ENTROPY = "cross_entropy"
# Of arrays that are given without validation data, the share that is held out.
_VALIDATION_SHARE = 0.15
_GIVEN = "given arrays"


@dataclass(frozen=True)
class FineTuning:
    """How training on a task went.

    Attributes:
        model: name of the network.
        dataset: name of the task; "given arrays" where there is none.
        options: of the task.
        weights: "stabilized" or "initial", the start of a checkpoint of the zoo; "given" for a
            model or a file of one's own.
        metric: name of the task's metric in the figures below.
        history: from metric, and "val_" with it for validation, to its value at every epoch.
        validation: loss and metric on the validation split, of the weights that were kept.
        test: the same on the test split; empty for given arrays, which have none.
        best_epoch: whose weights were kept, counted from 1; 0 where nothing was trained.
        fresh_head: whether the network was given a new last layer.
        masks: whose masks padding was skipped by: "network", "dataset", or "none" without any.
        sequences: number of sequences of each split.
        learning_rate: of Adam.
        batch_size: sequences of an update.
        seed: of a fresh head and of the order of the batches.
        seconds: of training, compilation and validation included.
        backend: on which it ran.
    """

    model: str
    dataset: str
    options: Mapping[str, Any]
    weights: str
    metric: str
    history: Mapping[str, list[float]]
    validation: Mapping[str, float]
    test: Mapping[str, float]
    best_epoch: int
    fresh_head: bool
    masks: str
    sequences: Mapping[str, int]
    learning_rate: float
    batch_size: int
    seed: int
    seconds: float
    backend: str

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        epochs = len(self.history.get("loss", ()))
        figures = ", ".join(
            f"{name} {split[self.metric]:.4g}"
            for name, split in (("validation", self.validation), ("test", self.test))
            if split
        )
        return (
            f"{self.model} ({self.weights}) on {self.dataset}: {self.metric.replace('_', ' ')} "
            f"{figures}; {epochs} epochs of {self.sequences['train']} sequences, best "
            f"{self.best_epoch}, {self.seconds:.0f} s on {self.backend}"
        )


def fine_tune(
    name_or_model: str | keras.Model,
    dataset: str | tuple[Any, Any],
    validation_data: tuple[Any, Any] | None = None,
    *,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    patience: int = 5,
    limit: int | None = None,
    seed: int = 0,
    weights: Literal["stabilized", "initial"] = "stabilized",
    options: Mapping[str, Any] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = (),
    verbose: str | int = "auto",
) -> tuple[keras.Model, FineTuning]:
    """Trains a checkpoint, or a model of one's own, on a task or on given arrays.

    Loss and metric are those of the task. The head is kept where it fits the task, else replaced.
    After every epoch the validation split decides which weights are kept; in the end the test
    split is measured once. Sequences of different lengths are masked as the dataset says; a
    network without masks of its own becomes one of {"x": inputs, "mask": mask}.

    Args:
        name_or_model: name of a checkpoint, or what else `keras_lsc.zoo.load` takes without a
            sha256; or a built Keras model, which is trained in place, as by `fit`.
        dataset: one of `keras_lsc.datasets.names()`; or a pair of arrays (x, y): inputs
            `(rows, ...)`, and targets that are integers `(rows,)` for classes, integers
            `(rows, steps)` for a class at every step, or floats `(rows,)` for values. A network's
            own masks hold, and there is no test split.
        validation_data: such a pair, for given arrays; None holds out 15 % of the rows, drawn from
            `seed`.
        epochs: the most; 0 only measures.
        learning_rate: of Adam. (The one in a recipe is of pre-training.)
        batch_size: sequences of an update.
        patience: epochs without improvement on the validation split after which training ends.
        limit: the largest number of sequences to take of each split; None takes them all.
        seed: of a fresh head, of the order of the batches and of Keras' random numbers.
        weights: "stabilized", or "initial" for the same network before pre-training: the twin,
            which shares all else; checkpoints of the zoo only.
        options: of the task, as `keras_lsc.datasets.load` takes them. Those of a checkpoint's
            recipe hold besides, where `dataset` is its own task.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether data that is not on this computer may be fetched.
        checkpoint: a `.keras` file to which the best model is saved whenever it improves.
        tensorboard: folder for the curves; needs TensorFlow and TensorBoard, on whichever backend.
        callbacks: list or tuple of further Keras callbacks.
        verbose: as `fit` takes it.

    Returns:
        The trained model, with the weights of its best epoch, compiled; and a `FineTuning`, whose
        `history` goes into `keras_lsc.plot.learning_curves`.

    Raises:
        UnknownCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: as `load`.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ValueError: an unknown task, arrays that are no pair of inputs and targets, a network whose
            inputs or outputs are of another kind than the task's, or an argument of no use.
        TypeError: neither a name nor a model, or an option that the task lacks.
        FloatingPointError: the loss is not finite in the first epoch; the weights are what they
            were.

    Example:
        >>> from keras_lsc import zoo
        >>> model, tuning = zoo.fine_tune(
        ...     "test_gru_parity_d2_rhovar", "parity", epochs=1, limit=64, verbose=0
        ... )
        >>> tuning.fresh_head, sorted(tuning.test)
        (False, ['accuracy', 'loss'])
    """
    _check_arguments(epochs, learning_rate, batch_size, patience, checkpoint, tensorboard)
    epochs, batch_size, patience = int(epochs), int(batch_size), int(patience)
    seed, learning_rate = integer("seed", seed, at_least=0), float(learning_rate)
    limit = None if limit is None else positive_integer("limit", limit)
    one_of("weights", weights, ("stabilized", "initial"))
    one_of("verbose", verbose, ("auto", 0, 1, 2))
    further = arguments.callbacks(callbacks)
    flag("download", download)
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options must be a dictionary of the task's options, got {options!r}.")
    if isinstance(dataset, tuple | list):
        if options:
            raise ValueError("options are those of a named dataset; given arrays have none.")
        pairs = _given_pairs(dataset, validation_data, limit, seed)
        task, chosen = _given_task(pairs), {}
        keras.utils.set_random_seed(seed)
        given = _network(name_or_model, weights)
        splits = {
            split: datasets.Batches(
                Examples(x, y), batch_size=batch_size, shuffle=split == "train", seed=seed
            )
            for split, (x, y) in pairs.items()
        }
    else:
        task = datasets.info(dataset)
        if validation_data is not None:
            raise ValueError(
                f"validation_data goes with given arrays; {dataset!r} has a validation split."
            )
        chosen = _options(name_or_model, dataset, options)
        place = {} if task.kind == "generated" else {"data_dir": data_dir, "download": download}
        keras.utils.set_random_seed(seed)
        given = _network(name_or_model, weights)
        read = {**chosen, **place}
        splits = {split: _batches(task, split, limit, batch_size, seed, read) for split in _SPLITS}
    shape = splits["train"].examples.inputs.shape[1:]
    if isinstance(name_or_model, str) and fitting.may_have_other_steps(given, shape):
        given = loading.load(name_or_model, weights=weights, input_shape=shape)
    fitting.check_inputs(given, task, shape)
    if task.name == _GIVEN:
        outputs = _given_outputs(given, task, isinstance(name_or_model, str))
        model, is_fresh = fitting.fit_head(given, task, outputs, seed)
        masks = fitting.own_mask(model)
    else:
        model, is_fresh = fitting.fit_head(given, task, _outputs(task, read, splits), seed)
        model, masks = fitting.fit_mask(model, task, splits["train"])
    for batches in splits.values():
        batches.masks = masks == "dataset"
    _compile(model, task, learning_rate)
    stopping, *watchers = _watchers(task, patience, checkpoint, tensorboard)
    history: dict[str, list[float]] = {}
    before = model.get_weights()
    start = time.perf_counter()
    if epochs:
        # The batches have an order of their own, which the seed determines.
        fitted = model.fit(
            splits["train"],
            validation_data=splits["validation"],
            epochs=epochs,
            shuffle=False,
            callbacks=[stopping, *watchers, *further],
            verbose=verbose,
        )
        history = _history(fitted.history)
        if not np.isfinite(history["loss"][0]):
            model.set_weights(before)
            raise FloatingPointError(
                f"The loss of {model.name!r} is {history['loss'][0]} in its first epoch. Choose a "
                f"learning_rate below {learning_rate:g}, or a start whose gradients do not "
                "explode: keras_lsc.measure tells."
            )
    seconds = time.perf_counter() - start
    return model, FineTuning(
        model=model.name,
        dataset=task.name,
        options=chosen,
        weights=weights if _is_of_the_zoo(name_or_model) else "given",
        metric=task.metric,
        history=history,
        validation=_evaluate(model, splits["validation"]),
        test=_evaluate(model, splits["test"]) if "test" in splits else {},
        best_epoch=stopping.best_epoch + 1 if epochs else 0,
        fresh_head=is_fresh,
        masks=masks,
        sequences={split: len(batches.examples) for split, batches in splits.items()},
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        seconds=seconds,
        backend=keras.backend.backend(),
    )


def _check_arguments(
    epochs: int,
    learning_rate: float,
    batch_size: int,
    patience: int,
    checkpoint: str | os.PathLike[str] | None,
    tensorboard: str | os.PathLike[str] | None,
) -> None:
    integer("epochs", epochs, at_least=0)
    positive_integer("batch_size", batch_size)
    positive_integer("patience", patience)
    number("learning_rate", learning_rate, above=0)
    if checkpoint is not None and Path(checkpoint).suffix != ".keras":
        raise ValueError(
            f"checkpoint={os.fspath(checkpoint)!r} must end in .keras, the format of the model."
        )
    for package in ("tensorflow", "tensorboard"):
        if tensorboard is not None and find_spec(package) is None:
            raise ImportError(
                f"Keras writes for TensorBoard with TensorFlow and TensorBoard; {package} is not "
                'installed: pip install "keras-lsc[tensorflow]" tensorboard, or leave tensorboard '
                "out."
            )


def _given_pairs(
    data: Any, validation_data: Any, limit: int | None, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The arrays of the splits "train" and "validation", the second held out if it is not given."""
    x, y = _checked_pair("dataset", data)
    if validation_data is not None:
        held_out = _checked_pair("validation_data", validation_data)
        if held_out[0].shape[1:] != x.shape[1:] or held_out[1].ndim != y.ndim:
            raise ValueError(
                f"validation_data has rows of shapes {held_out[0].shape[1:]} and "
                f"{held_out[1].shape[1:]}, but the arrays given to train on {x.shape[1:]} and "
                f"{y.shape[1:]}."
            )
        pairs = {"train": (x, y), "validation": held_out}
    else:
        if len(x) < 2:
            raise ValueError(
                "The arrays have a single row; at least two are needed, one of them to validate "
                "on. Or give validation_data."
            )
        order = np.random.default_rng(seed).permutation(len(x))
        count = max(1, round(_VALIDATION_SHARE * len(x)))
        rows = {"train": np.sort(order[count:]), "validation": np.sort(order[:count])}
        pairs = {split: (x[chosen], y[chosen]) for split, chosen in rows.items()}
    return {split: (x[:limit], y[:limit]) for split, (x, y) in pairs.items()}


def _checked_pair(argument: str, pair: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"{argument} must be a name or a pair of arrays (x, y), got {pair!r:.200}."
        )
    x, y = (keras.ops.convert_to_numpy(array) for array in pair)
    for name, array in (("x", x), ("y", y)):
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(
                f"{name} of {argument} must hold finite numbers, got dtype {array.dtype}"
                f"{' with NaN or infinite values' if array.dtype.kind == 'f' else ''}."
            )
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"{argument} must be inputs (rows, ...) and as many targets (rows,), got the shapes "
            f"{x.shape} and {y.shape}."
        )
    x = x.astype("int32" if x.dtype.kind in "iu" else "float32")
    if y.dtype.kind in "iu":
        if y.min() < 0:
            raise ValueError(f"y of {argument} has the class {y.min()}; classes begin at 0.")
        return x, y.astype("int32")
    return x, y.astype("float32")


def _given_task(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> datasets.TaskInfo:
    """What `keras_lsc.datasets` would know of the arrays."""
    x, y = pairs["train"]
    is_class = y.dtype == np.int32
    fits = y.ndim <= 2 if is_class else y.shape[1:] in ((), (1,))
    if not fits:
        raise ValueError(
            "y must be integers (rows,) or (rows, steps) for classes, or floats (rows,) for "
            f"values; got {y.dtype} of the shape {y.shape}."
        )
    target: Any = "value"
    if is_class:
        target = "label" if y.ndim == 1 else "label per step"
    classes = 1 + max(int(labels.max()) for _, labels in pairs.values()) if is_class else 1
    return datasets.TaskInfo(
        name=_GIVEN,
        description="Arrays that were given.",
        kind="series",
        shape=x.shape[1:],
        target=target,
        outputs=classes,
        examples={split: len(inputs) for split, (inputs, _) in pairs.items()},
        licence="",
        homepage="",
        citation="",
        dtype=str(x.dtype),
    )


def _given_outputs(model: keras.Model, task: datasets.TaskInfo, is_checkpoint: bool) -> int:
    """Classes of the arrays; of a model of one's own the head says how many there may be."""
    assert task.outputs is not None
    has = model.output_shape[-1]
    return has if task.classes and not is_checkpoint and has > task.outputs else task.outputs


def _is_of_the_zoo(name_or_model: str | keras.Model) -> bool:
    return (
        isinstance(name_or_model, str)
        and not loading.is_path(name_or_model)
        and not sources.is_address(name_or_model)
    )


def _options(
    name_or_model: str | keras.Model, dataset: str, options: Mapping[str, Any] | None
) -> dict[str, Any]:
    chosen = dict(options or {})
    if _is_of_the_zoo(name_or_model):
        recipe = loading.find_info(name_or_model).recipe
        if recipe.dataset == dataset:
            chosen = {**recipe.options, **chosen}
    return chosen


def _network(
    name_or_model: str | keras.Model, weights: Literal["stabilized", "initial"]
) -> keras.Model:
    if isinstance(name_or_model, str):
        return loading.load(name_or_model, weights=weights)
    if not isinstance(name_or_model, keras.Model):
        raise TypeError(
            "Expected the name of a checkpoint or a keras.Model, got "
            f"{type(name_or_model).__name__}."
        )
    if weights != "stabilized":
        raise ValueError(
            f"weights={weights!r} chooses between the two starts of a checkpoint of the zoo; the "
            f"model {name_or_model.name!r} has only the weights that it has."
        )
    if not name_or_model.built:
        raise ValueError(
            f"The model {name_or_model.name!r} is not built, so its inputs are unknown. Begin it "
            "with keras.Input(...)."
        )
    return name_or_model


def _batches(
    task: datasets.TaskInfo,
    split: str,
    limit: int | None,
    batch_size: int,
    seed: int,
    options: Mapping[str, Any],
) -> datasets.Batches:
    if task.kind == "text":
        # The windows of a text in random order; `batches` would give it as a stream.
        x, y = datasets.load(task.name, split, limit=limit, **options)
        examples, shuffle = Examples(x, y), split == "train"
        return datasets.Batches(examples, batch_size=batch_size, shuffle=shuffle, seed=seed)
    return datasets.batches(
        task.name, split, batch_size=batch_size, seed=seed, limit=limit, **options
    )


def _outputs(
    task: datasets.TaskInfo, options: Mapping[str, Any], splits: Mapping[str, datasets.Batches]
) -> int:
    if task.target == "value":
        return 1
    # The classes of some tasks depend on their options or on their data.
    found = 1 + max(int(batches.examples.targets.max()) for batches in splits.values())
    if task.outputs is None:
        targets = [datasets.load(task.name, split, **options)[1] for split in _SPLITS]
        return 1 + max(int(y.max()) for y in targets)
    return max(found, int(options.get("classes", task.outputs)))


def _compile(model: keras.Model, task: datasets.TaskInfo, learning_rate: float) -> None:
    optimizer = keras.optimizers.Adam(learning_rate)
    if task.target == "value":
        model.compile(optimizer, task.loss, metrics=[task.metric])
        return
    logits = fitting.gives_logits(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    metric = (
        # Its exponential is the perplexity; the loss may have regularisation in it besides.
        keras.metrics.SparseCategoricalCrossentropy(_CROSS_ENTROPY, from_logits=logits)
        if task.metric == "perplexity"
        else keras.metrics.SparseCategoricalAccuracy(task.metric)
    )
    model.compile(optimizer, loss, metrics=[metric])


def _watchers(
    task: datasets.TaskInfo,
    patience: int,
    checkpoint: str | os.PathLike[str] | None,
    tensorboard: str | os.PathLike[str] | None,
) -> list[keras.callbacks.Callback]:
    """The callbacks, early stopping the first."""
    metric = _CROSS_ENTROPY if task.metric == "perplexity" else task.metric
    best = {"monitor": f"val_{metric}", "mode": "max" if metric == "accuracy" else "min"}
    watchers = [
        keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True, **best),
        keras.callbacks.TerminateOnNaN(),
    ]
    if checkpoint is not None:
        path = os.fspath(checkpoint)
        watchers.append(keras.callbacks.ModelCheckpoint(path, save_best_only=True, **best))
    if tensorboard is not None:
        watchers.append(keras.callbacks.TensorBoard(os.fspath(tensorboard)))
    return watchers


def _history(history: Mapping[str, list[float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, values in history.items():
        if name.endswith(_CROSS_ENTROPY):
            perplexity = name.replace(_CROSS_ENTROPY, "perplexity")
            found[perplexity] = [float(np.exp(value)) for value in values]
        else:
            found[name] = [float(value) for value in values]
    return found


def _evaluate(model: keras.Model, batches: datasets.Batches) -> dict[str, float]:
    figures = model.evaluate(batches, return_dict=True, verbose=0)
    found = _history({name: [value] for name, value in figures.items()})
    return {name: values[0] for name, values in found.items()}
