"""How many iterations of Newton's method a recurrence is to be expected to take."""

import math

from keras_lsc import arguments


def predicted_iterations(exponent: float, steps: int) -> int:
    """Predicts how many scans `solve` and the layers of `solver="newton"` make, roughly.

    What an iteration gets wrong at one step reaches the others by the products of the Jacobians,
    whose sum over all steps is the condition number of the recurrence, a = sum of exp(exponent k).
    From within 1/a of the solution each iteration squares the error; until then each wins about as
    much: two iterations more for each factor e of a, and never more than there are steps. So a
    recurrence that forgets takes the same number at any length, one at the edge O(log T), and a
    chaotic one does not converge before it has gone through the sequence. Above an exponent of
    about -0.1 that is a lower bound: long sequences have stretches in which distances grow, and a
    GRU of exponent -0.07 took 7 iterations for 200 steps, 73 for 1,000, and did not converge in
    100 for 8,192.

    Args:
        exponent: largest Lyapunov exponent per step: `keras_lsc.lyapunov(model, x).stack[0]`, or
            the logarithm of the radius in time as an upper guess.
        steps: length of the sequence.

    Returns:
        Number of iterations, between 1 and `steps`.

    Raises:
        ValueError: `exponent` is no finite number, or `steps` no positive integer.

    Source: arXiv 2508.16817 for what grows with what; the two constants are fitted to GRU cells.

    Example:
        >>> predicted_iterations(-0.5, 1_000), predicted_iterations(-0.5, 100_000)
        (5, 5)
    """
    exponent = arguments.number("exponent", exponent)
    steps = arguments.positive_integer("steps", steps)
    # The logarithm of the sum, which itself overflows where the exponent is positive.
    log_condition = math.log(steps)
    if exponent != 0:
        decay = -abs(exponent)
        log_condition = math.log(math.expm1(decay * steps) / math.expm1(decay))
        log_condition += max(exponent, 0.0) * (steps - 1)
    return max(1, min(steps, round(_AT_LEAST + _PER_FACTOR_E * log_condition)))


# Fitted to what `solve` takes with whole Jacobians for GRU cells: see benchmarks/parallel.py.
_AT_LEAST = 3.0
_PER_FACTOR_E = 2.0
