"""Checks of arguments where they enter: what was given, what is expected, what to do about it.

Each returns the value as a plain Python one (numbers of NumPy are taken as well) and raises
ValueError for anything else, of another type too, as Keras does for the arguments of its layers.
A boolean is no number.
"""

import difflib
import math
import numbers
import sys
from collections.abc import Iterable
from typing import Any

import keras


def integer(name: str, value: Any, *, at_least: int | None = None, advice: str = "") -> int:
    """Returns `value` as an int.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        at_least: smallest value to accept; None for any.
        advice: a sentence that ends the message.

    Returns:
        The integer.

    Raises:
        ValueError: `value` is no integer, or too small.

    Example:
        >>> integer("seed", 3)
        3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_integer and (at_least is None or value >= at_least):
        return int(value)
    expected = {None: "an integer", 0: "an integer of 0 or more", 1: "a positive integer"}.get(
        at_least, f"an integer of at least {at_least}"
    )
    raise ValueError(_message(name, expected, value, advice))


def positive_integer(name: str, value: Any, *, advice: str = "") -> int:
    """Returns `value` as an int of 1 or more; otherwise as `integer`."""
    return integer(name, value, at_least=1, advice=advice)


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    below: float = math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    advice: str = "",
) -> float:
    """Returns `value` as a finite float.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        above: bound that is itself refused.
        below: the same from the other side.
        at_least: bound that is itself accepted.
        at_most: the same from the other side.
        advice: a sentence that ends the message.

    Returns:
        The number.

    Raises:
        ValueError: `value` is no real number, not finite, or outside the bounds.

    Example:
        >>> number("tolerance", 0.02, above=0)
        0.02
    """
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        found = math.inf if is_too_large(value) else float(value)
        if math.isfinite(found) and above < found < below and at_least <= found <= at_most:
            return found
    if above == 0 and below == at_most == math.inf:
        expected = "a positive finite number"
    else:
        bounds = {"above": above, "at least": at_least, "below": below, "at most": at_most}
        stated = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
        expected = " ".join(["a finite number", " and ".join(stated)]).rstrip()
    raise ValueError(_message(name, expected, value, advice))


def learning_rates(name: str, value: Any) -> tuple[float, ...]:
    """Returns a list of learning rates as floats.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        ValueError: `value` is no list, empty, or has what is no positive finite number.

    Example:
        >>> learning_rates("rates", [0.01, 1])
        (0.01, 1.0)
    """
    if not (isinstance(value, list | tuple) and value):
        raise ValueError(_message(name, "a list of learning rates", value, ""))
    return tuple(number(f"{name}[{index}]", rate, above=0) for index, rate in enumerate(value))


def is_too_large(value: Any) -> bool:
    """Whether a number is an integer or a fraction that is larger than any float."""
    # NumPy's short floats cannot be compared with the largest float without a warning.
    return isinstance(value, numbers.Rational) and bool(abs(value) > sys.float_info.max)  # type: ignore[operator]


def flag(name: str, value: Any, *, advice: str = "") -> bool:
    """Returns `value`, True or False; raises ValueError for anything else."""
    if isinstance(value, bool):
        return value
    raise ValueError(_message(name, "True or False", value, advice))


def one_of(name: str, value: Any, options: Iterable[Any], *, advice: str = "") -> Any:
    """Returns `value` if it is one of `options`.

    Raises:
        ValueError: it is not; the message names them all, and the nearest one.

    Example:
        >>> one_of("mode", "scales", ("scales", "weights"))
        'scales'
    """
    known = list(options)
    # Compared one by one: what was given need not be hashable, nor equal to itself only.
    if any(type(value) is type(option) and value == option for option in known):
        return value
    names = [option for option in known if isinstance(option, str)]
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    hint = f"Did you mean {near[0]!r}?" if near else ""
    expected = f"one of {', '.join(map(repr, known))}"
    raise ValueError(_message(name, expected, value, " ".join([hint, advice]).strip()))


def text(name: str, value: Any, *, advice: str = "") -> str:
    """Returns `value`, a string that is not empty; raises ValueError for anything else."""
    if isinstance(value, str) and value:
        return value
    raise ValueError(_message(name, "a string of one character or more", value, advice))


def callbacks(value: Any) -> list[keras.callbacks.Callback]:
    """Returns a list or tuple of Keras callbacks, or None, as a list.

    Raises:
        ValueError: `value` is something else.
    """
    if value is None:
        return []
    is_list = isinstance(value, list | tuple)
    if not is_list or not all(isinstance(one, keras.callbacks.Callback) for one in value):
        raise ValueError(
            "callbacks must be a list or tuple of keras.callbacks.Callback objects, got "
            f"{value!r}. Put a single one in brackets, and call those that are classes."
        )
    return list(value)


def _message(name: str, expected: str, value: Any, advice: str) -> str:
    given = repr(value)
    if len(given) > 200:
        given = f"{given[:200]}..."
    return " ".join([f"{name} must be {expected}, got {given}.", advice]).rstrip()
