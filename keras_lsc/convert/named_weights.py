"""The weights of a model by name, in a file of safetensors."""

from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_lsc.files import replacing


def save_safetensors(model: Any, path: str | Path) -> None:
    """Writes the weights of a model or layer by their paths in it, such as "gru/gru_cell/kernel".

    Such a file holds arrays and nothing else; other languages and frameworks read it too.

    Args:
        model: a built `keras.Model` or layer.
        path: the file, replaced whole or not at all.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: there are no weights, or two have one path.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(2)
        >>> dense.build((None, 3))
        >>> save_safetensors(dense, "dense.safetensors")  # doctest: +SKIP
        >>> load_safetensors(dense, "dense.safetensors")  # doctest: +SKIP
    """
    from safetensors.numpy import save_file

    arrays = {
        name: np.ascontiguousarray(ops.convert_to_numpy(variable))
        for name, variable in by_path(model).items()
    }
    with replacing(Path(path)) as new:
        save_file(arrays, new)


def load_safetensors(model: Any, path: str | Path) -> None:
    """Sets the weights of a model or layer to those of a file, each to the one of its name.

    Args:
        model: a built `keras.Model` or layer.
        path: a file of `save_safetensors`.

    Raises:
        ImportError: safetensors is not installed.
        OSError: there is no such file.
        ValueError: the file has other names or shapes than the model, which is left as it was, or
            is no file of safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    variables = by_path(model)
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no file of safetensors, or damaged: {error}.") from error
    absent, unknown = sorted(set(variables) - set(arrays)), sorted(set(arrays) - set(variables))
    if absent or unknown:
        raise ValueError(
            f"{path} and the model differ in names: only the model has {absent or 'none'}, only "
            f"the file {unknown or 'none'}. Name the layers as those of the model that was saved."
        )
    for name, variable in variables.items():
        if arrays[name].shape != tuple(variable.shape):
            raise ValueError(
                f"{path} has {name} of the shape {arrays[name].shape}, the model "
                f"{tuple(variable.shape)}. Make the model of the sizes of the one that was saved."
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def by_path(model: Any) -> dict[str, Any]:
    """Returns the weights of a built model or layer by their paths, without the model's own name.

    Raises:
        ValueError: There are none, or two of one path.
    """
    weights = getattr(model, "weights", None)
    if not weights:
        raise ValueError(f"There are no weights in {model!r:.200}. Build the model first.")
    paths = [weight.path for weight in weights]
    # Keras counts the names of models up, which says nothing of the weights.
    if all(path.startswith(f"{model.name}/") for path in paths):
        paths = [path.removeprefix(f"{model.name}/") for path in paths]
    named = dict(zip(paths, weights, strict=True))
    if len(named) < len(weights):
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise ValueError(f"{', '.join(twice)}: two weights of one name. Name their layers apart.")
    return named
