"""Settings: everything that makes a run, expanded from the TOML file of an experiment."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from experiments import storage
from keras_lsc import datasets
from keras_lsc.stability.targets import Target
from keras_lsc.stability.theory import far_corner_radius

FOLDER = Path(__file__).parent
# Fields that say from which weights a run starts, and those that are chosen on validation.
START_FIELDS = (
    "initialization",
    "target",
    "mode",
    "radius",
    "tolerance",
    "max_updates",
    "method",
    "growth",
)
CHOSEN_FIELDS = ("learning_rate",)
# A list in the TOML under the plural makes a run of each of its values.
_PLURALS = {
    "depths": "depth",
    "cells": "cell",
    "all_steps": "steps",
    "surrogates": "surrogate",
    "initializations": "initialization",
    "targets": "target",
    "modes": "mode",
    "radii": "radius",
    "methods": "method",
    "growths": "growth",
    "learning_rates": "learning_rate",
    "clip_norms": "clip_norm",
}
# Of these, those that make another network.
_OF_NETWORK = ("cell", "depth", "steps", "surrogate")
_NONE = "none"
# In a TOML file, the far-corner radius of each network's depth and length.
_FAR_CORNER = "far-corner"


class SettingsError(ValueError):
    """A file of an experiment that cannot be read as one."""


@dataclass(frozen=True)
class Setting:
    """Everything that makes a run.

    Attributes:
        cell: as `keras_lsc.zoo.networks.CELLS` lists them.
        dataset: name of a task of `keras_lsc.datasets`.
        depth: number of recurrent (or dense) layers.
        units: of each layer.
        seed: of the initial weights, of pre-training, and of the order of the batches.
        training: number of training examples, the first of the split.
        validation: number of validation examples.
        test: number of test examples.
        learning_rate: of Adam.
        epochs: passes over the training examples; 0 only measures the start.
        batch_size: examples of a training step; the rest of an epoch is left out.
        options: of the dataset.
        steps: time steps that an image is cut into; None as the dataset gives it.
        embedding: size of the embedding of tokens; None for other inputs.
        widths: units of the single recurrent layers where they differ; None if all have `units`.
        initialization: "default" of the cell; of dense layers "glorot", "he" or "orthogonal".
        target: of the pre-training, as `keras_lsc.stabilize` takes it; None trains the initial
            weights as they are.
        mode: of the pre-training; None without one, and so are the next three.
        radius: what pre-training drives to the target.
        tolerance: of the pre-training.
        max_updates: of the pre-training.
        method: what changes the weights before the task: "lsc" if there is a target, "level",
            "lsuv" (`experiments.lsuv`), or "methods." and a name of `keras_lsc.methods.names()`.
        growth: of "level".
        surrogate: of spiking layers, by its name; None as the cell has it.
        clip_norm: largest norm of the gradient of all weights together; None does not clip.
        validations: number of validations in an epoch.
        patience: number of validations without a better one after which training ends.
        threshold: of the validation metric; the steps until it is reached are counted.
    """

    cell: str
    dataset: str
    depth: int
    units: int
    seed: int
    training: int
    validation: int
    test: int
    learning_rate: float
    epochs: int
    batch_size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    embedding: int | None = None
    widths: list[int] | None = None
    initialization: str = "default"
    target: Target | None = None
    mode: str | None = None
    radius: str | None = None
    tolerance: float | None = None
    max_updates: int | None = None
    method: str = "lsc"
    growth: float = 1.0
    surrogate: str | None = None
    clip_norm: float | None = None
    validations: int = 1
    patience: int | None = None
    threshold: float | None = None

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that only this setting has.

        Fields with their default value do not count, so a new field leaves the ids of old runs.
        """
        defaults = {item.name: item.default for item in fields(self)} | {"options": {}}
        chosen = {k: v for k, v in self.to_dict().items() if v != defaults[k]}
        return storage.identity(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Returns the setting as JSON types."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Setting:
        """Makes a setting from `to_dict`."""
        return cls(**values)

    @property
    def sibling(self) -> str | None:
        """The name of the method of others that gives the start, or None for none of them."""
        family, _, name = self.method.partition(".")
        return name if family == "methods" else None

    @property
    def number_of_steps(self) -> int:
        """Length of the sequences."""
        if self.steps is not None:
            return self.steps
        task = datasets.info(self.dataset)
        if task.kind == "generated":
            return datasets.load(self.dataset, limit=1, **self.options)[0].shape[1]
        return self.options.get("steps", task.shape[0])

    @property
    def far_corner_target(self) -> float:
        """The far-corner radius of depth and length, to three digits."""
        return round(far_corner_radius(self.number_of_steps, self.depth), 3)

    def without(self, *names: str) -> str:
        """The setting as text, these fields left out: equal for settings that differ in them."""
        rest = {key: value for key, value in self.to_dict().items() if key not in names}
        return json.dumps(rest, sort_keys=True)

    @property
    def network(self) -> str:
        """Equal for settings that one compiled network and the same data serve."""
        return self.without(*START_FIELDS, *CHOSEN_FIELDS, "seed", "epochs", "validations",
                            "patience", "threshold", "clip_norm")  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """The settings of a TOML file.

    Attributes:
        name: of the file.
        title: of the section in the report.
        question: one or two sentences: what is asked, and what was reduced.
        settings: in the order in which they are run.
        seeds: how many each cell of the report has when all of them have run.
    """

    name: str
    title: str
    question: str
    settings: tuple[Setting, ...]
    seeds: int


def experiment_names(folder: Path = FOLDER) -> list[str]:
    """The names of the experiments of a folder."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_experiment(path: Path, budget: float = 1.0) -> Experiment:
    """Reads the TOML file of an experiment.

    The file has `title`, `question`, `seeds`, a `[defaults]` table and `[[group]]` tables. Each
    group makes the product of its lists: a plural key (`cells`, `depths`, `targets`, ...) lists
    values of one field, `variants` lists tables of fields that change together, or names one of the
    lists in a `[variants]` table. "none" stands for no value, the target "far-corner" for the
    far-corner radius. Keys of a group go before the defaults.

    Args:
        path: of the file.
        budget: factor of the epochs and of the number of seeds; at least one of each is left.

    Returns:
        The experiment.

    Raises:
        SettingsError: a key is unknown, or one is missing.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    for key in ("title", "question", "seeds", "group"):
        if key not in content:
            raise SettingsError(f"{path} gives no {key!r}.")
    seeds = max(1, round(content["seeds"] * budget))
    settings: dict[str, Setting] = {}
    for group in content["group"]:
        values = {**content.get("defaults", {}), **group}
        if isinstance(values.get("variants"), str):
            values["variants"] = _named_variants(content, values["variants"], path)
        for setting in _expand(values, seeds, path):
            if setting.epochs:
                setting = replace(setting, epochs=max(1, round(setting.epochs * budget)))
            settings.setdefault(setting.id, setting)
    return Experiment(
        name=path.stem,
        title=content["title"],
        question=content["question"],
        settings=tuple(settings.values()),
        seeds=content["seeds"],
    )


def _named_variants(content: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    known = content.get("variants", {})
    if name not in known:
        raise SettingsError(
            f"{path} has no variants {name!r}. Known: {', '.join(known) or 'none'}."
        )
    return known[name]


def _expand(group: dict[str, Any], seeds: int, path: Path) -> Iterator[Setting]:
    variants = group.pop("variants", [{}])
    known = {item.name for item in fields(Setting)}
    unknown = sorted(
        key
        for key in {**group, **{key: None for variant in variants for key in variant}}
        if key not in known and key not in _PLURALS
    )
    if unknown:
        raise SettingsError(
            f"{path} has the unknown key {unknown[0]!r}. Known keys: "
            f"{', '.join(sorted(known | set(_PLURALS) | {'variants'}))}."
        )
    for variant in variants:
        values = {**group, **variant}
        # The product changes its last key fastest: networks change slowest, then seeds.
        plurals = [key for key in _PLURALS if key in values]
        lists = [[(_PLURALS[key], value) for value in values.pop(key)] for key in plurals]
        of_network = [pairs for pairs in lists if pairs and pairs[0][0] in _OF_NETWORK]
        of_run = [pairs for pairs in lists if pairs not in of_network]
        seed_pairs = [("seed", seed) for seed in range(seeds)]
        for pairs in itertools.product(*of_network, seed_pairs, *of_run):
            yield _setting({**values, **dict(pairs)}, path)


def _setting(values: dict[str, Any], path: Path) -> Setting:
    values = {key: None if value == _NONE else value for key, value in values.items()}
    if values.get("target") is None:
        values |= {"target": None, "mode": None, "radius": None}
        values |= {"tolerance": None, "max_updates": None}
    else:
        values.setdefault("mode", "scales")
        values.setdefault("radius", "spectral")
        for key in ("tolerance", "max_updates"):
            if values.get(key) is None:
                raise SettingsError(f"{path} gives no {key!r} for the target {values['target']!r}.")
    try:
        setting = Setting(**values)
    except TypeError as error:
        raise SettingsError(f"{path}: {error}") from error
    if setting.target == _FAR_CORNER:
        return replace(setting, target=setting.far_corner_target)
    return setting


def start_key(setting: Setting) -> tuple[Any, ...]:
    """What only settings have in common that train from the same start."""
    values = setting.to_dict()
    return (setting.seed, *(str(values[name]) for name in START_FIELDS), setting.epochs == 0)


def in_order(settings: Sequence[Setting]) -> list[Setting]:
    """Settings in the order in which they are run: those of a start together.

    The rest of what is so ordered is in the same order, from whichever on.
    """
    keys = [start_key(setting) for setting in settings]
    firsts = {key: keys.index(key) for key in dict.fromkeys(keys)}
    order = sorted(range(len(keys)), key=lambda k: (firsts[keys[k]], str(settings[k].clip_norm)))
    return [settings[k] for k in order]
