"""What is checked of a `.keras` file before anything of it is unpacked, built or called."""

import copy
import io
import json
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import keras

from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage

CONFIGURATION, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LIMIT_VARIABLE = "KERAS_LSC_MAX_BYTES"
DEFAULT_LIMIT = 2**31
# Below this a file may unpack to anything; above, to so many times its own size. Weights hardly
# compress; constant ones do.
_HARMLESS, _RATIO = 2**26, 20
_MEMBERS, _TEXT = 1000, 2**24
# Bytes of the names and the table of an archive.
_OVERHEAD = 2**20
_DEPTH = 250
# Elements of a variable that no file holds, such as what a layer counts.
_UNSAVED = 2**22

# Layers that run code of the file, or read other files that it names.
_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__", "__typespec__")
_BUILT_IN = (
    "activations",
    "constraints",
    "initializers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
)
# Modules of Keras whose functions a model may name: all else, such as keras.utils.get_file, acts.
_FUNCTIONS = {"keras.ops", *(f"keras.{name}" for name in _BUILT_IN)}


def limit(max_bytes: int | None) -> int | None:
    """The most bytes that a file may have or unpack to, where the user chose it; else None.

    Raises:
        ValueError: The environment variable KERAS_LSC_MAX_BYTES is no positive integer.
    """
    if max_bytes is not None:
        return max_bytes
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
        raise ValueError(
            f"The environment variable {LIMIT_VARIABLE} must be a positive number of bytes, got "
            f"{text[:50]!r}."
        )
    return int(text)


def check_size(path: Path, size: int, max_bytes: int | None) -> None:
    """Refuses a file that is larger than what it may unpack to, before it is read.

    Args:
        path: Path of the file, for the message.
        size: Its bytes.
        max_bytes: As `unpack` takes it.

    Raises:
        DamagedCheckpointError: It is larger.
    """
    most = bound(size, limit(max_bytes))
    # What cannot be compressed grows a little in an archive.
    if size > most + most // 1000 + _OVERHEAD:
        raise DamagedCheckpointError(
            f"{path} is no .keras checkpoint: it has {size:,} bytes, more than the {most:,} that "
            f"are allowed. If you trust it, set {LIMIT_VARIABLE} to a larger number."
        )


def check_network_size(path: Path, weights: int) -> None:
    """Refuses a network of too many weights, before it is made.

    Args:
        path: Path of the file that asks for it, for the message.
        weights: Number of its weights, at least.

    Raises:
        DamagedCheckpointError: They take more bytes than are allowed.
    """
    most = limit(None) or DEFAULT_LIMIT
    if 4 * weights > most:
        raise DamagedCheckpointError(
            f"{path} is of a network of {weights:,} weights or more, which take more than the "
            f"{most:,} bytes that are allowed. If you trust it, set {LIMIT_VARIABLE} to a larger "
            "number."
        )


def unpack(path: Path, content: bytes, max_bytes: int | None, *names: str) -> dict[str, bytes]:
    """Unpacks the parts of a `.keras` file, none before the sizes of all of them are checked.

    Args:
        path: Path of the file, for the message.
        content: The whole file.
        max_bytes: Most bytes of all parts together; None for `KERAS_LSC_MAX_BYTES`, or without
            that for 2 GiB and no more than 64 MiB or 20 times the size of the file.
        *names: Names of the parts wanted; all of them where none is named.

    Returns:
        The contents by name, each as its checksum says.

    Raises:
        DamagedCheckpointError: The file is no such archive, or breaks a limit.
    """
    allowed = limit(max_bytes)
    with as_damage(path), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        _check_members(path, members, len(content), allowed)
        return {
            member.filename: _content(path, archive, member)
            for member in members
            if not names or member.filename in names
        }


def _check_members(
    path: Path, members: list[zipfile.ZipInfo], size: int, allowed: int | None
) -> None:
    def refuse(reason: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(f"{path} is no .keras checkpoint: {reason}.")

    if len(members) > _MEMBERS:
        raise refuse(f"it has {len(members)} parts, more than {_MEMBERS}")
    found = set()
    for member in members:
        name = member.filename
        if name in found:
            raise refuse(f"it has two parts {name!r}")
        found.add(name)
        steps = PurePosixPath(name).parts
        if not steps or steps[0] == "/" or ".." in steps or "\\" in name or ":" in name:
            raise refuse(f"its part {name!r} names a place outside")
        if name not in (CONFIGURATION, METADATA, WEIGHTS) and steps[0] != "assets":
            raise refuse(f"it has the unexpected part {name!r}")
        if member.flag_bits & 0x1:
            raise refuse(f"its part {name!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse(f"its part {name!r} is compressed by method {member.compress_type}")
        if name in (CONFIGURATION, METADATA) and member.file_size > _TEXT:
            raise refuse(f"its {name} has {member.file_size:,} bytes, more than {_TEXT:,}")
    for name in (CONFIGURATION, METADATA, WEIGHTS):
        if name not in found:
            raise refuse(f"it has no {name}, or is cut off")
    if sum(member.compress_size for member in members) > size:
        raise refuse("its parts overlap")
    total = sum(member.file_size for member in members)
    most = bound(size, allowed)
    if total > most:
        raise refuse(
            f"its {size:,} bytes unpack to {total:,}, more than the {most:,} that are allowed. If "
            f"you trust it, set {LIMIT_VARIABLE} to a larger number"
        )


def bound(size: int, allowed: int | None) -> int:
    """The most bytes that a file of so many may unpack to."""
    return allowed or min(DEFAULT_LIMIT, max(_HARMLESS, _RATIO * size))


def _content(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as part:
        content = part.read(member.file_size + 1)
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise DamagedCheckpointError(
            f"{path} is damaged: its part {member.filename!r} is not what its checksum says."
        )
    return content


def is_compressed_too_well(content: bytes) -> bool:
    """Whether a part, compressed, would look like one that unpacks to more than is allowed."""
    return len(content) > _HARMLESS // 2 and len(zlib.compress(content)) * 10 < len(content)


def parse(path: Path, name: str, content: bytes) -> dict[str, Any]:
    """Returns the JSON object in a part of a file.

    Raises:
        DamagedCheckpointError: It is none, or nested too deeply.
    """
    with as_damage(path, f"has no {name} that can be read"):
        parsed = json.loads(content)
        if not isinstance(parsed, dict):
            raise DamagedCheckpointError(f"{path} has no {name} that can be read: it is no object.")
        for _, depth in _walk(parsed):
            if depth > _DEPTH:
                raise DamagedCheckpointError(
                    f"{path} has a {name} that is nested more than {_DEPTH} deep."
                )
    return parsed


def _walk(content: Any) -> Iterator[tuple[Any, int]]:
    """Every part of a JSON value with its depth, without recursion."""
    waiting = [(content, 0)]
    while waiting:
        part, depth = waiting.pop()
        yield part, depth
        if isinstance(part, dict):
            waiting.extend((value, depth + 1) for value in part.values())
        elif isinstance(part, list):
            waiting.extend((value, depth + 1) for value in part)


def check_configuration(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Refuses a configuration that names anything but parts of Keras and registered objects.

    Args:
        path: Path of the file, for the message.
        config: Configuration of a model.

    Returns:
        The registered objects that it names, by name.

    Raises:
        DamagedCheckpointError: It names code of its own, a function that makes no part of a
            model, or a class that is not registered in this process.
    """
    registered: dict[str, Any] = {}
    for part, _ in _walk(config):
        if isinstance(part, dict) and "class_name" in part and "config" in part:
            _check_named(path, part, registered)
    return registered


def _check_named(path: Path, part: dict[str, Any], registered: dict[str, Any]) -> None:
    class_name, module = part["class_name"], part.get("module")
    is_function = class_name == "function"
    name = part["config"] if is_function else class_name
    if not isinstance(name, str) or not isinstance(module, str | None):
        raise DamagedCheckpointError(
            f"{path} has a configuration in which {module!r:.60} and {name!r:.60} name an object."
        )
    if name in _CODE:
        raise DamagedCheckpointError(
            f"{path} is not loaded: its configuration has a {name}, which runs code or reads files "
            "that the file itself names. If you trust its source, load it with "
            "keras.saving.load_model(path, safe_mode=False)."
        )
    known = name if is_function else part.get("registered_name") or name
    found = keras.saving.get_registered_object(known) if isinstance(known, str) else None
    if found is not None:
        registered[known] = found
        return
    if class_name.startswith("__") or module is None:
        return
    if module == "builtins":
        owners = [f"keras.{owner}" for owner in _BUILT_IN] if is_function else []
        is_part = any(callable(_public(owner, name)) for owner in owners)
    elif module.split(".")[0] == "keras":
        public = _public(module, name)
        # What Keras does not show it finds itself, and takes only what can be saved.
        is_part = isinstance(public, type) or (
            callable(public) and module in _FUNCTIONS if public is not None else not is_function
        )
    else:
        raise DamagedCheckpointError(
            f"{path} needs {name!r} of {module!r}, which is not registered in this process. Import "
            "the module that defines it, with @keras.saving.register_keras_serializable() (the "
            "keras-lsc command does with --import FILE.py), or "
            f"load within keras.saving.custom_object_scope({{{name!r}: ...}})."
        )
    if not is_part:
        raise DamagedCheckpointError(
            f"{path} is not loaded: its configuration names {module}.{name}, which is no part of a "
            "model."
        )


def _public(module: str, name: str) -> Any:
    owner: Any = keras
    for step in module.split(".")[1:]:
        owner = getattr(owner, step, None)
    return getattr(owner, name, None)


def count_weights(path: Path, content: bytes, max_bytes: int | None) -> int:
    """Returns the number of elements of all arrays in the weights of a file, without reading them.

    Raises:
        DamagedCheckpointError: It is no HDF5 file, refers to other files, or declares more than
            it holds.
    """
    declared = elements = 0
    with as_damage(path, f"has no {WEIGHTS} that can be read"):
        with h5py.File(io.BytesIO(content), "r") as file:
            for dataset in _datasets(path, file):
                if dataset.is_virtual or dataset.external:
                    raise DamagedCheckpointError(f"{path} has weights that refer to other files.")
                declared += dataset.nbytes
                elements += dataset.size
        most = bound(len(content), limit(max_bytes))
        if declared > most:
            raise DamagedCheckpointError(
                f"{path} has weights that declare {declared:,} bytes in {len(content):,}, more "
                f"than the {most:,} that are allowed. If you trust it, set {LIMIT_VARIABLE} to a "
                "larger number."
            )
    return elements


def _datasets(path: Path, file: Any) -> Iterator[Any]:
    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        if hash(group.id) in seen:
            continue
        seen.add(hash(group.id))
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise DamagedCheckpointError(f"{path} has weights that refer to other places.")
            part = group[name]
            if isinstance(part, h5py.Dataset):
                yield part
            else:
                waiting.append(part)


def check_sizes(
    path: Path, config: dict[str, Any], registered: dict[str, Any], elements: int
) -> None:
    """Refuses a configuration whose model would have more weights than the file holds.

    The model is built once without any values. In a thread of its own: Keras keeps the variables
    that have no value yet with the thread, and would give them one at its next opportunity.

    Args:
        path: Path of the file, for the message.
        config: Configuration of the model, checked.
        registered: What `check_configuration` returned.
        elements: Number of elements of all arrays in the file.

    Raises:
        DamagedCheckpointError: The model would be larger.
    """
    sizes: list[int] = []

    def build() -> None:
        given = copy.deepcopy(config)  # Keras takes things out of it
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(given, registered, safe_mode=True)
            sizes.append(sum(math.prod(variable.shape) for variable in model.variables))

    most = 2 * elements + _UNSAVED
    failure = _in_thread(build)
    if failure is not None:
        # A layer whose constructor makes values cannot be built so; loading says what else is the
        # matter. A size that no weight of the file has is none of such a layer's either.
        sizes.append(_largest_size(config))
    if sizes[0] > most:
        raise DamagedCheckpointError(
            f"{path} has a configuration of a model with {sizes[0]:,} weights, but holds "
            f"{elements:,}."
        )


def _largest_size(config: dict[str, Any]) -> int:
    numbers = [0]
    for part, _ in _walk(config):
        if isinstance(part, dict):
            for key, value in part.items():
                # Seeds and the addresses of shared objects are no sizes.
                if "seed" not in key and key != "shared_object_id":
                    numbers.extend(n for n in (value, *_items(value)) if type(n) is int)
    return max(numbers)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _in_thread(function: Any) -> BaseException | None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        # Whatever the configuration makes Keras raise: it is asked for its sizes only.
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run, name="keras_lsc.zoo.guard")
    thread.start()
    thread.join()
    return failures[0] if failures else None
