"""Recipes: everything that makes a checkpoint, read from TOML files."""

import itertools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_lsc.arguments import flag, number, one_of, positive_integer
from keras_lsc.stability.targets import Target, resolve

_TARGET_NAMES = {"variance": "var", "unbalanced": "unb", "variance-unbalanced": "varunb"}


# What a number in a recipe may be at most: more units or sequences than any computer holds.
_LARGEST = 2**31 - 1
_DEEPEST = 20
# The methods, and what means something to the other alone.
_OF_THE_OTHER = {
    "lsc": ("growth",),
    "level": ("target", "mode", "learning_rate", "batch_size", "max_updates", "most_samples"),
}


class RecipeError(ValueError):
    """A recipe file that cannot be read as one."""


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a checkpoint.

    Attributes:
        cell: Kind of the layers, as `keras_lsc.zoo.networks.CELLS` lists them.
        dataset: Name of a task of `keras_lsc.datasets`.
        depth: Number of recurrent (or dense) layers.
        units: Number of units of each layer.
        target: Radius wanted, as `keras_lsc.stabilize` takes it; None of method "level".
        mode: What pre-training moves, "scales" or "weights".
        method: "lsc", which goes by radii, or "level", by the energy of the gradient.
        growth: Of method "level", by how much that energy grows from a layer to the one below.
        options: Options of the dataset.
        input_shape: Shape of one input with these options, None for a number of steps that is
            left open; None for the task's own.
        embedding: Size of the embedding of tokens; None for other inputs.
        sequences: Number of training sequences that pre-training draws from.
        certificate_sequences: Number of validation sequences the certificate is measured on.
        samples: Fewest points of that measurement.
        most_samples: Most points, where the radii differ much from point to point.
        tolerance: Largest |mean radius - target|, of every transition; of method "level" largest
            relative distance of an energy from the middle of all.
        pretraining_tolerance: The same where pre-training stops, on sequences of its own.
        batch_size: Number of sequences of one update.
        max_updates: Number of updates after which a build gives up.
        learning_rate: Learning rate of pre-training; None for the default of the mode.
        seed: Seed of the initial weights, of the draws and of their order.
        hidden: Whether `keras_lsc.zoo.names` leaves it out unless asked.
    """

    cell: str
    dataset: str
    depth: int
    units: int
    target: Target | None = None
    mode: str = "scales"
    method: str = "lsc"
    growth: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int | None, ...] | None = None
    embedding: int | None = None
    sequences: int = 3072
    certificate_sequences: int = 512
    samples: int = 256
    most_samples: int = 2048
    tolerance: float = 0.02
    pretraining_tolerance: float = 0.015
    batch_size: int = 32
    max_updates: int = 600
    learning_rate: float | None = None
    seed: int = 0
    hidden: bool = False

    @property
    def name(self) -> str:
        """`{cell}_{dataset}_d{depth}_rho{target}`, or `..._level`, and what else is special.

        That is the mode where it is not "scales", and the growth where it is not 1.
        """
        prefix = "test_" if self.hidden else ""
        return f"{prefix}{self.cell}_{self.dataset}_d{self.depth}_{self._aim}"

    @property
    def goal(self) -> str:
        """What it is brought to, in words: a target, or "level"."""
        if self.target is None:
            return "level" if self.growth == 1.0 else f"level, growth {self.growth}"
        return (
            ", ".join(map(str, self.target)) if isinstance(self.target, tuple) else str(self.target)
        )

    @property
    def _aim(self) -> str:
        if self.target is None:
            return "level" if self.growth == 1.0 else f"level{target_name(self.growth)}"
        mode = "" if self.mode == "scales" else f"_{self.mode}"
        return f"rho{target_name(self.target)}{mode}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as JSON types."""
        return json.loads(json.dumps(asdict(self)))

    def settings(self) -> dict[str, Any]:
        """Returns `to_dict` without what means nothing to the method."""
        others = _OF_THE_OTHER[self.method]
        return {key: value for key, value in self.to_dict().items() if key not in others}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Makes a recipe from `to_dict`.

        Raises:
            RecipeError: A field is missing, unknown, or of no use.
        """
        return _checked(dict(values), "a recipe")


def target_name(target: Target) -> str:
    """How a target is written in the name of a checkpoint: another for every target.

    Numbers below 1 begin with the 0 before their point, which is left out; in others it is a "p".
    Very small and very large ones have their power of ten after an "e", or "em" where that is
    negative. So no name has a character that a file, or a module of torch, cannot have.

    Args:
        target: Radius wanted, as `keras_lsc.stabilize` takes it.

    Returns:
        Letters, digits, and a "-" between the numbers of a pair.

    Example:
        >>> [target_name(target) for target in ("variance", 1.0, 0.5, (0.9, 0.4), 1.5, 15.0, 1e-7)]
        ['var', '1', '05', '09-04', '1p5', '15', '1em7']
    """
    if isinstance(target, str):
        return _TARGET_NAMES[target]
    if isinstance(target, tuple | list):
        return "-".join(target_name(radius) for radius in target)
    # The shortest decimal number that is this float and no other.
    digits, _, power = repr(float(target)).partition("e")
    digits = digits.removesuffix(".0")
    digits = digits.replace(".", "", 1) if digits.startswith("0.") else digits.replace(".", "p")
    sign = "m" if power.startswith("-") else ""
    return f"{digits}e{sign}{power.lstrip('+-0')}" if power else digits


def read_recipes(folder: Path) -> dict[str, Recipe]:
    """Reads every recipe of the TOML files of a folder.

    A file has keys that hold for all its networks, `depths` and `targets` among them, and one
    `[[network]]` table a cell, whose keys go before those of the file.

    Args:
        folder: Folder with the TOML files.

    Returns:
        The recipes by name.

    Raises:
        RecipeError: A file is no TOML, has an unknown key, lacks one or gives a value of no use,
            or two recipes have one name.
    """
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.toml")):
        for recipe in _recipes_of(path):
            if recipe.name in recipes:
                raise RecipeError(f"{path} makes a second recipe named {recipe.name!r}.")
            recipes[recipe.name] = recipe
    return recipes


def _recipes_of(path: Path) -> Iterator[Recipe]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    # Of ValueError are what is no UTF-8 or no TOML, and integers of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is no TOML file: {error}.") from error
    networks = content.pop("network", [])
    if not (isinstance(networks, list) and networks and all(type(n) is dict for n in networks)):
        raise RecipeError(f"{path} has no [[network]] table.")
    known = {item.name for item in fields(Recipe)} | {"depths", "targets"}
    for network in networks:
        values = {**content, **network}
        _check_known(values, known, str(path))
        depths = _several(values, "depth", path)
        targets = _several(values, "target", path)
        for depth, target in itertools.product(depths, targets):
            yield _checked({**values, "depth": depth, "target": target}, str(path))


def _several(values: dict[str, Any], key: str, path: Path) -> list[Any]:
    single = values.pop(key, None)
    given = values.pop(f"{key}s", [single])
    if not (isinstance(given, list) and given):
        raise RecipeError(f"{path}: {key}s must be a list of some, got {given!r:.200}.")
    return given


def _check_known(values: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in values.keys() - known)
    if unknown:
        raise RecipeError(
            f"{where} has the unknown key {unknown[0]!r:.200}. Known keys: "
            f"{', '.join(sorted(known))}."
        )


def _checked(values: dict[str, Any], where: str) -> Recipe:
    """Makes a recipe of values of any origin.

    Raises:
        RecipeError: Names `where` and the key that is of no use.
    """
    _check_known(values, {item.name for item in fields(Recipe)}, where)
    is_levelled = values.get("method") == "level"
    needed = ("cell", "dataset", "depth", "units", *(() if is_levelled else ("target",)))
    for key in needed:
        if values.get(key) is None:
            raise RecipeError(f"{where} gives no {key!r} for a network.")
    try:
        recipe = Recipe(**{key: _CHECKS[key](key, value) for key, value in values.items()})
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    usual = Recipe(recipe.cell, recipe.dataset, recipe.depth, recipe.units)
    for key in _OF_THE_OTHER[recipe.method]:
        if getattr(recipe, key) != getattr(usual, key):
            raise RecipeError(
                f"{where}: {key} {getattr(recipe, key)!r} means nothing to the method "
                f"{recipe.method!r}. Leave it out."
            )
    return recipe


def _count(key: str, value: Any) -> int:
    count = positive_integer(key, value)
    if count > _LARGEST:
        raise ValueError(f"{key} must be at most {_LARGEST}, got {value!r:.50}.")
    return count


def _seed(key: str, value: Any) -> int:
    return 0 if type(value) is int and value == 0 else _count(key, value)


def _part_of_a_name(key: str, value: Any) -> str:
    # Names of files are made of it.
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,60}", value):
        return value
    raise ValueError(f"{key} must be a name of letters, digits and _, got {value!r:.200}.")


def _target(key: str, value: Any) -> Target:
    target = tuple(value) if isinstance(value, list) else value
    if not isinstance(target, str | tuple | int | float):
        raise ValueError(f"{key} must be a radius, a pair of them or a name, got {value!r:.200}.")
    parts = target if isinstance(target, tuple) else (target,)
    # An integer may be larger than any float, which resolve does not expect.
    if any(type(part) is int and abs(part) > _LARGEST for part in parts):
        raise ValueError(f"{key} must be at most {_LARGEST}, got {value!r:.50}.")
    rho_time, rho_depth = resolve(target, depth=1, steps=1)
    if isinstance(target, tuple):
        return rho_time, rho_depth
    return target if isinstance(target, str) else rho_time


def _options(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a table of options of the dataset, got {value!r:.200}.")
    return {str(name): _json(f"{key}.{name}", part, 0) for name, part in value.items()}


def _json(key: str, value: Any, depth: int) -> Any:
    """Returns an option of JSON types."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and abs(value) < 2**63:
        return value
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return [_json(key, part, depth + 1) for part in value]
    if isinstance(value, dict) and depth < _DEEPEST:
        return {str(name): _json(key, part, depth + 1) for name, part in value.items()}
    raise ValueError(f"{key} must be a JSON value, got {value!r:.200}.")


def _shape(key: str, value: Any) -> tuple[int | None, ...]:
    if not (isinstance(value, list | tuple) and 0 < len(value) < _DEEPEST):
        raise ValueError(f"{key} must be a list of sizes, got {value!r:.200}.")
    return tuple(None if size is None else _count(key, size) for size in value)


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda key, value: None if value is None else check(key, value)


def _positive(key: str, value: Any) -> float:
    return number(key, value, above=0)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "cell": _part_of_a_name,
    "dataset": _part_of_a_name,
    "depth": _count,
    "units": _count,
    "target": _or_none(_target),
    "mode": lambda key, value: one_of(key, value, ("scales", "weights")),
    "method": lambda key, value: one_of(key, value, tuple(_OF_THE_OTHER)),
    "growth": _positive,
    "options": _options,
    "input_shape": _or_none(_shape),
    "embedding": _or_none(_count),
    "sequences": _count,
    "certificate_sequences": _count,
    "samples": _count,
    "most_samples": _count,
    "tolerance": _positive,
    "pretraining_tolerance": _positive,
    "batch_size": _count,
    "max_updates": _count,
    "learning_rate": _or_none(_positive),
    "seed": _seed,
    "hidden": flag,
}
