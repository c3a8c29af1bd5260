"""The sibling methods: other ways to a start, all by `stabilize(model, x, method=...)`."""

from typing import Any

from keras_lsc import arguments
from keras_lsc.methods.autoinit import AutoInit
from keras_lsc.methods.chrono import Chrono
from keras_lsc.methods.fluctuation import Fluctuation
from keras_lsc.methods.glorot import Glorot
from keras_lsc.methods.gradinit import GradInit
from keras_lsc.methods.he import He
from keras_lsc.methods.identity import Identity
from keras_lsc.methods.lsuv import LSUV
from keras_lsc.methods.mean_field import MeanField
from keras_lsc.methods.method import Method
from keras_lsc.methods.orthogonal import Orthogonal
from keras_lsc.methods.spiking_conditions import SpikingConditions

__all__ = [
    "LSUV",
    "AutoInit",
    "Chrono",
    "Fluctuation",
    "Glorot",
    "GradInit",
    "He",
    "Identity",
    "MeanField",
    "Method",
    "Orthogonal",
    "SpikingConditions",
    "get",
    "names",
]

_METHODS = {
    method.name: method
    for method in (
        Orthogonal,
        Glorot,
        He,
        Identity,
        Chrono,
        LSUV,
        AutoInit,
        MeanField,
        Fluctuation,
        SpikingConditions,
        GradInit,
    )
}


def names() -> list[str]:
    """The names of the methods.

    Example:
        >>> names()[:3]
        ['orthogonal', 'glorot', 'he']
    """
    return list(_METHODS)


def get(method: Any) -> Method:
    """Returns a method from its name, with the options as they are without others, or as it is.

    Args:
        method: a `Method` or its name.

    Raises:
        ValueError: it is neither.

    Example:
        >>> get("lsuv")
        LSUV(tolerance=0.01, most=5)
    """
    if isinstance(method, Method):
        return method
    return _METHODS[arguments.one_of("method", method, _METHODS)]()


def __dir__() -> list[str]:
    return sorted(__all__)
