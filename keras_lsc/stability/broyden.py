"""Broyden's method: numbers that bring residuals to zero, without gradients of the residuals."""

import numpy as np

# Damping, as a share of the mean squared length of a row of the Jacobian: first and least, and by
# what it changes after a step that helped or did not.
_DAMPING, _LEAST, _CALMER, _WILDER = 0.01, 1e-4, 0.25, 4.0
_SMALLEST = 1e-12


class Broyden:
    """Steps of least norm towards residuals of zero, with a Jacobian that learns from each of them.

    Args:
        jacobian: `(residuals, numbers)` a first estimate of the derivatives.
        longest: largest change of one number in a step.

    Source: C. G. Broyden, A class of methods for solving nonlinear simultaneous equations (1965);
        the damping is that of Levenberg and Marquardt.

    Example:
        >>> import numpy as np
        >>> solver = Broyden(np.eye(2))
        >>> (solver.step(np.array([0.1, -0.2]), np.ones(2)) * [-10, 10]).round().tolist()
        [1.0, 2.0]
    """

    def __init__(self, jacobian: np.ndarray, longest: float = np.inf):
        self.jacobian = np.array(jacobian, "float64")
        self.longest = longest
        self._damping = _DAMPING

    def step(self, residuals: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The change of the numbers, `(numbers,)`, that is to bring weighted residuals to zero.

        Args:
            residuals: `(residuals,)`.
            weights: `(residuals,)` how much each counts.
        """
        rows = self.jacobian * weights[:, None]
        gram = rows @ rows.T
        size = max(np.trace(gram) / len(gram), _SMALLEST)
        damped = gram + self._damping * size * np.eye(len(gram))
        step = -rows.T @ np.linalg.solve(damped, weights * residuals)
        return step * min(1.0, self.longest / max(np.abs(step).max(), _SMALLEST))

    def learn(self, step: np.ndarray, change: np.ndarray, helped: bool) -> None:
        """Corrects the Jacobian by what a step did, and its damping by whether that was good.

        Args:
            step: `(numbers,)` the change of the numbers.
            change: `(residuals,)` that of the residuals; one that is not finite teaches nothing.
            helped: whether the residuals are smaller.
        """
        squared = step @ step
        if squared > 0 and np.isfinite(change).all():
            self.jacobian += np.outer(change - self.jacobian @ step, step) / squared
        factor = _CALMER if helped else _WILDER
        self._damping = max(self._damping * factor, _LEAST)
