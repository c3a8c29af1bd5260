"""A leaky integrator of its own squashed state, whose recurrent matrix is diagonal."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parallel.affine import DIAGONAL, Matrix, Vector
from keras_lsc.layers.parallel.nonlinear import NonlinearGatedCell, NonlinearLayer
from keras_lsc.layers.parameters import initializer, positive_weight

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaLeakyCell(NonlinearGatedCell):
    """One step of leaky units with a diagonal recurrent matrix.

        h' = alpha h + (1 - alpha) tanh(a h + W x + b),    alpha = exp(-1 / tau)

    with vectors a and tau, so that its Jacobian in time is the diagonal
    alpha + (1 - alpha) (1 - tanh^2) a. The state is h, float32 under every lower dtype policy, as
    are a and tau.

    Args:
        units: number of features of the output.
        tau: time constant in steps: a positive number or an initialiser, per unit.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
        solver: how a sequence is run: "auto", "loop" or "newton"; a step by itself is the same.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `units` or `tau` is not positive.

    Source: Jaeger et al. 2007, "Optimization and applications of echo state networks with
        leaky-integrator neurons", equation 1; diagonal as the cells of arXiv 2510.21450.

    Example:
        >>> cell = ParaLeakyCell(4)
        >>> y, (h,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(h.shape)
        ((1, 4), (1, 4))
    """

    gates = 1
    algebra = DIAGONAL

    def __init__(
        self,
        units: int,
        *,
        tau: Any = 10.0,
        trainable_tau: bool = True,
        use_bias: bool = True,
        solver: str = "auto",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, use_bias=use_bias, solver=solver, seed=seed, **kwargs)
        self.tau = initializer(tau, "tau")
        self.trainable_tau = arguments.flag("trainable_tau", trainable_tau)

    def _state_sizes(self) -> list[int]:
        return [self.units]

    def _add_recurrent(self, generator: np.random.Generator) -> None:
        self.recurrent = self._add_diagonals("recurrent", 1, generator)
        self.log_tau = positive_weight(self, "tau", self.tau, self.trainable_tau)

    def _vectors(self) -> tuple[Tensor, ...]:
        # 1 - alpha is what is kept: alpha of a long memory is 1 to rounding. It is 2 t / (1 + t)
        # with t = tanh(1 / (2 tau)), as ONNX has no exp(x) - 1.
        half = ops.tanh(0.5 * ops.exp(-self._value(self.log_tau)))
        return (*self._diagonals(self.recurrent), 2.0 * half / (1.0 + half))

    def advanced(self, parameters: tuple, previous: Vector, drive: Tensor) -> Vector:
        """Returns the new h; see `NonlinearGatedCell`."""
        (h,) = previous
        a, opening = parameters
        return (h + opening * (ops.tanh(a * h + drive) - h),)

    def linearised(
        self, parameters: tuple, previous: Vector, drive: Tensor
    ) -> tuple[Vector, Matrix]:
        """Returns the new h and its Jacobian; see `NonlinearGatedCell`."""
        (h,) = previous
        a, opening = parameters
        squashed = ops.tanh(a * h + drive)
        jacobian = 1.0 - opening + opening * (1.0 - squashed * squashed) * a
        return (h + opening * (squashed - h),), (jacobian,)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "tau": keras.saving.serialize_keras_object(self.tau),
            "trainable_tau": self.trainable_tau,
        }


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaLeaky(NonlinearLayer):
    """Leaky units with a diagonal recurrent matrix, along a sequence.

    All steps are taken at once, or one after another.

    `ParaLeaky.cell` is the same unit for streaming: it takes one step after another, with the same
    weights. By Newton's method states and gradients are those of the loop up to rounding; it has
    no second derivatives, for which `solver="loop"` is there.

    Args:
        units: number of features of the output.
        tau: time constant in steps: a positive number or an initialiser, per unit.
        trainable_tau: whether it is trained.
        use_bias: whether there is a bias b.
        solver: "loop" takes the steps one after another; "newton" all at once, or as a loop, with
            a warning where the layer is not compiled, if 50 iterations do not converge, which
            `solver_counts` and `keras_lsc.callbacks.StabilityMonitor` tell of a training; "auto" is
            "newton" for 256 steps or more where loops are slow (torch, TensorFlow, GPUs) and less
            than 1,024 numbers change at a step, and "loop" otherwise.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        return_sequences: whether to return the outputs of all steps or of the last one.
        return_state: whether to return the last states as well.
        go_backwards: whether to take the steps from last to first.
        stateful: whether a batch starts from the last states of the batch before.
        zero_output_for_mask: whether masked steps give zeros; they repeat the output before them
            otherwise.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: Jaeger et al. 2007, "Optimization and applications of echo state networks with
        leaky-integrator neurons", equation 1; diagonal as the cells of arXiv 2510.21450.

    Example:
        >>> layer = ParaLeaky(16, solver="newton", return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = ParaLeakyCell

    def __init__(
        self,
        units: int,
        *,
        tau: Any = 10.0,
        trainable_tau: bool = True,
        use_bias: bool = True,
        solver: str = "auto",
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            {
                "tau": tau,
                "trainable_tau": trainable_tau,
                "use_bias": use_bias,
                "solver": solver,
                "seed": seed,
            },
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
