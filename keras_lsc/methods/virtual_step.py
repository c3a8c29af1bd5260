"""What GradInit minimises: the loss after one virtual step, and the norm of the gradient."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import backend
from keras_lsc.stability.layers import call_in_inference

Tensor = Any
Array = np.ndarray


class VirtualStep:
    """A model's loss as a function of one scale a weight.

    Args:
        model: compiled with a loss.
        weights: those that are scaled.
        structure: a nest of its inputs.
        rate: length of the virtual step.
        is_adam: whether the step is that of Adam, rate sign(g), or that of SGD, rate g.

    Attributes:
        sizes: number of entries of each weight.
        values: all weights as they are, `(n,)`.
        norm: (scales, values, rows) -> |g| of order 2 (SGD) or 1 (Adam), `(1,)`, and its derivative
            by the scales.
        loss: (scales, values, rows, others) -> the loss of other rows after a virtual step on some,
            `(1,)`, and its derivative by the scales.
    """

    def __init__(
        self, model: keras.Model, weights: list[Any], structure: Any, rate: float, is_adam: bool
    ):
        self._model = model
        self._weights = weights
        self._structure = structure
        self._rate = rate
        self._is_adam = is_adam
        self.sizes = [int(np.prod(weight.shape)) for weight in weights]
        self._bounds = np.cumsum([0, *self.sizes])
        self.values = np.concatenate(
            [np.ravel(ops.convert_to_numpy(weight.value)) for weight in weights]
        ).astype("float32")
        self.norm = backend.as_graph(self._norm)
        self.loss = backend.as_graph(self._loss)

    def _loss_at(self, flat: Tensor, rows: list[Tensor]) -> Tensor:
        """The loss of a batch with weights `(n,)`."""
        mapping = []
        for k, weight in enumerate(self._weights):
            part = flat[self._bounds[k] : self._bounds[k + 1]]
            mapping.append((weight, ops.cast(ops.reshape(part, weight.shape), weight.dtype)))
        others = {id(weight) for weight in self._weights}
        mapping += [(v, v.value) for v in self._model.variables if id(v) not in others]
        *inputs, targets = rows
        given = tree.pack_sequence_as(self._structure, inputs)
        with keras.StatelessScope(state_mapping=mapping):
            outputs = call_in_inference(self._model, given)
            loss = self._model.compute_loss(given, targets, outputs, training=False)
        return ops.reshape(ops.cast(loss, "float32"), (1,))

    def _scaled(self, scales: Tensor, values: Tensor) -> Tensor:
        parts = [
            scales[k] * values[self._bounds[k] : self._bounds[k + 1]]
            for k in range(len(self.sizes))
        ]
        return ops.concatenate(parts)

    def _gradient(self, flat: Tensor, rows: list[Tensor]) -> Tensor:
        # By something added to them: the gradient is itself differentiated by what they depend on.
        one, back = backend.vjp(lambda add: self._loss_at(flat + add, rows), ops.zeros_like(flat))
        return back(ops.ones_like(one))

    def _size(self, gradient: Tensor) -> Tensor:
        if self._is_adam:
            return ops.reshape(ops.sum(ops.abs(gradient)), (1,))
        return ops.reshape(ops.sqrt(ops.sum(ops.square(gradient)) + 1e-30), (1,))

    def _norm(self, scales: Tensor, values: Tensor, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        def norm(at: Tensor) -> Tensor:
            return self._size(self._gradient(self._scaled(at, values), rows))

        value, back = backend.vjp(norm, scales)
        return value, back(ops.ones_like(value))

    def _loss(
        self, scales: Tensor, values: Tensor, rows: list[Tensor], others: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        def loss(at: Tensor) -> Tensor:
            flat = self._scaled(at, values)
            gradient = self._gradient(flat, rows)
            # The derivative of the sign is zero, wherever it has one.
            step = ops.stop_gradient(ops.sign(gradient)) if self._is_adam else gradient
            return self._loss_at(flat - self._rate * step, others)

        value, back = backend.vjp(loss, scales)
        return value, back(ops.ones_like(value))
