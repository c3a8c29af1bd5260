"""The Jacobians of a model's transitions, formed."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lsc import backend
from keras_lsc.stability.probe import ModelProbe
from keras_lsc.stability.radius import in_precision
from keras_lsc.stability.transitions import Transitions

Tensor = Any


class JacobianProbe(ModelProbe):
    """A model whose output is the Jacobians of another.

    Args:
        transition_map: Transitions of the model.
        transitions: which of them, by index; all without it.
    """

    def __init__(self, transition_map: Transitions, transitions: Sequence[int] | None = None):
        super().__init__(transition_map.model, "jacobian_probe")
        rows = transition_map.transitions
        self.transition_map = transition_map
        self.rows = [rows[k] for k in (range(len(rows)) if transitions is None else transitions)]

    def call(self, inputs: list[Tensor]) -> dict[str, dict[str, Tensor]]:
        """Returns "jacobian" `(points, n_out, n_in)` and "weight" `(points,)`, each by name."""
        *x, position = inputs
        points = self.transition_map.sample(x, position)
        jacobians, weights = {}, {}
        for row in self.rows:
            jacobians[row.name] = backend.jacobian(*in_precision(*row.linearize(points)))
            weight = row.weight(points)
            weights[row.name] = ops.ones_like(position) if weight is None else weight
        return {"jacobian": jacobians, "weight": weights}
