"""Recipes: everything that makes a checkpoint, read from TOML files."""

import itertools
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_lsc.stability.targets import Target, resolve

_TARGET_NAMES = {"variance": "var", "unbalanced": "unb", "variance-unbalanced": "varunb"}


class RecipeError(ValueError):
    """A recipe file that cannot be read as one."""


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a checkpoint.

    Attributes:
        cell: as `keras_lsc.zoo.networks.CELLS` lists them.
        dataset: name of a task of `keras_lsc.datasets`.
        depth: number of recurrent (or dense) layers.
        units: of each layer.
        target: as `keras_lsc.stabilize` takes it.
        mode: "scales" or "weights".
        options: of the dataset.
        input_shape: of one input with these options; None for the task's own.
        embedding: size of the embedding of tokens; None for other inputs.
        sequences: number of training sequences that pre-training draws from.
        certificate_sequences: number of validation sequences the certificate is measured on.
        samples: fewest points of that measurement.
        most_samples: most points, where the radii differ much from point to point.
        tolerance: largest |mean radius - target|, of every transition.
        pretraining_tolerance: the same where pre-training stops, on sequences of its own.
        batch_size: sequences of one update.
        max_updates: after which a build gives up.
        learning_rate: of pre-training; None for the default of the mode.
        seed: of the initial weights, of the draws and of their order.
        hidden: whether `keras_lsc.zoo.list` leaves it out unless asked.
    """

    cell: str
    dataset: str
    depth: int
    units: int
    target: Target
    mode: str = "scales"
    options: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
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
        """`{cell}_{dataset}_d{depth}_rho{target}`, with the mode where it is not "scales"."""
        mode = "" if self.mode == "scales" else f"_{self.mode}"
        prefix = "test_" if self.hidden else ""
        return (
            f"{prefix}{self.cell}_{self.dataset}_d{self.depth}_rho{target_name(self.target)}{mode}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as JSON types."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Makes a recipe from `to_dict`."""
        return cls(**{key: _hashable(value) for key, value in values.items()})


def target_name(target: Target) -> str:
    """How a target is written in the name of a checkpoint.

    Example:
        >>> [target_name(target) for target in ("variance", 1.0, 0.5, (0.9, 0.4))]
        ['var', '1', '05', '09-04']
    """
    if isinstance(target, str):
        return _TARGET_NAMES[target]
    if isinstance(target, tuple | list):
        return "-".join(target_name(radius) for radius in target)
    return f"{target:g}".replace(".", "")


def read_recipes(folder: Path) -> dict[str, Recipe]:
    """Reads every recipe of the TOML files of a folder.

    A file has keys that hold for all its networks, `depths` and `targets` among them, and one
    `[[network]]` table a cell, whose keys go before those of the file.

    Args:
        folder: with the TOML files.

    Returns:
        The recipes by name.

    Raises:
        RecipeError: a file is no TOML, has an unknown key, lacks one or gives a value of no use,
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
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is no TOML file: {error}.") from error
    networks = content.pop("network", [])
    if not networks:
        raise RecipeError(f"{path} has no [[network]] table.")
    known = {item.name for item in fields(Recipe)} | {"depths", "targets"}
    for network in networks:
        values = {**content, **network}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise RecipeError(
                f"{path} has the unknown key {unknown[0]!r}. Known keys: "
                f"{', '.join(sorted(known))}."
            )
        depths = values.pop("depths", [values.pop("depth", None)])
        targets = values.pop("targets", [values.pop("target", None)])
        for depth, target in itertools.product(depths, targets):
            chosen = {**values, "depth": depth, "target": target}
            yield _checked({key: _hashable(value) for key, value in chosen.items()}, path)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(values: dict[str, Any], path: Path) -> Recipe:
    missing = [
        key for key in ("cell", "dataset", "depth", "units", "target") if not values.get(key)
    ]
    if missing:
        raise RecipeError(f"{path} gives no {missing[0]!r} for a network.")
    counts = ("depth", "units", "sequences", "samples", "most_samples", "batch_size", "max_updates")
    for key in counts:
        if key in values and not (isinstance(values[key], int) and values[key] > 0):
            raise RecipeError(f"{path}: {key} must be a positive integer, got {values[key]!r}.")
    try:
        resolve(values["target"], depth=1, steps=1)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    recipe = Recipe(**values)
    if not 0 < recipe.tolerance < math.inf:
        raise RecipeError(f"{path}: tolerance must be a positive radius, got {recipe.tolerance!r}.")
    return recipe
