"""Locks that end with the process that holds them, however it ends."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE = 0.02
_LOCK_FILE = ".keras_lsc.lock"
# File systems without locks: some network and user-space ones.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Locks an open file if nobody else has; returns whether it is locked now."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _open(folder: Path) -> int:
        # A folder cannot be opened there: a file in it, which stays, holds the lock.
        return os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Locks an open file or folder if nobody else has; returns whether it is locked now."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _open(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY)


@contextmanager
def locked(folder: Path, timeout: float = 600.0) -> Iterator[bool]:
    """Keeps other processes, and other threads, that do the same from a folder.

    On POSIX the folder itself is locked and nothing is written to it; on Windows the file
    `.keras_lsc.lock` in it is. The operating system ends the lock with the process.

    Args:
        folder: A folder that exists.
        timeout: Seconds to wait for another process.

    Yields:
        Whether the folder is locked; False where its file system knows no locks.

    Raises:
        TimeoutError: Another process held it all the time.
    """
    descriptor = _open(folder)
    try:
        yield _wait(descriptor, folder, timeout)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, folder: Path, timeout: float) -> bool:
    until = time.monotonic() + timeout
    try:
        while not try_lock(descriptor):
            if time.monotonic() > until:
                raise TimeoutError(
                    f"Another process has held the lock of {folder} for {timeout:g} seconds. "
                    "End it, or use another folder."
                )
            time.sleep(_PAUSE)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True
