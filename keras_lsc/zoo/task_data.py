"""The data of a fine-tuning: the splits of a task, or arrays that were given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.datasets.examples import Examples

_SPLITS = ("train", "validation", "test")
# Of arrays that are given without validation data, the share that is held out.
_VALIDATION_SHARE = 0.15
_GIVEN = "given arrays"


@dataclass(frozen=True)
class TaskData:
    """What a network is trained and measured on.

    Attributes:
        task: What is known of the task.
        splits: Batches by split; given arrays have no "test".
        outputs: Number of classes, size of the vocabulary, or 1.
    """

    task: datasets.TaskInfo
    splits: Mapping[str, datasets.Batches]
    outputs: int

    @property
    def is_given(self) -> bool:
        """Whether it is arrays that were given, of which there is no true mask."""
        return self.task.name == _GIVEN

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.splits["train"].examples.inputs.shape[1:]


def read_task(
    task: datasets.TaskInfo,
    options: Mapping[str, Any],
    *,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    batch_size: int,
    limit: int | None,
    seed: int,
) -> TaskData:
    """Reads the three splits of a task.

    Args:
        task: What is known of it.
        options: Its options.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: Whether data that is not on this computer may be fetched.
        batch_size: Number of sequences of a batch.
        limit: Largest number of sequences of a split, or None for all.
        seed: Seed of the order of the batches.

    Raises:
        DatasetUnavailableError: The data is neither on this computer nor to be had.
        TypeError: An option that the task lacks.
    """
    chosen = {**options, "data_dir": data_dir, "download": download}
    splits = {split: _batches(task, split, limit, batch_size, seed, chosen) for split in _SPLITS}
    return TaskData(task, splits, _outputs(task, chosen, splits))


def take_arrays(
    data: Any, validation_data: Any, *, batch_size: int, limit: int | None, seed: int
) -> TaskData:
    """Takes a pair of arrays (x, y), and holds out a part of them where none is given.

    Args:
        data: The pair.
        validation_data: Another one, or None to hold out 15 % of the rows.
        batch_size: Number of sequences of a batch.
        limit: Largest number of rows of a split, or None for all.
        seed: Seed of what is held out, and of the order of the batches.

    Raises:
        ValueError: They are no pairs of inputs and targets that go together.
    """
    pairs = _given_pairs(data, validation_data, limit, seed)
    task = _given_task(pairs)
    splits = {
        split: datasets.Batches(
            Examples(x, y), batch_size=batch_size, shuffle=split == "train", seed=seed
        )
        for split, (x, y) in pairs.items()
    }
    assert task.outputs is not None
    return TaskData(task, splits, task.outputs)


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
