"""Optimisers around those of Keras."""

from typing import Any

import keras
from keras import ops

from keras_lsc.arguments import integer, number

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class GradientNoise(keras.optimizers.Optimizer):
    """Adds noise to every gradient, less and less of it, before another optimiser takes its step.

    To the gradient of update t, from 0, comes white noise of the variance eta/(1 + t)^gamma.
    Learning rate, clipping, decay and averages are those of the optimiser within; clipping follows
    the noise. State and seed of the noise are saved with it.

    Args:
        optimizer: a Keras optimiser or its name.
        eta: variance of the noise at the first update.
        gamma: power by which it decays.
        seed: Integer, seed of the noise, which is another one on each backend.
        name: Name of this optimiser.

    Raises:
        ValueError: `optimizer` is none, or a number is out of range.

    Source: Neelakantan et al., arXiv 1511.06807, section 2 (eta 0.01, 0.3 or 1; gamma 0.55).

    Example:
        >>> import keras, keras_lsc
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> noisy = keras_lsc.optimizers.GradientNoise(keras.optimizers.Adam(1e-3), eta=0.3)
        >>> model.compile(noisy, "mse")
        >>> round(float(noisy.learning_rate), 4)
        0.001
    """

    def __init__(
        self,
        optimizer: Any,
        eta: float = 0.01,
        gamma: float = 0.55,
        seed: int = 0,
        name: str = "gradient_noise",
    ):
        eta = number("eta", eta, at_least=0)
        gamma = number("gamma", gamma, at_least=0)
        seed = integer("seed", seed, at_least=0)
        inner = keras.optimizers.get(optimizer)
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer = inner
        self.eta = eta
        self.gamma = gamma
        self.seed = seed
        self._generator = keras.random.SeedGenerator(seed)

    def build(self, variables: list[Any]) -> None:
        """Makes the state of both."""
        self.optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[Any]:
        """The counts of updates and of draws, and the state of the optimiser within."""
        return [*super().variables, self._generator.state, *self.optimizer.variables]

    def apply(self, grads: list[Tensor], trainable_variables: list[Any] | None = None) -> None:
        """Adds the noise, and has the optimiser take its step."""
        if trainable_variables is not None and not self.built:
            self.build(list(trainable_variables))
        step = ops.cast(self.iterations, "float32")
        deviation = ops.sqrt(self.eta * ops.power(1.0 + step, -self.gamma))
        # Gradients are scaled with the loss, until the optimiser within undoes it.
        deviation = deviation * (self.optimizer.loss_scale_factor or 1.0)
        noisy = [
            None if gradient is None else self._noisy(gradient, deviation) for gradient in grads
        ]
        self.optimizer.apply(noisy, trainable_variables)
        self.iterations.assign_add(1)

    def _noisy(self, gradient: Tensor, deviation: Tensor) -> Tensor:
        # That of an embedding is a slice of it, on TensorFlow.
        gradient = ops.convert_to_tensor(gradient)
        noise = keras.random.normal(ops.shape(gradient), dtype="float32", seed=self._generator)
        return gradient + ops.cast(deviation * noise, gradient.dtype)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scales a loss as the optimiser within has it."""
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Ends a training as the optimiser within has it, which may put averages in place."""
        self.optimizer.finalize_variable_values(var_list)

    @property
    def learning_rate(self) -> Any:
        """That of the optimiser within."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizer.learning_rate = value

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "eta": self.eta,
            "gamma": self.gamma,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GradientNoise":
        """Makes an optimiser from `get_config`."""
        inner = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "optimizer": inner})
