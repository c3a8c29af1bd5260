"""keras_lsc.cite: the works that what was used comes from, as BibTeX."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from keras_lsc import arguments, datasets
from keras_lsc.version import __version__

# Of layers and their cells by the name of the class, and of methods by that of `stabilize`: keys of
# references.bib.
LAYERS = {
    "ALIF": ("bellec2018long", "herranzcelotti2022stabilizing"),
    "GRU": ("cho2014learning",),
    "LIF": ("herranzcelotti2022stabilizing", "bauer2022exodus"),
    "LeakyRNN": ("khajehabdollahi2024emergent",),
    "LRU": ("orvieto2023resurrecting",),
    "LRUBlock": ("orvieto2023resurrecting",),
    "LSTM": ("hochreiter1997long",),
    "LinOSS": ("rusch2024oscillatory",),
    "MinGRU": ("feng2024were",),
    "MinLSTM": ("feng2024were",),
    "PLSTM1D": ("poppel2025plstm",),
    "PLSTM2D": ("poppel2025plstm",),
    "ParaGRU": ("danieli2025pararnn",),
    "ParaLSTM": ("danieli2025pararnn",),
    "ParaLeaky": ("jaeger2007optimization", "danieli2025pararnn"),
    "SelectiveSSM": ("gu2023mamba",),
    "SimpleRNN": ("elman1990finding",),
}
METHODS = {
    "autoinit": ("bingham2023autoinit",),
    "chrono": ("tallec2018can",),
    "flossing": ("engelken2023gradient",),
    "fluctuation": ("rossbroich2022fluctuation",),
    "glorot": ("glorot2010understanding",),
    "gradinit": ("zhu2021gradinit",),
    "he": ("he2015delving",),
    "identity": ("le2015simple",),
    "level": (),
    "lsc": (),
    "lsuv": ("mishkin2016all",),
    "mean-field": ("gilboa2019dynamical",),
    "orthogonal": ("saxe2014exact",),
    "spiking-conditions": ("herranzcelotti2022stabilizing",),
}
BACKENDS = {
    "jax": "bradbury2018jax",
    "tensorflow": "abadi2016tensorflow",
    "torch": "paszke2019pytorch",
}
_ALWAYS = ("herranzcelotti2023stabilizing",)


def cite(model: Any = None, *, method: str | None = None, dataset: str | None = None) -> str:
    """Returns the BibTeX of what was used: the method, this package, layers, method, data, Keras.

    Args:
        model: a `keras.Model`, whose layers are looked at; without it none is.
        method: as `stabilize` takes it, such as "flossing".
        dataset: name of a task, such as "smnist".

    Returns:
        One entry a work, for `print` or a .bib file.

    Raises:
        ValueError: the model is none, or the method or task is unknown.

    Example:
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.LSTM(4)])
        >>> "Long Short-Term Memory" in cite(model)
        True
    """
    if model is not None and not isinstance(model, keras.Layer):
        raise ValueError(f"model must be a keras.Model, got {model!r:.200}.")
    keys = [*_ALWAYS]
    if method is not None:
        keys += METHODS[arguments.one_of("method", method, sorted(METHODS))]
    if model is not None:
        for layer in _every(model, set()):
            names = [cls.__name__.removesuffix("Cell") for cls in type(layer).__mro__]
            keys += next((LAYERS[name] for name in names if name in LAYERS), ())
    keys += ["chollet2015keras", BACKENDS[keras.backend.backend()]]
    works = references()
    entries = [works[key] for key in dict.fromkeys(keys)]
    entries.insert(1, _software())
    if dataset is not None:
        entries.append(datasets.info(dataset).citation.strip())
    return "\n\n".join(entries)


def references() -> dict[str, str]:
    """Returns the entries of references.bib by their keys."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@.*?^}$", text, flags=re.DOTALL | re.MULTILINE)
    return {re.match(r"@\w+\{([^,]+),", entry)[1]: entry for entry in entries}  # type: ignore[index]


def _software() -> str:
    return (
        "@software{keras_lsc,\n"
        "  title   = {keras-lsc},\n"
        "  author  = {{The keras-lsc maintainers}},\n"
        f"  version = {{{__version__}}},\n"
        "  url     = {https://github.com/keras-lsc/keras-lsc}\n"
        "}"
    )


def _every(layer: Any, seen: set[int]) -> Iterator[Any]:
    """A layer, and those that it holds: of models, wrappers and recurrent layers."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for name in ("layers", "layer", "forward_layer", "backward_layer", "cell", "cells"):
        held = getattr(layer, name, None)
        parts = held if isinstance(held, Iterable) else [held]
        for part in parts:
            if isinstance(part, keras.Layer):
                yield from _every(part, seen)
