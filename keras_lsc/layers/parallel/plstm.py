"""What pLSTM has in one dimension and in two: values under keys, read by queries, and gates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parameters import glorot_blocks, numpy_generator
from keras_lsc.layers.precision import PreciseLayer

Tensor = Any

# Between which time constants are drawn, in steps, evenly in their logarithms.
_SHORTEST, _LONGEST = 2.0, 100.0


class SourceTransitionMark(PreciseLayer):
    """The weights of a pLSTM, and what they make of its inputs.

    Keys and queries k become k / sqrt(1 + mean(k^2)), of a mean square below 1: outputs grow no
    faster than inputs.

    Args:
        units: number of features of the output.
        heads: number of memories side by side, each with gates of its own; it divides `units`.
        key_units: number of features of a key.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    def __init__(self, units: int, *, heads: int, key_units: int, seed: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.heads = arguments.positive_integer("heads", heads)
        self.key_units = arguments.positive_integer("key_units", key_units)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        if self.units % self.heads:
            raise ValueError(
                f"units must be a multiple of heads, got units={units} and heads={heads}: every "
                "head has as many features of the output."
            )

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, generator = input_shape[-1], numpy_generator(self.seed)
        inner = self.heads * self.key_units
        self.kernel = self._add_matrix(
            "kernel", (features, self.units), glorot_blocks([self.units], generator)
        )
        # Queries and keys.
        self.address = self._add_matrix(
            "address", (features, 2 * inner), glorot_blocks([inner, inner], generator)
        )
        biases = self._gate_biases(generator)
        self._widths = [len(bias) for bias in biases]
        self.gates = self._add_matrix(
            "gates", (features, sum(self._widths)), glorot_blocks(self._widths, generator)
        )

        def drawn(_shape: tuple, **_: Any) -> np.ndarray:
            return np.concatenate(biases)

        self.gate_bias = self._add_parameter("gate_bias", (sum(self._widths),), drawn)
        self.feedthrough = self._add_parameter("feedthrough", (self.units,), "ones")
        self.built = True

    def _gate_biases(self, generator: np.random.Generator) -> Sequence[np.ndarray]:
        """The initial bias of each gate."""
        raise NotImplementedError

    @property
    def input_weights(self) -> list[Any]:
        """The weights that scale all that is read, and nothing else."""
        return [self.kernel]

    def _read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Queries and keys `(..., heads, key_units, 1)`, values `(..., heads, 1, n)`, and gates.

        The gates are `(..., n, 1, 1)` with n the length of their bias, between 0 and 1.
        """
        values, address, gates = (
            self._product(inputs, weight) for weight in (self.kernel, self.address, self.gates)
        )
        gates = ops.sigmoid(gates + self._value(self.gate_bias))
        ends = np.cumsum(self._widths)[:-1].tolist()
        queries, keys = (
            _bounded(_apart(part, (self.heads, self.key_units, 1)))
            for part in ops.split(address, 2, axis=-1)
        )
        # Of two that have nothing to do with each other the product is of the size of one.
        keys = keys / math.sqrt(self.key_units)
        values = _apart(values, (self.heads, 1, self.units // self.heads))
        return (
            queries,
            keys,
            values,
            [_apart(gate, (gate.shape[-1], 1, 1)) for gate in ops.split(gates, ends, axis=-1)],
        )

    def _outputs(self, found: Tensor, values: Tensor) -> Tensor:
        """What was found, `(..., heads, 1, n)`, and the values by themselves, side by side."""
        found, values = (ops.reshape(x, (*_leading(x, 3), self.units)) for x in (found, values))
        return self._output(found + self._value(self.feedthrough) * values)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "heads": self.heads,
            "key_units": self.key_units,
            "seed": self.seed,
        }


def bias_of_decays(count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws biases of gates that are exp(-1 / tau), tau from 2 to 100 steps."""
    logarithms = generator.uniform(math.log(_SHORTEST), math.log(_LONGEST), count)
    return -np.log(np.expm1(np.exp(-logarithms)))


def read_out(queries: Tensor, memory: Tensor) -> Tensor:
    """What queries find, `(..., heads, 1, n)`, in memories `(..., heads, key_units, n)`."""
    return ops.sum(queries * memory, axis=-2, keepdims=True)


def _bounded(x: Tensor) -> Tensor:
    # Not a norm, whose slope is that of one over x: a small input would pass on large gradients.
    return x * ops.rsqrt(1.0 + ops.mean(ops.square(x), axis=-2, keepdims=True))


def _apart(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The last axis as several."""
    return ops.reshape(x, (*_leading(x, 1), *sizes))


def _leading(x: Tensor, last: int) -> list[Any]:
    """All sizes but the last ones, for `reshape`."""
    sizes = list(x.shape[:-last])
    if sum(size is None for size in sizes) > 1:
        return list(ops.shape(x)[:-last])
    return [-1 if size is None else size for size in sizes]
