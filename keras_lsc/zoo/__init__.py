"""The zoo: networks pre-trained to stability, each with a certificate that can be recomputed."""

from collections.abc import Sequence

from keras_lsc.zoo.damage import DamagedCheckpointError
from keras_lsc.zoo.fine_tuning import FineTuning, fine_tune
from keras_lsc.zoo.loading import load
from keras_lsc.zoo.pushing import Pushed, PushError, push
from keras_lsc.zoo.recipes import Recipe, RecipeError
from keras_lsc.zoo.registry import (
    CheckpointInfo,
    UnknownCheckpointError,
    UntrainedCheckpointError,
)
from keras_lsc.zoo.resized import certificate
from keras_lsc.zoo.resolver import info, names
from keras_lsc.zoo.saving import export, save
from keras_lsc.zoo.scores import Trained
from keras_lsc.zoo.sources import CheckpointUnavailableError
from keras_lsc.zoo.verification import CertificateMismatchError, Verification, verify

__all__ = [
    "CertificateMismatchError",
    "CheckpointInfo",
    "CheckpointUnavailableError",
    "DamagedCheckpointError",
    "FineTuning",
    "PushError",
    "Pushed",
    "Recipe",
    "RecipeError",
    "Trained",
    "UnknownCheckpointError",
    "UntrainedCheckpointError",
    "Verification",
    "certificate",
    "export",
    "fine_tune",
    "info",
    "list",
    "load",
    "names",
    "push",
    "save",
    "verify",
]

# The same function, under the name that most registries have for it.
list = names  # noqa: A001


def __dir__() -> Sequence[str]:
    return sorted(__all__)
