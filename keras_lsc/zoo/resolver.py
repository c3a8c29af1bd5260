"""What a name of a checkpoint stands for: where its file is, and what is known of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from keras_lsc.arguments import text
from keras_lsc.zoo import guard, registry, sources
from keras_lsc.zoo.damage import as_damage
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.registry import CheckpointInfo
from keras_lsc.zoo.start_file import StartFile
from keras_lsc.zoo.trained_file import TrainedFile

OWN_MODEL, OWN_CERTIFICATE = "model.keras", "certificate.json"
Kind = Literal["zoo", "path", "address"]


@dataclass(frozen=True)
class Located:
    """A checkpoint that was found.

    Attributes:
        name: As it was asked for.
        file: Its file, read and checked: a `StartFile` of the zoo, a `KerasFile` of other origin.
        info: What the zoo knows of it; None for files of other origin.
    """

    name: str
    file: KerasFile | StartFile
    info: CheckpointInfo | None = None

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.file.path

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of a checkpoint of the zoo, else None."""
        return None if self.info is None else self.info.recipe


def kind_of(name: str) -> Kind:
    """Returns what names a checkpoint: the zoo, a path on this computer, or an address.

    Example:
        >>> [kind_of(name) for name in ("gru_smnist_d2_rhovar", "mine/", "https://a.org/x.keras")]
        ['zoo', 'path', 'address']
    """
    if name.startswith(("hf://", "https://", "http://")):
        return "address"
    if name.endswith(".keras") or os.sep in name or "/" in name:
        return "path"
    return "zoo"


def locate(
    name: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Located:
    """Finds a checkpoint of any name, fetches it where it is not here, and reads its file.

    Args:
        name: As `keras_lsc.zoo.load` takes it.
        sha256: The sha256 of the file; mandatory for addresses, and checked wherever given.
        cache_dir: Folder of fetched files; None for ~/.cache/keras_lsc/zoo.

    Raises:
        UnknownCheckpointError: No checkpoint has the name.
        CheckpointUnavailableError: Its file is neither here nor to be had.
        DamagedCheckpointError: The file is another one than its sha256 says.
        FileNotFoundError: There is no file or folder of this path.
        ValueError: An argument of no use.
    """
    name = text("name", os.fspath(name) if isinstance(name, os.PathLike) else name)
    cache = _checked_cache(cache_dir)
    if sha256 is not None:
        _check_sha256(sha256)
    kind = kind_of(name)
    if kind == "address":
        return Located(name, sources.fetch(name, sha256, cache))
    if kind == "path":
        return Located(name, _file_of(Path(name), sha256))
    known = info(name)
    return Located(name, sources.find(name, sha256 or known.sha256, known.recipe), known)


def locate_trained(
    located: Located, cache_dir: str | os.PathLike[str] | None = None
) -> TrainedFile:
    """Finds the trained weights of a checkpoint that was found, and reads their file.

    Args:
        located: The checkpoint.
        cache_dir: Folder of fetched files; None for ~/.cache/keras_lsc/zoo.

    Raises:
        UntrainedCheckpointError: It has none; the message has the names that do.
        CheckpointUnavailableError: Their file is neither here nor to be had.
        DamagedCheckpointError: The file is another one than its sha256 says.
    """
    known = located.info
    if not isinstance(located.file, StartFile) or known is None or known.trained is None:
        raise registry.refuse_untrained(located.name, names(trained=True))
    cache = _checked_cache(cache_dir)
    return sources.find_trained(located.name, known.trained, located.file, cache)


def info(name: str) -> CheckpointInfo:
    """Returns what is known of a checkpoint of the zoo without loading it.

    Args:
        name: Name of the checkpoint.

    Raises:
        UnknownCheckpointError: No checkpoint has the name; the message has the closest ones.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.info("test_gru_parity_d2_rhovar").cell
        'gru'
    """
    text("name", name)
    entries = _entries()
    if name not in entries:
        hidden = name.startswith("test_")
        raise registry.refuse(name, [key for key in entries if key.startswith("test_") == hidden])
    return registry.info_of(name, entries[name])


def names(
    pattern: str = "*", *, hidden: bool = False, trained: bool | None = None, **filters: Any
) -> list[str]:
    """Returns the names of the checkpoints of the zoo, in natural order.

    Args:
        pattern: Name with wildcards, such as "lstm_*".
        hidden: Whether to name the tiny ones that exist for tests as well.
        trained: True for those that have trained weights alone, False for the others; None for
            all.
        **filters: Fields of a recipe with the value wanted, such as `dataset="smnist"`,
            `target=0.5`, `depth=2`.

    Returns:
        A list of names.

    Raises:
        TypeError: A filter is no field of a recipe.
        ValueError: `pattern` is no string or an empty one, `hidden` or `trained` no boolean.
        DamagedCheckpointError: An index cannot be read.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.names("test_gru_*", hidden=True, target="variance")
        ['test_gru_parity_d2_rhovar']
    """
    return registry.select(_entries(), pattern, hidden, filters, trained)


def _entries() -> dict[str, Mapping[str, Any]]:
    """The entries of all indices, not to be changed; of one name the first holds."""
    known: dict[str, Mapping[str, Any]] = {}
    for folder in sources.folders():
        for name, entry in registry.read_index(folder / registry.INDEX).items():
            known.setdefault(name, entry)
    return known


def _checked_cache(given: Any) -> Path | None:
    if given is None:
        return None
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"cache_dir must be a folder, or None, got {given!r:.200}.")
    return Path(path)


def _check_sha256(given: Any) -> None:
    if not (isinstance(given, str) and len(given) == 64 and set(given) <= set("0123456789abcdef")):
        raise ValueError(
            f"sha256 must be 64 lower-case hexadecimal digits, or None, got {given!r:.200}."
        )


def _file_of(path: Path, sha256: str | None) -> KerasFile:
    file = _file_in(path) if path.is_dir() else _read(path)
    return file.checked(sha256) if sha256 else file


def _read(path: Path) -> KerasFile:
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    return KerasFile.read(path)


def _file_in(folder: Path) -> KerasFile:
    """The model in a folder of `save`, which is that of the certificate beside it.

    Where a process was killed while it saved there is no certificate beside it, but the one within;
    where one is saving at this moment, what was read first is not what is there now.
    """
    path = folder / OWN_MODEL
    beside = _certificate_in(folder)
    while beside is not None:
        file = _read(path)
        if file.sha256 == beside["sha256"]:
            return file
        before, beside = beside, _certificate_in(folder)
        if beside == before:
            return file.checked(before["sha256"])
    if path.is_file():
        file = KerasFile.read(path)
        if file.certificate() is not None:
            return file
    raise FileNotFoundError(
        f"{folder} has no {OWN_CERTIFICATE}; it is not a folder of keras_lsc.zoo.save."
    )


def _certificate_in(folder: Path) -> dict[str, Any] | None:
    path = folder / OWN_CERTIFICATE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    certificate = guard.parse(path, "certificate", content)
    with as_damage(path, "is no certificate"):
        _check_sha256(certificate.get("sha256"))
    return certificate
