"""Where checkpoint files come from: the package, a local folder, a cache, the network."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_lsc.version import __version__
from keras_lsc.zoo import archive, registry

FOLDER_VARIABLE = "KERAS_LSC_ZOO"
URL_VARIABLE = "KERAS_LSC_ZOO_URL"
CHECKPOINTS = "checkpoints"
# The files of this version that are too large for the package.
RELEASE_URL = (
    f"https://raw.githubusercontent.com/keras-lsc/keras-lsc/v{__version__}/zoo/{CHECKPOINTS}"
)

_INSTALLED = Path(__file__).parent / "installed"
_CHECKOUT = Path(__file__).parents[2] / "zoo"
_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)@(?P<revision>[^/]+)/(?P<file>.+\.keras)")


class CheckpointUnavailableError(OSError):
    """A checkpoint's file is neither on this computer nor to be had."""


def default_cache() -> Path:
    """The folder of fetched checkpoints: XDG_CACHE_HOME, or ~/.cache, with keras_lsc/zoo."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras_lsc" / "zoo"


def folders() -> list[Path]:
    """The folders that may hold an index, in the order in which they are looked in."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    found = [_INSTALLED, _CHECKOUT, *([Path(chosen)] if chosen else [])]
    return [folder for folder in found if (folder / registry.INDEX).is_file()]


def entries() -> dict[str, dict[str, Any]]:
    """The entries of all indices; of one name the first holds."""
    known: dict[str, dict[str, Any]] = {}
    for folder in folders():
        for name, entry in registry.read_index(folder / registry.INDEX).items():
            known.setdefault(name, entry)
    return known


def find(name: str, sha256: str, cache_dir: Path | None) -> Path:
    """Returns the file of a checkpoint, fetched where it is not on this computer.

    Args:
        name: of the checkpoint.
        sha256: of its file.
        cache_dir: folder of fetched files; None for `default_cache()`.

    Raises:
        CheckpointUnavailableError: it is not on this computer and could not be fetched from
            KERAS_LSC_ZOO_URL, or without that from `RELEASE_URL`.
        DamagedCheckpointError: the file has another sha256.
    """
    cache = Path(cache_dir) if cache_dir else default_cache()
    file = f"{name}.keras"
    looked_in = []
    for path in _candidates(file, cache):
        if path.is_file():
            archive.check(path, sha256)
            return path
        looked_in.append(str(path.parent))
    base = os.environ.get(URL_VARIABLE) or RELEASE_URL
    try:
        return fetch(f"{base.rstrip('/')}/{file}", sha256, cache)
    except CheckpointUnavailableError as error:
        raise CheckpointUnavailableError(
            f"The file {file} is in none of {', '.join(looked_in)}, and {error} Set "
            f"{FOLDER_VARIABLE} to a folder that has it, or {URL_VARIABLE} to another address "
            "that it can be fetched from."
        ) from error


def _candidates(file: str, cache: Path) -> Iterator[Path]:
    for folder in folders():
        yield folder / CHECKPOINTS / file
    yield cache / file


def is_address(name: str) -> bool:
    """Whether a checkpoint is named by where it is fetched from."""
    return name.startswith(("hf://", "https://", "http://"))


def fetch(address: str, sha256: str | None, cache_dir: Path | None) -> Path:
    """Fetches a checkpoint by its address.

    Args:
        address: `https://.../name.keras` or `hf://owner/repo@revision/name.keras`.
        sha256: of the file; mandatory, an address says nothing of what it gives.
        cache_dir: folder of fetched files; None for `default_cache()`.

    Returns:
        Path of the file, checked.

    Raises:
        ValueError: no sha256, or an address of another form.
        CheckpointUnavailableError: it could not be fetched.
        DamagedCheckpointError: what was fetched has another sha256.
    """
    if not (sha256 and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"Loading {address} needs sha256=, the 64 hexadecimal digits of the file it should "
            f"be; got {sha256!r}."
        )
    cache = Path(cache_dir) if cache_dir else default_cache()
    if address.startswith("hf://"):
        return _fetch_from_hub(address, sha256, cache)
    if not address.startswith("https://"):
        raise ValueError(f"{address} is not safe to load from; expected https:// or hf://.")
    name = address.rsplit("/", 1)[-1]
    folder = cache / sha256[:16]
    path = folder / name
    if path.is_file():
        archive.check(path, sha256)
        return path
    # Where the folder is absent Keras would quietly use another one.
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fetched = keras.utils.get_file(
            fname=name,
            origin=address,
            file_hash=sha256,
            hash_algorithm="sha256",
            cache_dir=folder,
            cache_subdir="",
        )
    except ValueError as error:  # what Keras raises for another hash
        raise archive.DamagedCheckpointError(f"{address}: {error}") from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise CheckpointUnavailableError(f"{address} could not be fetched: {error}.") from error
    archive.check(Path(fetched), sha256)
    return Path(fetched)


def _is_of_the_network(error: Exception) -> bool:
    # Keras wraps what urllib raises in a bare Exception that begins so.
    return isinstance(error, OSError) or str(error).startswith("URL fetch failure")


def _fetch_from_hub(address: str, sha256: str, cache: Path) -> Path:
    parts = _HUB.fullmatch(address)
    if parts is None:
        raise ValueError(
            f"{address} is no checkpoint on the hub; expected "
            "hf://owner/repository@revision/name.keras."
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ImportError(
            'Loading from hf:// needs huggingface_hub: pip install "keras-lsc[hub]".'
        ) from error
    try:
        path = hf_hub_download(
            parts["repo"], parts["file"], revision=parts["revision"], cache_dir=cache / "hub"
        )
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointUnavailableError(f"{address} could not be fetched: {error}") from error
    archive.check(Path(path), sha256)
    return Path(path)
