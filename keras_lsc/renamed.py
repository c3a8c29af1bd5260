"""Old public names, which work for one version and say what they are called now."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def old_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__`, which finds what was renamed or moved.

    Args:
        module: String, `__name__` of the module.
        renamed: Mapping from an old name in it to the new one, with the module that has it now.

    Example:
        >>> find = old_names("keras_lsc", {"Lstm": "keras.layers.LSTM"})
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     find("Lstm").__name__
        'LSTM'
        >>> str(told[0].message)
        'keras_lsc.Lstm is now keras.layers.LSTM; the old name will go with the next version.'
    """

    def find(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = renamed[name].rpartition(".")
        warnings.warn(
            f"{module}.{name} is now {renamed[name]}; the old name will go with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(place), new)

    return find
