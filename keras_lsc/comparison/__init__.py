"""One checkpoint on every backend: the same numbers? how fast? how much memory?

A process has one Keras backend, so each runs in a process of its own, on whichever device it
chooses; this one touches none.
"""

from keras_lsc.comparison.report import BackendComparison, BackendRow, Timing
from keras_lsc.comparison.run import BACKENDS, compare_backends

__all__ = ["BACKENDS", "BackendComparison", "BackendRow", "Timing", "compare_backends"]


def __dir__() -> list[str]:
    return sorted(__all__)
