"""Pushing checkpoints to the Hugging Face hub, from where `load` reads them again."""

import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keras_lsc import files
from keras_lsc.arguments import flag, one_of, text
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import registry
from keras_lsc.zoo.damage import in_short
from keras_lsc.zoo.keras_file import KerasFile
from keras_lsc.zoo.loading import STORED, Stored
from keras_lsc.zoo.pages import card, draw, front_matter
from keras_lsc.zoo.registry import refuse_untrained
from keras_lsc.zoo.resolver import OWN_MODEL, info, kind_of, locate, names
from keras_lsc.zoo.saving import export
from keras_lsc.zoo.sources import hub_errors, huggingface_hub

_REPOSITORY = re.compile(r"(?:hf://)?(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")
_README, _PICTURE = "README.md", "radii.png"


class PushError(OSError):
    """A checkpoint could not be pushed; what the hub said is in the message."""


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint is now.

    Attributes:
        address: What `keras_lsc.zoo.load` takes, with the revision that was made.
        sha256: The sha256 of the file, which it asks for.
    """

    address: str
    sha256: str

    def __str__(self) -> str:
        return f'keras_lsc.zoo.load("{self.address}", sha256="{self.sha256}")'


def push(
    name: str | os.PathLike[str],
    to: str,
    *,
    weights: Stored = "stabilized",
    token: str | None = None,
    private: bool = False,
) -> Pushed:
    """Pushes a checkpoint with its card to a repository of the Hugging Face hub, in one commit.

    Args:
        name: Name of a checkpoint of the zoo, or the folder of a model that `keras_lsc.zoo.save`
            wrote.
        to: `hf://owner/repository`, which is made where there is none.
        weights: "stabilized", or "trained" for the trained weights of a checkpoint of the zoo, with
            their scores in the card.
        token: A token that may write there; None for the one that `hf auth login` stored, or that
            HF_TOKEN holds.
        private: Whether a repository that is made is private.

    Returns:
        A `Pushed`: the address with the revision, and the sha256, for `keras_lsc.zoo.load`.

    Raises:
        ImportError: huggingface_hub is not installed (extra `hub`).
        PushError: The hub cannot be reached or refuses it.
        UnknownCheckpointError, UntrainedCheckpointError: As `load`.
        CheckpointUnavailableError, DamagedCheckpointError, FileNotFoundError: As `load`.
        ValueError: `to` is no repository, or another argument of no use.

    Example:
        >>> from keras_lsc import zoo
        >>> pushed = zoo.push("gru_smnist_d2_rhovar", "hf://me/gru")  # doctest: +SKIP
        >>> zoo.load(pushed.address, sha256=pushed.sha256)  # doctest: +SKIP
    """
    found = _REPOSITORY.fullmatch(text("to", to))
    if found is None:
        raise ValueError(f"to must be hf://owner/repository, got {to!r:.200}.")
    repository = found["repository"]
    flag("private", private)
    one_of("weights", weights, STORED)
    hub = huggingface_hub("Pushing to")
    interface = hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = _write(os.fspath(name), weights, repository, folder)
        digest = files.sha256(folder / file)
        try:
            interface.create_repo(repository, private=private, exist_ok=True)
            commit = interface.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message=f"{file.removesuffix('.keras')} by keras-lsc",
            )
        except hub_errors(hub) as error:
            raise PushError(f"{repository} could not be pushed to: {in_short(error)}.") from error
    return Pushed(f"hf://{repository}@{commit.oid}/{file}", digest)


def _write(name: str, weights: Stored, repository: str, folder: Path) -> str:
    """Writes what is pushed, and returns the name of the model's file."""
    address = f"hf://{repository}@REVISION"
    if kind_of(name) == "zoo":
        known = info(name)
        export(name, folder / f"{name}.keras", weights=weights)
        if weights != "trained":
            # A card has scores of what is beside it alone.
            known = replace(known, trained=None)
        draw(known, folder / _PICTURE)
        (folder / _README).write_text(_of_the_zoo(known, address), encoding="utf-8")
        return f"{name}.keras"
    if weights == "trained":
        raise refuse_untrained(name, names(trained=True))
    file = locate(name).file
    (folder / OWN_MODEL).write_bytes(file.content)
    certificate = (isinstance(file, KerasFile) and file.certificate()) or {}
    (folder / _README).write_text(_of_a_file(repository, certificate, address), encoding="utf-8")
    return OWN_MODEL


def _of_the_zoo(known: registry.CheckpointInfo, address: str) -> str:
    page = card(known).replace(f"({known.name}.png)", f"({_PICTURE})")
    return page.replace("\n## Certificate\n", f"\n{_usage(f'{address}/{known.name}.keras')}", 1)


def _of_a_file(repository: str, certificate: dict[str, Any], address: str) -> str:
    stabilized = certificate.get("stabilized")
    radii = "Nothing was measured of it.\n"
    if stabilized:
        radii = f"```\n{StabilityReport.from_dict(stabilized)}\n```\n"
    title = repository.partition("/")[2]
    return f"{front_matter([])}\n# {title}\n\n{_usage(f'{address}/{OWN_MODEL}')}\n{radii}"


def _usage(address: str) -> str:
    return (
        "## From the hub\n\nWith the revision of a commit and the sha256 of the file:\n\n"
        f'```python\nmodel = keras_lsc.zoo.load("{address}", sha256="...")\n```\n\n'
        "## Certificate\n"
    )
