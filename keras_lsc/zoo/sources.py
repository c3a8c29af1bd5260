"""Where checkpoint files come from: the package, a local folder, a cache, the network."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_lsc.version import __version__
from keras_lsc.zoo import archive, download, registry
from keras_lsc.zoo.damage import in_short
from keras_lsc.zoo.download import CheckpointUnavailableError as CheckpointUnavailableError

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


def default_cache() -> Path:
    """The folder of fetched checkpoints: XDG_CACHE_HOME, or ~/.cache, with keras_lsc/zoo."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras_lsc" / "zoo"


def folders() -> list[Path]:
    """The folders that may hold an index, in the order in which they are looked in."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    found = [_INSTALLED, _CHECKOUT, *([Path(chosen)] if chosen else [])]
    return [folder for folder in found if (folder / registry.INDEX).is_file()]


def entries() -> dict[str, Mapping[str, Any]]:
    """The entries of all indices, not to be changed; of one name the first holds."""
    known: dict[str, Mapping[str, Any]] = {}
    for folder in folders():
        for name, entry in registry.read_index(folder / registry.INDEX).items():
            known.setdefault(name, entry)
    return known


def find(name: str, sha256: str, cache_dir: Path | None, size: int | None = None) -> Path:
    """Returns the file of a checkpoint, fetched where it is not on this computer.

    Args:
        name: of the checkpoint.
        sha256: of its file.
        cache_dir: folder of fetched files; None for `default_cache()`. A damaged file there is
            fetched again.
        size: of its file, where that is known.

    Raises:
        CheckpointUnavailableError: it is not on this computer and could not be fetched from
            KERAS_LSC_ZOO_URL, or without that from `RELEASE_URL`.
        DamagedCheckpointError: the file of a folder, or what was fetched, has another sha256.
    """
    cache = Path(cache_dir) if cache_dir else default_cache()
    file = f"{name}.keras"
    looked_in = []
    for path in _installed(file):
        if path.is_file():
            archive.check(path, sha256)
            return path
        looked_in.append(str(path.parent))
    if is_intact(cache / file, sha256):
        return cache / file
    looked_in.append(str(cache))
    base = os.environ.get(URL_VARIABLE) or RELEASE_URL
    try:
        return fetch(f"{base.rstrip('/')}/{file}", sha256, cache, size)
    except CheckpointUnavailableError as error:
        raise CheckpointUnavailableError(
            f"The file {file} is, intact, in none of {', '.join(looked_in)}, and {error} Set "
            f"{FOLDER_VARIABLE} to a folder that has it, or {URL_VARIABLE} to another address "
            "that it can be fetched from."
        ) from error


def _installed(file: str) -> Iterator[Path]:
    for folder in folders():
        yield folder / CHECKPOINTS / file


def is_intact(path: Path, sha256: str) -> bool:
    """Whether there is such a file, and it is the expected one."""
    return path.is_file() and archive.sha256(path) == sha256


def is_address(name: str) -> bool:
    """Whether a checkpoint is named by where it is fetched from."""
    return name.startswith(("hf://", "https://", "http://"))


def fetch(
    address: str, sha256: str | None, cache_dir: Path | None, size: int | None = None
) -> Path:
    """Fetches a checkpoint by its address, unless the cache has it intact.

    Args:
        address: `https://.../name.keras` or `hf://owner/repo@revision/name.keras`.
        sha256: of the file; mandatory, an address says nothing of what it gives.
        cache_dir: folder of fetched files; None for `default_cache()`.
        size: of the file, where that is known.

    Returns:
        Path of the file, checked.

    Raises:
        ValueError: no sha256, or an address of another form.
        CheckpointUnavailableError: it could not be fetched.
        DamagedCheckpointError: what was fetched has another sha256.
    """
    if not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"Loading {address} needs sha256=, the 64 hexadecimal digits of the file it should "
            f"be; got {sha256!r:.200}."
        )
    cache = Path(cache_dir) if cache_dir else default_cache()
    if address.startswith("hf://"):
        return _fetch_from_hub(address, sha256, cache)
    download.parse(address)
    # Names of one sha256 share a folder: two addresses may end in the same name.
    path = cache / sha256[:16] / download.file_name(address)
    if not is_intact(path, sha256):
        download.fetch(address, path, sha256, size)
    return path


def _fetch_from_hub(address: str, sha256: str, cache: Path) -> Path:
    parts = _HUB.fullmatch(address)
    if parts is None or ".." in parts["file"].split("/"):
        raise ValueError(
            f"{address} is no checkpoint on the hub; expected "
            "hf://owner/repository@revision/name.keras."
        )
    path = _from_hub(address, parts, cache, force=False)
    if not is_intact(path, sha256):
        # What lies in the cache of the hub may have been cut off there.
        path = _from_hub(address, parts, cache, force=True)
        archive.check(path, sha256)
    return path


def _from_hub(address: str, parts: re.Match[str], cache: Path, force: bool) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ImportError(
            'Loading from hf:// needs huggingface_hub: pip install "keras-lsc[hub]".'
        ) from error
    try:
        return Path(
            hf_hub_download(
                parts["repo"],
                parts["file"],
                revision=parts["revision"],
                cache_dir=cache / "hub",
                force_download=force,
            )
        )
    # Its own errors, and those of the library below it, which differs from version to version.
    except (*_bases(HfHubHTTPError), HFValidationError, OSError) as error:
        raise CheckpointUnavailableError(
            f"{address} could not be fetched: {in_short(error)}."
        ) from error


def _bases(error: type[Exception]) -> list[type[Exception]]:
    general = (Exception, BaseException, object)
    return [base for base in error.__mro__ if issubclass(base, Exception) and base not in general]
