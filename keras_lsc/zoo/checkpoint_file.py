"""What the files of checkpoints have in common: they are read once, and known by their sha256."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from keras_lsc import files
from keras_lsc.zoo.damage import DamagedCheckpointError


@dataclass(frozen=True)
class CheckpointFile:
    """A file, read once: what was checked is what is loaded.

    Attributes:
        path: Path of the file.
        content: Its bytes.
    """

    path: Path
    content: bytes = field(repr=False)
    # What to do where it is damaged.
    _remedy: ClassVar[str]

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file, in hexadecimal."""
        return files.sha256_of(self.content)

    def checked(self, sha256: str) -> Self:
        """Returns the file itself.

        Raises:
            DamagedCheckpointError: It has another sha256.
        """
        if self.sha256 != sha256:
            raise DamagedCheckpointError(
                f"{self.path} has the sha256 {self.sha256}, but {sha256} was expected: it was "
                f"changed, or cut off. {self._remedy}"
            )
        return self
