"""The mask that Keras keeps beside a tensor, read and set by what Keras offers: layers.

Where and how it is kept differs between backends and releases; what a layer is handed does not.
"""

from typing import Any

import keras

Tensor = Any


class _ReadMask(keras.Layer):
    def __init__(self) -> None:
        super().__init__(autocast=False, trainable=False, name="read_mask")
        self.supports_masking = True
        self.built = True

    def compute_mask(self, _inputs: Any, _previous_mask: Any) -> None:
        return None

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        del inputs
        return mask


class _SetMask(keras.Layer):
    def __init__(self) -> None:
        super().__init__(autocast=False, trainable=False, name="set_mask")
        self.supports_masking = True
        self.built = True

    def compute_mask(self, inputs: list[Tensor], _previous_mask: Any) -> Tensor:
        return inputs[1]

    def call(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0]


_read_mask = _ReadMask()
_set_mask = _SetMask()


def mask_of(x: Tensor) -> Tensor | None:
    """Returns the mask that a layer called on `x` would be handed, or None."""
    return _read_mask(x)


def with_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """Returns `x`, a tensor without a mask, with this one for the layers that are called on it."""
    return x if mask is None else _set_mask([x, mask])
