"""The accuracy of the head that is worst, of a network with several."""

from typing import Any

import keras
from keras import ops

from keras_lsc.arguments import positive_integer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class LowestAccuracy(keras.metrics.Metric):
    """The lowest of the accuracies of several heads; of those whose weight is 0 none counts.

    Give it as one of the `weighted_metrics` of `compile`. 0 before anything is seen.

    Args:
        heads: number of heads.
        name: of the metric.
        **kwargs: Other arguments, as `keras.metrics.Metric` takes them.

    Raises:
        ValueError: `heads` is not positive.

    Example:
        >>> from keras import ops
        >>> metric = LowestAccuracy(2)
        >>> scores = ops.convert_to_tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.9, 0.1]]])
        >>> metric.update_state(ops.convert_to_tensor([[0, 1], [0, 1]]), scores)
        >>> float(metric.result())
        0.5
    """

    def __init__(self, heads: int, name: str = "lowest_accuracy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.heads = positive_integer("heads", heads)
        self.right = self.add_variable((heads,), "zeros", name="right")
        self.seen = self.add_variable((heads,), "zeros", name="seen")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Counts a batch.

        Args:
            y_true: integers `(batch, heads)`.
            y_pred: scores `(batch, heads, classes)`.
            sample_weight: `(batch, heads)`, or None for ones.
        """
        is_right = ops.cast(
            ops.equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32")),
            self.dtype,
        )
        weight = ops.ones_like(is_right)
        if sample_weight is not None:
            weight = weight * ops.cast(sample_weight, self.dtype)
        self.right.assign_add(ops.sum(weight * is_right, axis=0))
        self.seen.assign_add(ops.sum(weight, axis=0))

    def result(self) -> Tensor:
        """Returns the lowest accuracy so far."""
        seen = ops.convert_to_tensor(self.seen)
        accuracy = ops.convert_to_tensor(self.right) / ops.where(seen > 0, seen, 1.0)
        lowest = ops.min(ops.where(seen > 0, accuracy, 1.0))
        return ops.where(ops.any(seen > 0), lowest, ops.zeros_like(lowest))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "heads": self.heads}
