"""Records of array_record files, as TensorFlow Datasets writes them, decoded strictly.

What a dataset holds is declared by its reader, never taken from the `features.json` beside it:
TensorFlow Datasets would import whatever module that names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

FeatureKind = Literal["bytes", "integer", "integers", "floats"]

_LISTS = {
    "bytes": "bytes_list",
    "integer": "int64_list",
    "integers": "int64_list",
    "floats": "float_list",
}


class DamagedRecordsError(ValueError):
    """The records of a dataset are not what its description, or its reader, says."""


def read_records(
    files: list[Path], lengths: list[int], rows: range, features: Mapping[str, FeatureKind]
) -> list[dict[str, Any]]:
    """Reads rows of a dataset that is parted into several files.

    Args:
        files: Files of array_record.
        lengths: number of records of each.
        rows: to be read, counted through all files.
        features: What to read of every record: "bytes" or an "integer", of which there has to be
            exactly one; "integers" or "floats", int64 or float32 arrays (n,).

    Returns:
        One dictionary per record.

    Raises:
        DamagedRecordsError: a file is cut off or was changed, or a record lacks a feature.
        OSError: a file cannot be read.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for file in files:
        if not file.is_file():
            raise DamagedRecordsError(f"there is no file {file.name}")
    try:
        with ArrayRecordDataSource(list(map(os.fspath, files))) as source:
            if len(source) != sum(lengths):
                raise DamagedRecordsError(f"{len(source)} records, and {sum(lengths)} are declared")
            records = source.__getitems__(rows) if rows else []
    except (RuntimeError, ValueError, EOFError) as error:  # array_record raises all three.
        raise DamagedRecordsError(str(error)) from None
    return [_decoded(record, features) for record in records]


def _decoded(record: bytes, features: Mapping[str, FeatureKind]) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        found = tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise DamagedRecordsError(f"a record is no tf.train.Example: {error}") from None
    return {name: _value(found, name, kind) for name, kind in features.items()}


def _value(found: Any, name: str, kind: FeatureKind) -> Any:
    if name not in found or found[name].WhichOneof("kind") not in (None, _LISTS[kind]):
        raise DamagedRecordsError(f"a record has no feature {name!r} of {kind}")
    values = getattr(found[name], _LISTS[kind]).value
    if kind == "integers":
        return np.array(values, dtype=np.int64)
    if kind == "floats":
        return np.array(values, dtype=np.float32)
    if len(values) != 1:
        raise DamagedRecordsError(f"a record has {len(values)} values of {name!r}, and not one")
    return values[0]
