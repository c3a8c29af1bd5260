"""Which weights of a model have to stay as they are, because a layer that holds them is frozen."""

from typing import Any

import keras


def frozen_variables(layer: Any) -> set[int]:
    """The `id`s of all variables inside a frozen layer of a model or layer, at any depth.

    Keras' own `fit` trains what is inside a `Bidirectional(..., trainable=False)`, or inside any
    other layer that was frozen before the one in it was made; here a frozen layer is frozen with
    all it holds, whatever that says of itself.

    Args:
        layer: a model, or one layer of it, that may itself be frozen.

    Returns:
        A set of ids of variables; a weight that a frozen and another layer share is among them.

    Example:
        >>> from keras import layers
        >>> both = layers.Bidirectional(layers.GRU(4), trainable=False)
        >>> model = keras.Sequential([keras.Input((5, 3)), both, layers.Dense(2)])
        >>> frozen_variables(model) == {id(variable) for variable in both.variables}
        True
    """
    frozen: set[int] = set()
    pending: list[Any] = [layer]
    seen: set[int] = set()
    while pending:
        inner = pending.pop()
        if isinstance(inner, list | tuple):
            pending.extend(inner)
        elif isinstance(inner, dict):
            pending.extend(inner.values())
        elif isinstance(inner, keras.Layer) and id(inner) not in seen:
            seen.add(id(inner))
            if inner.trainable:
                pending.extend(vars(inner).values())
            else:
                frozen.update(id(variable) for variable in inner.variables)
    return frozen
