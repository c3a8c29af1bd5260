"""The numbers that are a stabilised start: a factor for every matrix, a shift for other weights."""

from collections.abc import Iterable

import numpy as np
from keras import ops

from keras_lsc.stability.parametrization import FASTER, gate_blocks, is_matrix
from keras_lsc.stability.placing import place
from keras_lsc.stability.transitions.found import TakingPart


class Scales:
    """What mode "scales" moves weights by: a logarithm of a factor, or a shift, for every block.

    A matrix is multiplied, any other weight shifted, as a whole or, of a gated cell, gate by gate.
    All numbers are zero where the weights are as they were when this was made.

    Args:
        weights: those that may move.

    Attributes:
        layers: `(numbers,)` of every number, the index of the transitions that its weight shapes.
        together: indices of numbers that may be tried at once, since no two are of one layer.
    """

    def __init__(self, weights: Iterable[TakingPart]):
        self._weights = []
        layers: list[int] = []
        for row in weights:
            blocks = gate_blocks(tuple(row.variable.shape), row.gate_width)
            where = slice(len(layers), len(layers) + blocks)
            first = np.array(ops.convert_to_numpy(row.variable.value))
            self._weights.append((row.variable, first, where))
            layers.extend([row.layer] * blocks)
        self.layers = np.array(layers, int)
        self.together: list[list[int]] = []
        of_layer: dict[int, int] = {}
        for number, layer in enumerate(layers):
            turn = of_layer[layer] = of_layer.get(layer, -1) + 1
            if turn == len(self.together):
                self.together.append([])
            self.together[turn].append(number)

    def put(self, numbers: np.ndarray) -> None:
        """Gives every weight what it is by these numbers, as its constraint has it."""
        for variable, first, where in self._weights:
            blocks = numbers[where]
            if not variable.trainable:
                blocks = FASTER * blocks
            per_column = (
                np.repeat(blocks, first.shape[-1] // len(blocks)) if first.ndim else blocks[0]
            )
            is_scaled = variable.trainable and is_matrix(variable)
            place(variable, first * np.exp(per_column) if is_scaled else first + per_column)
