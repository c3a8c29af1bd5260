"""What is wrong with a file is one error, whatever library found it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Of the computer rather than of the file: no space, no rights, too many files, no memory to map.
_OF_THE_COMPUTER = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}
_LONGEST = 300


class DamagedCheckpointError(OSError, ValueError):
    """A checkpoint file, or an index of them, that is not what its sha256 or its format says.

    Whatever is wrong with a file is raised as this error: cut off, changed, no `.keras` archive,
    unpacking to more than is allowed, naming code to run, or weights that do not fit the model.
    """


@contextmanager
def as_damage(
    path: os.PathLike[str] | str, what: str = "is no .keras checkpoint"
) -> Iterator[None]:
    """Turns whatever is raised while an untrusted file is read into DamagedCheckpointError.

    Args:
        path: Path of the file, for the message.
        what: What is the matter with it, for the message.

    Raises:
        DamagedCheckpointError: Anything was raised that is not a matter of this computer.
    """
    try:
        yield
    except DamagedCheckpointError:
        raise
    # A file of unknown origin can make zipfile, zlib, json, h5py and Keras raise any exception at
    # all; each of them means that the file cannot be read.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_COMPUTER:
            raise
        raise DamagedCheckpointError(f"{path} {what} ({in_short(error)}).") from error


def in_short(error: BaseException) -> str:
    """The type and the first line of an error, cut to what can be read."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return f"{type(error).__name__}: {text}".rstrip(" :").rstrip(".")
