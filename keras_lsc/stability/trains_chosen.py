"""A model that trains some variables of the one in it, and leaves the others alone."""

from typing import Any

import keras


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
