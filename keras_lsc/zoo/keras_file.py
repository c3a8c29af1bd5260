"""Checkpoint files: `.keras` archives with a certificate, read once and written whole."""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_lsc import files
from keras_lsc.zoo import guard, locks
from keras_lsc.zoo.checkpoint_file import CheckpointFile
from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage
from keras_lsc.zoo.initializers import restore_initializers, skip_init

_KEY = "keras_lsc"
_WORK = ".saving-"
# The oldest time that a ZIP archive can name: the time of writing is not content.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


# Reading


@dataclass(frozen=True)
class KerasFile(CheckpointFile):
    """A `.keras` file of any origin, read once: what was checked is what is loaded.

    Attributes:
        path: Path of the file.
        content: Its bytes.
        max_bytes: Most bytes that it may unpack to, or None, as `read` takes it.
    """

    max_bytes: int | None = None
    _remedy = "Remove it and load again."

    @classmethod
    def read(cls, path: str | os.PathLike[str], max_bytes: int | None = None) -> "KerasFile":
        """Reads a file, unless it is larger than what a checkpoint may unpack to.

        Args:
            path: Path of the file.
            max_bytes: Most bytes that the file may unpack to; None for the environment variable
                KERAS_LSC_MAX_BYTES, or without that for 2 GiB, and no more than 64 MiB or 20 times
                the size of the file.

        Raises:
            DamagedCheckpointError: It is too large, or cannot be read.
            OSError: It cannot be opened.
        """
        path = Path(path)
        with path.open("rb") as file, as_damage(path, "cannot be read"):
            size = os.fstat(file.fileno()).st_size
            guard.check_size(path, size, max_bytes)
            return cls(path, file.read(size), max_bytes)

    def certificate(self) -> dict[str, Any] | None:
        """Returns the certificate in the file; None for a model without one.

        Raises:
            DamagedCheckpointError: The file is no `.keras` archive.
        """
        certificate = self._parsed(guard.METADATA, self._parts(guard.METADATA)).get(_KEY)
        if not isinstance(certificate, dict | None):
            raise DamagedCheckpointError(f"{self.path} has a certificate that is no object.")
        return certificate

    def configuration(self) -> dict[str, Any]:
        """Returns the configuration of the model, checked as by `model`.

        Raises:
            DamagedCheckpointError: The file is no `.keras` archive, or its model is not to be
                trusted.
        """
        config = self._parsed(guard.CONFIGURATION, self._parts(guard.CONFIGURATION))
        guard.check_configuration(self.path, config)
        return config

    def model(self) -> keras.Model:
        """Returns the model, as `read_model` does.

        Raises:
            DamagedCheckpointError: As `read_model`.
        """
        path, parts = self.path, self._parts()
        config = self._parsed(guard.CONFIGURATION, parts)
        self._parsed(guard.METADATA, parts)
        registered = guard.check_configuration(path, config)
        elements = guard.count_weights(path, parts[guard.WEIGHTS], self.max_bytes)
        with as_damage(path, "cannot be loaded as a model"):
            guard.check_sizes(path, config, registered, elements)
            model = _load_without_init(parts, config)
            if not isinstance(model, keras.Model):
                raise DamagedCheckpointError(
                    f"{path} holds no model, but a {type(model).__name__}; expected a keras.Model."
                )
        return model

    def _parts(self, *names: str) -> dict[str, bytes]:
        return guard.unpack(self.path, self.content, self.max_bytes, *names)

    def _parsed(self, name: str, parts: Mapping[str, bytes]) -> dict[str, Any]:
        return guard.parse(self.path, name, parts[name])


def read_model(path: str | os.PathLike[str], max_bytes: int | None = None) -> keras.Model:
    """Loads the model of a `.keras` file of any origin, without running code of it.

    This is the one way in for files: whatever is the matter with one is found here, before more is
    read, unpacked, allocated or called than a sound file of its size needs.

    Args:
        path: Path of the file.
        max_bytes: Most bytes that the file may unpack to, or None, as `KerasFile.read` takes it.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        DamagedCheckpointError: The file is no `.keras` archive, is cut off or changed, breaks a
            limit, names code to run or classes that are not registered, or its weights do not
            fit its model.
        OSError: The file cannot be opened.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> path = f"{tempfile.mkdtemp()}/model.keras"
        >>> model.save(path)
        >>> read_model(path).count_params() == model.count_params()
        True
    """
    return KerasFile.read(path, max_bytes).model()


# Writing


@contextmanager
def prepared(
    model: keras.Model, folder: Path, certificate: dict[str, Any]
) -> Iterator[tuple[Path, str]]:
    """Writes a model with its certificate to a file in `folder`, for the caller to move in place.

    Meanwhile no other process writes a model to that folder. What one that was killed left there
    is removed.

    Args:
        model: Model to be written; what it was compiled with is left out.
        folder: Folder where it is to go, which is made.
        certificate: JSON types.

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
            files.to_disk(finished)
            yield finished, files.sha256(finished)


def _rewrite(source: Path, destination: Path, certificate: dict[str, Any]) -> None:
    """Copies a file that Keras wrote, with the certificate and the same bytes every time."""
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


def _load_without_init(parts: Mapping[str, bytes], config: dict[str, Any]) -> keras.Model:
    """As `keras.saving.load_model`, of the checked parts of a file."""
    changed = json.dumps(skip_init(config)).encode()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with zipfile.ZipFile(copy, "w") as new:
            for name, content in parts.items():
                new.writestr(name, changed if name == guard.CONFIGURATION else content)
        model = keras.saving.load_model(copy, compile=False, safe_mode=True)
    restore_initializers(model)
    return model
