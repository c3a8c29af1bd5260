"""The firing rate of spiking layers: measured, and held near a target."""

from typing import Any

import keras
from keras import ops

from keras_lsc import arguments

Tensor = Any

_SMALLEST_RATE = 1e-6


@keras.saving.register_keras_serializable(package="keras_lsc")
class FiringRate(keras.metrics.Metric):
    """Mean number of spikes per neuron and step, of a model output that is spikes.

    Args:
        name: Name of the metric.
        **kwargs: Other arguments, as `keras.metrics.Metric` takes them.

    Example:
        >>> metric = FiringRate()
        >>> metric.update_state(None, ops.convert_to_tensor([[[0.0, 1.0], [0.0, 0.0]]]))
        >>> float(metric.result())
        0.25
    """

    def __init__(self, name: str = "firing_rate", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        # Lower dtypes stop counting at 256 (bfloat16) or 2,048 (float16).
        self._sum_dtype = "float64" if self.dtype == "float64" else "float32"
        self._spikes, self._count = (
            self.add_weight(shape=(), initializer="zeros", dtype=self._sum_dtype, name=name)
            for name in ("spikes", "count")
        )

    def update_state(self, y_true: Any, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Adds spikes; labels are ignored.

        Args:
            y_true: ignored.
            y_pred: spikes, `(batch, ...)`.
            sample_weight: `(batch,)` or of the leading axes of `y_pred`, or None.
        """
        del y_true
        spikes = ops.cast(y_pred, self._sum_dtype)
        weight = ops.ones_like(spikes)
        if sample_weight is not None:
            given = ops.cast(sample_weight, self._sum_dtype)
            missing = len(spikes.shape) - len(given.shape)
            weight = weight * ops.reshape(given, (*ops.shape(given), *(1,) * missing))
        self._spikes.assign_add(ops.sum(spikes * weight))
        self._count.assign_add(ops.sum(weight))

    def result(self) -> Tensor:
        """Returns the rate, between 0 and 1; 0 before the first update."""
        return ops.divide_no_nan(self._spikes, self._count)


@keras.saving.register_keras_serializable(package="keras_lsc")
class FiringRateRegularizer(keras.Layer):
    """Passes its input on and adds strength * (mean rate - target)^2 to the loss in training.

    Or strength times the Kullback-Leibler divergence of the target from the mean rate.

    To be put behind a spiking layer. `keras_lsc.callbacks.FiringRateSchedule` switches it
    on in the course of `fit`.

    Args:
        target: firing rate, between 0 and 1.
        strength: factor of the penalty.
        penalty: "squared", or "kl" for target log(target/rate) + (1 - target) log((1 - target)/(1 -
            rate)), which grows without bound as a layer falls silent, or saturates.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: a target outside [0, 1], a negative strength, or an unknown penalty.

    Source: arXiv 2202.00282, sparsity of the firing.

    Example:
        >>> layer = FiringRateRegularizer(target=0.25)
        >>> _ = layer(ops.ones((2, 50, 3)), training=True)
        >>> float(layer.losses[0])
        0.5625
    """

    # Tells keras_lsc.measure that a single step may be passed through it.
    acts_per_step = True

    def __init__(
        self, target: float = 0.1, strength: float = 1.0, penalty: str = "squared", **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.penalty = arguments.one_of("penalty", penalty, ("squared", "kl"))
        self.supports_masking = True
        self.target = arguments.number("target", target, at_least=0, at_most=1)
        self.strength = arguments.number("strength", strength, at_least=0)

    def build(self, input_shape: tuple) -> None:
        """Makes the switch."""
        del input_shape
        self.switch = self.add_weight(
            shape=(),
            initializer="ones",
            trainable=False,
            dtype=self._penalty_dtype,
            autocast=False,
            name="switch",
        )
        self.built = True

    def call(self, inputs: Tensor, mask: Tensor | None = None, training: bool = False) -> Tensor:
        """Returns `inputs`, spikes `(batch, T, units)`; masked steps do not count."""
        if training:
            # A mean of many spikes is too much for less than float32.
            dtype = self._penalty_dtype
            spikes = ops.cast(inputs, dtype)
            if mask is None:
                rate = ops.mean(spikes)
            else:
                valid = ops.cast(ops.expand_dims(mask, -1), dtype)
                count = ops.maximum(ops.sum(valid), 1.0) * spikes.shape[-1]
                rate = ops.sum(spikes * valid) / count
            switch = ops.convert_to_tensor(self.switch)
            self.add_loss(switch * self.strength * self._distance(rate))
        return inputs

    def _distance(self, rate: Tensor) -> Tensor:
        if self.penalty == "squared":
            return ops.square(rate - self.target)
        distance = ops.zeros_like(rate)
        for wanted, found in ((self.target, rate), (1.0 - self.target, 1.0 - rate)):
            if wanted > 0:
                # Of a silent layer the logarithm is large, but a number.
                distance = distance + wanted * ops.log(wanted / ops.maximum(found, _SMALLEST_RATE))
        return distance

    @property
    def _penalty_dtype(self) -> str:
        return "float64" if self.compute_dtype == "float64" else "float32"

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "target": self.target,
            "strength": self.strength,
            "penalty": self.penalty,
        }
