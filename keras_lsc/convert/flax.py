"""Recurrent layers of Flax: the cells of `flax.linen`, and those of `flax.nnx` to read.

Flax multiplies from the same side as Keras. Linen has a matrix a gate; NNX stacks them, as i, f, g,
o and r, z, n, where Keras begins a GRU with z. An LSTM's bias is that of the product with the
state; of a GRU in Linen only the last gate has one there, and in NNX none.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_lsc import arguments
from keras_lsc.convert.recurrence import (
    GATES,
    Directions,
    Recurrence,
    as_float,
    exchanged,
    from_keras,
    to_keras,
)

# The letters of a cell's gates in the order of Keras, and those of its inputs and of its state.
_LETTERS = {"LSTM": "ifgo", "GRU": "zrn", "SimpleRNN": ("",)}
_CELLS = {"LSTM": "OptimizedLSTMCell", "GRU": "GRUCell", "SimpleRNN": "SimpleCell"}


def from_flax(
    source: Any,
    *,
    activation: str = "tanh",
    return_sequences: bool = True,
    dtype: str | None = None,
) -> Any:
    """Returns a `keras.Sequential` that computes what recurrent cells of Flax compute.

    Args:
        source: parameters in a nest of dictionaries, such as `init` of a module of Linen returns,
            or a module of NNX; with one LSTM, GRU or simple cell or several, which follow on each
            other in the order of their names (`layers_2` before `layers_10`), and nothing else.
        activation: "tanh" or "relu", of a simple cell; parameters do not say it.
        return_sequences: whether to return the outputs of all steps, as `RNN` does, or those of the
            last one.
        dtype: dtype of the model; that of `keras.config.floatx()` without it.

    Returns:
        The model, built for sequences of any length. Its layers are named "lstm_0" and so on.

    Raises:
        ValueError: there is no recurrent cell, there are other weights beside, or they do not fit.

    Example:
        >>> cell = {"i": {"kernel": np.ones((3, 2))}, "h": {"kernel": np.eye(2)}}
        >>> model = from_flax({"params": {"cell": cell}})
        >>> model.layers[0].name, model.output_shape
        ('simplernn_0', (None, None, 2))
    """
    activation = arguments.one_of("activation", activation, ("tanh", "relu"))
    return_sequences = arguments.flag("return_sequences", return_sequences)
    stack: list[Directions] = [
        (_read(cell, path, activation),) for path, cell in _cells(_tree(source), "")
    ]
    if not stack:
        raise ValueError(
            "There is no LSTM, GRU or simple cell in these parameters. Give what init of a "
            "flax.linen.RNN returns, or a flax.nnx.RNN."
        )
    for (before,), (after,) in itertools.pairwise(stack):
        if after.features != before.units:
            raise ValueError(
                f"A cell takes {after.features} features, the one before it has {before.units}. "
                "Give cells that follow on each other, in the order of their names."
            )
    names = [f"{one.kind.lower()}_{k}" for k, (one,) in enumerate(stack)]
    return to_keras(stack, names=names, return_sequences=return_sequences, dtype=dtype)


def to_flax(source: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a module of Flax that computes what Keras layers compute, and its variables.

    Args:
        source: LSTM, GRU or SimpleRNN, or a list or a `keras.Sequential` of such layers.

    Returns:
        `flax.linen.RNN`, or a `flax.linen.Sequential` of several, which takes the batch first and
        returns the outputs of all steps; and its variables, `{"params": ...}`, of NumPy arrays:
        `module.apply(variables, x)`.

    Raises:
        ValueError: a layer of another kind, without weights, or with what Flax does not have: a
            GRU with `reset_after=False`, or another activation.

    Example:
        >>> import keras
        >>> layer = keras.layers.LSTM(4)
        >>> layer.build((None, 7, 3))
        >>> module, variables = to_flax(layer)  # doctest: +SKIP
        >>> module.apply(variables, np.ones((2, 7, 3))).shape  # doctest: +SKIP
        (2, 7, 4)
    """
    from flax import linen

    stack = from_keras(source, "Flax")
    if any(len(directions) == 2 for directions in stack):
        raise ValueError("Layers in two directions are not converted to Flax: give each by itself.")
    modules, parameters = [], []
    for (one,) in stack:
        dtype = one.kernel.dtype
        options = {"activation_fn": linen.relu} if one.activation == "relu" else {}
        cell = getattr(linen, _CELLS[one.kind])(
            one.units, dtype=dtype, param_dtype=dtype, **options
        )
        modules.append(linen.RNN(cell))
        parameters.append({"cell": _written(one)})
    if len(modules) == 1:
        return modules[0], {"params": parameters[0]}
    named = {f"layers_{k}": found for k, found in enumerate(parameters)}
    return linen.Sequential(modules), {"params": named}


def _written(one: Recurrence) -> dict[str, Any]:
    """The parameters of a Linen cell."""
    gates = GATES[one.kind]
    kernels = np.split(one.kernel, gates, axis=-1)
    recurrent_kernels = np.split(one.recurrent_kernel, gates, axis=-1)
    bias = np.zeros((2, gates * one.units), one.kernel.dtype) if one.bias is None else one.bias
    by_input, by_state = (np.split(row, gates) for row in bias)
    cell: dict[str, Any] = {}
    for k, letter in enumerate(_LETTERS[one.kind]):
        cell[f"i{letter}"] = {"kernel": kernels[k]}
        cell[f"h{letter}"] = {"kernel": recurrent_kernels[k]}
        both = by_input[k] + by_state[k]
        if one.kind == "LSTM":
            cell[f"h{letter}"]["bias"] = both
        elif letter == "n":
            # The reset gate multiplies the second alone.
            cell["in"]["bias"], cell["hn"]["bias"] = by_input[k], by_state[k]
        else:
            cell[f"i{letter}"]["bias"] = both
    return cell


def _tree(source: Any) -> Any:
    if isinstance(source, Mapping):
        return source
    # What is of NNX cannot be there without it.
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(source, nnx.Module):
        return nnx.to_pure_dict(nnx.state(source, nnx.Param))
    raise ValueError(
        "source must be parameters of flax.linen in dictionaries, or a module of flax.nnx; "
        f"got {source!r:.200}. Give the variables that init of a Linen module returned."
    )


def _cells(tree: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every cell in a nest of parameters, in the order of their names."""
    names = set(tree) if isinstance(tree, Mapping) else set()
    if {"dense_i", "dense_h"} <= names or any(
        {f"h{letter}" for letter in letters} <= names for letters in _LETTERS.values()
    ):
        yield path, tree
        return
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"{path.strip('/')} is no weight of an LSTM, GRU or simple cell. Give the parameters "
            "of the recurrent part alone."
        )
    for name in sorted(tree, key=_natural):
        yield from _cells(tree[name], f"{path}/{name}")


def _natural(name: Any) -> tuple[str, int, str]:
    head, _, number = str(name).rpartition("_")
    return (head, int(number), "") if number.isdecimal() else (str(name), -1, "")


def _read(cell: Mapping[str, Any], path: str, activation: str) -> Recurrence:
    # A name with an underscore where the plain one is a word of Python.
    weights = {
        (str(name).rstrip("_"), part): as_float(value)
        for name, parts in cell.items()
        for part, value in parts.items()
    }
    if ("dense_h", "kernel") in weights:
        return _read_stacked(weights, path, activation)
    kind = next(k for k, letters in _LETTERS.items() if ("h" + letters[0], "kernel") in weights)
    letters = _LETTERS[kind]
    expected = {(side + letter, "kernel") for side in "ih" for letter in letters}
    missing = expected - set(weights)
    unknown = {key for key in weights if (key[0], "kernel") not in expected}
    if missing or unknown:
        said = ", ".join(sorted("/".join(key) for key in missing | unknown))
        raise ValueError(f"{path.strip('/')}: missing or unknown in a {kind} cell: {said}.")

    def joined(side: str, part: str) -> np.ndarray:
        zeros = np.zeros(weights["h" + letters[0], "kernel"].shape[-1], np.float32)
        return np.concatenate([weights.get((side + x, part), zeros) for x in letters], axis=-1)

    has_bias = any(part == "bias" for _, part in weights)
    bias = np.stack([joined("i", "bias"), joined("h", "bias")]) if has_bias else None
    return Recurrence(
        kind,
        joined("i", "kernel"),
        joined("h", "kernel"),
        bias,
        activation if kind == "SimpleRNN" else "tanh",
    )


def _read_stacked(
    weights: dict[tuple[str, str], np.ndarray], path: str, activation: str
) -> Recurrence:
    """A cell of NNX, whose gates stand beside each other."""
    by_state = weights["dense_h", "kernel"]
    kinds = {gates: kind for kind, gates in GATES.items()}
    gates = by_state.shape[1] / by_state.shape[0]
    if gates not in kinds or ("dense_i", "kernel") not in weights:
        raise ValueError(
            f"{path.strip('/')}: a kernel of the state of the shape {by_state.shape} is of no "
            "LSTM, GRU or simple cell."
        )
    kind = kinds[gates]
    zeros = np.zeros(by_state.shape[1], by_state.dtype)
    biases = [weights.get((side, "bias")) for side in ("dense_i", "dense_h")]
    bias = None
    if any(given is not None for given in biases):
        bias = np.stack([zeros if given is None else given for given in biases])

    return Recurrence(
        kind,
        exchanged(weights["dense_i", "kernel"], kind),
        exchanged(by_state, kind),
        None if bias is None else exchanged(bias, kind),
        activation if kind == "SimpleRNN" else "tanh",
    )
