"""Prepared datasets: their descriptions, their files of records, and what is in a record."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from fuzz.kind import RIGHT, Kind, require, require_finite
from fuzz.mutate import damaged_bytes, damaged_json_text
from keras_lsc import datasets

_UNAVAILABLE = (datasets.DatasetUnavailableError,)
Record = dict[str, Any]


def _png(random: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(written, "PNG")
    return written.getvalue()


@cache
def small_records(source: str) -> dict[str, list[Record]]:
    """The records of a dataset in small, by split."""
    random = np.random.default_rng(0)
    if source in ("mnist", "cifar100"):
        shape = (28, 28) if source == "mnist" else (32, 32, 3)
        return {
            split: [{"image": _png(random, shape), "label": k % 10} for k in range(count)]
            for split, count in (("train", 24), ("test", 6))
        }
    if source == "ptb":
        text = b" the cat sat on the <unk> mat \n a cat ran \n" * 9
        return {split: [{"text": text}] for split in ("train", "validation", "test")}
    if source == "tiny_shakespeare":
        text = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 9
        return {split: [{"text": text}] for split in ("train", "validation", "test")}
    if source == "spoken_digit":
        return {
            "train": [
                {
                    "audio": random.integers(-9_000, 9_000, 400),
                    "audio/filename": f"{take % 10}_george_{take}.wav".encode(),
                    "label": take % 10,
                }
                for take in range(14)
            ]
        }
    return {
        split: [
            {
                "times": np.sort(random.uniform(0, 1.3, 9)).astype(np.float32),
                "units": random.integers(0, 700, 9),
                "label": k % 20,
                "speaker": 0,
            }
            for k in range(12)
        ]
        for split in ("train", "test")
    }


def serialized(record: Record) -> bytes:
    example = tf_example_pb2.Example()
    for name, value in record.items():
        feature = example.features.feature[name]
        values = np.atleast_1d(np.asarray(value, dtype=object)).tolist()
        if value is None:
            continue
        if values and all(isinstance(one, bytes) for one in values):
            feature.bytes_list.value.extend(values)
        elif any(isinstance(one, float) for one in values):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(int(one) for one in values)
    return example.SerializeToString()


def write_prepared(folder: Path, source: str, splits: dict[str, list[bytes]]) -> Path:
    """Writes a dataset as TensorFlow Datasets would prepare it; returns its folder."""
    place = folder / source / "1.0.0"
    place.mkdir(parents=True)
    for split, records in splits.items():
        file = place / f"{source}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    (place / "dataset_info.json").write_text(json.dumps(_description(source, splits)))
    (place / "features.json").write_text(json.dumps(_FEATURES))
    return place


_FEATURES = {
    "featuresDict": {"features": {"label": {"pythonClassName": "a.B", "classLabel": {}}}},
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
}


def _description(source: str, splits: dict[str, list[bytes]]) -> dict[str, Any]:
    return {
        "fileFormat": "array_record",
        "name": source,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(map(len, records))),
                "shardLengths": [str(len(records))],
            }
            for split, records in splits.items()
        ],
        "version": "1.0.0",
    }


@cache
def _whole(root: Path, source: str) -> Path:
    records = {
        split: [serialized(one) for one in rows] for split, rows in small_records(source).items()
    }
    return write_prepared(root, source, records)


@cache
def _true(root: Path, task: str, source: str) -> tuple[np.ndarray, ...]:
    _whole(root, source)
    return datasets.load(task, "test", data_dir=root, download=False)


_TASKS = {
    "smnist": "mnist",
    "cifar100": "cifar100",
    "ptb": "ptb",
    "tiny_shakespeare": "tiny_shakespeare",
    "spoken_digit": "spoken_digit",
    "shd": "shd",
}


@dataclass(frozen=True, repr=False)
class Damage:
    """A task, which of its files is damaged, and how that file is made of the whole one."""

    task: str
    file: str
    change: Callable[[bytes], bytes]
    told: str

    def __repr__(self) -> str:
        return f"{self.task}: {self.file} {self.told}"


def _draw_description(random: np.random.Generator) -> Damage:
    task = str(random.choice(list(_TASKS)))
    file = "dataset_info.json" if random.random() < 0.8 else "features.json"
    state = int(random.integers(2**60))

    def change(content: bytes) -> bytes:
        return damaged_json_text(np.random.default_rng(state), json.loads(content))

    return Damage(task, file, change, f"damaged_json_text(default_rng({state}))")


def _draw_records(random: np.random.Generator) -> Damage:
    task = str(random.choice(list(_TASKS)))
    split = "train" if task == "spoken_digit" else str(random.choice(["train", "test"]))
    file = f"{_TASKS[task]}-{split}.array_record-00000-of-00001"
    state = int(random.integers(2**60))

    def change(content: bytes) -> bytes:
        return damaged_bytes(np.random.default_rng(state), content)

    return Damage(task, file, change, f"damaged_bytes(default_rng({state}))")


def _attempt_file(given: Damage, folder: Path) -> str:
    source = _TASKS[given.task]
    # Beside the inputs' own folders, which are emptied after each.
    root = folder.parent / "whole"
    true = _true(root, given.task, source)
    copy = folder / source / "1.0.0"
    shutil.copytree(_whole(root, source), copy)
    file = copy / given.file
    file.write_bytes(given.change(file.read_bytes()))
    datasets.prepared(given.task, folder)
    found = datasets.load(given.task, "test", data_dir=folder, download=False)
    for one, other in zip(found, true, strict=True):
        require(np.array_equal(one, other), "other values than before the damage")
    return RIGHT


@dataclass(frozen=True)
class Records:
    """A task and the records of its test file, or of its only one, some of them strange."""

    task: str
    records: tuple[bytes, ...]


_STRANGE: dict[str, tuple[Any, ...]] = {
    "bytes": (b"", b"\xff\xfe", b"a" * 99, "é".encode(), b"\0", [b"a", b"b"], b"the\ncat"),
    "integer": (0, -1, 3, 9, 10, 19, 20, 99, 100, 2**31, 2**62, [1, 2]),
    "numbers": (
        *(np.zeros(0, int), np.full(3, -1), np.arange(9) + 695, np.full(9, np.nan), np.ones(9)),
        *(np.arange(9), np.linspace(-1, 3, 9), np.full(500, 2**40), np.zeros(400, int)),
    ),
    "any": (None, b"x", 1.5, float("nan"), 7),
}


def _sort(value: Any) -> str:
    if isinstance(value, bytes):
        return "bytes"
    return "integer" if isinstance(value, int) else "numbers"


def _draw_payload(random: np.random.Generator) -> Records:
    task = str(random.choice(list(_TASKS)))
    rows = small_records(_TASKS[task])
    records = [dict(one) for one in rows.get("test", rows["train"])]
    for _ in range(int(random.integers(1, 3))):
        row = records[random.integers(len(records))]
        name = str(random.choice(list(row)))
        value = row[name]
        if isinstance(value, bytes) and random.random() < 0.5:
            row[name] = damaged_bytes(random, value) if value else b"x"
        elif random.random() < 0.1:
            del row[name]
            break
        else:
            strange = _STRANGE["any" if random.random() < 0.1 else _sort(value)]
            row[name] = strange[random.integers(len(strange))]
    written = [serialized(one) for one in records]
    if random.random() < 0.15:
        place = int(random.integers(len(written)))
        written[place] = damaged_bytes(random, written[place])
    elif random.random() < 0.1:
        written.append(written[0])
    return Records(task, tuple(written))


def _attempt_payload(given: Records, folder: Path) -> str:
    source = _TASKS[given.task]
    rows = small_records(source)
    splits = {split: [serialized(one) for one in found] for split, found in rows.items()}
    splits["test" if "test" in splits else "train"] = list(given.records)
    write_prepared(folder, source, splits)
    x, y = datasets.load(given.task, "test", data_dir=folder, download=False)
    info = datasets.info(given.task)
    require(len(x) == len(y) and len(x) > 0, f"{len(x)} inputs and {len(y)} targets")
    require(x.dtype == np.dtype(info.dtype) and y.dtype == np.int32, f"{x.dtype}, {y.dtype}")
    require(x.shape[1:] == info.shape or None in info.shape, f"inputs of shape {x.shape}")
    require_finite(x, "an input")
    require(y.min() >= 0 and y.max() < (info.outputs or 0), "a target is none of the outputs")
    return RIGHT


METADATA = Kind("metadata", 70, _draw_description, _attempt_file, _UNAVAILABLE)
RECORDS = Kind("records", 40, _draw_records, _attempt_file, _UNAVAILABLE)
# A text may be whole and yet shorter than a window, which is a ValueError.
PAYLOAD = Kind("payload", 60, _draw_payload, _attempt_payload, (*_UNAVAILABLE, ValueError))
