"""The fields of certificates, and of the entries of an index, checked where they enter."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_lsc.arguments import integer, learning_rates, number, one_of, text
from keras_lsc.stability.report import GradientEnergies
from keras_lsc.zoo.damage import DamagedCheckpointError, in_short
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.scores import MOST_SEEDS


def check_entry(path: Path, name: str, entry: Any) -> None:
    """Checks an entry of an index where it enters, so that all else can rely on it.

    Args:
        path: Path of the file, for the message.
        name: Name of the checkpoint.
        entry: What the file has of it.

    Raises:
        DamagedCheckpointError: A field is missing, unknown or of no use; names it.
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
    if ("trained" in entry) is not ("trained" in certificate):
        raise DamagedCheckpointError(
            f"{where}: of the fields 'trained' and 'certificate.trained' there is only one."
        )
    reports = [which for which in _REPORTS if which in certificate]
    found = [[_key(row) for row in certificate[which]["transitions"]] for which in reports]
    for which, rows in zip(reports, found, strict=True):
        if rows != found[1]:
            raise DamagedCheckpointError(
                f"{where}: field 'certificate.{which}' has other transitions than "
                "'certificate.stabilized'."
            )


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["name"], row["kind"], row["layer"], tuple(row["shape"])


def check_certificate(where: str, certificate: Any) -> None:
    """Checks the fields of a certificate.

    Args:
        where: Where it stands, for the message.
        certificate: What is to be checked.

    Raises:
        DamagedCheckpointError: A field is missing or of no use; names it.
    """
    _check_fields(where, "certificate.", certificate, _CERTIFICATE)


def _check_fields(where: str, prefix: str, content: Any, checks: Mapping[str, Any]) -> None:
    if not isinstance(content, dict):
        field = prefix.rstrip(".") or "entry"
        raise DamagedCheckpointError(f"{where}: field {field!r} is no table.")
    missing = [key for key in checks if key not in content and key not in _OPTIONAL]
    unknown = [str(key) for key in content if key not in checks]
    if missing or unknown:
        what = f"has no field {prefix + missing[0]!r}" if missing else "has the unknown field"
        named = "" if missing else f" {prefix + unknown[0]!r:.200}"
        raise DamagedCheckpointError(f"{where} {what}{named}.")
    for key, check in checks.items():
        if key not in content:
            continue
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


def _gradient(field: str, value: Any) -> None:
    known = {item.name for item in fields(GradientEnergies)}
    if not isinstance(value, dict) or value.keys() != known:
        raise ValueError(f"field {field!r} must have the fields {', '.join(sorted(known))}.")
    integer(f"field '{field}.sequences'", value["sequences"], at_least=1)
    count = len(value["layers"]) if isinstance(value["layers"], list) else 0
    checks = {"layers": _words, "energies": _figure, "reaches": _figure_or_none}
    if value["forward"] is not None:
        checks["forward"] = _figure
    for key, check in checks.items():
        if not (isinstance(value[key], list) and len(value[key]) == count > 0):
            raise ValueError(f"field '{field}.{key}' must be a list of one value a layer.")
        for index, content in enumerate(value[key]):
            check(f"{field}.{key}.{index}", content)


def _figure_or_none(field: str, value: Any) -> None:
    if value is not None:
        _figure(field, value)


def _recipe(field: str, value: Any) -> None:
    known = {item.name for item in fields(Recipe)}
    if not isinstance(value, dict) or value.keys() | _NEWER_OF_RECIPE != known:
        raise ValueError(f"field {field!r} must be a recipe with all its fields.")
    try:
        Recipe.from_dict(value)
    except ValueError as error:
        raise ValueError(f"field {field!r} is no recipe ({in_short(error)}).") from error


def _part_of_data(field: str, value: Any) -> None:
    if value != "validation":
        raise ValueError(f"field {field!r} must be 'validation', got {value!r:.100}.")


def _each_of_several(check: Callable[[str, Any], None], most: int) -> Callable[[str, Any], None]:
    def check_all(field: str, value: Any) -> None:
        if not (isinstance(value, list) and 1 < len(value) <= most):
            raise ValueError(
                f"field {field!r} must be a list of 2 to {most} numbers, got {value!r:.100}."
            )
        for index, part in enumerate(value):
            check(f"{field}.{index}", part)

    return check_all


def _rates(field: str, value: Any) -> None:
    learning_rates(f"field {field!r}", value)


def _natural_or_none(field: str, value: Any) -> None:
    if value is not None:
        _natural(field, value)


def _address(field: str, value: Any) -> None:
    if value is not None:
        _words(field, value)


def _metric(field: str, value: Any) -> None:
    one_of(f"field {field!r}", value, ("accuracy", "perplexity", "mean_squared_error"))


_REPORTS = ("initial", "stabilized", "trained")
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
    "gradient": _gradient,
}
# Not every certificate has it.
_OPTIONAL = ("gradient", "trained")
# What recipes of pre-training need not say.
_NEWER_OF_RECIPE = {"method", "growth"}
_DATA: dict[str, Any] = {"shape": _sizes, "dtype": _words, "sha256": _sha256}
_CERTIFICATE: dict[str, Any] = {
    "recipe": _recipe,
    "initial": _REPORT,
    "stabilized": _REPORT,
    "trained": _REPORT,
    "training_data": _DATA,
    "certificate_data": {"split": _part_of_data, **_DATA},
    "backend": _words,
    "versions": _each(_words),
    "deviation": _figure,
}
_TRAINED: dict[str, Any] = {
    "metric": _metric,
    **dict.fromkeys(("test", "validation", "unrounded", "seconds"), _figure),
    "seeds": _each_of_several(_figure, MOST_SEEDS),
    "twin": _each_of_several(_figure, MOST_SEEDS),
    "learning_rate": lambda field, value: number(f"field {field!r}", value, above=0),
    "twin_learning_rate": lambda field, value: number(f"field {field!r}", value, above=0),
    "learning_rates": _rates,
    **dict.fromkeys(("epochs", "best_epoch", "batch_size", "bytes"), _natural),
    "limit": _natural_or_none,
    "sequences": dict.fromkeys(("train", "validation", "test"), _natural),
    "masks": _words,
    "backend": _words,
    "versions": _each(_words),
    "start": _sha256,
    "sha256": _sha256,
    "address": _address,
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
    "trained": _TRAINED,
}
