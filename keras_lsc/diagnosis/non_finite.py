"""Where the first NaN or infinity of a network comes from."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.diagnosis.findings import Finding
from keras_lsc.stability.finite import non_finite_weights
from keras_lsc.stability.taps import Taps

Array = np.ndarray


def bad_weight(model: keras.Model) -> Finding | None:
    """The first weight of a model that holds a NaN or an infinity."""
    for path, count, size in non_finite_weights(model):
        what = f"{count} of the {size} values of weight {path!r} are NaN or infinite."
        return Finding("weight_not_finite", path, what)
    return None


def bad_input(arrays: list[Array]) -> Finding | None:
    """The first input that holds a NaN or an infinity."""
    for k, array in enumerate(arrays):
        if array.dtype.kind == "f":
            bad = ~np.isfinite(array)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                what = (
                    f"{int(bad.sum())} of the {array.size} values of input {k} are NaN or "
                    f"infinite, the first at {first}."
                )
                return Finding("input_not_finite", None, what)
    return None


def overflow(taps: Taps, rows: list[Array], structure: Any) -> Finding | None:
    """The first call whose outputs hold a NaN or an infinity, and the operation that made it."""
    given = tree.map_structure(ops.convert_to_tensor, tree.pack_sequence_as(structure, rows))

    def run() -> list[Any]:
        with taps.untouched():
            return taps.run(given, taps.nothing(len(rows[0]))).outputs

    for call, output in zip(taps.calls, run(), strict=True):
        values = ops.convert_to_numpy(ops.cast(output, "float32"))
        bad = ~np.isfinite(values)
        if bad.any():
            operation = backend.first_non_finite_operation(run)
            made = f" by the operation {operation!r}" if operation else ""
            what = (
                f"{call.name!r} is the first layer to give out NaN or infinity, "
                f"{int(bad.sum())} of {bad.size} values, made{made} from finite weights and inputs."
            )
            return Finding("overflow", call.name, what)
    return None
