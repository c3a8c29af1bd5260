"""The weights through which a layer reads the layer below: what one scale of it is a scale of."""

from typing import Any

import keras
from keras import layers

from keras_lsc.layers import LRU, LRUBlock
from keras_lsc.stability.layers import is_recurrent

# Layers of one matrix from their input.
_OF_A_KERNEL = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


def read_through(layer: keras.Layer) -> list[Any]:
    """The weights that scale all that a layer reads of the layer below, and nothing else.

    Args:
        layer: a built layer.

    Returns:
        Its input kernel(s): of both directions of a `Bidirectional`, of the first cell of a stack.
        A cell of your own names them in `input_weights`, if it has no `kernel`.
        Of attention the output projection; of an `LRUBlock` the gate's matrix and the skip, of
        an `LRU` its input matrix and the feedthrough. Empty for layers that have none.

    Example:
        >>> import keras
        >>> layer = keras.layers.GRU(4)
        >>> layer.build((None, 5, 3))
        >>> [weight.name for weight in read_through(layer)]
        ['kernel']
    """
    if not layer.built:  # a layer that the model holds and never calls
        return []
    if isinstance(layer, layers.Bidirectional):
        return [*read_through(layer.forward_layer), *read_through(layer.backward_layer)]
    if isinstance(layer, layers.TimeDistributed):
        return read_through(layer.layer)
    if isinstance(layer, LRUBlock):
        return [layer.cell.gate.kernel, layer.cell.skip]
    if isinstance(layer, LRU):
        return [layer.cell.input_real, layer.cell.input_imag, layer.cell.feedthrough]
    if is_recurrent(layer):
        cell = layer.cell.cells[0] if hasattr(layer.cell, "cells") else layer.cell
        named = getattr(cell, "input_weights", None)
        return _named(cell, "kernel") if named is None else list(named)
    if isinstance(layer, _ATTENTION):
        return [weight for weight in layer.weights if "attention_output/kernel" in weight.path]
    if isinstance(layer, _SEPARABLE):
        return [layer.pointwise_kernel]
    return _named(layer, "kernel") if isinstance(layer, _OF_A_KERNEL) else []


def _named(layer: keras.Layer, name: str) -> list[Any]:
    return [weight for weight in layer.trainable_variables if weight.name == name][:1]
