"""Finds weights that are not numbers, and refuses models that have them."""

import keras
import numpy as np
from keras import ops


def non_finite_weights(model: keras.Model) -> list[tuple[str, int, int]]:
    """The weights that hold NaN or infinite values: path, number of these, number of all."""
    found = []
    for weight in model.weights:
        if "float" in weight.dtype:
            values = ops.convert_to_numpy(ops.cast(weight, "float32"))
            count = int((~np.isfinite(values)).sum())
            if count:
                found.append((weight.path, count, values.size))
    return found


def refuse_non_finite_weights(model: keras.Model) -> None:
    """Raises ValueError if weights of a model are NaN or infinite; names the first of them."""
    bad = non_finite_weights(model)
    if bad:
        path, count, size = bad[0]
        others = f", and {len(bad) - 1} more weight(s) hold some" if len(bad) > 1 else ""
        raise ValueError(
            f"Weight {path!r} of model {model.name!r} has {count} NaN or infinite of {size} "
            f"values{others}: there is nothing to measure. Load weights from before it diverged, "
            "or make the model anew."
        )
