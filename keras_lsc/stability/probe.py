"""A model that looks at another one, so that Keras' `predict` compiles and runs the looking."""

from typing import Any

import keras

from keras_lsc import backend
from keras_lsc.stability.devices import over_devices


class ModelProbe(keras.Model):
    """The base of what is measured of a model on batches of its inputs.

    Args:
        model: the model to look at.
        name: of the probe.
        options: others of `keras.Model`.

    Attributes:
        model: the model.
    """

    def __init__(self, model: keras.Model, name: str, **options: Any):
        # Its inputs are those of the model, which casts them itself.
        super().__init__(name=f"{name}_of_{model.name}", autocast=False, **options)
        self.model = model
        self.built = True
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False  # XLA takes minutes to compile what runs for seconds

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, on rows that are split over the devices of a distribution."""
        return super().__call__(over_devices(inputs), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """As of Keras, without advice on how often it is traced: once for every model."""
        with backend.quiet_tracing():
            return super().predict_on_batch(x)
