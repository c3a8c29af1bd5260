"""The recordings of the Free Spoken Digit Dataset."""

from __future__ import annotations

import os
import re

import numpy as np

from keras_lsc.datasets.info import Kind, TaskInfo
from keras_lsc.datasets.source import Part, checked_labels, damaged, read_examples

RATE = 8_000
_FULL_SCALE = 2**15
_NAME = re.compile(rb"[0-9]_[a-z]+_(?P<take>[0-9]{1,4})[.]wav")
# Its authors test on the recordings 0 to 4 of each speaker and digit; the next five validate.
_TAKES = {"train": range(10, 50), "validation": range(5, 10), "test": range(5)}


def recordings_info(
    name: str, description: str, shape: tuple[int, ...], kind: Kind, padded: bool
) -> TaskInfo:
    """Returns the information of a task whose data are these recordings."""
    return TaskInfo(
        name=name,
        description=description,
        kind=kind,
        shape=shape,
        target="label",
        outputs=10,
        examples={"train": 2_000, "validation": 250, "test": 250},
        padded=padded,
        source="spoken_digit",
        licence="CC BY-SA 4.0",
        homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
        citation="""@misc{jackson2016free,
  title        = {Free Spoken Digit Dataset},
  author       = {Jackson, Zohar},
  year         = {2016},
  howpublished = {https://github.com/Jakobovski/free-spoken-digit-dataset}
}""",
    )


def read_recordings(
    splits: tuple[str, ...],
    *,
    limit: int | None,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """Reads recordings of spoken digits.

    Args:
        splits: which of "train", "validation" and "test" to read.
        limit: return only the first `limit` recordings of each split; None returns them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.

    Returns:
        For every split the float32 recordings at 8000 samples a second, full scale 1, and the
        int32 labels. Their order is fixed and mixes digits and speakers.

    Raises:
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    examples = read_examples(
        "spoken_digit",
        Part("train"),
        {"audio": "integers", "audio/filename": "bytes", "label": "integer"},
        data_dir=data_dir,
        download=download,
    )
    # File names are like 7_jackson_32.wav: digit, speaker, take.
    names = [_NAME.fullmatch(example["audio/filename"]) for example in examples]
    if not all(names) or not all(len(example["audio"]) for example in examples):
        raise damaged("spoken_digit", data_dir, "a recording is empty, or has the name of none")
    checked_labels("spoken_digit", examples, 10, data_dir)
    takes = [int(name["take"]) for name in names if name]
    read = []
    for split in splits:
        chosen = [
            example for example, take in zip(examples, takes, strict=True) if take in _TAKES[split]
        ][:limit]
        if not chosen:
            raise damaged("spoken_digit", data_dir, f"there are no recordings of {split}")
        audio = [np.divide(one["audio"], _FULL_SCALE, dtype=np.float32) for one in chosen]
        read.append((audio, np.array([one["label"] for one in chosen], dtype=np.int32)))
    return read
