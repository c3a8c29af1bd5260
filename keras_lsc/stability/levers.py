"""What scales the gradient that a layer passes on: what it reads through, or its surrogate."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

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
# Where the slope of an activation is looked at, as the units of one place, and what is flat.
_GRID = np.linspace(-6.0, 6.0, 241, dtype="float32")[None]
_FLAT = 0.5
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)


def read_through(layer: keras.Layer) -> list[Any]:
    """The weights that scale all that a layer reads of the layer below, and nothing else.

    Args:
        layer: a built layer.

    Returns:
        Its input kernel(s): of both directions of a `Bidirectional`, of the first cell of a stack.
        A layer or cell of your own names them in `input_weights`, if it has no `kernel`.
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
    if isinstance(layer, _OF_A_KERNEL):
        return _named(layer, "kernel")
    return list(getattr(layer, "input_weights", ()))


def heights_of_gradient(layer: keras.Layer) -> list[Any]:
    """The logarithms of the heights of a spiking layer's surrogate gradients.

    They scale the gradient that passes the layer, and leave its outputs as they are.

    Args:
        layer: a built layer.

    Returns:
        What its cell has as `variables_of_gradient`, of both directions of a `Bidirectional`.
    """
    if isinstance(layer, layers.Bidirectional):
        directions = (layer.forward_layer, layer.backward_layer)
        return [height for direction in directions for height in heights_of_gradient(direction)]
    if not layer.built or not is_recurrent(layer):
        return []
    return list(getattr(layer.cell, "variables_of_gradient", ()))


def has_flat_activation(layer: keras.Layer) -> bool:
    """Whether the slope of a layer's activation is at most a half everywhere, as of a sigmoid.

    Args:
        layer: a layer; of a recurrent one the cell's activation counts, which of gated cells is
            that of what they remember.
    """
    if isinstance(layer, layers.Bidirectional):
        layer = layer.forward_layer
    activation = getattr(getattr(layer, "cell", layer), "activation", None)
    if activation is None or isinstance(activation, keras.Layer):
        return False
    values = ops.convert_to_numpy(activation(ops.convert_to_tensor(_GRID)))
    return bool(np.abs(np.gradient(values[0], _GRID[0])).max() <= _FLAT)


def bias_beside(layer: keras.Layer) -> Any | None:
    """The bias that is added to what a layer reads through its one matrix.

    Args:
        layer: a built layer.

    Returns:
        A variable whose last axis is that of the matrix; None without one, or where what is read is
        multiplied by several matrices, or by one of more axes, as of a convolution.
    """
    weights = read_through(layer)
    if isinstance(layer, layers.Bidirectional) or len(weights) != 1 or weights[0].ndim != 2:
        return None
    holder = layer.cell if is_recurrent(layer) else layer
    bias = getattr(holder.cells[0] if hasattr(holder, "cells") else holder, "bias", None)
    return None if bias is None or bias.shape[-1] != weights[0].shape[-1] else bias


def _named(layer: keras.Layer, name: str) -> list[Any]:
    return [weight for weight in layer.trainable_variables if weight.name == name][:1]
