"""Errors in a line or a few, instead of a traceback."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from keras_lsc_command.imports import place_of

# What the package documents for wrong use, damaged files and what is not to be had; its own
# classes besides, see `_is_expected`.
_EXPECTED = (FloatingPointError, ImportError, MemoryError, OSError, TypeError, ValueError)


@contextmanager
def errors_in_few_lines() -> Iterator[None]:
    """Prints an expected error on stderr, and exits with code 1; 130 where it is interrupted.

    An error that arose in a module of the user's own is one of them, whatever its class. All
    others are ours to mend, and have their traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name in another encoding than the terminal's is shown with escapes, and is no error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("keras-lsc: interrupted", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Who read has had enough, as `head` has; Python would say so once more when it flushes.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise typer.Exit(1) from None
    except typer.Exit:
        raise
    except Exception as error:
        place = place_of(error)
        if place is None and not _is_expected(error):
            raise
        typer.echo(f"keras-lsc: error: {_message(error, place)}", err=True)
        raise typer.Exit(1) from error


def _is_expected(error: Exception) -> bool:
    # By its module: what is imported of the package imports Keras, which may be what failed.
    origin = type(error).__module__.partition(".")[0]
    return isinstance(error, _EXPECTED) or origin in ("keras_lsc", "keras_lsc_command")


def _message(error: Exception, place: str | None) -> str:
    if type(error).__qualname__ == "NotStabilizedError":
        # It has a line for each transition.
        return str(error)
    message = " ".join(str(error).split()) or type(error).__name__
    if place is None:
        return message
    # What others say need not make sense without the class: a KeyError has the key alone.
    return f"{type(error).__name__}: {message} ({place})"
