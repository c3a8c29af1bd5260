"""From a setting to its network, its data, and its initial weights."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from experiments.settings import Setting
from keras_lsc import datasets
from keras_lsc.zoo.networks import build_network, draw_weights
from keras_lsc.zoo.recipes import Recipe

INITIALIZATIONS = ("default", "glorot", "he", "orthogonal")


@dataclass(frozen=True)
class Split:
    """Inputs and targets of one split."""

    x: np.ndarray
    y: np.ndarray

    @property
    def identity(self) -> dict[str, Any]:
        """Number of examples and sha256: which data it was."""
        digest = hashlib.sha256(np.ascontiguousarray(self.x).tobytes())
        digest.update(np.ascontiguousarray(self.y).tobytes())
        return {"examples": len(self.x), "sha256": digest.hexdigest()[:16]}


def load_split(setting: Setting, split: str) -> Split:
    """Reads one split of a setting's data; nothing is fetched.

    Args:
        setting: of a run.
        split: "train", "validation" or "test".
    """
    limits = {"train": setting.training, "validation": setting.validation, "test": setting.test}
    x, y = datasets.load(
        setting.dataset, split, limit=limits[split], download=False, **setting.options
    )
    if setting.steps is not None:
        x = x.reshape(len(x), setting.steps, -1)
    return Split(x, y)


def make_network(setting: Setting, input_shape: tuple[int, ...]) -> keras.Sequential:
    """Builds a setting's network; `set_initial_weights` gives it those of a seed.

    Args:
        setting: of a run.
        input_shape: of one input.
    """
    model = build_network(_recipe(setting, input_shape))
    if setting.widths is None and setting.surrogate is None:
        return model
    layers = _changed(model.layers, setting)
    dtype = datasets.info(setting.dataset).dtype
    return keras.Sequential([keras.Input(input_shape, dtype=dtype), *layers])


def _changed(layers: list[keras.Layer], setting: Setting) -> list[keras.Layer]:
    """New layers like these, the recurrent ones with a setting's widths and surrogate."""
    widths = list(setting.widths or setting.depth * [setting.units])
    if len(widths) != setting.depth:
        raise ValueError(
            f"widths={setting.widths!r} are those of {len(widths)} layers; depth={setting.depth}."
        )
    copies = []
    for layer in layers:
        config = layer.get_config()
        if hasattr(layer, "cell"):
            config["units"] = widths.pop(0)
            if setting.surrogate is not None:
                config["surrogate"] = setting.surrogate
        copies.append(type(layer).from_config(config))
    return copies


def set_initial_weights(model: keras.Sequential, setting: Setting) -> None:
    """Draws the initial weights by NumPy: the same for every start of a seed.

    Args:
        model: of the setting.
        setting: with the seed and the initialisation.

    Raises:
        ValueError: an unknown initialisation, or one of dense layers for a recurrent network.
    """
    draw_weights(model, _recipe(setting, tuple(model.input_shape[1:])))
    for layer in model.layers:
        if isinstance(layer, keras.layers.LSTM):  # the recipe knows of one width only
            forget = np.repeat([0.0, 1.0, 0.0, 0.0], layer.units)
            layer.cell.bias.assign(forget.astype("float32"))
    if setting.initialization == "default":
        return
    if setting.initialization not in INITIALIZATIONS or not setting.cell.startswith("dense_"):
        raise ValueError(
            f"Unknown initialization {setting.initialization!r} of {setting.cell!r}. Expected "
            f"'default', or for dense layers one of {', '.join(INITIALIZATIONS)}."
        )
    for position, layer in enumerate(model.layers[:-1]):
        generator = np.random.default_rng([setting.seed, 1000 + position])
        values = _draw(setting.initialization, tuple(layer.kernel.shape), generator)
        layer.kernel.assign(values.astype("float32"))


def _draw(name: str, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    normal = generator.standard_normal(shape)
    if name == "glorot":
        return normal * math.sqrt(2.0 / sum(shape))
    if name == "he":
        return normal * math.sqrt(2.0 / shape[0])
    tall = normal if shape[0] >= shape[1] else normal.T
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if shape[0] >= shape[1] else q.T


def _recipe(setting: Setting, input_shape: tuple[int, ...]) -> Recipe:
    return Recipe(
        cell=setting.cell,
        dataset=setting.dataset,
        depth=setting.depth,
        units=setting.units,
        target=1.0,  # of no effect on the initial weights
        options=setting.options,
        input_shape=input_shape,
        embedding=setting.embedding,
        seed=setting.seed,
    )
