"""Giving a weight a value, as its constraint has it."""

from typing import Any

from keras import ops


def place(weight: Any, value: Any) -> None:
    """Gives a weight a value, as its constraint has it.

    Args:
        weight: a variable.
        value: of its shape, of any dtype.
    """
    weight.assign(ops.cast(value, weight.dtype))
    if weight.constraint is not None:
        weight.assign(weight.constraint(weight.value))
