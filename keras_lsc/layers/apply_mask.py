"""A mask that is given beside a sequence, instead of being read off it."""

from typing import Any

import keras

Tensor = Any


# Under its first name, as files of version 0.1 have it.
@keras.saving.register_keras_serializable(package="keras_lsc", name="GivenMask")
class ApplyMask(keras.layers.Layer):
    """Passes a sequence on with the mask that stands beside it; layers above respect it.

    `keras.layers.Masking` takes steps of zeros for padding, which is wrong where zeros are inputs.

    Args:
        **kwargs: Other arguments, as `keras.layers.Layer` takes them.

    Example:
        >>> import keras
        >>> x = keras.Input((98, 40), name="x")
        >>> mask = keras.Input((98,), dtype="bool", name="mask")
        >>> outputs = keras.layers.GRU(8)(ApplyMask()([x, mask]))
        >>> keras.Model({"x": x, "mask": mask}, outputs).output_shape
        (None, 8)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Returns the sequence of `[sequence, mask]`."""
        return inputs[0]

    def compute_mask(self, inputs: list[Tensor], previous_mask: Any = None) -> Tensor:
        """Returns the mask of `[sequence, mask]`."""
        del previous_mask
        return inputs[1]

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> Any:
        """Returns the shape of the sequence."""
        return input_shape[0]
