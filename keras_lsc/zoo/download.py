"""Fetching a file by its address: checked before it stands where it is looked for."""

import contextlib
import hashlib
import http.client
import os
import re
import secrets
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from keras_lsc.version import __version__
from keras_lsc.zoo import guard, locks
from keras_lsc.zoo.damage import DamagedCheckpointError, in_short

TIMEOUT_VARIABLE = "KERAS_LSC_TIMEOUT"
# Seconds without an answer, or without enough of it, after which a server is given up.
DEFAULT_TIMEOUT = 20.0
SCHEMES = ("https",)
_ATTEMPTS, _PAUSE = 3, 0.5
# A file must come at this many bytes a second, over the seconds of the timeout.
_SLOWEST = 1000
_BLOCK = 2**16
_PART = ".part"
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_NAME = 120


class CheckpointUnavailableError(OSError):
    """A checkpoint's file is neither on this computer nor to be had."""


class _PassingError(Exception):
    """Another attempt may succeed."""


def parse(address: str) -> str:
    """Returns an address as it is sent: without fragment, spaces and the like escaped.

    Raises:
        ValueError: It is no https address.
    """
    refused = ValueError(
        f"{address!r:.300} is not safe to load from, or no address; expected "
        f"https://host/path/name.keras or hf://owner/repository@revision/name.keras."
    )
    if any(ord(character) < 32 or ord(character) == 127 for character in address):
        raise refused
    try:
        parts = urllib.parse.urlsplit(address.strip())
        has_port = parts.port is None or parts.port > 0
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:  # of which UnicodeError is one
        raise refused from None
    is_complete = bool(host) and has_port and " " not in host
    if parts.scheme not in SCHEMES or not is_complete or parts.username or parts.password:
        raise refused
    host = f"[{host}]" if ":" in host else host
    place = host if parts.port is None else f"{host}:{parts.port}"
    # What is escaped already stays as it is.
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urllib.parse.urlunsplit((parts.scheme, place, path, query, ""))


def file_name(address: str) -> str:
    """The name under which the file of an address is kept: of safe characters, ending in .keras.

    Example:
        >>> file_name("https://example.org/a%20b/my%20model.keras?download=true#top")
        'my_model.keras'
    """
    last = urllib.parse.unquote(urllib.parse.urlsplit(address).path).rsplit("/", 1)[-1]
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", last.removesuffix(".keras")).strip(".")
    return f"{stem[:_LONGEST_NAME] or 'checkpoint'}.keras"


def fetch(address: str, path: Path, sha256: str, size: int | None = None) -> None:
    """Fetches a file to `path`, where it stands complete and checked or not at all.

    It is written beside `path` first, by every process to a file of its own, so several may fetch
    at once; the rests of killed ones are removed. A server that does not answer, is too slow or
    has a passing fault is asked three times. `KERAS_LSC_TIMEOUT` has the seconds to wait for it,
    20 without; `KERAS_LSC_MAX_BYTES` the most bytes to accept of an unknown file, 2 GiB without.

    Args:
        address: An https address.
        path: Path of the file; one that is there is replaced.
        sha256: The sha256 of the file.
        size: Bytes of the file, where that is known.

    Raises:
        CheckpointUnavailableError: It could not be had, or not be written.
        DamagedCheckpointError: What was fetched has another sha256.
        ValueError: No https address.
    """
    url = parse(address)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_rests(path.parent)
        with _part_of(path) as (file, part):
            _ask_again(lambda: _receive(url, address, file, sha256, size), address)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # an open file cannot be moved there
            os.replace(part, path)
    except (CheckpointUnavailableError, DamagedCheckpointError):
        raise
    except OSError as error:
        raise CheckpointUnavailableError(
            f"{address} could not be written to {path.parent} ({in_short(error)}). Give a folder "
            "that can be written to as cache_dir."
        ) from error


@contextmanager
def _part_of(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `path`, locked while it is written: one without a lock is a rest."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")
        with part.open("xb") as file:
            # Whoever looks for rests may have taken it before it was locked.
            if not (_lock(file) and part.exists()):
                continue
            try:
                yield file, part
            finally:
                if sys.platform == "win32":
                    file.close()
                part.unlink(missing_ok=True)
            return


def _lock(file: BinaryIO) -> bool:
    try:
        return locks.try_lock(file.fileno())
    except OSError:  # a file system without locks
        return True


def _remove_rests(folder: Path) -> None:
    for rest in folder.glob(f".*{_PART}"):
        # Another process may move or remove it meanwhile; on Windows an open one is in use.
        with contextlib.suppress(FileNotFoundError, PermissionError), rest.open("rb+") as file:
            try:
                is_left = locks.try_lock(file.fileno())
            except OSError:
                is_left = False
            if is_left and sys.platform == "win32":
                file.close()
            if is_left:
                rest.unlink()


def _ask_again(attempt: Callable[[], None], address: str) -> None:
    for count in range(1, _ATTEMPTS + 1):
        try:
            return attempt()
        except _PassingError as error:
            if count == _ATTEMPTS:
                raise CheckpointUnavailableError(
                    f"{address} could not be fetched, in {_ATTEMPTS} attempts: {error}."
                ) from error.__cause__
        time.sleep(_PAUSE * 2 ** (count - 1))
    return None


def _receive(url: str, address: str, file: BinaryIO, sha256: str, size: int | None) -> None:
    def unavailable(reason: str) -> CheckpointUnavailableError:
        return CheckpointUnavailableError(f"{address} could not be fetched: {reason}.")

    seconds = _timeout()
    most = size or guard.limit(None) or guard.DEFAULT_LIMIT
    file.seek(0)
    file.truncate()
    try:
        with _answer(url, seconds) as answer:
            if answer.status != 200:
                raise unavailable(f"the server answered with status {answer.status}")
            kind = answer.headers.get_content_type()
            stated = _stated_length(answer)
            if stated is not None and stated > most:
                raise unavailable(
                    f"it has {stated:,} bytes, where {most:,} "
                    f"{'are expected' if size else 'are allowed'}"
                    + ("" if size else f"; set {guard.LIMIT_VARIABLE} to a larger number")
                )
            received, digest = _copy(answer, file, most, seconds)
    except urllib.error.HTTPError as error:
        reason = f"the server answered with status {error.code} {error.reason}".splitlines()[0]
        if error.code in _TRANSIENT:
            raise _PassingError(reason) from error
        raise unavailable(reason.rstrip(" .")) from error
    except urllib.error.URLError as error:
        cause = error.reason if isinstance(error.reason, Exception) else error
        if isinstance(cause, CheckpointUnavailableError):
            raise cause from None
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise unavailable(in_short(cause)) from error
        raise _PassingError(in_short(cause)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, CheckpointUnavailableError):
            raise
        raise _PassingError(in_short(error)) from error
    if received > most:
        raise unavailable(f"it has more than the {most:,} bytes that are allowed or expected")
    whole = size if stated is None else stated
    if whole is not None and received < whole:
        raise _PassingError(f"the connection ended after {received:,} of {whole:,} bytes")
    if digest != sha256:
        page = " The server answered with a web page." if kind == "text/html" else ""
        raise DamagedCheckpointError(
            f"{address} gives a file of {received:,} bytes with the sha256 {digest}, but {sha256} "
            f"was expected{f', of {size:,} bytes' if size else ''}; it is not kept.{page}"
        )


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return DEFAULT_TIMEOUT
    if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", text) or float(text) == 0:
        raise ValueError(
            f"The environment variable {TIMEOUT_VARIABLE} must be a positive number of seconds, "
            f"got {text[:50]!r}."
        )
    return float(text)


def _stated_length(answer: http.client.HTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise http.client.HTTPException(f"the server states a length of {text[:50]!r}")
    return int(text)


def _copy(
    answer: http.client.HTTPResponse, file: BinaryIO, most: int, seconds: float
) -> tuple[int, str]:
    """Copies no more than a block over `most` bytes; returns how many, and their sha256."""
    digest, received = hashlib.sha256(), 0
    before, at_least = time.monotonic(), 0
    while received <= most:
        block = answer.read1(_BLOCK)
        if not block:
            break
        received += len(block)
        digest.update(block)
        _write(file, block)
        now = time.monotonic()
        if now - before > seconds:
            if received < at_least + _SLOWEST * seconds:
                raise TimeoutError(f"less than {_SLOWEST} bytes a second came")
            before, at_least = now, received
    return received, digest.hexdigest()


def _write(file: BinaryIO, block: bytes) -> None:
    try:
        file.write(block)
    except OSError as error:  # a matter of this computer, not of the network
        raise CheckpointUnavailableError(
            f"{file.name} could not be written ({in_short(error)})."
        ) from error


@contextmanager
def _answer(url: str, seconds: float) -> Iterator[Any]:
    """Opens an address; a server that gives its headers drop by drop is left in time as well."""
    sockets: list[socket.socket] = []
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        for each in sockets:
            # It may have been closed since.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    request = urllib.request.Request(
        url, headers={"User-Agent": f"keras-lsc/{__version__}", "Accept-Encoding": "identity"}
    )
    opener = urllib.request.build_opener(_handler(sockets), _OnlySafe())
    # Redirections and the handshake have their own share of it.
    timer = threading.Timer(3 * seconds, hang_up)
    timer.daemon = True
    timer.start()
    too_late = TimeoutError(f"no answer within {3 * seconds:g} seconds")
    try:
        answer = opener.open(request, timeout=seconds)
    except (OSError, http.client.HTTPException) as error:
        if late.is_set():
            raise too_late from error
        raise
    finally:
        timer.cancel()
    with answer:
        # Headers that end where the connection was ended look complete.
        if late.is_set():
            raise too_late
        yield answer


def _handler(sockets: list[socket.socket]) -> urllib.request.HTTPSHandler:
    class Connection(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class Handler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, request)

    return Handler()


class _OnlySafe(urllib.request.HTTPRedirectHandler):
    """Follows a server to other https addresses only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in SCHEMES:
            raise CheckpointUnavailableError(
                f"{req.full_url} could not be fetched: the server leads on to {newurl[:300]!r}, "
                "which is not https."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
