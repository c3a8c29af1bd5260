"""Initialisers stood in for while a network is made whose weights are replaced at once.

Drawing initial weights takes most of the time of loading a small model, above all on JAX, which
compiles every initialiser for every shape.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

# Initialisers that are cheap to call on every backend.
_CHEAP = ("Zeros", "Ones", "Constant", "Identity")


@keras.saving.register_keras_serializable(package="keras_lsc")
class SkippedInitializer(keras.initializers.Initializer):
    """Stands for an initialiser while a model is loaded: gives zeros, and knows the other.

    Args:
        original: Configuration of the initialiser it stands for.
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


@contextmanager
def skipped_initializers(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Stands in for the initialisers of layers that are built within, and puts them back.

    Args:
        layers: Layers that are not built.
    """
    skipped = [
        (owner, name, value)
        for owner, name, value in _attributes(list(layers), set())
        if isinstance(value, keras.initializers.Initializer) and type(value).__name__ not in _CHEAP
    ]
    for owner, name, _ in skipped:
        setattr(owner, name, SkippedInitializer({}))
    try:
        yield
    finally:
        for owner, name, value in skipped:
            setattr(owner, name, value)


def skip_init(config: Any) -> Any:
    """Returns the configuration of a model or layer with every initialiser stood in for."""
    if isinstance(config, list):
        return [skip_init(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("module") == "keras.initializers" and config.get("class_name") not in _CHEAP:
        # By hand: serialize_keras_object imports TensorFlow where it is installed.
        return {
            "module": __name__,
            "class_name": "SkippedInitializer",
            "config": {"original": config},
            "registered_name": "keras_lsc>SkippedInitializer",
        }
    # What a model within the model was compiled with has weights of its own, and no use here.
    return {key: skip_init(value) for key, value in config.items() if key != "compile_config"}


def restore_initializers(model: keras.Model) -> None:
    """Puts the initialisers of a built model back where `skip_init` took them."""
    for owner, name, value in list(_attributes(model, set())):
        if isinstance(value, SkippedInitializer):
            original = keras.saving.deserialize_keras_object(value.original, safe_mode=True)
            setattr(owner, name, original)


def _attributes(part: Any, seen: set[int]) -> Iterator[tuple[keras.Layer, str, Any]]:
    """Every attribute of a layer and of those within it: whose it is, its name and value."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, list | tuple):
        for item in part:
            yield from _attributes(item, seen)
    elif isinstance(part, keras.Layer):
        for name, value in list(vars(part).items()):
            yield part, name, value
            yield from _attributes(value, seen)
