"""Forward levelling like LSUV (arXiv 1511.06422): the rival of levelled gradients.

One scale a layer on the weights through which it reads the layer below, so that what they give has
unit variance; biases and recurrent weights stay as they are.
"""

from __future__ import annotations

import keras
import numpy as np

_SEQUENCES = 256


def level_forward(model: keras.Sequential, x: np.ndarray) -> None:
    """Scales every layer's input kernel so that its products have unit variance, bottom to top.

    Args:
        model: built, of recurrent or dense layers; the last one, its head, stays as it is.
        x: its inputs.

    Raises:
        FloatingPointError: a layer gives nothing, or no numbers, to the one above.
    """
    outputs = x[:_SEQUENCES]
    for layer in model.layers[:-1]:
        kernel = getattr(getattr(layer, "cell", layer), "kernel", None)
        if kernel is not None:  # not of an embedding or a mask
            products = keras.ops.convert_to_numpy(keras.ops.matmul(outputs, kernel))
            deviation = float(np.std(products))
            if not 0 < deviation < np.inf:
                raise FloatingPointError(f"What {layer.name!r} reads has deviation {deviation}.")
            kernel.assign(kernel.value / deviation)
        outputs = layer(outputs, training=False)
