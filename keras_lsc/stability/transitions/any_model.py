"""The transitions of any model: by its graph where that shows them, else by watching a call."""

from typing import Any

import keras
import numpy as np

from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.graph import structure_of
from keras_lsc.stability.transitions import TransitionMap
from keras_lsc.stability.transitions.base import Transitions
from keras_lsc.stability.transitions.watched import WatchedTransitions, has_to_be_watched


def transitions_of(model: keras.Model, rows: list[np.ndarray], structure: Any) -> Transitions:
    """Finds the transitions of a model.

    Args:
        model: a built `keras.Model` of any kind.
        rows: a few sequences, one array an input, flat.
        structure: a nest of the inputs that the model takes.

    Raises:
        ValueError: it has none of a kind that is looked for, or a part that is not supported.
    """
    if has_to_be_watched(model):
        return WatchedTransitions(model, rows, structure)
    return TransitionMap(model)


def draw_and_find(
    model: Any, x: Any, samples: int, seed: int
) -> tuple[Transitions, list[np.ndarray], Any]:
    """Draws sequences of a model's inputs, and finds its transitions.

    Returns:
        The transitions, one array an input, and a nest of the inputs that the model takes.

    Raises:
        TypeError: `model` is no Keras model, or x is not numeric.
        ValueError: the model is not built, or has weights that are not finite or a part that is not
            supported; x does not fit.
    """
    is_watched = isinstance(model, keras.Model) and model.built and has_to_be_watched(model)
    found: Transitions | None = None if is_watched else TransitionMap(model)
    refuse_non_finite_weights(model)
    structure = structure_of(model, x) if is_watched else input_structure(model)
    rows = draw_rows(x, samples, seed, structure)
    return found or WatchedTransitions(model, rows, structure), rows, structure
