"""Old public names and arguments, which work for one version and say what is to be done."""

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


def argument_without_effect(function: str, argument: str, why: str) -> None:
    """Warns of an argument that does nothing any more.

    Args:
        function: Name of the function.
        argument: Name of the argument, which was given.
        why: It does nothing.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as told:
        ...     warnings.simplefilter("always")
        ...     argument_without_effect("keras_lsc.f", "size", "all are of one size")
        >>> str(told[0].message)[:62]
        'size of keras_lsc.f has no effect, because all are of one size'
    """
    warnings.warn(
        f"{argument} of {function} has no effect, because {why}; leave it out, it will go with the "
        "next version.",
        DeprecationWarning,
        stacklevel=3,
    )
