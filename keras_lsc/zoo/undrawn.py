"""Loading a model without drawing the initial weights that its file replaces at once.

Drawing them takes most of the time of loading a small model, above all on JAX, which compiles every
initialiser for every shape.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lsc.zoo.guard import CONFIGURATION

_CHEAP = ("Zeros", "Ones", "Constant", "Identity")


@keras.saving.register_keras_serializable(package="keras_lsc")
class Undrawn(keras.initializers.Initializer):
    """Stands for an initialiser while a model is loaded: gives zeros, and knows the other.

    Args:
        original: configuration of the initialiser it stands for.
    """

    def __init__(self, original: dict[str, Any]):
        self.original = original

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **options: Any) -> np.ndarray:
        """Zeros of NumPy, which no backend compiles."""
        del dtype, options
        return np.zeros(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"original": self.original}


def load_undrawn(parts: Mapping[str, bytes], config: dict[str, Any], folder: Path) -> keras.Model:
    """Loads the parts of a `.keras` file with every initialiser in place and none of them called.

    Args:
        parts: of the file, checked.
        config: that of the model.
        folder: where a file with these parts is written.

    Returns:
        The model, as `keras.saving.load_model` gives it.
    """
    copy = folder / "model.keras"
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name, content in parts.items():
            changed = (
                json.dumps(without_drawing(config)).encode() if name == CONFIGURATION else None
            )
            new.writestr(name, changed or content)
    model = keras.saving.load_model(copy, compile=False, safe_mode=True)
    restore_initializers(model)
    return model


def without_drawing(config: Any) -> Any:
    """Returns the configuration of a model or layer with every initialiser stood in for."""
    if isinstance(config, list):
        return [without_drawing(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("module") == "keras.initializers" and config.get("class_name") not in _CHEAP:
        # By hand: serialize_keras_object imports TensorFlow where it is installed.
        return {
            "module": __name__,
            "class_name": "Undrawn",
            "config": {"original": config},
            "registered_name": "keras_lsc>Undrawn",
        }
    # What a model within the model was compiled with has weights of its own, and no use here.
    return {key: without_drawing(value) for key, value in config.items() if key != "compile_config"}


def restore_initializers(model: keras.Model) -> None:
    """Puts the initialisers of a built model back where `without_drawing` took them."""
    _restore(model, set())


def _restore(part: Any, seen: set[int]) -> None:
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, list | tuple):
        for item in part:
            _restore(item, seen)
    elif isinstance(part, keras.Layer):
        for name, value in list(vars(part).items()):
            if isinstance(value, Undrawn):
                original = keras.saving.deserialize_keras_object(value.original, safe_mode=True)
                setattr(part, name, original)
            else:
                _restore(value, seen)
