"""The original files of a dataset: given by hand or downloaded, and checked in either case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class DamagedFileError(OSError):
    """A file of a dataset is not the one that was published."""


def original_files(manager: Any, urls: Mapping[str, str]) -> dict[str, Path]:
    """Returns the paths of the original files, downloaded where they were not given by hand.

    Args:
        manager: the download manager of TensorFlow Datasets. A download that does not match
            `checksums.tsv` raises and is not kept.
        urls: where each file is to be had, by the name that it has in the manual folder.

    """
    try:
        folder = Path(manager.manual_dir)
    except AssertionError:  # So it says that there is no such folder, or that it is empty.
        folder = None
    # All datasets share one default folder, so files of others may be there and ours not.
    if folder is not None and all((folder / name).is_file() for name in urls):
        return {name: folder / name for name in urls}
    paths = manager.download_and_extract(dict(urls))
    return {name: Path(path) for name, path in paths.items()}


def check_digest(path: Path, expected: str, algorithm: str) -> None:
    """Raises DamagedFileError unless the file has the digest, a hexadecimal number."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise DamagedFileError(
            f"{path} is not the published file, or only a part of it: its {algorithm} is {found}, "
            f"and should be {expected}; fetch it again"
        )
