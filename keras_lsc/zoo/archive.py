"""Checkpoint files: `.keras` archives with a certificate, the same bytes for the same content."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_lsc.zoo import guard, locks
from keras_lsc.zoo.damage import DamagedCheckpointError as DamagedCheckpointError
from keras_lsc.zoo.damage import as_damage
from keras_lsc.zoo.undrawn import load_undrawn

_KEY = "keras_lsc"
_WORK = ".saving-"
# The oldest time that a ZIP archive can name: the time of writing is not content.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write(model: keras.Model, path: Path, certificate: dict[str, Any]) -> str:
    """Writes a model with its certificate, in one piece or not at all.

    Args:
        model: to be written; what it was compiled with is left out.
        path: of the file, ending in `.keras`.
        certificate: JSON types.

    Returns:
        The sha256 of the file.
    """
    with prepared(model, path.parent, certificate) as (finished, digest):
        os.replace(finished, path)
    return digest


@contextmanager
def prepared(
    model: keras.Model, folder: Path, certificate: dict[str, Any]
) -> Iterator[tuple[Path, str]]:
    """Writes a model with its certificate to a file in `folder`, for the caller to move in place.

    Meanwhile no other process writes a model to that folder. What one that was killed left there
    is removed.

    Args:
        model: as for `write`.
        folder: where it is to go, which is made.
        certificate: as for `write`.

    Yields:
        Path and sha256 of the file; it is removed if it is still there afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder) as is_alone:
        # Whoever still wrote these would have the lock.
        for left in folder.glob(f"{_WORK}*") if is_alone else ():
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_WORK, dir=folder) as work:
            saved, finished = Path(work) / "saved.keras", Path(work) / "finished.keras"
            keras.saving.save_model(model, saved)
            _rewrite(saved, finished, certificate)
            to_disk(finished)
            yield finished, sha256(finished)


def to_disk(path: Path) -> None:
    """Waits until the disk has a file, lest a rename that outlives a crash name an empty one."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _rewrite(source: Path, destination: Path, certificate: dict[str, Any]) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(destination, "w") as new:
        for name in sorted(old.namelist()):
            content = old.read(name)
            if name == guard.METADATA:
                metadata = json.loads(content)
                metadata.pop("date_saved", None)
                content = json.dumps({**metadata, _KEY: certificate}, sort_keys=True).encode()
            elif name == guard.CONFIGURATION:
                config = json.loads(content)
                config.pop("compile_config", None)
                _number_shared_objects(config, {})
                content = json.dumps(config, sort_keys=True).encode()
            # Large constant weights shrink so much that the reader would take them for a trap.
            is_stored = guard.is_compressed_too_well(content)
            method = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            new.writestr(zipfile.ZipInfo(name, _NO_TIME), content, method)


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


def read_certificate(path: Path, max_bytes: int | None = None) -> dict[str, Any] | None:
    """Returns the certificate inside a checkpoint file; None for a model without one.

    Args:
        path: of the file.
        max_bytes: as for `read_model`.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive.
    """
    parts = guard.unpack(path, max_bytes, guard.METADATA)
    certificate = guard.parse(path, guard.METADATA, parts[guard.METADATA]).get(_KEY)
    if not isinstance(certificate, dict | None):
        raise DamagedCheckpointError(f"{path} has a certificate that is no object.")
    return certificate


def read_configuration(path: Path, max_bytes: int | None = None) -> dict[str, Any]:
    """Returns the configuration of the model in a checkpoint file, checked as by `read_model`.

    Args:
        path: of the file.
        max_bytes: as for `read_model`.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive, or its model is not to be trusted.
    """
    parts = guard.unpack(path, max_bytes, guard.CONFIGURATION)
    config = guard.parse(path, guard.CONFIGURATION, parts[guard.CONFIGURATION])
    guard.check_configuration(path, config)
    return config


def read_model(path: str | os.PathLike[str], max_bytes: int | None = None) -> keras.Model:
    """Loads the model of a `.keras` file of any origin, without running code of it.

    This is the one way in for files: whatever is the matter with one is found here, before more is
    read, unpacked, allocated or called than a sound file of its size needs.

    Args:
        path: of the file.
        max_bytes: most bytes that the file may unpack to; None for the environment variable
            KERAS_LSC_MAX_BYTES, or without that for 2 GiB, and no more than 64 MiB or 20 times the
            size of the file.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        DamagedCheckpointError: the file is no `.keras` archive, is cut off or changed, breaks a
            limit, names code to run or classes that are not registered, or its weights do not
            fit its model.
        OSError: the file cannot be opened.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> path = f"{tempfile.mkdtemp()}/model.keras"
        >>> model.save(path)
        >>> read_model(path).count_params() == model.count_params()
        True
    """
    path = Path(path)
    parts = guard.unpack(path, max_bytes)
    config = guard.parse(path, guard.CONFIGURATION, parts[guard.CONFIGURATION])
    guard.parse(path, guard.METADATA, parts[guard.METADATA])
    registered = guard.check_configuration(path, config)
    elements = guard.count_weights(path, parts[guard.WEIGHTS], max_bytes)
    with tempfile.TemporaryDirectory() as folder, as_damage(path, "cannot be loaded as a model"):
        guard.check_sizes(path, config, registered, elements)
        model = load_undrawn(parts, config, Path(folder))
        if not isinstance(model, keras.Model):
            raise DamagedCheckpointError(
                f"{path} holds no model, but a {type(model).__name__}; expected a keras.Model."
            )
    return model


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
