"""Certificates: what was measured of a checkpoint, and on which data.

A checkpoint of the zoo and a model of one's own have the same fields; what is not known of a model
of one's own is None.
"""

import os
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.files import array_identity
from keras_lsc.stability.report import StabilityReport
from keras_lsc.version import installed_versions
from keras_lsc.zoo.pretraining import deviation
from keras_lsc.zoo.recipes import Recipe

PACKAGES = ("keras", "keras-lsc", "numpy", "jax", "tensorflow", "tensorflow-cpu", "torch")


def certificate_data(recipe: Recipe, data_dir: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Returns the validation sequences on which a recipe's radii are measured; nothing is fetched.

    Args:
        recipe: Recipe of the checkpoint.
        data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        DatasetUnavailableError: The data is not on this computer.
    """
    return _load(recipe, "validation", recipe.certificate_sequences, data_dir)


def training_data(recipe: Recipe, data_dir: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Returns the training sequences that a recipe's pre-training draws from, without labels."""
    return _load(recipe, "train", recipe.sequences, data_dir)


def _load(
    recipe: Recipe, split: str, limit: int, data_dir: str | os.PathLike[str] | None
) -> np.ndarray:
    options = {**recipe.options, "download": False, "data_dir": data_dir}
    return datasets.load(recipe.dataset, split, limit=limit, **options)[0]


def make_certificate(
    recipe: Recipe | None = None,
    initial: StabilityReport | None = None,
    stabilized: StabilityReport | None = None,
    training: np.ndarray | None = None,
    validation: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns the certificate of a checkpoint as JSON types; what is not known of it is None.

    Args:
        recipe: Recipe of the checkpoint.
        initial: Report of the network before pre-training.
        stabilized: Report after it, at the same points.
        training: Sequences of pre-training.
        validation: Sequences of the reports.
    """
    on = None if validation is None else {"split": "validation", **array_identity(validation)}
    off = None if recipe is None or stabilized is None else deviation(stabilized, recipe)
    return {
        "recipe": None if recipe is None else recipe.to_dict(),
        "initial": None if initial is None else initial.to_dict(),
        "stabilized": None if stabilized is None else stabilized.to_dict(),
        "training_data": None if training is None else array_identity(training),
        "certificate_data": on,
        "deviation": off,
        "backend": keras.backend.backend(),
        "versions": installed_versions(*PACKAGES),
    }
