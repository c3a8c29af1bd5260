"""Runs any small Keras cell over a sequence by Newton's method."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from keras_lsc import arguments, backend
from keras_lsc.layers.parallel.affine import DENSE, DIAGONAL, Algebra, Matrix, Vector
from keras_lsc.layers.parallel.newton import (
    Dynamics,
    Solved,
    default_tolerance,
    loop,
    newton,
    warn_of_the_loop,
    with_adjoint,
    without_gradient,
)
from keras_lsc.layers.scan import shifted

Tensor = Any

SOLVERS = ("newton", "quasi", "damped")
# How many steps the loop goes along from each of the sampled ones.
_WINDOW = 32


class Solution(NamedTuple):
    """What `solve` has found; in a compiled function all numbers are tensors.

    Attributes:
        outputs: of every step, `(batch, T, features)`.
        states: list of the states after every step, each `(batch, T, size)`.
        iterations: how many scans were made.
        residual: largest difference between a state and what the step makes of the one before it.
        agreement: largest difference between a state and what the loop comes to, taken along for
            32 steps from sampled ones.
        has_converged: whether the iterations ended by the tolerance; otherwise the states are
            those of the loop or, without a fallback, the iterate of least residual.
    """

    outputs: Tensor
    states: list[Tensor]
    iterations: Any
    residual: Any
    agreement: Any
    has_converged: Any


def solve(
    cell: Any,
    x: Any,
    initial_state: Any = None,
    *,
    solver: str = "newton",
    tolerance: float | None = None,
    max_iterations: int = 100,
    fallback: bool = True,
    samples: int = 8,
) -> Solution:
    """Runs a Keras cell over whole sequences at once, in inference.

    Nothing is asked of the cell but that its states are vectors of floats and its rows do not
    interact. Jacobians are formed: a state of n numbers takes n^2 of them a step, and "newton" n^3
    operations. Backward, one scan in reverse with the whole Jacobian; second derivatives raise.

    Args:
        cell: what `keras.layers.RNN` takes: `keras.layers.GRUCell(16)`, or one of your own.
        x: `(batch, T, features)` floats.
        initial_state: as the cell takes it; what it begins with otherwise.
        solver: "newton" with the whole Jacobian (DEER), "quasi" with its diagonal, "damped" with
            the whole one, halved as long as the residual grows.
        tolerance: the iterations end when no state moves by more, in units of the largest state
            if that is above 1. Without it 1.4e-5 for states in float32, a thirtieth in bfloat16.
        max_iterations: how many are made at most.
        fallback: whether the loop is taken, with a warning, when they do not converge.
        samples: at how many steps agreement with the loop is measured.

    Returns:
        `Solution`.

    Raises:
        TypeError: `cell` has no `state_size`, or is a recurrent layer.
        ValueError: x is no `(batch, T, features)` of known length, a state is no vector, or
            another argument is out of range.

    Source: arXiv 2309.12252 and 2407.19115.

    Example:
        >>> import keras, numpy as np
        >>> cell = keras.layers.GRUCell(4)
        >>> found = solve(cell, np.ones((2, 100, 3), "float32"))
        >>> tuple(found.outputs.shape), found.has_converged, found.agreement < 1e-5
        ((2, 100, 4), True, True)
    """
    is_cell = isinstance(cell, keras.Layer) and hasattr(cell, "state_size")
    if not is_cell or isinstance(cell, keras.layers.RNN):
        raise TypeError(
            f"solve takes a cell, as keras.layers.RNN does, got {cell!r}. Of a recurrent layer "
            "give `layer.cell`; keras.layers.LSTM and GRU have one too."
        )
    solver = arguments.one_of("solver", solver, SOLVERS)
    max_iterations = arguments.positive_integer("max_iterations", max_iterations)
    fallback = arguments.flag("fallback", fallback)
    samples = arguments.positive_integer("samples", samples)
    x = ops.convert_to_tensor(x)
    if len(x.shape) != 3 or None in x.shape[1:]:
        raise ValueError(
            f"x must be (batch, T, features) with T and features known, got shape {tuple(x.shape)}."
        )
    if not cell.built:
        cell.build((x.shape[0], x.shape[2]))
    states = _StatesOfCell(cell, ops.shape(x)[0], initial_state)
    if tolerance is None:
        tolerance = states.tolerance
    tolerance = arguments.number("tolerance", tolerance, above=0)
    parameters = tuple(ops.convert_to_tensor(v.value) for v in cell.variables)
    at = (ops.swapaxes(x, 0, 1),)
    start = (states.start,)
    whole = _dynamics(states, DENSE)
    tried = _dynamics(states, DIAGONAL) if solver == "quasi" else whole
    fixed = tuple(map(without_gradient, (parameters, at, start)))

    # Functions of their arguments: what they closed over would be constants of compiled programs.
    def find(*fixed: tuple) -> tuple[Solved, Vector]:
        found = newton(
            tried,
            *fixed,
            tolerance=tolerance,
            max_iterations=max_iterations,
            is_damped=solver == "damped",
        )
        if not fallback:
            return found, found.states
        return found, ops.cond(
            found.has_converged, lambda: found.states, lambda: loop(whole, *fixed)
        )

    found, solution = backend.no_gradient(lambda: backend.as_graph(find)(*fixed))
    is_known = backend.is_concrete(found.has_converged)
    if fallback and is_known and not bool(found.has_converged):
        warn_of_the_loop(f"solve({cell.name})", max_iterations)
    previous = shifted(solution, fixed[2], False)

    def linearised(parameters: tuple, previous: Vector, at: tuple) -> Matrix:
        return whole.linearised(parameters, previous, at)[1]

    jacobian = backend.no_gradient(
        lambda: backend.as_graph(linearised)(fixed[0], previous, fixed[1])
    )
    visited = with_adjoint(DENSE, jacobian, whole.step(parameters, previous, at), start)
    outputs, _ = states.call(parameters, shifted(visited, start, False)[0], at[0])

    def compared(fixed: tuple, solution: Vector) -> Tensor:
        return _agreement(whole, fixed, solution, samples)

    agreement = backend.no_gradient(lambda: backend.as_graph(compared)(fixed, solution))
    numbers = (found.iterations, found.residual, agreement, found.has_converged)
    if is_known:
        kinds = (int, float, float, bool)
        numbers = tuple(
            kind(ops.convert_to_numpy(n)) for kind, n in zip(kinds, numbers, strict=True)
        )
    return Solution(
        ops.swapaxes(outputs, 0, 1),
        [ops.swapaxes(state, 0, 1) for state in states.apart(visited[0])],
        *numbers,
    )


class _StatesOfCell:
    """The states of a cell, side by side in one vector of float32 or float64."""

    def __init__(self, cell: Any, batch: Any, initial_state: Any):
        self._cell = cell
        initial = _initial_state(cell, batch)
        given = initial if initial_state is None else initial_state
        leaves = [ops.convert_to_tensor(leaf) for leaf in tree.flatten(given)]
        self._structure = initial
        expected = [tuple(leaf.shape[1:]) for leaf in tree.flatten(initial)]
        dtypes = [keras.backend.standardize_dtype(leaf.dtype) for leaf in tree.flatten(initial)]
        self._dtypes = dtypes
        if any(len(shape) != 1 for shape in expected) or not all("float" in d for d in dtypes):
            raise ValueError(
                f"solve needs states that are vectors of floats; cell {cell.name!r} has shapes "
                f"{expected} of {dtypes}. Run it in keras.layers.RNN."
            )
        found = [tuple(leaf.shape[1:]) for leaf in leaves]
        if found != expected:
            raise ValueError(
                f"initial_state must have states of shapes {expected} after the batch axis, as "
                f"cell {cell.name!r} has them; got {found}."
            )
        self._sizes = [shape[0] for shape in expected]
        self.dtype = "float64" if "float64" in dtypes else "float32"
        self.start = ops.concatenate([ops.cast(leaf, self.dtype) for leaf in leaves], axis=-1)

    @property
    def tolerance(self) -> float:
        """What the coarsest of the states can tell apart."""
        coarse = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
        return max(
            coarse[dtype] ** 0.7 if dtype in coarse else default_tolerance(dtype)
            for dtype in self._dtypes
        )

    def apart(self, together: Tensor) -> list[Tensor]:
        """The states one by one, as the cell has them."""
        ends = np.cumsum(self._sizes)[:-1].tolist()
        parts = ops.split(together, ends, axis=-1) if ends else [together]
        return [ops.cast(part, dtype) for part, dtype in zip(parts, self._dtypes, strict=True)]

    def call(self, parameters: tuple, together: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One step from each of any number of states, `(..., size)`: outputs and new states."""
        leading = [-1 if size is None else size for size in x.shape[:-1]]
        rows = ops.reshape(x, (-1, x.shape[-1]))
        before = ops.reshape(together, (-1, together.shape[-1]))
        before = tree.pack_sequence_as(self._structure, self.apart(before))
        mapping = list(zip(self._cell.variables, parameters, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            outputs, new = self._cell(rows, before, training=False)
        new = ops.concatenate([ops.cast(leaf, self.dtype) for leaf in tree.flatten(new)], axis=-1)
        return (
            ops.reshape(outputs, (*leading, outputs.shape[-1])),
            ops.reshape(new, (*leading, new.shape[-1])),
        )


def _initial_state(cell: Any, batch: Any) -> Any:
    if hasattr(cell, "get_initial_state"):
        return cell.get_initial_state(batch_size=batch)
    # As `keras.layers.RNN` begins where a cell does not say how.
    sizes = tree.flatten(cell.state_size)
    return [ops.zeros((batch, size), dtype=cell.compute_dtype) for size in sizes]


def _dynamics(states: _StatesOfCell, algebra: Algebra) -> Dynamics:

    def step(parameters: tuple, previous: Vector, at: tuple) -> Vector:
        return (states.call(parameters, previous[0], at[0])[1],)

    def linearised(parameters: tuple, previous: Vector, at: tuple) -> tuple[Vector, Matrix]:
        size = previous[0].shape[-1]
        leading = [-1 if n is None else n for n in previous[0].shape[:-1]]
        rows = ops.reshape(at[0], (-1, at[0].shape[-1]))
        jacobian = backend.jacobian(
            lambda h: states.call(parameters, h, rows)[1], ops.reshape(previous[0], (-1, size))
        )
        if algebra is DIAGONAL:
            entries = ops.reshape(ops.diagonal(jacobian, axis1=-2, axis2=-1), (*leading, size))
        else:
            entries = ops.reshape(jacobian, (*leading, size, size))
        return step(parameters, previous, at), (entries,)

    return Dynamics(algebra, step, linearised)


def _agreement(dynamics: Dynamics, fixed: tuple, solution: Vector, samples: int) -> Tensor:
    """Largest distance of a state to where the loop comes to from the state some steps before."""
    parameters, at, start = fixed
    length = solution[0].shape[0]
    window = min(_WINDOW, length)
    first = np.unique(np.linspace(0, length - window, samples).round().astype("int32"))
    begin = ops.take(shifted(solution, start, False)[0], first, axis=0)
    steps = (np.arange(window)[:, None] + first).astype("int32")
    along = ops.reshape(
        ops.take(at[0], steps.ravel(), axis=0),
        (window, len(first), *(-1 if n is None else n for n in at[0].shape[1:])),
    )
    visited = loop(dynamics, parameters, (along,), (begin,))
    reached = ops.take(solution[0], (first + window - 1).astype("int32"), axis=0)
    return ops.max(ops.abs(visited[0][-1] - reached))
