"""Recurrent layers of torch: `torch.nn.LSTM`, `GRU` and `RNN`.

A module's weights are `(gates * units, features)`, those of Keras their transpose. LSTMs stack
their gates in the same order; a GRU of torch begins with the reset gate, one of Keras with the
update gate. torch has two biases, which are one in Keras but for a GRU's.
"""

import re
from collections.abc import Mapping
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

_MODULES = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
_NAME = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")


def from_torch(
    source: Any,
    *,
    prefix: str = "",
    activation: str | None = None,
    return_sequences: bool = True,
    dtype: str | None = None,
) -> Any:
    """Returns a `keras.Sequential` that computes what a recurrent module of torch computes.

    The result takes the batch first, whatever `batch_first` of the module is. Dropout is no
    weight and is not carried over. torch is not imported: a dictionary of arrays will do, such as
    `safetensors.numpy.load_file` reads.

    Args:
        source: a `torch.nn.LSTM`, `GRU` or `RNN`, of any number of layers, in one direction or two;
            or the state dictionary of one, of tensors or arrays.
        prefix: what the names of its weights begin with in the state dictionary of a larger
            module, such as "encoder.lstm.".
        activation: "tanh" or "relu", of an `RNN`; without it that of the module, or tanh.
        return_sequences: whether to return the outputs of all steps, as torch does, or those of the
            last one.
        dtype: dtype of the model; that of `keras.config.floatx()` without it.

    Returns:
        The model, built for sequences of any length. Its layers are named "lstm_l0" and so on.

    Raises:
        ValueError: there is no recurrent layer under the prefix, or weights are missing, are left
            over, do not fit, or are of a projection (`proj_size`), which Keras does not have.

    Example:
        >>> weights = {"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.eye(8, 2)}
        >>> model = from_torch(weights)
        >>> model.layers[0].name, model.output_shape
        ('lstm_l0', (None, None, 2))
    """
    prefix = arguments.text("prefix", prefix) if prefix != "" else ""
    return_sequences = arguments.flag("return_sequences", return_sequences)
    of_module = getattr(source, "nonlinearity", None)
    activation = arguments.one_of("activation", activation or of_module or "tanh", ("tanh", "relu"))
    weights = _under(prefix, _arrays(source))
    stack = _stack(weights, activation)
    names = [f"{directions[0].kind.lower()}_l{k}" for k, directions in enumerate(stack)]
    return to_keras(stack, names=names, return_sequences=return_sequences, dtype=dtype)


def to_torch(source: Any) -> Any:
    """Returns a module of torch that computes what recurrent Keras layers compute.

    Dropout is no weight and is not carried over; the module returns the outputs of all steps,
    whatever `return_sequences` says.

    Args:
        source: LSTM, GRU or SimpleRNN, or a Bidirectional that concatenates; or a list or a
            `keras.Sequential` of such layers, alike in kind and units, which become the layers
            of one module.

    Returns:
        `torch.nn.LSTM`, `GRU` or `RNN` with `batch_first=True`, on the CPU, in the dtype of the
        weights.

    Raises:
        ValueError: a layer of another kind, without weights, or with what torch does not have: a
            GRU with `reset_after=False`, other activations; or layers that differ in kind, units,
            bias or directions.

    Example:
        >>> import keras
        >>> layer = keras.layers.GRU(4)
        >>> layer.build((None, 7, 3))
        >>> to_torch(layer)  # doctest: +SKIP
        GRU(3, 4, batch_first=True)
    """
    from keras_lsc.backend.torch_modules import recurrent

    stack = from_keras(source, "torch")
    first = stack[0][0]
    _refuse_unlike(stack)
    options = {"nonlinearity": first.activation} if first.kind == "SimpleRNN" else {}
    weights = {
        name: array
        for k, directions in enumerate(stack)
        for one, suffix in zip(directions, ("", "_reverse"), strict=False)
        for name, array in _named(one, f"l{k}{suffix}").items()
    }
    return recurrent(
        _MODULES[first.kind],
        first.features,
        first.units,
        weights,
        num_layers=len(stack),
        bias=first.bias is not None,
        bidirectional=len(stack[0]) == 2,
        **options,
    )


def _named(one: Recurrence, place: str) -> dict[str, np.ndarray]:
    """The weights of a layer under torch's names."""
    named = {
        f"weight_ih_{place}": exchanged(one.kernel, one.kind).T,
        f"weight_hh_{place}": exchanged(one.recurrent_kernel, one.kind).T,
    }
    if one.bias is not None:
        by_input, by_state = exchanged(one.bias, one.kind)
        named |= {f"bias_ih_{place}": by_input, f"bias_hh_{place}": by_state}
    return named


def _arrays(source: Any) -> dict[str, Any]:
    state = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise ValueError(
            "source must be a module of torch or a dictionary from names to arrays, got "
            f"{source!r:.200}."
        )
    return dict(state)


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        # NumPy has no bfloat16, and reads nothing that is on another device.
        value = value.detach().cpu()
        value = value if str(value.dtype) == "torch.float64" else value.float()
        value = value.numpy()
    return as_float(value)


def _under(prefix: str, weights: dict[str, Any]) -> dict[str, Any]:
    found = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    if "weight_hh_l0" in found:
        return found
    end = "weight_hh_l0"
    others = sorted(repr(name.removesuffix(end)) for name in weights if name.endswith(end))
    advice = (
        f"There are recurrent layers under prefix={' and '.join(others)}."
        if others
        else "Give the module or the state dictionary of a torch.nn.LSTM, GRU or RNN."
    )
    raise ValueError(f"There is no weight named {prefix + end!r}. {advice}")


def _stack(weights: dict[str, Any], activation: str) -> list[Directions]:
    if "weight_hr_l0" in weights:
        raise ValueError(
            "This LSTM projects its outputs (proj_size); those of Keras do not. Use one without "
            "a projection."
        )
    unknown = sorted(name for name in weights if not _NAME.fullmatch(name))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no weights of a torch.nn.LSTM, GRU or RNN. Give the recurrent "
            "module alone, or the prefix of its weights."
        )
    depth = 1 + max(int(name.split("_l")[1].removesuffix("_reverse")) for name in weights)
    suffixes = ("", "_reverse") if "weight_hh_l0_reverse" in weights else ("",)
    has_bias = "bias_ih_l0" in weights
    parts = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if has_bias else [])]
    expected = [f"{p}_l{k}{s}" for k in range(depth) for s in suffixes for p in parts]
    differing = sorted(set(expected) ^ set(weights))
    if differing:
        raise ValueError(
            f"A network of {depth} layers has the weights {', '.join(expected)}; missing or left "
            f"over: {', '.join(differing)}."
        )
    arrays = {name: _array(weights[name]) for name in expected}
    return [
        tuple(_recurrence(arrays, f"l{k}{suffix}", has_bias, activation) for suffix in suffixes)
        for k in range(depth)
    ]


def _recurrence(
    arrays: dict[str, np.ndarray], place: str, has_bias: bool, activation: str
) -> Recurrence:
    by_state = arrays[f"weight_hh_{place}"]
    kinds = {gates: kind for kind, gates in GATES.items()}
    gates = by_state.shape[0] / by_state.shape[-1] if by_state.ndim == 2 else 0
    if gates not in kinds:
        raise ValueError(
            f"weight_hh_{place} has the shape {by_state.shape}; that of n units is (4 n, n) in an "
            "LSTM, (3 n, n) in a GRU and (n, n) in an RNN."
        )
    kind = kinds[gates]
    bias = None
    if has_bias:
        given = [arrays[f"bias_ih_{place}"], arrays[f"bias_hh_{place}"]]
        bias = exchanged(np.stack(given), kind)
    return Recurrence(
        kind,
        exchanged(arrays[f"weight_ih_{place}"].T, kind),
        exchanged(by_state.T, kind),
        bias,
        activation if kind == "SimpleRNN" else "tanh",
    )


def _refuse_unlike(stack: list[Directions]) -> None:
    said = [
        (one.kind, one.units, one.activation, one.bias is not None, len(directions))
        for directions in stack
        for one in directions
    ]
    unlike = next((other for other in said if other != said[0]), None)
    if unlike is not None:
        raise ValueError(
            "The layers of one torch module are alike in kind, units, activation, bias and number "
            f"of directions; got {said[0]} and {unlike}. Convert each by itself, "
            "[to_torch(layer) for layer in layers]."
        )
    width = said[0][1] * said[0][4]
    for directions in stack[1:]:
        if directions[0].features != width:
            raise ValueError(
                f"A layer takes {directions[0].features} features, the one before it has {width}. "
                "Give layers that follow on each other."
            )
