"""The data of a fine-tuning: the splits of a task, or arrays and datasets that were given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.datasets.examples import Examples
from keras_lsc.stability.data import batches_of, is_batched
from keras_lsc.zoo.heads import GIVEN

_SPLITS = ("train", "validation", "test")
# Of arrays that are given without validation data, the share that is held out.
_VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class TaskData:
    """What a network is trained and measured on.

    Attributes:
        task: What is known of the task.
        splits: Batches by split; given arrays have a "test" only where it is given.
        outputs: Number of classes, size of the vocabulary, or 1.
    """

    task: datasets.TaskInfo
    splits: Mapping[str, datasets.Batches]
    outputs: int

    @property
    def is_given(self) -> bool:
        """Whether it is arrays that were given, of which there is no true mask."""
        return self.task.name == GIVEN

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


def take_given(
    data: Any,
    validation_data: Any,
    test_data: Any,
    *,
    batch_size: int,
    limit: int | None,
    seed: int,
) -> TaskData:
    """Takes pairs (x, y), and holds out a part of the first where no validation data is given.

    Args:
        data: A pair of arrays, or a dataset of batches of such: a `keras.utils.PyDataset`, a
            `tf.data.Dataset`, a `torch.utils.data.DataLoader` or another iterable, which is read
            once into memory, as far as `limit` asks for.
        validation_data: Another one, or None to hold out 15 % of the rows.
        test_data: Another one, or None.
        batch_size: Number of sequences of a batch.
        limit: Largest number of rows of a split, or None for all.
        seed: Seed of what is held out, and of the order of the batches.

    Raises:
        ValueError: They are no pairs of inputs and targets that go together.
    """
    pairs = _given_pairs(data, validation_data, test_data, limit, seed)
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
    data: Any, validation_data: Any, test_data: Any, limit: int | None, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The arrays of the splits; those of "validation" are held out if they are not given."""
    x, y = _checked_pair("dataset", data, limit)
    pairs = {"train": (x, y)}
    for split, given in (("validation", validation_data), ("test", test_data)):
        if given is None:
            continue
        pairs[split] = _checked_pair(f"{split}_data", given, limit)
        rows, labels = (array.shape[1:] for array in pairs[split])
        if rows != x.shape[1:] or len(labels) != y.ndim - 1:
            raise ValueError(
                f"{split}_data has rows of shapes {rows} and {labels}, but the arrays given to "
                f"train on {x.shape[1:]} and {y.shape[1:]}."
            )
    if validation_data is None:
        if len(x) < 2:
            raise ValueError(
                "The arrays have a single row; at least two are needed, one of them to validate "
                "on. Or give validation_data."
            )
        order = np.random.default_rng(seed).permutation(len(x))
        count = max(1, round(_VALIDATION_SHARE * len(x)))
        for split, chosen in (("train", order[count:]), ("validation", order[:count])):
            pairs[split] = x[np.sort(chosen)], y[np.sort(chosen)]
    return {split: (x[:limit], y[:limit]) for split, (x, y) in pairs.items()}


def _checked_pair(argument: str, given: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    is_pair = isinstance(given, tuple | list) and len(given) == 2
    if not (is_pair or is_batched(given)):
        raise ValueError(
            f"{argument} must be a name, a pair of arrays (x, y) or a dataset of batches of such, "
            f"got {given!r:.200}."
        )
    pair = given if is_pair else _collected(argument, given, limit)
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


def _collected(argument: str, dataset: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of a dataset, as many as `limit` asks for, as two arrays."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    rows = 0
    for batch in batches_of(dataset):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError(
                f"{argument} must give batches (x, y), of inputs and targets, got {batch!r:.200}."
            )
        x, y = (keras.ops.convert_to_numpy(array) for array in batch)
        parts.append((x, y))
        rows += len(x)
        if limit is not None and rows >= limit:
            break
    if not parts:
        raise ValueError(f"{argument} has no batch; at least one is needed.")
    shapes = {(x.shape[1:], y.shape[1:]) for x, y in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{argument} has batches of rows of different shapes: {sorted(map(str, shapes))[:3]}. "
            "Pad them to one length."
        )
    xs, ys = zip(*parts, strict=True)
    return np.concatenate(xs), np.concatenate(ys)


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
        name=GIVEN,
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
