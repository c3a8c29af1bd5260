"""The matrices of a model that a method may draw anew, gate by gate."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_lsc.layers import LRU, LRUBlock
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.layers import is_recurrent, is_weighted
from keras_lsc.stability.parametrization import gate_blocks, is_matrix
from keras_lsc.stability.placing import place
from keras_lsc.stability.recorder import directions_of
from keras_lsc.stability.taps import leaves

Array = np.ndarray

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
# Their matrices are no draw of independent entries.
_OF_THEIR_OWN = (LRU, LRUBlock)


@dataclass(frozen=True)
class Matrix:
    """A weight as one linear map a gate, from what is read to what is given out.

    Attributes:
        layer: the layer or the cell that it is of.
        weight: the variable.
        blocks: number of gates, side by side along the last axis.
        rows: number of inputs that an output reads, those of a convolution at all positions.
        field: number of these positions.
        is_recurrent: whether it reads the state of the step before.
        swapped: whether the axes of inputs and outputs are the other way about.
    """

    layer: Any
    weight: Any
    blocks: int
    rows: int
    field: int = 1
    is_recurrent: bool = False
    swapped: bool = False

    @property
    def columns(self) -> int:
        """Number of outputs of a gate."""
        return math.prod(self.weight.shape) // self.rows // self.blocks

    @property
    def fan_out(self) -> int:
        """Number of outputs of a gate that an input reaches."""
        return self.field * self.columns

    def draw(self, entries: Callable[["Matrix"], Array]) -> None:
        """Gives every gate the entries of a call, `(rows, columns)`."""
        self.place(np.concatenate([entries(self) for _ in range(self.blocks)], axis=1))

    def scale(self, factors: Array) -> None:
        """Multiplies the gates by factors, `(blocks,)`."""
        value = np.array(ops.convert_to_numpy(self.weight.value))
        self.place(self._flat(value) * np.repeat(factors, self.columns))

    def values(self) -> Array:
        """The entries, `(rows, blocks * columns)`, in float64."""
        return self._flat(np.array(ops.convert_to_numpy(self.weight.value), "float64"))

    def place(self, entries: Array) -> None:
        """Gives the weight entries `(rows, blocks * columns)`; its constraint holds."""
        shape = self.weight.shape
        if self.swapped:
            shape = (*shape[:-2], shape[-1], shape[-2])
        value = entries.reshape(shape)
        place(self.weight, np.swapaxes(value, -1, -2) if self.swapped else value)

    def _flat(self, value: Array) -> Array:
        return (np.swapaxes(value, -1, -2) if self.swapped else value).reshape(self.rows, -1)


def matrices_of(model: keras.Model) -> list[Matrix]:
    """The matrices of a model that may be moved, in the order of its layers.

    Those of dense layers, convolutions, attention and recurrent cells; not embeddings, linear
    recurrent units, whose draws are of their own, and what is frozen.

    Raises:
        ValueError: there are none.
    """
    frozen = frozen_variables(model)
    found: dict[int, Matrix] = {}
    all_frozen = False
    for layer in leaves(model):
        for matrix in _of_layer(layer):
            if id(matrix.weight) in frozen or not matrix.weight.trainable:
                all_frozen = True
            else:
                found.setdefault(id(matrix.weight), matrix)
    if not found:
        why = (
            "all of its matrices are frozen; set trainable=True on the layers to draw anew"
            if all_frozen
            else "it has no dense, convolutional, attention or recurrent layer with a matrix "
            "(embeddings and linear recurrent units have draws of their own)"
        )
        raise ValueError(f"Model {model.name!r} has nothing to draw: {why}.")
    return list(found.values())


def _of_layer(layer: Any) -> Iterator[Matrix]:
    if isinstance(layer, _OF_THEIR_OWN) or not layer.built:
        return
    if isinstance(layer, layers.TimeDistributed):
        yield from _of_layer(layer.layer)
    elif is_recurrent(layer):
        for direction in directions_of(layer):
            for cell in direction.cells:
                yield from _of_cell(cell)
    elif isinstance(layer, _ATTENTION):
        for weight in layer.weights:
            if len(weight.shape) == 3 and not weight.path.endswith("bias"):
                reads_heads = "attention_output" in weight.path
                rows = math.prod(weight.shape[:-1]) if reads_heads else weight.shape[0]
                yield Matrix(layer, weight, 1, rows)
    elif is_weighted(layer):
        for weight in layer.weights:
            if is_matrix(weight):
                yield _of_kernel(layer, weight)


def _of_cell(cell: Any) -> Iterator[Matrix]:
    width = getattr(cell, "units", getattr(cell, "filters", None))
    for weight in cell.weights:
        if is_matrix(weight):
            shape = weight.shape
            blocks = gate_blocks(shape, width)
            field = math.prod(shape[:-2])
            is_recurrent = "recurrent" in weight.name
            yield Matrix(cell, weight, blocks, math.prod(shape[:-1]), field, is_recurrent)


def _of_kernel(layer: Any, weight: Any) -> Matrix:
    shape = weight.shape
    field = math.prod(shape[:-2])
    if isinstance(layer, _TRANSPOSED):
        return Matrix(layer, weight, 1, field * shape[-1], field, swapped=True)
    if "depthwise" in weight.name or isinstance(layer, layers.DepthwiseConv2D):
        return Matrix(layer, weight, 1, field, field)
    return Matrix(layer, weight, 1, field * shape[-2], field)
