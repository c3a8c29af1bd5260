"""Refuses recurrent layers whose steps, or whose one output, cannot be reached."""

from typing import Any

import keras

from keras_lsc.stability.graph import Call, Graph
from keras_lsc.stability.layers import hidden_recurrent_layer, is_recurrent
from keras_lsc.stability.recorder import directions_of

_WITH_IMAGES_AS_STATE = (
    keras.layers.ConvLSTM1D,
    keras.layers.ConvLSTM2D,
    keras.layers.ConvLSTM3D,
)


def validate(graph: Graph) -> None:
    """Raises ValueError, naming the layer, where a recurrent layer is not supported."""
    for call in graph.calls:
        layer = call.layer
        if isinstance(layer, _WITH_IMAGES_AS_STATE):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) has a state that is an image; "
                "convolutional recurrent layers are not supported."
            )
        if is_recurrent(layer):
            _refuse_unsupported_bidirectional(layer)
            _refuse_unknown_arguments(call)
            continue
        inner = hidden_recurrent_layer(layer)
        if inner is not None:
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) hides the recurrent layer "
                f"{inner.name!r} in its call(), where its steps cannot be reached. Use the "
                "recurrent layer directly in a Sequential or functional model (nested models "
                "and Bidirectional are looked into), or give the outer layer a `cell`."
            )


def _refuse_unsupported_bidirectional(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Bidirectional):
        return
    if layer.merge_mode is None:
        raise ValueError(
            f"Bidirectional layer {layer.name!r} has merge_mode=None: its two outputs have no "
            'common depth transition. Use "concat", "sum", "ave" or "mul".'
        )
    for direction in directions_of(layer):
        if len(direction.cells) > 1:
            raise ValueError(
                f"Bidirectional layer {layer.name!r} runs stacked cells. Use one Bidirectional "
                "layer per cell."
            )


def _refuse_unknown_arguments(call: Call) -> None:
    unknown = set(call.by_name) - {"initial_state", "mask", "training"}
    if unknown:
        raise ValueError(
            f"Recurrent layer {call.layer.name!r} is called with {sorted(unknown)}. Only its input "
            "sequence, initial_state, mask and training are supported."
        )
