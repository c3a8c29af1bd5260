"""The weights of a model in the course of its training."""

import keras


def bring_weights(callback: keras.callbacks.Callback) -> keras.Model:
    """Returns the model of a callback, with its weights.

    On JAX a training has them elsewhere, until the callback's model is asked for.
    """
    return callback.model
