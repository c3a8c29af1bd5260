"""The cells of a model, of the kinds that a method knows."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.recorder import directions_of
from keras_lsc.stability.taps import leaves


class NamedCell(NamedTuple):
    """A cell, and what an error calls it."""

    cell: Any
    name: str


def cells_of(model: keras.Model, kinds: tuple[type, ...], method: str, why: str) -> list[NamedCell]:
    """The cells of some kinds in a model, but of frozen layers, each once.

    Args:
        model: a built model.
        kinds: classes of the cells.
        method: Name of the method that asks, for the error.
        why: it can do nothing with others.

    Raises:
        ValueError: there are none.
    """
    frozen = frozen_variables(model)
    found: dict[int, NamedCell] = {}
    others: list[str] = []
    for layer in leaves(model):
        if not is_recurrent(layer) or not layer.built:
            continue
        for direction in directions_of(layer):
            for cell in direction.cells:
                free = any(id(w) not in frozen for w in cell.trainable_variables)
                if isinstance(cell, kinds) and free:
                    found.setdefault(id(cell), NamedCell(cell, direction.name_of(cell)))
                else:
                    state = "" if free else ", frozen"
                    others.append(f"{direction.name_of(cell)!r} ({type(cell).__name__}{state})")
    if not found:
        has = f"its recurrent layers are {', '.join(others)}" if others else "it has no recurrent"
        raise ValueError(
            f"method={method!r} makes no sense for model {model.name!r}: {why}, and {has}"
            f"{'' if others else ' layer'}."
        )
    return list(found.values())


def numbers(weight: Any) -> np.ndarray:
    """The values of a weight or a tensor, in float64."""
    value = getattr(weight, "value", weight)
    return np.array(ops.convert_to_numpy(value), "float64")
