"""What a command has found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a command has found, for programs and for readers.

    Attributes:
        content: JSON types, which `--json` prints.
        show: Prints it for readers.
        failed: Whether the exit code is 1 nevertheless.
    """

    content: Any
    show: Callable[[], None]
    failed: bool = False
