"""The registry: which checkpoints there are, and what is known of each without loading it."""

import difflib
import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_lsc.stability.targets import Target
from keras_lsc.zoo.archive import DamagedCheckpointError
from keras_lsc.zoo.recipes import Recipe

INDEX = "index.json"


class UnknownCheckpointError(ValueError):
    """No checkpoint has this name."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint without loading it.

    Attributes:
        name: of the checkpoint.
        recipe: everything that made it.
        parameters: number of weights.
        bytes: size of its file.
        sha256: of its file.
        licence: of the checkpoint.
        updates: of pre-training.
        seconds: of the whole build, on the machine that made it.
        firing_rates: of its spiking layers on the certificate's data, by layer.
        certificate: radii and gains before and after, data identity, versions.
    """

    name: str
    recipe: Recipe
    parameters: int
    bytes: int
    sha256: str
    licence: str
    updates: int
    seconds: float
    firing_rates: Mapping[str, float]
    certificate: Mapping[str, Any]

    @property
    def cell(self) -> str:
        """Kind of the layers."""
        return self.recipe.cell

    @property
    def dataset(self) -> str:
        """Task whose inputs the network was stabilised on."""
        return self.recipe.dataset

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self.recipe.depth

    @property
    def units(self) -> int:
        """Units of each layer."""
        return self.recipe.units

    @property
    def target(self) -> Target:
        """Radius that was asked for."""
        return self.recipe.target

    @property
    def mode(self) -> str:
        """What pre-training moved: "scales" or "weights"."""
        return self.recipe.mode

    @property
    def deviation(self) -> float:
        """Largest |mean radius - target| on the certificate's data."""
        return float(self.certificate["deviation"])


def read_index(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the entries of an index by name; none where there is no file.

    Raises:
        DamagedCheckpointError: the file is no index.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DamagedCheckpointError(
            f"{path} is no index of checkpoints, or is cut off: {error}."
        ) from error


def info_of(name: str, entry: Mapping[str, Any]) -> CheckpointInfo:
    """Makes the `CheckpointInfo` of an entry of an index."""
    known = {key: value for key, value in entry.items() if key != "certificate"}
    certificate = entry["certificate"]
    return CheckpointInfo(
        name=name,
        recipe=Recipe.from_dict(certificate["recipe"]),
        certificate=certificate,
        **known,
    )


def natural_order(name: str) -> list[Any]:
    """Sort key in which d2 comes before d10.

    Example:
        >>> sorted(["lstm_d10", "lstm_d2"], key=natural_order)
        ['lstm_d2', 'lstm_d10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def select(
    entries: Mapping[str, Mapping[str, Any]],
    pattern: str,
    hidden: bool,
    filters: Mapping[str, Any],
) -> list[str]:
    """Names that match a pattern and filters, in natural order.

    Raises:
        TypeError: a filter is no field of a recipe.
    """
    names = []
    for name, entry in entries.items():
        recipe = Recipe.from_dict(entry["certificate"]["recipe"])
        unknown = [key for key in filters if not hasattr(recipe, key)]
        if unknown:
            raise TypeError(
                f"Checkpoints have no {unknown[0]!r} to select by. Expected fields of a recipe: "
                f"{', '.join(recipe.to_dict())}."
            )
        if recipe.hidden and not hidden:
            continue
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if all(getattr(recipe, key) == value for key, value in filters.items()):
            names.append(name)
    return sorted(names, key=natural_order)


def refuse(name: str, known: list[str]) -> UnknownCheckpointError:
    """The error for a name that is none, with the closest names that are."""
    starting = [other for other in known if other.startswith(name)]
    closest = starting or difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"Did you mean {', '.join(sorted(closest, key=natural_order)[:5])}? " if closest else ""
    return UnknownCheckpointError(
        f"There is no checkpoint {name!r}. {hint}keras_lsc.zoo.list() has all {len(known)} names."
    )
