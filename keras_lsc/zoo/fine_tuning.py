"""Training a checkpoint, or a model of one's own, on a task."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lsc import arguments, datasets
from keras_lsc.arguments import flag, integer, number, one_of, positive_integer
from keras_lsc.zoo import heads, inputs, loading, training
from keras_lsc.zoo.loading import Weights
from keras_lsc.zoo.resolver import Located, locate
from keras_lsc.zoo.start_file import StartFile
from keras_lsc.zoo.task_data import TaskData, read_task, take_given


@dataclass(frozen=True)
class FineTuning:
    """How training on a task went.

    Attributes:
        model: Name of the network.
        dataset: Name of the task; "given arrays" where there is none.
        options: Options of the task.
        weights: "stabilized", "initial" or "trained", the weights of a checkpoint of the zoo it
            began with; "given" for a model or a file of one's own.
        metric: Name of the task's metric in the figures below.
        history: From metric, and "val_" with it for validation, to its value at every epoch.
        validation: Loss and metric on the validation split, of the weights that were kept.
        test: The same on the test split; empty for given arrays without `test_data`.
        best_epoch: Epoch whose weights were kept, counted from 1; 0 where nothing was trained.
        fresh_head: Whether the network was given a new last layer.
        masks: Whose masks padding was skipped by: "network", "dataset", or "none" without any.
        sequences: Number of sequences of each split.
        learning_rate: Learning rate of Adam.
        batch_size: Number of sequences of an update.
        seed: Seed of a fresh head and of the order of the batches.
        seconds: Seconds of training, compilation and validation included.
        backend: Keras backend on which it ran.
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
    dataset: Any,
    validation_data: Any = None,
    *,
    test_data: Any = None,
    epochs: int = 20,
    learning_rate: float | Literal["find"] = 1e-3,
    class_weight: Mapping[int, float] | None = None,
    batch_size: int = 32,
    patience: int = 5,
    limit: int | None = None,
    seed: int = 0,
    weights: Weights = "stabilized",
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
        name_or_model: Name of a checkpoint, or what else `keras_lsc.zoo.load` takes without a
            sha256; or a built Keras model, which is trained in place, as by `fit`.
        dataset: One of `keras_lsc.datasets.names()`; or a pair of arrays (x, y): inputs
            `(rows, ...)`, and targets that are integers `(rows,)` for classes, integers
            `(rows, steps)` for a class at every step, or floats `(rows,)` for values; or a dataset
            of batches of such: a `keras.utils.PyDataset`, a `tf.data.Dataset`, a `DataLoader` of
            torch or another iterable, which is read into memory. A network's own masks hold. A
            checkpoint of the zoo that reads another number of features is made for that of the
            arrays, as by `load` with these as `x`.
        validation_data: The same, for what is given; None holds out 15 % of the rows, drawn from
            `seed`.
        test_data: The same, for the test scores of what is given; None for none.
        epochs: Largest number of epochs; 0 only measures.
        learning_rate: Learning rate of Adam. (The one in a recipe is of pre-training.) "find" tries
            some training steps at rates from 0.0001 to 0.1 and takes the one below that at which
            the loss falls most.
        class_weight: From class to the weight of its rows in the loss, as `fit` takes it.
        batch_size: Number of sequences of an update.
        patience: Epochs without improvement on the validation split after which training ends.
        limit: Largest number of sequences to take of each split; None takes them all.
        seed: Seed of a fresh head, of the order of the batches and of Keras' random numbers.
        weights: "stabilized", or "initial" for the same network before pre-training: the twin,
            which shares all else; or "trained" to go on from, or with `epochs=0` to measure, the
            trained weights, where there are some. Checkpoints of the zoo only.
        options: Options of the task, as `keras_lsc.datasets.load` takes them. Those of a
            checkpoint's recipe hold besides, where `dataset` is its own task.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: Whether data that is not on this computer may be fetched.
        checkpoint: A `.keras` file to which the best model is saved whenever it improves.
        tensorboard: Folder for the curves; needs TensorFlow and TensorBoard, on whichever backend.
        callbacks: List or tuple of further Keras callbacks.
        verbose: As `fit` takes it.

    Returns:
        The trained model, with the weights of its best epoch, compiled; and a `FineTuning`, whose
        `history` goes into `keras_lsc.plot.learning_curves`.

    Raises:
        UnknownCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: As `load`.
        DatasetUnavailableError: The data is neither on this computer nor to be had.
        ValueError: An unknown task, arrays that are no pair of inputs and targets, a network whose
            inputs or outputs are of another kind than the task's, or an argument of no use.
        TypeError: Neither a name nor a model, or an option that the task lacks.
        FloatingPointError: The loss is not finite in the first epoch; the weights are what they
            were.

    Example:
        >>> from keras_lsc import zoo
        >>> model, tuning = zoo.fine_tune(
        ...     "test_gru_parity_d2_rhovar", "parity", epochs=1, limit=64, verbose=0
        ... )
        >>> tuning.fresh_head, sorted(tuning.test)
        (False, ['accuracy', 'loss'])
    """
    epochs = integer("epochs", epochs, at_least=0)
    if learning_rate != "find":
        learning_rate = number("learning_rate", learning_rate, above=0)
    class_weight = None if class_weight is None else _class_weight(class_weight)
    batch_size = positive_integer("batch_size", batch_size)
    patience = positive_integer("patience", patience)
    limit = None if limit is None else positive_integer("limit", limit)
    seed = integer("seed", seed, at_least=0)
    one_of("weights", weights, loading.WEIGHTS)
    one_of("verbose", verbose, ("auto", 0, 1, 2))
    further = arguments.callbacks(callbacks)
    flag("download", download)
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"options must be a dictionary of the task's options, got {options!r}.")
    if checkpoint is not None and Path(checkpoint).suffix != ".keras":
        raise ValueError(
            f"checkpoint={os.fspath(checkpoint)!r} must end in .keras, the format of the model."
        )
    if tensorboard is not None:
        training.check_tensorboard()
    task = _task_of(dataset, validation_data, test_data, options)
    located = _located(name_or_model, weights)
    chosen = {} if task is None else _options(task, located, options)
    keras.utils.set_random_seed(seed)
    if task is None:
        data = take_given(
            *(dataset, validation_data, test_data), batch_size=batch_size, limit=limit, seed=seed
        )
    else:
        data = read_task(
            task,
            chosen,
            data_dir=data_dir,
            download=download,
            batch_size=batch_size,
            limit=limit,
            seed=seed,
        )
    network = name_or_model if located is None else _loaded(located, weights, data, seed)
    model, is_fresh, masks = _fitted(network, located, data, seed)
    for batches in data.splits.values():
        batches.masks = masks == "dataset"
    if learning_rate == "find":
        learning_rate = training.find_learning_rate(model, data)
    training.compile_for(model, data.task, learning_rate)
    stopping, watchers = training.watchers(data.task, patience, checkpoint, tensorboard)
    trained = training.train(
        model,
        data,
        epochs=epochs,
        stopping=stopping,
        callbacks=[*watchers, *further],
        class_weight=class_weight,
        verbose=verbose,
    )
    figures = {
        split: training.evaluate(model, data.splits[split])
        for split in ("validation", "test")
        if split in data.splits
    }
    return model, FineTuning(
        model=model.name,
        dataset=data.task.name,
        options=chosen,
        weights="given" if located is None or located.recipe is None else weights,
        metric=data.task.metric,
        history=trained.history,
        validation=figures["validation"],
        test=figures.get("test", {}),
        best_epoch=trained.best_epoch,
        fresh_head=is_fresh,
        masks=masks,
        sequences={split: len(batches.examples) for split, batches in data.splits.items()},
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        seconds=trained.seconds,
        backend=keras.backend.backend(),
    )


def _task_of(
    dataset: Any, validation_data: Any, test_data: Any, options: Mapping[str, Any] | None
) -> datasets.TaskInfo | None:
    """The task of that name; None for arrays or a dataset that were given."""
    if not isinstance(dataset, str):
        if options:
            raise ValueError("options are those of a named dataset; given arrays have none.")
        return None
    task = datasets.info(dataset)
    for split, given in (("validation", validation_data), ("test", test_data)):
        if given is not None:
            raise ValueError(
                f"{split}_data goes with given arrays; {dataset!r} has a {split} split."
            )
    return task


def _class_weight(given: Any) -> dict[int, float]:
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"class_weight must be a dictionary from class to weight, got {given!r:.200}."
        )
    return {
        integer("class_weight", label, at_least=0): number("class_weight", weight, at_least=0)
        for label, weight in given.items()
    }


def _loaded(located: Located, weights: Weights, data: TaskData, seed: int) -> keras.Model:
    """The network of a checkpoint, for the number of features that given arrays have."""
    if data.is_given and isinstance(located.file, StartFile):
        shape, own = data.input_shape, located.file.shape
        if len(shape) == len(own) and not loading.fits(shape, own, data.task.dtype):
            x = data.splits["train"].examples.inputs
            return loading.load(located.name, weights=weights, input_shape=shape, x=x, seed=seed)
    return loading.read(located, weights)


def _located(name_or_model: Any, weights: Weights) -> Located | None:
    """The checkpoint of that name; None for a model of one's own, which is checked."""
    if isinstance(name_or_model, str | os.PathLike):
        return locate(name_or_model)
    if not isinstance(name_or_model, keras.Model):
        raise TypeError(
            "Expected the name of a checkpoint or a keras.Model, got "
            f"{type(name_or_model).__name__}."
        )
    if weights != "stabilized":
        raise ValueError(
            f"weights={weights!r} chooses among the weights of a checkpoint of the zoo; the "
            f"model {name_or_model.name!r} has only the weights that it has."
        )
    if not name_or_model.built:
        raise ValueError(
            f"The model {name_or_model.name!r} is not built, so its inputs are unknown. Begin it "
            "with keras.Input(...)."
        )
    return None


def _options(
    task: datasets.TaskInfo, located: Located | None, options: Mapping[str, Any] | None
) -> dict[str, Any]:
    recipe = None if located is None else located.recipe
    of_recipe = recipe.options if recipe is not None and recipe.dataset == task.name else {}
    return {**of_recipe, **(options or {})}


def _fitted(
    network: keras.Model, located: Located | None, data: TaskData, seed: int
) -> tuple[keras.Model, bool, inputs.MaskSource]:
    """The network with head and mask of the data, whether its head is fresh, whose mask it is."""
    shape = data.input_shape
    if located is not None and inputs.may_have_other_steps(network, shape):
        network = loading.adapted(located, network, input_shape=shape)
    inputs.check_inputs(network, data.task, shape)
    outputs, has = data.outputs, network.output_shape[-1]
    # Arrays may lack some of the classes that the head of a model of one's own has.
    if data.is_given and data.task.classes and located is None and has > outputs:
        outputs = has
    model, is_fresh = heads.fit_head(network, data.task, outputs, seed)
    if data.is_given:
        return model, is_fresh, inputs.own_mask(model)
    model, masks = inputs.fit_mask(model, data.task, data.splits["train"])
    return model, is_fresh, masks
