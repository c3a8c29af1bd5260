"""The registry: which checkpoints there are, and what is known of each without loading it."""

import copy
import difflib
import fnmatch
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc.arguments import flag, text
from keras_lsc.stability.targets import Target
from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.schema import check_entry
from keras_lsc.zoo.scores import Trained

INDEX = "index.json"
# Indices that were read and checked, by file: its inode, size and time, and the entries.
_READ: dict[Path, tuple[tuple[int, int, int], dict[str, dict[str, Any]]]] = {}


class UnknownCheckpointError(ValueError):
    """No checkpoint has this name."""


class UntrainedCheckpointError(ValueError):
    """A checkpoint has no trained weights."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint without loading it.

    Attributes:
        name: Name of the checkpoint.
        recipe: Everything that made it.
        parameters: Number of weights.
        bytes: Size of its file.
        sha256: The sha256 of its file.
        licence: Licence of the checkpoint.
        updates: Number of updates of pre-training.
        seconds: Seconds of the whole build, on the machine that made it.
        firing_rates: Firing rates of its spiking layers on the certificate's data, by layer.
        certificate: Radii, gains and energies before and after, data identity, versions; and under
            "trained" the same of the trained weights, where there are some.
        trained: What its trained weights score; None where there are none.
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
    trained: Trained | None = None

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
    def method(self) -> str:
        """How it was made stable: "lsc", by radii, or "level", by the energy of the gradient."""
        return self.recipe.method

    @property
    def target(self) -> Target | None:
        """Radius that was asked for; None of method "level"."""
        return self.recipe.target

    @property
    def mode(self) -> str:
        """What pre-training moved: "scales" or "weights"."""
        return self.recipe.mode

    @property
    def deviation(self) -> float:
        """How far it is off on the certificate's data.

        Largest |mean radius - target|; of method "level" largest relative distance of an energy
        from the middle of all.
        """
        return float(self.certificate["deviation"])


def read_index(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the entries of an index by name, not to be changed; none where there is no file.

    Raises:
        DamagedCheckpointError: The file is no index; names the entry and the field.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            if path in _READ and _READ[path][0] == stamp:
                return _READ[path][1]
            content = file.read()
    except FileNotFoundError:
        return {}
    with as_damage(path, "is no index of checkpoints, or is cut off"):
        entries = json.loads(content.decode("utf-8"))
    if not isinstance(entries, dict):
        raise DamagedCheckpointError(f"{path} is no index of checkpoints: it is no JSON object.")
    for name, entry in entries.items():
        check_entry(path, name, entry)
    _READ[path] = stamp, entries
    return entries


def info_of(name: str, entry: Mapping[str, Any]) -> CheckpointInfo:
    """Makes the `CheckpointInfo` of an entry of an index."""
    known = {key: value for key, value in entry.items() if key not in ("certificate", "trained")}
    certificate = entry["certificate"]
    trained = entry.get("trained")
    return CheckpointInfo(
        name=name,
        recipe=Recipe.from_dict(certificate["recipe"]),
        # What is read once is not to be changed by who asks for it.
        certificate=copy.deepcopy(certificate),
        trained=None if trained is None else Trained.from_dict(copy.deepcopy(trained)),
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
    trained: bool | None = None,
) -> list[str]:
    """Names that match a pattern and filters, in natural order.

    Raises:
        TypeError: A filter is no field of a recipe.
        ValueError: `pattern` is no string or an empty one, `hidden` or `trained` no boolean.
    """
    text("pattern", pattern, advice='Wildcards are allowed, as in "lstm_*".')
    flag("hidden", hidden)
    if trained is not None:
        flag("trained", trained)
    known = [item.name for item in fields(Recipe)]
    unknown = [key for key in filters if key not in known]
    if unknown:
        raise TypeError(
            f"Checkpoints have no {unknown[0]!r} to select by. Expected fields of a recipe: "
            f"{', '.join(known)}."
        )
    names = []
    for name, entry in entries.items():
        recipe = Recipe.from_dict(entry["certificate"]["recipe"])
        if recipe.hidden and not hidden:
            continue
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if trained is not None and trained is not ("trained" in entry):
            continue
        if all(_is_same(getattr(recipe, key), value) for key, value in filters.items()):
            names.append(name)
    return sorted(names, key=natural_order)


def _is_same(value: Any, wanted: Any) -> bool:
    # 1 is a radius as well as 1.0 is, but no boolean; a list may stand for a tuple.
    if isinstance(wanted, list):
        wanted = tuple(wanted)
    if isinstance(value, bool) is not isinstance(wanted, bool | np.bool_):
        return False
    return (
        bool(np.array_equal(value, wanted)) if isinstance(wanted, np.ndarray) else value == wanted
    )


def refuse(name: str, known: list[str]) -> UnknownCheckpointError:
    """The error for a name that is none, with the closest names that are."""
    starting = [other for other in known if other.startswith(name)]
    closest = starting or difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"Did you mean {', '.join(sorted(closest, key=natural_order)[:5])}? " if closest else ""
    return UnknownCheckpointError(
        f"There is no checkpoint {name!r}. {hint}keras_lsc.zoo.names() has all {len(known)} names."
    )


def refuse_untrained(name: str, known: list[str]) -> UntrainedCheckpointError:
    """The error for a checkpoint without trained weights, with the names that have them."""
    listed = ", ".join(sorted(known, key=natural_order)) or "none"
    return UntrainedCheckpointError(
        f"The checkpoint {name!r} has no trained weights. Those that have them, as "
        f"keras_lsc.zoo.names(trained=True) says: {listed}. Or train it: keras_lsc.zoo.fine_tune."
    )
