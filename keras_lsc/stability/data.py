"""Draws input sequences from whatever `fit` accepts, and checks them."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

Array = Any

# Sequences that stabilising looks at: at least and at most, and above the least of so many bytes.
_ROWS = (384, 3072)
_BYTES = 2**28


def draw_rows(data: Any, count: int, seed: int, inputs: Any) -> list[np.ndarray]:
    """Returns up to `count` rows of every model input, drawn by NumPy from `seed`.

    Args:
        data: an array or a nest of arrays `(rows, ...)`, or batches of them with or without
            labels: `keras.utils.PyDataset`, `tf.data.Dataset`, torch `DataLoader`, any iterable.
            From an iterable the first rows are taken.
        count: how many rows; fewer come back if the data has fewer.
        seed: Integer, seed of the draw.
        inputs: the symbolic inputs of the model, flat or as `input_structure` gives them.

    Returns:
        One array an input, all with the same number of rows.

    Raises:
        TypeError: the data is not numeric, or complex.
        ValueError: no rows, rows of unequal number, a shape the model does not take, NaN or
            infinite values.
    """
    if is_batched(data):
        rows = _first_rows(batches_of(data, seed), count, inputs)
    else:
        arrays = [_to_numpy(leaf) for leaf in in_order(data, inputs)]
        _check_equal_length(arrays)
        chosen = np.random.default_rng(seed).permutation(len(arrays[0]))[:count]
        rows = [array[chosen] for array in arrays]
    _check(rows, tree.flatten(inputs))
    return rows


def rows_to_draw(inputs: Any) -> int:
    """How many sequences stabilising looks at, by the nest of a model's symbolic inputs.

    The mean radius of some nets (relu) differs much from sequence to sequence. More are drawn of
    small ones only, to bound the memory of the copy.
    """
    row = sum(
        4 * math.prod(size or 1000 for size in leaf.shape[1:]) for leaf in tree.flatten(inputs)
    )
    return min(max(_BYTES // row, _ROWS[0]), _ROWS[1])


def hold_out(rows: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sequences to work on, and a third of them to check what came of it.

    Raises:
        ValueError: there is a single one.
    """
    count = len(rows[0])
    if count < 2:
        raise ValueError(
            "x has a single sequence; at least two are needed, one to train on and one to check."
        )
    held_out = max(1, count // 3)
    return [array[held_out:] for array in rows], [array[:held_out] for array in rows]


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs of a built model in the nest in which it takes its inputs."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def in_order(data: Any, inputs: Any) -> list[Any]:
    """The leaves of `data` in the order of the model's inputs, paired as `fit` pairs them.

    Args:
        data: a nest. A dictionary gives the inputs by the keys under which the model takes them
            or, where these are no keys, by their names; what else it holds is left out.
        inputs: the symbolic inputs of the model, flat or as `input_structure` gives them.

    Returns:
        One leaf an input, where the data has as many.

    Raises:
        ValueError: a dictionary lacks an input.
    """
    if not isinstance(data, dict):
        is_nest = isinstance(data, list | tuple) and isinstance(inputs, list | tuple)
        if is_nest and len(data) == len(inputs):
            pairs = zip(data, inputs, strict=True)
            return [leaf for part, symbolic in pairs for leaf in in_order(part, symbolic)]
        leaves = tree.flatten(data)
        if (
            leaves
            and isinstance(data, list)
            and all(isinstance(leaf, int | float) for leaf in leaves)
        ):
            return [_of_numbers(data)]
        return leaves
    if isinstance(inputs, dict) and set(inputs) <= set(data):
        # Sorted, as Keras flattens dictionaries.
        return [leaf for key in sorted(inputs) for leaf in in_order(data[key], inputs[key])]
    names = [symbolic.name for symbolic in tree.flatten(inputs)]
    if set(names) <= set(data):
        return [data[name] for name in names]
    wanted = sorted(inputs) if isinstance(inputs, dict) else sorted(names)
    raise ValueError(
        f"x is a dict with the keys {sorted(data, key=str)}, but the inputs of the model are named "
        f"{wanted}."
    )


def _of_numbers(rows: list[Any]) -> np.ndarray:
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise ValueError(
            "The input x is a list of lists of unequal lengths. Pad the sequences to one length, "
            "and mask the padding."
        ) from error


def is_batched(data: Any) -> bool:
    """Whether `data` yields batches (a dataset) rather than being the rows themselves."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    is_rows = hasattr(data, "__array__") or hasattr(data, "shape") or isinstance(data, list | tuple)
    return not is_rows and not isinstance(data, dict | str) and isinstance(data, Iterable)


def batches_of(data: Any, seed: int | None = None) -> Iterator[Any]:
    """The batches of a dataset: those of a `PyDataset` in an order drawn by a seed, where given.

    Raises:
        ValueError: a `PyDataset` has none.
    """
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            # It has no end.
            yield from (data[index] for index in itertools.count())
        elif not data.num_batches:
            raise ValueError("The PyDataset given as x has no batches: its length is 0.")
        else:
            order = np.arange(data.num_batches)
            if seed is not None:
                order = np.random.default_rng(seed).permutation(order)
            for index in order:
                yield data[int(index)]
    else:
        yield from data


def _first_rows(batches: Iterable[Any], count: int, inputs: Any) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = []
    taken = 0
    for batch in batches:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        parts.append([_to_numpy(leaf) for leaf in in_order(x, inputs)])
        taken += len(parts[-1][0])
        if taken >= count:
            break
    if not parts:
        raise ValueError("The dataset given as x yielded no batch; at least one is needed.")
    try:
        return [np.concatenate(leaves)[:count] for leaves in zip(*parts, strict=True)]
    except ValueError as error:
        shapes = sorted({str(part[0].shape[1:]) for part in parts})
        raise ValueError(
            f"The batches given as x have rows of different shapes: {', '.join(shapes)}. Pad "
            "them to one length and mask the padding."
        ) from error


def _to_numpy(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf) if isinstance(leaf, list | int | float) else leaf
    if not isinstance(array, np.ndarray):
        array = keras.ops.convert_to_numpy(array)
    # For NumPy, lengths of time are integers, and complex numbers can be cut down to real ones.
    if not (array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"):
        raise TypeError(
            f"The input x has dtype {array.dtype}, which is not numeric. Expected arrays of "
            "floats or integers, such as the model's own inputs."
        )
    if array.ndim == 0:
        raise ValueError(f"The input x is the single number {array!r}; expected an array of rows.")
    return array


def _check_equal_length(arrays: list[np.ndarray]) -> None:
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"The input x has {sorted(lengths)} rows; expected at least one row, and the same "
            "number for every input of the model."
        )


def _check(rows: list[np.ndarray], inputs: list[Any]) -> None:
    if len(rows) != len(inputs):
        raise ValueError(
            f"The model has {len(inputs)} input(s), but x has {len(rows)} array(s): "
            f"{[array.shape for array in rows]}."
        )
    for array, declared in zip(rows, inputs, strict=True):
        expected = tuple(declared.shape)[1:]
        given = array.shape[1:]
        # Keras adds and takes away an axis of size 1 at the end.
        matches = any(
            len(shape) == len(expected)
            and all(want in (None, have) for want, have in zip(expected, shape, strict=True))
            for shape in (given, (*given, 1), given[:-1] if given[-1:] == (1,) else given)
        )
        if not matches:
            raise ValueError(
                f"Input {declared.name!r} takes rows of shape {expected}, but x has rows of shape "
                f"{array.shape[1:]}."
            )
        bad = ~np.isfinite(array.astype("float32", copy=False))
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"The input x holds {int(bad.sum())} NaN or infinite value(s), the first at "
                f"{where} of the drawn rows. Clean the data first."
            )
