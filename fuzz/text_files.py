"""Text files: `.ts` and recipes."""

from pathlib import Path
from typing import Any

import numpy as np

from fuzz.kind import RIGHT, Kind, require
from fuzz.mutate import damaged_text
from keras_lsc import datasets
from keras_lsc.zoo import Recipe, RecipeError
from keras_lsc.zoo.recipes import read_recipes

_SERIES = """\
#a comment
@problemName Small
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@seriesLength 3
@classLabel true left right
@data
1,2,3:4,5,6:left
1.5,?,-1:-2e-1,0,7:right
0,0,1:1e3,2,2:left
"""
_RECIPES = """\
dataset = "parity"
depths = [2, 5]
targets = ["variance", 0.5, [0.9, 0.4]]
options = { n = 2, length = 12, delay = 2 }
tolerance = 0.02
samples = 64

[[network]]
cell = "gru"
units = 8

[[network]]
cell = "sigmoid"
units = 16
mode = "weights"
depths = [3]
learning_rate = 0.01
hidden = true
"""


def _text(random: np.random.Generator, base: str) -> bytes:
    return damaged_text(random, base)


def _read_series(content: bytes, folder: Path) -> str:
    path = folder / "small.ts"
    path.write_bytes(content)
    found = datasets.read_ts(path)
    dimensions = {series.shape[1] for series in found.series}
    require(len(dimensions) == 1, f"series of {dimensions} dimensions")
    for series in found.series:
        require(series.ndim == 2 and series.dtype == np.float64, "a series is no float64 matrix")
        require(not np.isinf(series).any(), "an infinite value was read")
    if found.labels is not None:
        require(len(found.labels) == len(found.series), "labels and series differ in number")
        require(set(found.labels.tolist()) <= set(range(len(found.classes))), "a label is no class")
    return RIGHT


def _read_recipes(content: bytes, folder: Path) -> str:
    (folder / "recipes.toml").write_bytes(content)
    for name, recipe in read_recipes(folder).items():
        require(isinstance(recipe, Recipe) and recipe.name == name, f"{name!r} is no recipe")
        hash(recipe.name)
        require(Recipe.from_dict(recipe.to_dict()) == recipe, f"{name!r} is not read back")
        numbers: list[Any] = [recipe.depth, recipe.units, recipe.samples, recipe.batch_size]
        require(all(type(number) is int and number > 0 for number in numbers), f"{numbers}")
    return RIGHT


TS = Kind(
    "ts",
    220,
    lambda random: _text(random, _SERIES),
    _read_series,
    (datasets.TimeSeriesFormatError,),
)
RECIPES = Kind("recipe", 180, lambda random: _text(random, _RECIPES), _read_recipes, (RecipeError,))
