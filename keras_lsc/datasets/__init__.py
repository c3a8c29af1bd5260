"""Sequence tasks as NumPy arrays, the same on every backend.

An image task is a row of the table in `keras_lsc.datasets.images`: add a row to add one. Any other
task is a module with `INFO`, what is known of it beforehand, and a function `read(split, *, ...)`
that returns its examples; texts have `read_stream` besides. Name such a module in `_MODULES`.
"""

from __future__ import annotations

import difflib
import os
from typing import Any, Literal, overload

import keras
import numpy as np

from keras_lsc.arguments import flag, integer, positive_integer
from keras_lsc.datasets import (
    adding,
    arrow_pointing,
    copy_memory,
    delayed_match,
    images,
    keras_mnist,
    parity,
    ptb,
    shd,
    spike_patterns,
    spoken_digit,
    spoken_digit_spikes,
    tiny_shakespeare,
    uea,
)
from keras_lsc.datasets.batching import Batches
from keras_lsc.datasets.cochlea import Cochlea
from keras_lsc.datasets.contiguous import ContiguousBatches
from keras_lsc.datasets.curriculum import GrowingTask
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import DatasetUnavailableError, Prepared, find_prepared
from keras_lsc.datasets.task import Task
from keras_lsc.datasets.ts import TimeSeries, TimeSeriesFormatError, read_ts
from keras_lsc.renamed import old_names

__all__ = [
    "Batches",
    "Cochlea",
    "ContiguousBatches",
    "DatasetUnavailableError",
    "GrowingTask",
    "Prepared",
    "TaskInfo",
    "TimeSeries",
    "TimeSeriesFormatError",
    "batches",
    "info",
    "load",
    "names",
    "options",
    "prepared",
    "read_ts",
    "stream",
    "vocabulary",
]

__getattr__ = old_names(
    __name__,
    {
        "CarriedState": "keras_lsc.layers.CarriedState",
        "LaneBatches": "keras_lsc.datasets.ContiguousBatches",
    },
)

_MODULES = (
    adding,
    arrow_pointing,
    copy_memory,
    delayed_match,
    parity,
    ptb,
    shd,
    spike_patterns,
    spoken_digit,
    spoken_digit_spikes,
    tiny_shakespeare,
    uea,
)
_TASKS = {
    task.info.name: task
    for task in (
        *(Task(one.INFO, one.read, getattr(one, "read_stream", None)) for one in _MODULES),
        *(row.task() for row in images.TASKS),
    )
}


def names() -> list[str]:
    """Lists the names that `load` knows, in alphabetical order.

    Example:
        >>> from keras_lsc import datasets
        >>> [name for name in datasets.names() if "mnist" in name]
        ['mnist', 'psmnist', 'smnist', 'smnist_latency']
    """
    return sorted(_TASKS)


def info(name: str) -> TaskInfo:
    """Returns what is known of a task before its data is read.

    Args:
        name: one of `names()`.

    Returns:
        A `TaskInfo`: shape, classes or vocabulary, loss, metric, licence, citation.

    Raises:
        ValueError: the name is not a known one.

    Example:
        >>> from keras_lsc import datasets
        >>> task = datasets.info("smnist")
        >>> task.shape, task.classes, task.loss
        ((28, 28), 10, 'sparse_categorical_crossentropy')
    """
    return _task(name).info


def options(name: str) -> dict[str, Any]:
    """Returns the options that `load` takes for a task, and their defaults.

    Args:
        name: String, one of `names()`.

    Raises:
        ValueError: The name is not a known one.

    Example:
        >>> from keras_lsc import datasets
        >>> datasets.options("copy_memory")
        {'limit': None, 'data_dir': None, 'download': True, 'delay': 100, 'symbols': 10, 'seed': 0}
    """
    return _task(name).options


def prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared | None:
    """Returns what is prepared on this computer of the data of a task.

    Args:
        name: one of `names()`.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
        Folder, version, number of examples in each file and bytes; None where nothing is prepared,
        and for tasks that are generated or read from files of the user's own. For MNIST it may be
        the file of `keras.datasets.mnist`, whose name then is the version.

    Raises:
        ValueError: the name is not a known one.
        DatasetUnavailableError: the description of what is prepared is damaged.

    Example:
        >>> from keras_lsc import datasets
        >>> datasets.prepared("parity") is None
        True
    """
    source = info(name).source
    if source is None:
        return None
    found = find_prepared(source, data_dir)
    return keras_mnist.find() if found is None and source == "mnist" else found


@overload
def load(
    name: str, split: str = "train", *, masks: Literal[False] = False, **options: Any
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def load(
    name: str, split: str = "train", *, masks: Literal[True], **options: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
def load(
    name: str, split: str = "train", *, masks: bool = False, **options: Any
) -> tuple[np.ndarray, ...]:
    """Loads one split of a task as arrays.

    Args:
        name: one of `names()`.
        split: "train", "validation" or "test".
        masks: whether to return a mask too. Sequences that differ in length have zeros after their
            end, which a recurrent layer cannot tell from inputs: give it the mask.
        **options: What the task itself takes. Every task takes `limit`, the largest number of
            examples to return, counted from the start of the split, and `data_dir` and `download`,
            of which those that are generated make no use. For the rest see `options(name)` and
            docs/datasets.md.

    Returns:
        x: float32 array (N, T, features), (N, features) for feed-forward tasks; int32 (N, T) for
            texts.
        y: int32 array (N,) of class indices; (N, T) where there is a label at every step; float32
            (N,) for values.
        mask: only with `masks`: bool array (N, T), True where a step belongs to the sequence.

    Raises:
        ValueError: the name, the split or an option's value is not a known one.
        TypeError: the task has no such option.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ModuleNotFoundError: the packages that read the data are not installed.
        MemoryError: the arrays do not fit into the memory of this computer.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("parity", split="test", limit=100, n=2, length=16)
        >>> x.shape, y.shape
        ((100, 16, 1), (100,))
    """
    flag("masks", masks)
    examples = _task(name).read(split, options)
    x = examples.inputs[:]
    return (x, examples.targets, examples.mask(slice(None))) if masks else (x, examples.targets)


def batches(
    name: str,
    split: str = "train",
    *,
    batch_size: int = 32,
    shuffle: bool | None = None,
    seed: int = 0,
    masks: bool = False,
    drop_rest: bool | None = None,
    **options: Any,
) -> keras.utils.PyDataset:
    """Returns one split of a task as batches, for `fit` or for a loop.

    Spike trains become dense a batch at a time, so that all of a split can be used. Texts come as
    a stream: each batch continues where the one before left off (see `ContiguousBatches`), for
    layers wrapped in `keras_lsc.layers.CarriedState`; windows in random order are `load` with
    `fit(x, y)`.

    Args:
        name: one of `names()`.
        split: "train", "validation" or "test".
        batch_size: examples of a batch; for texts, parts of the stream that are read in parallel.
        shuffle: whether to put the examples into a random order, a new one every epoch. None means
            yes for "train" and no otherwise. Texts are not shuffled.
        seed: Integer, seed of that order, a non-negative integer. For the same order in `fit`,
            pass it `shuffle=False`: it shuffles the batches by itself.
        masks: whether inputs are dictionaries {"x": inputs, "mask": bool (batch, T)}; texts need
            none.
        drop_rest: whether to leave out what does not fill a batch. None means yes for texts, and
            no otherwise. Kept, it makes a last batch of fewer examples, or for texts a first batch
            of fewer steps.
        **options: What the task itself takes, as in `load`.

    Returns:
        A `keras.utils.PyDataset` of NumPy arrays: `Batches`, or `ContiguousBatches` for texts.

    Raises:
        ValueError: the name, the split or an option's value is not a known one.
        TypeError: the task has no such option.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> for x, y in datasets.batches("adding", "test", batch_size=1000):
        ...     print(x.shape, y.shape)
        (1000, 100, 2) (1000,)
        (1000, 100, 2) (1000,)
        (1000, 100, 2) (1000,)
        (1000, 100, 2) (1000,)
        (1000, 100, 2) (1000,)
    """
    task = _task(name)
    positive_integer("batch_size", batch_size)
    integer("seed", seed, at_least=0)
    flag("masks", masks)
    for argument, value in (("shuffle", shuffle), ("drop_rest", drop_rest)):
        if value is not None:
            flag(argument, value)
    if task.stream_reader is not None:
        if shuffle or masks:
            given = "shuffle=True" if shuffle else "masks=True"
            raise ValueError(
                f"{name} is a text, whose batches continue one another, so {given} has no meaning; "
                "for windows in random order use keras_lsc.datasets.load and fit(x, y)."
            )
        steps = {"steps": options.pop("steps")} if "steps" in options else {}
        if "limit" in options:
            raise TypeError(f"{name} is a text, whose stream takes no limit; slice stream().")
        return ContiguousBatches(
            stream(name, split, **options),
            batch_size=batch_size,
            drop_rest=drop_rest is not False,
            **steps,
        )
    return Batches(
        task.read(split, options),
        batch_size=batch_size,
        shuffle=split == "train" if shuffle is None else shuffle,
        seed=seed,
        masks=masks,
        drop_rest=bool(drop_rest),
    )


def stream(name: str, split: str = "train", **options: Any) -> np.ndarray:
    """Loads one split of a text as one stream of tokens.

    Args:
        name: Name of a text: "ptb" or "tiny_shakespeare".
        split: "train", "validation" or "test".
        **options: `data_dir`, `download`, and for "ptb" `manual_dir`.

    Returns:
        int32 array (n,), indices into `vocabulary(name)`.

    Raises:
        ValueError: the name or the split is not a known one, or the task is no text.
        TypeError: the task has no such option.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> len(datasets.stream("tiny_shakespeare", "train"))
        1003854
    """
    return _text(name).read_stream(split, options).tokens


def vocabulary(name: str, **options: Any) -> tuple[str, ...]:
    """Returns the tokens of a text: the text of token i is element i.

    Args:
        name: Name of a text: "ptb" or "tiny_shakespeare".
        **options: `data_dir`, `download`, and for "ptb" `manual_dir`.

    Raises:
        ValueError: the name is not a known one, or the task is no text.
        TypeError: the task has no such option.
        DatasetUnavailableError: the data is neither on this computer nor to be had.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> "".join(datasets.vocabulary("tiny_shakespeare")[-5:])
        'vwxyz'
    """
    return _text(name).read_stream("train", options).vocabulary


def _task(name: str) -> Task:
    if not isinstance(name, str):
        raise ValueError(
            f"a dataset is chosen by its name, got {name!r}; known datasets: {', '.join(names())}."
        )
    if name not in _TASKS:
        closest = difflib.get_close_matches(name, names(), cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, closest))}? " if closest else ""
        raise ValueError(f"unknown dataset {name!r}; {hint}Known datasets: {', '.join(names())}.")
    return _TASKS[name]


def _text(name: str) -> Task:
    task = _task(name)
    if task.stream_reader is None:
        texts = [text for text in names() if _TASKS[text].stream_reader is not None]
        raise ValueError(f"{name} is no text; texts are: {', '.join(texts)}.")
    return task


def __dir__() -> list[str]:
    return sorted(__all__)
