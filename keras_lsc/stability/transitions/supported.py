"""Which recurrent layers are refused: their steps, or their one output, cannot be reached."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_lsc.stability.graph import Graph
from keras_lsc.stability.layers import hidden_recurrent_layer, is_recurrent
from keras_lsc.stability.recorder import directions_of

_WITH_IMAGES_AS_STATE = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)
_KNOWN_ARGUMENTS = {"initial_state", "mask", "training"}


def validate(graph: Graph) -> None:
    """Raises ValueError, naming the layer, where a recurrent layer is not supported."""
    for call in graph.calls:
        layer = call.layer
        why = unsupported(layer)
        if why is None and is_recurrent(layer):
            why = unknown_arguments(layer, call.by_name)
        elif why is None:
            why = hiding(layer)
        if why is not None:
            raise ValueError(why)


def unsupported(layer: Any) -> str | None:
    """Why the steps of a recurrent layer cannot be looked at; None where they can."""
    if isinstance(layer, _WITH_IMAGES_AS_STATE):
        return (
            f"Layer {layer.name!r} ({type(layer).__name__}) has a state that is an image; "
            "convolutional recurrent layers are not supported."
        )
    if not isinstance(layer, keras.layers.Bidirectional):
        return None
    if layer.merge_mode is None:
        return (
            f"Bidirectional layer {layer.name!r} has merge_mode=None: its two outputs have no "
            'common depth transition. Use "concat", "sum", "ave" or "mul".'
        )
    if any(len(direction.cells) > 1 for direction in directions_of(layer)):
        return (
            f"Bidirectional layer {layer.name!r} runs stacked cells. Use one Bidirectional "
            "layer per cell."
        )
    return None


def unknown_arguments(layer: Any, names: Iterable[str]) -> str | None:
    """Why a call of a recurrent layer with these arguments cannot be; None where it can."""
    unknown = sorted(set(names) - _KNOWN_ARGUMENTS)
    if not unknown:
        return None
    return (
        f"Recurrent layer {layer.name!r} is called with {unknown}. Only its input "
        "sequence, initial_state, mask and training are supported."
    )


def hiding(layer: Any) -> str | None:
    """Why a layer that has a recurrent one in its `call` cannot be looked into, if it has one."""
    inner = hidden_recurrent_layer(layer)
    if inner is None:
        return None
    return (
        f"Layer {layer.name!r} ({type(layer).__name__}) hides the recurrent layer "
        f"{inner.name!r} in its call(), where its steps cannot be reached. Use the "
        "recurrent layer directly in a Sequential or functional model (nested models "
        "and Bidirectional are looked into), or give the outer layer a `cell`. As it is, "
        'stabilize(method="level"), measure, diagnose and lyapunov take the model.'
    )
