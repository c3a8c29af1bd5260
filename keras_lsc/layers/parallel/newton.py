"""Solves a recurrence for all steps at once by Newton's method.

The states are the root of h_t - f(h_{t-1}, x_t) = 0, t = 1..T. Newton's step solves the
linearised recurrence delta_t = J_t delta_{t-1} + (f(h_{t-1}, x_t) - h_t), which is a scan; J_t may
be less than the whole Jacobian, or damped: then it takes more steps to the same root. Backward,
one scan in reverse solves the adjoint recurrence; nothing is differentiated through the iterations.

Source: arXiv 2309.12252; with diagonal and with damped Jacobians arXiv 2407.19115.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_lsc import backend
from keras_lsc.layers.parallel.affine import Algebra, Matrix, Vector, affine_scan
from keras_lsc.layers.scan import shifted

Tensor = Any

# No factor of a damped Jacobian is smaller: with none of it, information moves one step at a time.
_LEAST_FACTOR = 1 / 64


class Dynamics(NamedTuple):
    """A recurrence, as functions of its parameters, the states before a step and what it is given.

    Each may be asked for one step or, with a time axis in front, for all.

    Attributes:
        algebra: of the Jacobians.
        step: (parameters, previous, at) -> the new states.
        linearised: (parameters, previous, at) -> the new states and their Jacobian by `previous`.
    """

    algebra: Algebra
    step: Callable[[tuple, Vector, tuple], Vector]
    linearised: Callable[[tuple, Vector, tuple], tuple[Vector, Matrix]]


class Solved(NamedTuple):
    """What the iterations came to.

    Attributes:
        states: tuple of `(T, ...)` tensors: the solution, or the iterate nearest to one.
        iterations: how many scans were made.
        residual: largest |f(h_{t-1}, x_t) - h_t|.
        has_converged: whether the last step moved no state by more than the tolerance.
    """

    states: Vector
    iterations: Tensor
    residual: Tensor
    has_converged: Tensor


def default_tolerance(dtype: str) -> float:
    """1.4e-5 in float32, 1.1e-11 in float64: a step so small is followed by one of rounding."""
    return float(np.finfo(dtype).eps) ** 0.7


def newton(
    dynamics: Dynamics,
    parameters: tuple,
    at: tuple,
    start: Vector,
    *,
    tolerance: float,
    max_iterations: int,
    is_damped: bool = False,
) -> Solved:
    """Solves for the states of all steps, without a derivative.

    Args:
        dynamics: the recurrence; its Jacobians need not be whole.
        parameters: tuple of tensors.
        at: tuple of `(T, ...)` tensors.
        start: the states before the first step.
        tolerance: the largest change of a state, in units of the largest state if that is above 1,
            at which the iterations end.
        max_iterations: how many are made at most.
        is_damped: whether Jacobians are halved as long as the residual grows.

    Returns:
        `Solved`.
    """
    count = len(start)

    def goes_on(_k: Tensor, size: Tensor, scale: Tensor, *_: Tensor) -> Tensor:
        # Written so that a size that is no number goes on: the next iterate may be one.
        return ops.logical_not(_is_small(size, scale, tolerance))

    def improve(k: Tensor, _size: Tensor, _scale: Tensor, factor: Tensor, *rest: Tensor) -> tuple:
        least, states, best = rest[0], rest[1 : 1 + count], rest[1 + count :]
        new, jacobian = dynamics.linearised(parameters, shifted(states, start, False), at)
        defect = tuple(p - q for p, q in zip(new, states, strict=True))
        residual = _largest(defect)
        is_best = residual < least
        best = tuple(ops.where(is_best, p, q) for p, q in zip(states, best, strict=True))
        if is_damped:
            is_worse = residual > least
            factor = ops.where(is_worse, factor / 2, factor * 2)
            factor = ops.clip(factor, _LEAST_FACTOR, 1.0)
            jacobian = tuple(factor * part for part in jacobian)
        change = affine_scan(dynamics.algebra, jacobian, defect)
        moved = tuple(p + q for p, q in zip(states, change, strict=True))
        # What the products of large Jacobians overflow in is taken one step further instead.
        moved = tuple(ops.where(ops.isfinite(p), p, q) for p, q in zip(moved, new, strict=True))
        size = _largest(tuple(p - q for p, q in zip(moved, states, strict=True)))
        scale = ops.maximum(_largest(moved), ops.ones_like(size))
        least = ops.where(is_best, residual, least)
        return k + 1, size, scale, factor, least, *moved, *best

    first = dynamics.step(parameters, _everywhere(start, at), at)
    zero = ops.sum(ops.zeros_like(first[0][0]))
    begin = (
        ops.cast(zero, "int32"),
        zero + float("inf"),
        zero + 1.0,
        zero + 1.0,
        zero + float("inf"),
        *first,
        *first,
    )
    end = ops.while_loop(goes_on, improve, begin, maximum_iterations=max_iterations)
    iterations, size, scale, _, least, *rest = end
    states, best = tuple(rest[:count]), tuple(rest[count:])
    new = dynamics.step(parameters, shifted(states, start, False), at)
    residual = _largest(tuple(p - q for p, q in zip(new, states, strict=True)))
    # A last step that is small beside states out of all bounds solves nothing.
    is_solved = residual <= tolerance**0.5 * scale
    has_converged = ops.logical_and(_is_small(size, scale, tolerance), is_solved)
    is_last = ops.logical_or(has_converged, residual < least)
    states = tuple(ops.where(is_last, p, q) for p, q in zip(states, best, strict=True))
    return Solved(states, iterations, ops.where(is_last, residual, least), has_converged)


def _is_small(size: Tensor, scale: Tensor, tolerance: float) -> Tensor:
    """Whether a step is small beside the states; not where both are infinite."""
    return ops.logical_and(size <= tolerance * scale, ops.isfinite(size))


def loop(dynamics: Dynamics, parameters: tuple, at: tuple, start: Vector) -> Vector:
    """The states, one step after another."""
    return backend.running_states(
        lambda states, here: dynamics.step(parameters, states, here), start, at
    )


def states_at_once(
    dynamics: Dynamics,
    parameters: tuple,
    at: tuple,
    start: Vector,
    *,
    tolerance: float,
    max_iterations: int,
    name: str,
    tally: Any = None,
) -> Vector:
    """The states of all steps by Newton's method, or by the loop where that does not converge.

    Args:
        dynamics: the recurrence, with its whole Jacobian.
        parameters: tuple of tensors.
        at: tuple of `(T, ...)` tensors.
        start: the states before the first step.
        tolerance: as in `newton`.
        max_iterations: as in `newton`.
        name: of the layer, for the warning.
        tally: of `backend.tally`, for solutions, their iterations, and those that were left to
            the loop; None where they are not counted.

    Returns:
        Tuple of `(T, ...)` tensors, with the derivative of the recurrence by `parameters`, `at` and
        `start`; a derivative of that raises.
    """
    fixed = tuple(map(without_gradient, (parameters, at, start)))

    # A function of its arguments: what it closed over would be constants of the compiled program.
    def solve(*fixed: tuple) -> tuple[Vector, Tensor, Tensor]:
        found = newton(dynamics, *fixed, tolerance=tolerance, max_iterations=max_iterations)
        states = ops.cond(found.has_converged, lambda: found.states, lambda: loop(dynamics, *fixed))
        return states, found.iterations, found.has_converged

    states, iterations, has_converged = backend.no_gradient(lambda: backend.as_graph(solve)(*fixed))
    if tally is not None:
        iterations = ops.cast(iterations, "float32")
        failed = 1.0 - ops.cast(has_converged, "float32")
        tally.add(ops.ones_like(iterations), iterations, failed)
    if backend.is_concrete(has_converged) and not bool(has_converged):
        warn_of_the_loop(name, max_iterations)
    fixed_parameters, fixed_at, fixed_start = fixed
    previous = shifted(states, fixed_start, False)
    new = dynamics.step(parameters, previous, at)

    def linearised() -> Matrix:
        return dynamics.linearised(fixed_parameters, previous, fixed_at)[1]

    jacobian = backend.no_gradient(linearised)
    return with_adjoint(dynamics.algebra, jacobian, new, start)


def with_adjoint(algebra: Algebra, jacobian: Matrix, new: Vector, start: Vector) -> Vector:
    """Gives states the derivative of the recurrence that they solve.

    Args:
        algebra: of the Jacobians.
        jacobian: by the state before, at the solution.
        new: what every step makes of the solution before it, which has no derivative itself.
        start: the states before the first step.

    Returns:
        `new`, whose cotangents are carried backward in time.
    """
    entries, count = len(jacobian), len(new)

    def forward(*inputs: Tensor) -> Vector:
        return inputs[entries : entries + count]

    def backward(inputs: tuple, outputs: Vector, cotangents: tuple) -> tuple:
        jacobian, new = inputs[:entries], inputs[entries : entries + count]
        cotangents = tuple(
            ops.zeros_like(state) if g is None else g
            for state, g in zip(outputs, cotangents, strict=True)
        )
        transposed = algebra.transposed(jacobian)
        nothing = tuple(ops.zeros_like(part[0]) for part in transposed)
        after = shifted(transposed, nothing, True)
        adjoint = affine_scan(algebra, after, cotangents, reverse=True)
        adjoint = _differentiated_once(adjoint, new)

        def by_start(k: int) -> Tensor:
            first = tuple(part[0] for part in transposed)
            return algebra.apply(first, tuple(part[0] for part in adjoint))[k]

        return (
            *(None for _ in jacobian),
            *((lambda k=k: adjoint[k]) for k in range(count)),
            *((lambda k=k: by_start(k)) for k in range(count)),
        )

    return backend.custom_gradient(forward, backward)(*jacobian, *new, *start)


def _differentiated_once(adjoint: Vector, new: Vector) -> Vector:
    """The adjoint, of which a derivative by anything that the states depend on raises."""

    def backward(inputs: tuple, outputs: Vector, cotangents: tuple) -> tuple:
        del inputs, outputs, cotangents
        raise NotImplementedError(
            "States that Newton's method has solved for were differentiated twice; they have a "
            'first derivative only. Use solver="loop" where second derivatives are needed.'
        )

    count = len(adjoint)
    return backend.custom_gradient(lambda *x: x[:count], backward)(*adjoint, *new)


def warn_of_the_loop(name: str, max_iterations: int) -> None:
    """Says that Newton's method has not converged and that the loop is taken."""
    warnings.warn(
        f"{name}: Newton's method has not converged in {max_iterations} iterations; the steps were "
        "taken one after another, which is exact and slower. The dynamics may be chaotic: see "
        'keras_lsc.lyapunov. Stabilise the model, or use solver="loop".',
        stacklevel=3,
    )


def without_gradient(tensors: tuple) -> tuple:
    """The tensors, through which no derivative passes."""
    return tuple(ops.stop_gradient(x) for x in tensors)


def _everywhere(start: Vector, at: tuple) -> Vector:
    """The states before the first step, before every step."""
    along = ops.zeros_like(at[0][..., :1])
    return tuple(state + along for state in start)


def _largest(parts: Vector) -> Tensor:
    """The largest modulus; infinite if one is no number."""
    largest = ops.max(ops.abs(parts[0]))
    for part in parts[1:]:
        largest = ops.maximum(largest, ops.max(ops.abs(part)))
    return ops.where(ops.isnan(largest), ops.full_like(largest, float("inf")), largest)
