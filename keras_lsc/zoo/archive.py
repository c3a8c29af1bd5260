"""Checkpoint files: `.keras` archives with a certificate, the same bytes for the same content."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_lsc.zoo.undrawn import CONFIGURATION, load_undrawn

_METADATA = "metadata.json"
_KEY = "keras_lsc"
# The oldest time that a ZIP archive can name: the time of writing is not content.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


class DamagedCheckpointError(OSError):
    """A checkpoint file that is not what its sha256 or its format says."""


def write(model: keras.Model, path: Path, certificate: dict[str, Any]) -> str:
    """Writes a model with its certificate, in one piece or not at all.

    Args:
        model: to be written; what it was compiled with is left out.
        path: of the file, ending in `.keras`.
        certificate: JSON types.

    Returns:
        The sha256 of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        saved, finished = Path(folder) / "saved.keras", Path(folder) / "finished.keras"
        keras.saving.save_model(model, saved)
        _rewrite(saved, finished, certificate)
        digest = sha256(finished)
        os.replace(finished, path)
    return digest


def _rewrite(source: Path, destination: Path, certificate: dict[str, Any]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(destination, "w") as new:
        for name in sorted(old.namelist()):
            content = old.read(name)
            if name == _METADATA:
                metadata = json.loads(content)
                metadata.pop("date_saved", None)
                content = json.dumps({**metadata, _KEY: certificate}, sort_keys=True).encode()
            elif name == CONFIGURATION:
                config = json.loads(content)
                config.pop("compile_config", None)
                _number_shared_objects(config, {})
                content = json.dumps(config, sort_keys=True).encode()
            new.writestr(zipfile.ZipInfo(name, _NO_TIME), content, zipfile.ZIP_DEFLATED)


def _number_shared_objects(config: Any, numbers: dict[int, int]) -> None:
    """Numbers shared objects in their order; Keras names them by their addresses in memory."""
    if isinstance(config, dict):
        if "shared_object_id" in config:
            address = config["shared_object_id"]
            config["shared_object_id"] = numbers.setdefault(address, len(numbers))
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            _number_shared_objects(part, numbers)


def read_certificate(path: Path) -> dict[str, Any] | None:
    """Returns the certificate inside a checkpoint file; None for a model without one.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive.
    """
    with _readable(path) as archive:
        return json.loads(archive.read(_METADATA)).get(_KEY)


def read_configuration(path: Path) -> dict[str, Any]:
    """Returns the configuration of the model in a checkpoint file.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive.
    """
    with _readable(path) as archive:
        return json.loads(archive.read(CONFIGURATION))


def read_model(path: Path) -> keras.Model:
    """Loads the model of a checkpoint file, without running code of it.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive.
    """
    with _readable(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise DamagedCheckpointError(f"{path} is damaged: its part {broken!r} cannot be read.")
    with tempfile.TemporaryDirectory() as folder:
        return load_undrawn(path, Path(folder))


@contextmanager
def _readable(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise DamagedCheckpointError(
            f"{path} is no .keras checkpoint, or is cut off ({error}). Remove it and load again."
        ) from error


def check(path: Path, expected: str) -> None:
    """Raises DamagedCheckpointError where the sha256 of a file is not the expected one."""
    found = sha256(path)
    if found != expected:
        raise DamagedCheckpointError(
            f"{path} has the sha256 {found}, but {expected} was expected: it was changed, or cut "
            "off. Remove it and load again."
        )


def sha256(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
