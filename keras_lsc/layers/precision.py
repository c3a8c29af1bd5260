"""Layers whose dynamics are computed in float32 at least, whatever the dtype policy."""

from typing import Any

import keras
from keras import ops

Tensor = Any


class PreciseLayer(keras.Layer):
    """A layer that multiplies inputs in the policy's dtype, and does all else in float32.

    A decay of 0.999 is 1 in bfloat16: states, and the parameters that a step multiplies them by,
    are held and computed in `compute_dtype`, float32 under every lower policy. Products with
    inputs are in `product_dtype`, that of the policy, and so are outputs.

    Args:
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    def __init__(self, **kwargs: Any):
        # Keras would cast the states it hands to a step, and the weights, to the policy's dtype.
        super().__init__(autocast=False, **kwargs)

    @property
    def compute_dtype(self) -> str:
        """The dtype of the states, and of the parameters of the dynamics: float32 or float64."""
        return "float64" if self.product_dtype == "float64" else "float32"

    @property
    def product_dtype(self) -> str:
        """The dtype of products with inputs, and of outputs: what the dtype policy computes in."""
        return super().compute_dtype

    def _add_matrix(
        self, name: str, shape: tuple, initializer: Any, regularizer: Any = None
    ) -> Any:
        """Adds a weight that products take; in the policy's dtype, without automatic casts."""
        initializer = keras.initializers.get(initializer)

        def rounded(shape: tuple, dtype: Any = None) -> Tensor:
            # Not every draw is to be had in a lower dtype: an orthogonal one is not.
            return ops.cast(initializer(shape, dtype=self.compute_dtype), dtype)

        is_lower = self.variable_dtype not in ("float32", "float64")
        return self.add_weight(
            shape=shape,
            initializer=rounded if is_lower else initializer,
            regularizer=regularizer,
            autocast=False,
            name=name,
        )

    def _add_parameter(
        self,
        name: str,
        shape: tuple,
        initializer: Any,
        trainable: bool = True,
        constraint: Any = None,
    ) -> Any:
        """Adds a parameter of the dynamics, never held in less than float32."""
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            trainable=trainable,
            constraint=constraint,
            dtype=self.compute_dtype,
            autocast=False,
            name=name,
        )

    def _value(self, variable: Any) -> Tensor:
        """What the dynamics take of a weight."""
        return cast(ops.convert_to_tensor(variable), self.compute_dtype)

    def _factor(self, variable: Any) -> Tensor:
        """What a product with inputs takes of a weight or a tensor."""
        return cast(ops.convert_to_tensor(variable), self.product_dtype)

    def _states(self, states: Any) -> list[Tensor]:
        return [cast(state, self.compute_dtype) for state in states]

    def _output(self, outputs: Tensor) -> Tensor:
        return cast(outputs, self.product_dtype)

    def _product(self, inputs: Tensor, matrix: Any) -> Tensor:
        """Inputs times a weight, for the dynamics to take on."""
        return self._value(project(self._factor(inputs), self._factor(matrix)))


def cast(x: Tensor, dtype: str) -> Tensor:
    """`ops.cast` that returns the tensor itself, and at no cost, where there is none to make."""
    is_there = keras.backend.standardize_dtype(x.dtype) == dtype
    return x if is_there else ops.cast(x, dtype)


def project(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiplies the last axis of `(..., n)` by an `(n, m)` matrix, as one product."""
    if len(x.shape) == 2:
        return x @ matrix
    sizes = x.shape[:-1]
    if sum(size is None for size in sizes) > 1:
        sizes = ops.shape(x)[:-1]
    else:
        sizes = [-1 if size is None else size for size in sizes]
    return ops.reshape(ops.reshape(x, (-1, x.shape[-1])) @ matrix, (*sizes, matrix.shape[-1]))
