"""The variables that pre-training trains, and the weights of a model as functions of them.

Mode "scales" reparametrises: a weight is its value, times exp of one scale per matrix (per gate
block in a gated cell) or plus a shift, and an optimiser trains scales and shifts. Mode "weights"
trains the weights.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from keras import ops

Tensor = Any
Mode = Literal["scales", "weights"]

NUDGE = 0.2
FASTER = 4.0


class Reparametrized(NamedTuple):
    """A weight as a function of a parameter, which leaves it as it is where that is zero.

    Attributes:
        weight: Variable of the model.
        parameter: Variable that is trained in its place.
        function: maps the values of both to the value of the weight.
    """

    weight: Any
    parameter: Any
    function: Callable[[Tensor, Tensor], Tensor]


class Parametrization:
    """Which variables are trained, and which weights these are or change.

    Args:
        weights: pairs of a weight and the size of the state of the gated cell it is of, or None.
        mode: "scales" or "weights".
        add_parameter: makes a variable of zeros, of a shape and with a name.

    Attributes:
        reparametrized: the weights that are functions of a parameter, some of two.
        free: the weights that are trained themselves.
    """

    def __init__(
        self,
        weights: Iterable[tuple[Any, int | None]],
        mode: Mode,
        add_parameter: Callable[[tuple[int, ...], str], Any],
    ):
        self.reparametrized: list[Reparametrized] = []
        self.free: list[Any] = []

        def add(weight: Any, function: Callable, kind: str, shape: tuple[int, ...]) -> None:
            parameter = add_parameter(shape, f"{kind}_{len(self.reparametrized)}")
            self.reparametrized.append(Reparametrized(weight, parameter, function))

        for weight, gate_width in weights:
            blocks = (gate_blocks(weight.shape, gate_width),)
            if not weight.trainable:
                if mode == "scales":
                    add(weight, shifted_first, "shift", blocks)
            elif mode == "scales" and is_matrix(weight):
                add(weight, scaled, "log_scale", blocks)
            elif mode == "scales" and (blocks[0] > 1 or not is_bias(weight)):
                add(weight, shifted, "shift", blocks)
                add(weight, nudged, "nudge", tuple(weight.shape))
            else:
                self.free.append(weight)

    @property
    def parameters(self) -> list[Any]:
        """The variables that stand for weights, zero where these are as they were."""
        return [row.parameter for row in self.reparametrized]

    @property
    def trained(self) -> list[Any]:
        """All variables that are trained."""
        return [*self.parameters, *self.free]

    @property
    def weights(self) -> list[Any]:
        """The weights that may change."""
        return [*(row.weight for row in self.reparametrized), *self.free]

    def values(self, weights: Sequence[Any]) -> dict[int, Tensor]:
        """What weights are by the parameters, by their `id`; only the trained have a gradient."""
        free = {id(weight) for weight in self.free}
        values = {}
        for weight in weights:
            is_fixed = id(weight) not in free and "float" in weight.dtype
            values[id(weight)] = ops.stop_gradient(weight.value) if is_fixed else weight.value
        for weight, parameter, function in self.reparametrized:
            values[id(weight)] = function(values[id(weight)], parameter.value)
        return values

    def reset(self) -> None:
        """Sets every parameter to zero."""
        for parameter in self.parameters:
            parameter.assign(ops.zeros(parameter.shape))


def gate_blocks(shape: tuple[int, ...], gate_width: int | None) -> int:
    """How many scales a weight of this shape gets: one, or one per gate of a gated cell.

    A cell's matrix whose number of columns is a multiple of the cell's state size holds that
    many gates side by side, as in LSTM (four) and GRU (three).

    Args:
        shape: Shape of the weight.
        gate_width: size of the cell's state; None for the weight of any other layer.

    Returns:
        Number of blocks along the last axis.

    Example:
        >>> gate_blocks((28, 256), 64)
        4
    """
    if len(shape) == 0 or not gate_width or shape[-1] % gate_width:
        return 1
    return shape[-1] // gate_width


def is_bias(variable: Any) -> bool:
    """Whether a weight is a bias."""
    return "bias" in variable.name


def is_matrix(variable: Any) -> bool:
    """Whether a weight is the matrix of a linear map, moved by scales."""
    return len(variable.shape) >= 2 and not is_bias(variable)


def scaled(value: Tensor, log_scale: Tensor) -> Tensor:
    """Multiplies the blocks of `value`'s last axis by exp of their `log_scale`, `(blocks,)`."""
    return value * ops.cast(_per_column(ops.exp(log_scale), value), ops.dtype(value))


def shifted(value: Tensor, shift: Tensor) -> Tensor:
    """Adds their `shift`, `(blocks,)`, to the blocks of `value`'s last axis."""
    return value + ops.cast(_per_column(shift, value), ops.dtype(value))


def shifted_first(value: Tensor, shift: Tensor) -> Tensor:
    """`shifted` several times as fast.

    For weights that change gradients alone: what they can do need not be done by the dynamics.
    """
    return shifted(value, FASTER * shift)


def nudged(value: Tensor, nudge: Tensor) -> Tensor:
    """Adds a fraction of `nudge`, of the shape of `value`.

    Only a fraction, so that the optimiser moves the single biases of a gate slower than all of
    them together: at full speed it moves them to lift an outlier of the spectrum.
    """
    return value + ops.cast(NUDGE * nudge, ops.dtype(value))


def _per_column(blocks: Tensor, value: Tensor) -> Tensor:
    if len(value.shape) == 0:  # a shape of TensorFlow's is true, whatever it holds
        return ops.reshape(blocks, ())
    return ops.repeat(blocks, value.shape[-1] // blocks.shape[0])
