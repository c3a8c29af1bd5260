"""The weights of a recurrent layer in one form, which every framework's are read into."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

# How many matrices each kind stacks, in the order in which Keras does: i, f, g, o and z, r, n.
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
_LAYERS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "SimpleRNN": layers.SimpleRNN}


@dataclass(frozen=True)
class Recurrence:
    """The weights of one layer in one direction, in the order and orientation of Keras.

    Attributes:
        kind: "LSTM", "GRU" or "SimpleRNN".
        kernel: what multiplies the inputs, `(features, gates * units)`.
        recurrent_kernel: what multiplies the state, `(units, gates * units)`.
        bias: `(2, gates * units)`, what is added to either product; None for none.
        activation: "tanh", or "relu" for a SimpleRNN.
    """

    kind: str
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None
    activation: str = "tanh"

    def __post_init__(self) -> None:
        features, width = self.kernel.shape
        expected = {
            "kernel": (features, GATES[self.kind] * self.units),
            "recurrent_kernel": (self.units, width),
            "bias": (2, width),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"The {name} of this {self.kind} has the shape {value.shape}; with "
                    f"{features} features and {self.units} units it has to be {shape}. Are all "
                    "weights of one layer?"
                )

    @property
    def features(self) -> int:
        """Number of features of the input."""
        return self.kernel.shape[0]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.recurrent_kernel.shape[0]

    def weights(self) -> list[np.ndarray]:
        """Returns what `set_weights` of the Keras layer takes."""
        matrices = [self.kernel, self.recurrent_kernel]
        if self.bias is None:
            return matrices
        # Only in a GRU, whose reset gate stands between them, are two biases more than their sum.
        return [*matrices, self.bias if self.kind == "GRU" else self.bias.sum(axis=0)]


# A layer: one direction, or two.
Directions = tuple[Recurrence, ...]


def to_keras(
    stack: list[Directions], *, names: list[str], return_sequences: bool, dtype: str | None
) -> Any:
    """Returns a `keras.Sequential` of layers with these weights."""
    dtype = keras.backend.standardize_dtype(dtype)
    made = []
    for k, (directions, name) in enumerate(zip(stack, names, strict=True)):
        one = directions[0]
        options: dict[str, Any] = {
            "activation": one.activation,
            "use_bias": one.bias is not None,
            "return_sequences": return_sequences or k + 1 < len(stack),
            "dtype": dtype,
        }
        if one.kind == "GRU":
            options["reset_after"] = True
        layer = _LAYERS[one.kind](one.units, name=name, **options)
        if len(directions) == 2:
            layer = layers.Bidirectional(layer, name=name, dtype=dtype)
        made.append(layer)
    model = keras.Sequential([keras.Input((None, stack[0][0].features), dtype=dtype), *made])
    for layer, directions in zip(made, stack, strict=True):
        layer.set_weights([w for direction in directions for w in direction.weights()])
    return model


def from_keras(source: Any, target: str) -> list[Directions]:
    """Returns the weights of a layer, of a list of layers, or of a Sequential of them.

    Args:
        source: the layer or layers.
        target: what they are converted to, for messages.

    Raises:
        ValueError: there is none, one is of another kind or not built, or it computes what the
            other framework has no word for.
    """
    return [_directions(layer, target) for layer in _chain(source, target)]


def _chain(source: Any, target: str) -> list[Any]:
    if isinstance(source, keras.Sequential):
        found = list(source.layers)
    elif isinstance(source, keras.Model):
        raise ValueError(
            f"Only a Sequential says in which order its layers follow; got {source.name!r}, a "
            f"{type(source).__name__}. Give its recurrent layers as a list."
        )
    else:
        found = list(source) if isinstance(source, Iterable) else [source]
    known = (*_LAYERS.values(), layers.Bidirectional)
    for layer in found:
        if not isinstance(layer, known):
            name = f" {layer.name!r}" if isinstance(layer, keras.Layer) else ""
            raise ValueError(
                f"LSTM, GRU, SimpleRNN and a Bidirectional of them are converted to {target}; got "
                f"{type(layer).__name__}{name}. Give the recurrent layers alone, as a list."
            )
    if not found:
        raise ValueError("There is no layer to convert. Give an LSTM, a GRU or a SimpleRNN.")
    return found


def _directions(layer: Any, target: str) -> Directions:
    if not isinstance(layer, layers.Bidirectional):
        return (_one(layer, layer.name, target),)
    if layer.merge_mode != "concat":
        raise ValueError(
            f"Bidirectional layer {layer.name!r} has merge_mode={layer.merge_mode!r}; {target} "
            'concatenates. Use merge_mode="concat".'
        )
    backward = layer.backward_layer
    if not backward.go_backwards:
        raise ValueError(f"The second layer of {layer.name!r} does not go backwards.")
    return _one(layer.forward_layer, layer.name, target), _one(backward, layer.name, target, True)


def _one(layer: Any, name: str, target: str, is_backward: bool = False) -> Recurrence:
    kind = next((k for k, known in _LAYERS.items() if isinstance(layer, known)), None)
    if kind is None:
        raise ValueError(f"{name!r} runs a {type(layer).__name__}, which {target} does not have.")
    if not layer.built:
        raise ValueError(f"{kind} {name!r} has no weights yet. Call it, or build it, first.")
    _refuse_what_differs(layer, kind, name, target, is_backward)
    kernel, recurrent_kernel, *biases = (as_float(weight) for weight in layer.get_weights())
    bias = None
    if biases:
        (given,) = biases
        bias = given if kind == "GRU" else np.stack([given, np.zeros_like(given)])
    return Recurrence(kind, kernel, recurrent_kernel, bias, _activation(layer.activation))


def _refuse_what_differs(layer: Any, kind: str, name: str, target: str, backward: bool) -> None:
    allowed = ("tanh", "relu") if kind == "SimpleRNN" else ("tanh",)
    if _activation(layer.activation) not in allowed:
        raise ValueError(
            f"{kind} {name!r} has the activation {_activation(layer.activation)!r}; {target} "
            f"has {' and '.join(allowed)} for it."
        )
    if kind != "SimpleRNN" and _activation(layer.recurrent_activation) != "sigmoid":
        raise ValueError(
            f"{kind} {name!r} has the recurrent activation "
            f"{_activation(layer.recurrent_activation)!r}; {target} has sigmoid."
        )
    if kind == "GRU" and not layer.reset_after:
        raise ValueError(
            f"GRU {name!r} has reset_after=False: its reset gate multiplies the state before the "
            f"product. That of {target} multiplies what comes of the product, so no weights make "
            "the two equal. Use reset_after=True, the default."
        )
    if layer.go_backwards and not backward:
        raise ValueError(
            f"{kind} {name!r} goes backwards, which {target} has in two directions only. Convert "
            "a layer that goes forwards and flip the sequences."
        )


def _activation(function: Any) -> str:
    return getattr(function, "__name__", str(function))


def exchanged(matrix: np.ndarray, kind: str) -> np.ndarray:
    """From the order of Keras' gates to that of torch and Flax NNX, and back.

    They begin a GRU with the reset gate, Keras with the update gate; all else is in one order.
    """
    if kind != "GRU":
        return matrix
    first, second, third = np.split(matrix, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def as_float(value: Any) -> np.ndarray:
    """Returns an array in float64 if it is so, and in float32 otherwise."""
    array = np.asarray(value)
    return array if array.dtype == np.float64 else array.astype(np.float32)
