"""Where checkpoint files come from: the package, a local folder, a cache, the network."""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from keras_lsc import files
from keras_lsc.zoo import download, registry
from keras_lsc.zoo.damage import in_short
from keras_lsc.zoo.download import CheckpointUnavailableError as CheckpointUnavailableError
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.scores import Trained
from keras_lsc.zoo.start_file import SUFFIX, StartFile
from keras_lsc.zoo.trained_file import TrainedFile

FOLDER_VARIABLE = "KERAS_LSC_ZOO"
STARTS, TRAINED = "starts", "trained"
# Where the trained weights of large networks are written, which are no part of the package.
LARGE = "trained_large"

_INSTALLED = Path(__file__).parent / "installed"
_CHECKOUT = Path(__file__).parents[2] / "zoo"
_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)@(?P<revision>[^/]+)/(?P<file>.+\.keras)")


def default_cache() -> Path:
    """The folder of fetched checkpoints: XDG_CACHE_HOME, or ~/.cache, with keras_lsc/zoo."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras_lsc" / "zoo"


def folders() -> list[Path]:
    """The folders that may hold an index, in the order in which they are looked in."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    found = [_INSTALLED, _CHECKOUT, *([Path(chosen)] if chosen else [])]
    return [folder for folder in found if (folder / registry.INDEX).is_file()]


def find(name: str, sha256: str, recipe: Recipe) -> StartFile:
    """Returns the file of a start, which is beside the index that names it.

    Args:
        name: Name of the checkpoint.
        sha256: The sha256 of its file.
        recipe: Its recipe.

    Raises:
        CheckpointUnavailableError: There is no such file.
        DamagedCheckpointError: It has another sha256.
    """
    places = [folder / STARTS / f"{name}{SUFFIX}" for folder in folders()]
    for path in places:
        if path.is_file():
            return StartFile.read(path, recipe).checked(sha256)
    raise CheckpointUnavailableError(
        f"The file {name}{SUFFIX} is in none of {', '.join(str(path.parent) for path in places)}. "
        f"Install the package again, or set {FOLDER_VARIABLE} to the folder of a zoo that has it."
    )


def find_trained(
    name: str, trained: Trained, start: StartFile, cache_dir: Path | None = None
) -> TrainedFile:
    """Returns the file of trained weights: beside the index that names it, or fetched.

    Args:
        name: Name of the checkpoint.
        trained: What is known of them.
        start: The start that was trained.
        cache_dir: Folder of fetched files; None for `default_cache()`.

    Raises:
        CheckpointUnavailableError: It is neither here nor to be had.
        DamagedCheckpointError: It has another sha256, or is of another start.
    """
    start.checked(trained.start)
    parts = [folder / part for folder in folders() for part in (TRAINED, LARGE)]
    places = [part / f"{name}{SUFFIX}" for part in parts]
    for path in places:
        if path.is_file():
            return TrainedFile.read(path, start).checked(trained.sha256)
    if trained.address is None:
        raise CheckpointUnavailableError(
            f"The trained weights of {name!r} are in none of "
            f"{', '.join(map(str, parts))}: files of more than some hundred "
            f"kilobytes are left out. keras-lsc train {name} makes them, in a checkout; "
            f"{FOLDER_VARIABLE} names the folder of a zoo that has them."
        )
    path = (cache_dir or default_cache()) / trained.sha256[:16] / f"{name}{SUFFIX}"
    if not files.is_intact(path, trained.sha256):
        download.fetch(trained.address, path, trained.sha256, trained.bytes)
    return TrainedFile.read(path, start).checked(trained.sha256)


def _intact(path: Path, sha256: str) -> KerasFile | None:
    """The file, where there is one and it is the expected one."""
    if not path.is_file():
        return None
    file = KerasFile.read(path)
    return file if file.sha256 == sha256 else None


def fetch(
    address: str, sha256: str | None, cache_dir: Path | None, size: int | None = None
) -> KerasFile:
    """Fetches a checkpoint by its address, unless the cache has it intact.

    Args:
        address: `https://.../name.keras` or `hf://owner/repo@revision/name.keras`.
        sha256: The sha256 of the file; mandatory, an address says nothing of what it gives.
        cache_dir: Folder of fetched files; None for `default_cache()`.
        size: Bytes of the file, where that is known.

    Returns:
        The file, checked.

    Raises:
        ValueError: No sha256, or an address of another form.
        CheckpointUnavailableError: It could not be fetched.
        DamagedCheckpointError: What was fetched has another sha256.
    """
    if not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"Loading {address} needs sha256=, the 64 hexadecimal digits of the file it should "
            f"be; got {sha256!r:.200}."
        )
    cache = cache_dir or default_cache()
    if address.startswith("hf://"):
        return _fetch_from_hub(address, sha256, cache)
    download.parse(address)
    # Names of one sha256 share a folder: two addresses may end in the same name.
    path = cache / sha256[:16] / download.file_name(address)
    kept = _intact(path, sha256)
    if kept is not None:
        return kept
    download.fetch(address, path, sha256, size)
    return KerasFile.read(path).checked(sha256)


def _fetch_from_hub(address: str, sha256: str, cache: Path) -> KerasFile:
    parts = _HUB.fullmatch(address)
    if parts is None or ".." in parts["file"].split("/"):
        raise ValueError(
            f"{address} is no checkpoint on the hub; expected "
            "hf://owner/repository@revision/name.keras."
        )
    kept = _intact(_from_hub(address, parts, cache, force=False), sha256)
    if kept is not None:
        return kept
    # What lies in the cache of the hub may have been cut off there.
    return KerasFile.read(_from_hub(address, parts, cache, force=True)).checked(sha256)


def _from_hub(address: str, parts: re.Match[str], cache: Path, force: bool) -> Path:
    hub = huggingface_hub("Loading from")
    try:
        return Path(
            hub.hf_hub_download(
                parts["repo"],
                parts["file"],
                revision=parts["revision"],
                cache_dir=cache / "hub",
                force_download=force,
            )
        )
    except hub_errors(hub) as error:
        raise CheckpointUnavailableError(
            f"{address} could not be fetched: {in_short(error)}."
        ) from error


def huggingface_hub(what: str) -> Any:
    """Returns the module, or raises ImportError, which begins with what it is needed for."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError(
            f'{what} hf:// needs huggingface_hub: pip install "keras-lsc[hub]".'
        ) from error


def hub_errors(hub: Any) -> tuple[type[Exception], ...]:
    """Its own errors, and those of the library below it, which differs from version to version."""
    errors = importlib.import_module(f"{hub.__name__}.errors")
    general = (Exception, BaseException, object)
    bases = [base for base in errors.HfHubHTTPError.__mro__ if base not in general]
    return (*bases, errors.HFValidationError, OSError)
