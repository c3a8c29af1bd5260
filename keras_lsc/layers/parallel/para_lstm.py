"""A long short-term memory whose recurrent matrices are diagonal."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.layers.parallel.affine import BLOCKS, Matrix, Vector
from keras_lsc.layers.parallel.nonlinear import NonlinearGatedCell, NonlinearLayer

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaLSTMCell(NonlinearGatedCell):
    """One step of a long short-term memory with coupled gates and diagonal recurrent matrices.

        f = sigmoid(a_f h + p_f c + W_f x + b_f),    g = tanh(a_g h + W_g x + b_g)
        c' = f c + (1 - f) g
        o = sigmoid(a_o h + p_o c' + W_o x + b_o),    h' = o tanh(c')

    with vectors a and p, so that its Jacobian in time is a 2 x 2 block for each unit. The state is
    h and c, float32 under every lower dtype policy, as are a and p.

    Args:
        units: number of features of the output.
        use_bias: whether the gates have a bias.
        solver: how a sequence is run: "auto", "loop" or "newton"; a step by itself is the same.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Source: arXiv 2510.21450.

    Example:
        >>> cell = ParaLSTMCell(4)
        >>> y, (h, c) = cell(ops.ones((1, 3)), cell.get_initial_state(1))
        >>> tuple(y.shape), tuple(c.shape)
        ((1, 4), (1, 4))
    """

    gates = 3
    algebra = BLOCKS

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
        return [self.units, self.units]

    def _add_recurrent(self, generator: np.random.Generator) -> None:
        self.recurrent = self._add_diagonals("recurrent", 3, generator)
        self.peephole = self._add_diagonals("peephole", 2, generator)

    def _vectors(self) -> tuple[Tensor, ...]:
        return self._diagonals(self.recurrent) + self._diagonals(self.peephole)

    def advanced(self, parameters: tuple, previous: Vector, drive: Tensor) -> Vector:
        """Returns the new h and c; see `NonlinearGatedCell`."""
        _, _, new_c, squashed, opening = self._gates(parameters, previous, drive)
        return opening * squashed, new_c

    def linearised(
        self, parameters: tuple, previous: Vector, drive: Tensor
    ) -> tuple[Vector, Matrix]:
        """Returns the new h and c and their Jacobian; see `NonlinearGatedCell`."""
        _, c = previous
        a_forget, a_candidate, a_opening, p_forget, p_opening = parameters
        forget, candidate, new_c, squashed, opening = self._gates(parameters, previous, drive)
        # By what each gate sees.
        of_forget = forget * (1.0 - forget) * (c - candidate)
        of_candidate = (1.0 - forget) * (1.0 - candidate * candidate)
        of_opening = opening * (1.0 - opening) * squashed
        c_by_h = of_forget * a_forget + of_candidate * a_candidate
        c_by_c = of_forget * p_forget + forget
        h_by_new_c = of_opening * p_opening + opening * (1.0 - squashed * squashed)
        h_by_h = of_opening * a_opening + h_by_new_c * c_by_h
        return (opening * squashed, new_c), (h_by_h, h_by_new_c * c_by_c, c_by_h, c_by_c)

    def _gates(self, parameters: tuple, previous: Vector, drive: Tensor) -> tuple[Tensor, ...]:
        h, c = previous
        a_forget, a_candidate, a_opening, p_forget, p_opening = parameters
        to_forget, to_candidate, to_opening = ops.split(drive, 3, axis=-1)
        forget = ops.sigmoid(a_forget * h + p_forget * c + to_forget)
        candidate = ops.tanh(a_candidate * h + to_candidate)
        new_c = candidate + forget * (c - candidate)
        opening = ops.sigmoid(a_opening * h + p_opening * new_c + to_opening)
        return forget, candidate, new_c, ops.tanh(new_c), opening


@keras.saving.register_keras_serializable(package="keras_lsc")
class ParaLSTM(NonlinearLayer):
    """Long short-term memories with diagonal recurrent matrices, along a sequence.

    All steps are taken at once, or one after another.

    `ParaLSTM.cell` is the same unit for streaming: it takes one step after another, with the same
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
        >>> layer = ParaLSTM(16, solver="newton", return_sequences=True)
        >>> layer(ops.ones((2, 50, 3))).shape == (2, 50, 16)
        True
    """

    cell_class = ParaLSTMCell

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
