"""Gated cells that are nonlinear in their state, whose steps Newton's method takes all at once."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc.layers.parallel.affine import Algebra, Matrix, Vector
from keras_lsc.layers.parallel.newton import Dynamics, default_tolerance, loop, states_at_once
from keras_lsc.layers.parameters import glorot_blocks, numpy_generator
from keras_lsc.layers.sequence import SequenceCell, SequenceLayer

Tensor = Any

SOLVERS = ("auto", "loop", "newton")
# Iterations after which the loop takes over: contractive dynamics need some ten.
_MOST_ITERATIONS = 50
# From so many steps on Newton's method is faster, and up to so many numbers in the state: measured
# in benchmarks/parallel.py. A JAX loop is compiled, and wins on a CPU at any length.
_LONG = 256
_WIDE = 1024


class SolverCounts(NamedTuple):
    """What Newton's method has done in the training of a layer, summed over batches.

    Attributes:
        solves: how many batches of sequences it was given.
        iterations: how many scans it made for all of them.
        loops: for how many it did not converge, so that the steps were taken one after another.
    """

    solves: int = 0
    iterations: int = 0
    loops: int = 0

    def since(self, before: "SolverCounts") -> "SolverCounts":
        """What was done after `before` was read."""
        return SolverCounts(*(now - then for now, then in zip(self, before, strict=True)))


class NonlinearGatedCell(SequenceCell):
    """h' = f(h, x) with a Jacobian of few entries; a subclass says what f and its Jacobian are.

    Each unit sees its own state alone: recurrent weights are vectors.

    Args:
        units: number of features of the output.
        use_bias: whether there is a bias.
        solver: "auto", "loop" or "newton".
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.
    """

    # Number of matrices side by side in the kernel, and of vectors in each weight of the state.
    gates: int
    algebra: Algebra

    def __init__(self, units: int, *, use_bias: bool, solver: str, seed: int | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = arguments.positive_integer("units", units)
        self.use_bias = arguments.flag("use_bias", use_bias)
        self.solver = arguments.one_of("solver", solver, SOLVERS)
        self.seed = None if seed is None else arguments.integer("seed", seed, at_least=0)
        self.state_size = self._state_sizes()
        self.output_size = self.units
        self._tally = backend.tally(len(SolverCounts._fields))

    @property
    def solver_counts(self) -> SolverCounts:
        """What Newton's method has done since the cell was made, in calls with `training=True`."""
        return SolverCounts(*map(round, self._tally.read()))

    def _state_sizes(self) -> list[int]:
        raise NotImplementedError

    def _add_recurrent(self, generator: np.random.Generator) -> None:
        """Makes the weights of the state."""
        raise NotImplementedError

    def _vectors(self) -> tuple[Tensor, ...]:
        """The vectors that `linearised` takes."""
        raise NotImplementedError

    def advanced(self, parameters: tuple, previous: Vector, drive: Tensor) -> Vector:
        """Returns the new states.

        Args:
            parameters: what `_vectors` returns, for a derivative to be taken or not.
            previous: the states before.
            drive: what the inputs give to the gates, `(..., gates * units)`.
        """
        raise NotImplementedError

    def linearised(
        self, parameters: tuple, previous: Vector, drive: Tensor
    ) -> tuple[Vector, Matrix]:
        """Returns the new states and their Jacobian; arguments as of `advanced`."""
        raise NotImplementedError

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        features, generator = input_shape[-1], numpy_generator(self.seed)

        draw = glorot_blocks(self.gates * [self.units], generator)
        columns = self.gates * self.units
        self.kernel = self._add_matrix("kernel", (features, columns), draw)
        self._add_recurrent(generator)
        self.bias = self._add_parameter("bias", (columns,), "zeros") if self.use_bias else None
        self.built = True

    def _add_diagonals(self, name: str, count: int, generator: np.random.Generator) -> Any:
        """Adds the diagonals of recurrent matrices, side by side: one row, for one scale a gate."""

        def draw(shape: tuple, **_: Any) -> np.ndarray:
            return generator.uniform(-1.0, 1.0, shape)

        return self._add_parameter(name, (1, count * self.units), draw)

    def _diagonals(self, weight: Any) -> tuple[Tensor, ...]:
        # Of the weight, because the sizes of a tensor are tensors where a graph is exported.
        return tuple(ops.split(self._value(weight)[0], weight.shape[-1] // self.units))

    def _drive(self, inputs: Tensor) -> Tensor:
        drive = self._product(inputs, self.kernel)
        return drive + self._value(self.bias) if self.use_bias else drive

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """One step.

        Args:
            inputs: `(batch, features)`.
            states: the states, each `(batch, units)`; h comes first.
            training: has no effect.

        Returns:
            The new h in the dtype of the policy, and the new states.
        """
        del training
        new = self.advanced(self._vectors(), tuple(self._states(states)), self._drive(inputs))
        return self._output(new[0]), list(new)

    def run(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """All steps; see `SequenceCell.run`."""
        drive = self._drive(ops.swapaxes(sequences, 0, 1))
        at = (drive,) if mask is None else (drive, self._keep(mask))
        start = tuple(self._states(states))
        if self._takes_the_loop(drive):
            visited = loop(self._dynamics(), self._vectors(), at, start)
        else:
            visited = states_at_once(
                self._dynamics(),
                self._vectors(),
                at,
                start,
                tolerance=default_tolerance(self.compute_dtype),
                max_iterations=_MOST_ITERATIONS,
                name=self.name,
                # Inference is exported, measured and taken apart, and leaves no trace.
                tally=self._tally if training is True else None,
            )
        outputs = ops.swapaxes(self._output(visited[0]), 0, 1)
        return outputs, [state[-1] for state in visited]

    def _dynamics(self) -> Dynamics:
        """The recurrence at what `run` gives to each step: the drive and, masked, what to keep."""
        identity = self.algebra.identity

        def step(parameters: tuple, previous: Vector, at: tuple) -> Vector:
            new = self.advanced(parameters, previous, at[0])
            return new if len(at) == 1 else _kept(at[1], new, previous)

        def linearised(parameters: tuple, previous: Vector, at: tuple) -> tuple[Vector, Matrix]:
            new, jacobian = self.linearised(parameters, previous, at[0])
            if len(at) == 1:
                return new, jacobian
            return _kept(at[1], new, previous), _kept(at[1], jacobian, identity(previous))

        return Dynamics(self.algebra, step, linearised)

    def _takes_the_loop(self, drive: Tensor) -> bool:
        length = backend.static_length(drive)
        # A graph of any length has no scan of blocks; one that is exported is run where no
        # iterations can be chosen.
        if self.solver == "loop" or length is None or backend.is_exporting():
            return True
        if self.solver == "newton":
            return False
        batch = drive.shape[1]
        is_narrow = batch is not None and batch * self.units < _WIDE
        return length < _LONG or not is_narrow or not backend.loops_are_slow()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "solver": self.solver,
            "seed": self.seed,
        }


def _kept(keep: Tensor, new: tuple, old: tuple) -> tuple:
    return tuple(keep * p + (1.0 - keep) * q for p, q in zip(new, old, strict=True))


class NonlinearLayer(SequenceLayer):
    """A `SequenceLayer` over a `NonlinearGatedCell`."""

    @property
    def is_solved_at_once(self) -> bool:
        """Whether Newton's method may take its steps, by the argument `solver`."""
        return self.cell.solver != "loop"

    @property
    def solver_counts(self) -> SolverCounts:
        """What Newton's method has done while the layer was trained, compiled or not.

        Batches that `fit` and `train_on_batch` ran since the layer was made, their iterations, and
        for how many of them the loop had to take over.
        """
        return self.cell.solver_counts
