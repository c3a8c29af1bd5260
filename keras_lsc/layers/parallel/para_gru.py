"""A gated recurrent unit whose recurrent matrices are diagonal."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.layers.parallel.affine import DIAGONAL, Matrix, Vector
from keras_lsc.layers.parallel.nonlinear import NonlinearGatedCell, NonlinearLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaGRUCell(NonlinearGatedCell):
    """One step of a gated recurrent unit with diagonal recurrent matrices.

        z = sigmoid(a_z h + W_z x + b_z),    r = sigmoid(a_r h + W_r x + b_r)
        n = tanh(a_n (r h) + W_n x + b_n),    h' = (1 - z) h + z n

    with vectors a, so that its Jacobian in time is diagonal. The state is h, float32 under every
    lower dtype policy, as are the a.

    Args:
        units: number of features of the output.
        use_bias: whether the gates have a bias.
        solver: how a sequence is run: "auto", "loop" or "newton"; a step by itself is the same.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2510.21450.

    Example:
        >>> cell = ParaGRUCell(4)
        >>> y, (h,) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(h.shape)
        ((1, 4), (1, 4))
    """

    gates = 3
    algebra = DIAGONAL

    def __init__(
        self,
        units: int,
        *,
        use_bias: bool = True,
        solver: str = "auto",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, use_bias=use_bias, solver=solver, seed=seed, **kwargs)

    def _state_sizes(self) -> list[int]:
        return [self.units]

    def _add_recurrent(self, generator: np.random.Generator) -> None:
        self.recurrent = self._add_diagonals("recurrent", 3, generator)

    def _vectors(self) -> tuple[Tensor, ...]:
        return self._diagonals(self.recurrent)

    def advanced(self, parameters: tuple, previous: Vector, drive: Tensor) -> Vector:
        """Returns the new h; see `NonlinearGatedCell`."""
        (h,) = previous
        update, _, candidate = self._gates(parameters, h, drive)
        return (h + update * (candidate - h),)

    def linearised(
        self, parameters: tuple, previous: Vector, drive: Tensor
    ) -> tuple[Vector, Matrix]:
        """Returns the new h and its Jacobian; see `NonlinearGatedCell`."""
        (h,) = previous
        a_update, a_reset, a_candidate = parameters
        update, reset, candidate = self._gates(parameters, h, drive)
        of_update = update * (1.0 - update) * a_update
        of_reset = reset * (1.0 - reset) * a_reset
        of_candidate = (1.0 - candidate * candidate) * a_candidate * (reset + h * of_reset)
        jacobian = 1.0 - update + update * of_candidate + (candidate - h) * of_update
        return (h + update * (candidate - h),), (jacobian,)

    def _gates(self, parameters: tuple, h: Tensor, drive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a_update, a_reset, a_candidate = parameters
        to_update, to_reset, to_candidate = ops.split(drive, 3, axis=-1)
        update = ops.sigmoid(a_update * h + to_update)
        reset = ops.sigmoid(a_reset * h + to_reset)
        return update, reset, ops.tanh(a_candidate * (reset * h) + to_candidate)


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaGRU(NonlinearLayer):
    """Gated recurrent units with diagonal recurrent matrices, along a sequence.

    All steps are taken at once, or one after another.

    `ParaGRU.cell` is the same unit for streaming: it takes one step after another, with the same
    weights. By Newton's method states and gradients are those of the loop up to rounding; it has
    no second derivatives, for which `solver="loop"` is there.

    Args:
        units: number of features of the output.
        use_bias: whether the gates have a bias.
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

    Source: arXiv 2510.21450.

    Example:
        >>> layer = ParaGRU(16, solver="newton", return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = ParaGRUCell

    def __init__(
        self,
        units: int,
        *,
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
            {"use_bias": use_bias, "solver": solver, "seed": seed},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
