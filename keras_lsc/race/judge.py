"""Who is ahead in a race, by what is monitored."""

import math
from dataclasses import replace

import numpy as np

from keras_lsc import arguments
from keras_lsc.race.course import Array
from keras_lsc.race.entrants import DEFAULT, Entrant

# 97.5 % of Student's t with 7 degrees of freedom.
_STUDENT = 2.365


class Judge:
    """Ranks entrants by what is monitored.

    Args:
        monitor: "loss" or the name of a metric.
        higher_is_better: Of the monitor; None means not, of losses and errors.
    """

    def __init__(self, monitor: str, higher_is_better: bool | None):
        self.monitor = arguments.text("monitor", monitor)
        if higher_is_better is None:
            higher_is_better = not any(word in monitor for word in ("loss", "error", "perplexity"))
        self._higher_is_better = arguments.flag("higher_is_better", higher_is_better)

    def parts(self, logs: list[dict[str, float]]) -> Array:
        """The monitored values of the parts of the validation data.

        Raises:
            ValueError: The model does not measure what is monitored.
        """
        if self.monitor not in logs[0]:
            raise ValueError(
                f"monitor={self.monitor!r} is not among what the model measures, "
                f"{sorted(logs[0])}. Compile it with that metric, or choose another."
            )
        return np.array([part[self.monitor] for part in logs])

    def compared(self, running: list[Entrant], scores: list[Array]) -> list[Entrant]:
        """The entrants in order, with what they are ahead of the best from the default start."""
        order = sorted(range(len(running)), key=lambda k: self._rank(running[k].score))
        default = next(k for k in order if running[k].start == DEFAULT)
        found = []
        for k in order:
            ahead = None
            if k != default:
                differences = scores[k] - scores[default]
                error = differences.std(ddof=1) / math.sqrt(len(differences))
                ahead = (float(differences.mean()), float(_STUDENT * error))
            found.append(replace(running[k], ahead=ahead))
        return found

    def _rank(self, score: float | None) -> float:
        """The smaller, the better; what is no number comes last."""
        if score is None or not math.isfinite(score):
            return math.inf
        return -score if self._higher_is_better else score
