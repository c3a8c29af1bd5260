"""The registry: which checkpoints there are, and what is known of each without loading it."""

import copy
import difflib
import fnmatch
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc.arguments import flag, integer, number, text
from keras_lsc.stability.targets import Target
from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage, in_short
from keras_lsc.zoo.recipes import Recipe

INDEX = "index.json"
# Indices that were read and checked, by file: its inode, size and time, and the entries.
_READ: dict[Path, tuple[tuple[int, int, int], dict[str, dict[str, Any]]]] = {}


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


def read_index(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the entries of an index by name, not to be changed; none where there is no file.

    Raises:
        DamagedCheckpointError: the file is no index; names the entry and the field.
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


def check_entry(path: Path, name: str, entry: Any) -> None:
    """Checks an entry of an index where it enters, so that all else can rely on it.

    Args:
        path: of the file, for the message.
        name: of the checkpoint.
        entry: what the file has of it.

    Raises:
        DamagedCheckpointError: a field is missing, unknown or of no use; names it.
    """
    # Addresses and names of files are made of it.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}", name):
        raise DamagedCheckpointError(
            f"{path} has an entry {name!r:.200}, which is no name of a checkpoint."
        )
    where = f"{path}: entry {name!r}"
    _check_fields(where, "", entry, _ENTRY)
    certificate = entry["certificate"]
    recipe = Recipe.from_dict(certificate["recipe"])
    if recipe.name != name:
        raise DamagedCheckpointError(
            f"{where}: field 'certificate.recipe' is that of {recipe.name!r}."
        )
    first, last = ([_key(row) for row in certificate[which]["transitions"]] for which in _REPORTS)
    if first != last:
        raise DamagedCheckpointError(
            f"{where}: field 'certificate.initial' has other transitions than "
            "'certificate.stabilized'."
        )


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["name"], row["kind"], row["layer"], tuple(row["shape"])


def check_certificate(where: str, certificate: Any) -> None:
    """Checks the fields of a certificate.

    Args:
        where: it stands, for the message.
        certificate: to be checked.

    Raises:
        DamagedCheckpointError: a field is missing or of no use; names it.
    """
    _check_fields(where, "certificate.", certificate, _CERTIFICATE)


def _check_fields(where: str, prefix: str, content: Any, checks: Mapping[str, Any]) -> None:
    if not isinstance(content, dict):
        field = prefix.rstrip(".") or "entry"
        raise DamagedCheckpointError(f"{where}: field {field!r} is no table.")
    missing = [key for key in checks if key not in content]
    unknown = [str(key) for key in content if key not in checks]
    if missing or unknown:
        what = f"has no field {prefix + missing[0]!r}" if missing else "has the unknown field"
        named = "" if missing else f" {prefix + unknown[0]!r:.200}"
        raise DamagedCheckpointError(f"{where} {what}{named}.")
    for key, check in checks.items():
        field = prefix + key
        if isinstance(check, Mapping):
            _check_fields(where, f"{field}.", content[key], check)
            continue
        try:
            check(field, content[key])
        except DamagedCheckpointError:
            raise
        except ValueError as error:
            raise DamagedCheckpointError(f"{where}: {error}") from error


def _natural(field: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"field {field!r} must be an integer of 0 or more, got {value!r:.100}.")


def _figure(field: str, value: Any) -> None:
    number(f"field {field!r}", value, at_least=0)


def _words(field: str, value: Any) -> None:
    text(f"field {field!r}", value)


def _sha256(field: str, value: Any) -> None:
    if not (isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)):
        raise ValueError(f"field {field!r} must be a sha256, got {value!r:.100}.")


def _sizes(field: str, value: Any) -> None:
    if not isinstance(value, list):
        raise ValueError(f"field {field!r} must be a list of sizes, got {value!r:.100}.")
    for size in value:
        _natural(field, size)


def _each(check: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    def check_all(field: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"field {field!r} must be a table, got {value!r:.100}.")
        for key, part in value.items():
            check(f"{field}.{key}", part)

    return check_all


def _isotropy(field: str, value: Any) -> None:
    if value is not None:
        number(f"field {field!r}", value)


def _kind(field: str, value: Any) -> None:
    if value not in ("time", "depth", "input"):
        raise ValueError(f"field {field!r} must be time, depth or input, got {value!r:.100}.")


def _pair(field: str, value: Any) -> None:
    _sizes(field, value)
    if len(value) != 2:
        raise ValueError(f"field {field!r} must have two sizes, got {value!r:.100}.")


def _rows(field: str, value: Any) -> None:
    if not (isinstance(value, list) and value):
        raise ValueError(f"field {field!r} must be a list of transitions, got {value!r:.100}.")
    for index, row in enumerate(value):
        if not isinstance(row, dict) or row.keys() - _NEWER_ROW.keys() != _ROW.keys():
            raise ValueError(f"field '{field}.{index}' must have the fields {', '.join(_ROW)}.")
        for key, content in row.items():
            check = _ROW.get(key) or _NEWER_ROW[key]
            check(f"{field}.{index}.{key}", content)


def _recipe(field: str, value: Any) -> None:
    if not isinstance(value, dict) or value.keys() != {item.name for item in fields(Recipe)}:
        raise ValueError(f"field {field!r} must be a recipe with all its fields.")
    try:
        Recipe.from_dict(value)
    except ValueError as error:
        raise ValueError(f"field {field!r} is no recipe ({in_short(error)}).") from error


def _part_of_data(field: str, value: Any) -> None:
    if value != "validation":
        raise ValueError(f"field {field!r} must be 'validation', got {value!r:.100}.")


_REPORTS = ("initial", "stabilized")
_ROW: dict[str, Callable[[str, Any], None]] = {
    "name": _words,
    "kind": _kind,
    "layer": _natural,
    "state": _words,
    "shape": _pair,
    "radius": _figure,
    "radius_std": _figure,
    "gain": _figure,
    "isotropy": _isotropy,
}
# What certificates of the first release do not say.
_NEWER_ROW: dict[str, Callable[[str, Any], None]] = {"uncertain": _natural}
_REPORT: dict[str, Any] = {
    "model": _words,
    "transitions": _rows,
    "layers": lambda field, value: integer(f"field {field!r}", value, at_least=1),
    "steps": _natural,
    "samples": lambda field, value: integer(f"field {field!r}", value, at_least=1),
    "seed": _natural,
    "radius_kind": _words,
    "firing_rates": _each(_figure),
}
_DATA: dict[str, Any] = {"shape": _sizes, "dtype": _words, "sha256": _sha256}
_CERTIFICATE: dict[str, Any] = {
    "recipe": _recipe,
    "initial": _REPORT,
    "stabilized": _REPORT,
    "training_data": _DATA,
    "certificate_data": {"split": _part_of_data, **_DATA},
    "backend": _words,
    "versions": _each(_words),
    "deviation": _figure,
}
_ENTRY: dict[str, Any] = {
    "parameters": _natural,
    "bytes": _natural,
    "sha256": _sha256,
    "licence": _words,
    "updates": _natural,
    "seconds": _figure,
    "firing_rates": _each(_figure),
    "certificate": _CERTIFICATE,
}


def info_of(name: str, entry: Mapping[str, Any]) -> CheckpointInfo:
    """Makes the `CheckpointInfo` of an entry of an index."""
    known = {key: value for key, value in entry.items() if key != "certificate"}
    certificate = entry["certificate"]
    return CheckpointInfo(
        name=name,
        recipe=Recipe.from_dict(certificate["recipe"]),
        # What is read once is not to be changed by who asks for it.
        certificate=copy.deepcopy(certificate),
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
        ValueError: `pattern` is no string or an empty one, `hidden` no boolean.
    """
    text("pattern", pattern, advice='Wildcards are allowed, as in "lstm_*".')
    flag("hidden", hidden)
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
        f"There is no checkpoint {name!r}. {hint}keras_lsc.zoo.list() has all {len(known)} names."
    )
