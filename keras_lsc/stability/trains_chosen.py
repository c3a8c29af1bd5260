"""A model that trains some variables of the one in it, and leaves the others alone."""

from typing import Any

import keras

from keras_lsc import backend
from keras_lsc.stability.devices import over_devices, whole_batches


class TrainsChosen(keras.Model):
    """A model whose `trainable_variables`, which a subclass chooses, are all that it trains."""

    @property
    def non_trainable_variables(self) -> list[Any]:
        """All other variables, those of the wrapped model included."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in trained]

    @property
    def trainable_weights(self) -> list[Any]:
        """The same as `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[Any]:
        """`non_trainable_variables` that are weights."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [weight for weight in self.weights if id(weight) not in trained]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, on rows that are split over the devices of a distribution."""
        return super().__call__(over_devices(inputs), *args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, with batches of any size over the devices of a distribution."""
        self.refuse_mirrored()
        with whole_batches():
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As of Keras, with a batch of any size over the devices of a distribution."""
        self.refuse_mirrored()
        with whole_batches():
            return super().train_on_batch(*args, **kwargs)

    def refuse_mirrored(self) -> None:
        """Raises RuntimeError for a model in the scope of a strategy of `tf.distribute`.

        Its copies would each go by the radii of their own rows.
        """
        if any(backend.is_mirrored(variable) for variable in self.variables):
            raise RuntimeError(
                "The model was built in the scope of a strategy of tf.distribute, under which its "
                "radii cannot be trained by gradients. Build a copy outside of strategy.scope(), "
                "stabilise that, and hand its weights over: "
                "model.set_weights(stabilised.get_weights())."
            )
