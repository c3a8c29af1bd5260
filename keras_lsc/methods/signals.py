"""What the layers of a model read and give out, on its own data."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_lsc.methods.matrices import Matrix, matrices_of
from keras_lsc.stability.energies import draw, first_of
from keras_lsc.stability.layers import is_recurrent, without_activation
from keras_lsc.stability.levers import read_through
from keras_lsc.stability.masks import mask_of
from keras_lsc.stability.taps import Taps, TapsProbe

Tensor = Any
Array = np.ndarray

_SEQUENCES = 128


class Signal(NamedTuple):
    """What a layer call reads and gives out.

    Attributes:
        argument: what it reads, `(rows, ...)`.
        output: what it gives out, `(rows, ...)`.
        valid: booleans `(rows, steps)`, or `(rows, 1)` without a mask.
    """

    argument: Array
    output: Array
    valid: Array

    def read(self) -> Array:
        """What it reads at valid steps, `(n, features)`."""
        return _at(self.argument, self.valid)

    def given(self) -> Array:
        """What it gives out at valid steps, `(n, units)`."""
        return _at(self.output, self.valid)


def _at(values: Array, valid: Array) -> Array:
    if valid.shape[1] > 1 and values.ndim > 2 and valid.shape[1] == values.shape[1]:
        return values[valid].reshape(-1, values.shape[-1])
    return values[valid.any(axis=1)].reshape(-1, values.shape[-1])


class Reader(NamedTuple):
    """A layer call with the matrices that read its argument, and those that read its state.

    Attributes:
        call: index of the call.
        name: of the call.
        layer: the layer.
        kernels: matrices that read the argument; of a `Bidirectional` two.
        recurrent: matrices that read the states of its cells.
    """

    call: int
    name: str
    layer: Any
    kernels: list[Matrix]
    recurrent: list[Matrix]

    def product(self, kernel: Matrix, argument: Array) -> Array:
        """What the argument makes of each unit before biases and activation, `(n, units)`."""
        if len(kernel.weight.shape) == 2:
            return argument.reshape(-1, argument.shape[-1]) @ kernel.values()
        inner = self.layer.layer if isinstance(self.layer, layers.TimeDistributed) else self.layer
        flat = argument.reshape(-1, *argument.shape[2:]) if inner is not self.layer else argument
        with without_activation(inner):
            output = ops.convert_to_numpy(inner(ops.convert_to_tensor(flat))).astype("float64")
        bias = getattr(inner, "bias", None)
        if bias is not None:
            output = output - ops.convert_to_numpy(bias.value)
        return output.reshape(-1, output.shape[-1])


class Signals(TapsProbe):
    """What the layers with a kernel read and give out, as their weights are at the time.

    Args:
        model: a built model.
        x: arrays of its inputs, in the nest that it takes.
        seed: of the draw of sequences, of which a few are looked at.

    Attributes:
        readers: of every layer with a kernel its first call, in the order of the calls.
        rows: the sequences, one array an input.

    Raises:
        ValueError: there is no such layer that may be moved.
    """

    def __init__(self, model: keras.Model, x: Any, seed: int):
        matrices = {id(matrix.weight): matrix for matrix in matrices_of(model)}
        self.rows, structure = draw(model, x, _SEQUENCES, seed)
        taps = Taps(model, first_of(self.rows, structure), is_reader)
        super().__init__(model, taps, structure, "signals")
        self.readers: list[Reader] = []
        seen: set[int] = set()
        for k, call in enumerate(taps.calls):
            if id(call.layer) in seen:
                continue
            seen.add(id(call.layer))
            read = [id(weight) for weight in read_through(call.layer)]
            kernels = [matrices[key] for key in read if key in matrices]
            inside = {id(weight) for weight in call.layer.weights}
            recurrent = [m for key, m in matrices.items() if key in inside and m.is_recurrent]
            if kernels:
                self.readers.append(Reader(k, call.name, call.layer, kernels, recurrent))
        if not self.readers:
            raise ValueError(
                f"Model {model.name!r} has no dense, convolutional or recurrent layer that may be "
                "moved and whose kernel is known, so no signal to set."
            )

    def call(self, inputs: list[Tensor]) -> dict[str, list[Tensor]]:
        """Arguments, outputs and masks of every call."""
        given, _ = self.parted(inputs)
        ran = self.taps.run(given, self.taps.nothing(ops.shape(inputs[0])[0]))
        ones = ops.ones((ops.shape(inputs[0])[0], 1), dtype="bool")
        # A dense layer is handed none, and passes on the one that its input has.
        masks = [
            mask_of(argument) if mask is None else mask
            for argument, mask in zip(ran.arguments, ran.masks, strict=True)
        ]
        return {
            "argument": [ops.cast(argument, "float32") for argument in ran.arguments],
            "output": [ops.cast(output, "float32") for output in ran.outputs],
            "mask": [ones if mask is None else ops.cast(mask, "bool") for mask in masks],
        }

    def of(self, reader: Reader) -> Signal:
        """What a layer reads and gives out now."""
        found = self.by_batches(self.rows)
        argument, output, mask = (found[key][reader.call] for key in ("argument", "output", "mask"))
        return Signal(argument, output, mask > 0)


_OF_A_KERNEL = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)


def is_reader(layer: keras.Layer) -> bool:
    """Whether a layer reads its argument through one kernel before all else."""
    inner = layer.layer if isinstance(layer, layers.TimeDistributed) else layer
    return is_recurrent(inner) or isinstance(inner, _OF_A_KERNEL)
