"""What a kind of input is, and what may come of one."""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RIGHT, REFUSED, FAILED = "right", "refused", "failed"


class WrongAnswerError(AssertionError):
    """An input was taken, and what came of it is not what it should be."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: of the kind.
        count: how many make up a tenth of a whole run; a whole run has ten times as many.
        draw: makes an input, something with a `repr` that tells it, out of random numbers.
        attempt: feeds one to the package, with a folder for its files. It returns RIGHT after it
            has compared the answer with the true one, or REFUSED where the refusal is no exception
            (a command's exit code); what it raises is judged by `documented`.
        documented: the exceptions that are documented for an input, or for all of them.
        on_every_backend: whether the backend can change what comes of it.
        seconds: of the processor, after which an input counts as one that hangs.
    """

    name: str
    count: int
    draw: Callable[[np.random.Generator], Any]
    attempt: Callable[[Any, Path], str]
    documented: tuple[type[Exception], ...] | Callable[[Any], tuple[type[Exception], ...]] = field(
        default=()
    )
    on_every_backend: bool = False
    seconds: int = 20

    def input(self, seed: int, index: int) -> Any:
        """The input of a number."""
        return self.draw(np.random.default_rng([seed, zlib.crc32(self.name.encode()), index]))

    def judge(self, given: Any, folder: Path) -> str:
        """Returns RIGHT or REFUSED, and raises what is neither.

        Args:
            given: that `input` returned.
            folder: an empty one.
        """
        documented = self.documented(given) if callable(self.documented) else self.documented
        try:
            return self.attempt(given, folder)
        except documented as error:
            if not str(error).strip():
                raise WrongAnswerError(f"{type(error).__name__} without a message") from error
            return REFUSED


def require(condition: bool, message: str) -> None:
    """Raises WrongAnswerError unless the condition holds."""
    if not condition:
        raise WrongAnswerError(message)


def require_finite(values: Any, what: str) -> None:
    """Raises WrongAnswerError unless all numbers are finite."""
    found = np.asarray(values)
    require(found.dtype.kind in "biuf", f"{what} is no number: {values!r}")
    require(bool(np.isfinite(found).all()), f"{what} is not finite")


def close(one: float, other: float, tolerance: float) -> bool:
    """Whether two numbers are equal up to a relative and absolute tolerance."""
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
