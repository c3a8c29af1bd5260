"""The former name of `keras_lsc.zoo.keras_file`, for one version."""

import warnings
from typing import Any

from keras_lsc.zoo import keras_file


def __getattr__(name: str) -> Any:
    """Returns what the module has under its new name, with a warning."""
    value = getattr(keras_file, name)
    warnings.warn(
        "keras_lsc.zoo.archive is now keras_lsc.zoo.keras_file; the old name goes with the next "
        "version.",
        DeprecationWarning,
        stacklevel=2,
    )
    return value
