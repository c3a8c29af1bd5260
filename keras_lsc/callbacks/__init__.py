"""Callbacks for pre-training, for watching a training, and for tasks of `keras_lsc.datasets`."""

from keras_lsc.callbacks.carried_states import ResetStates
from keras_lsc.callbacks.curriculum import NCurriculum
from keras_lsc.callbacks.firing_rates import FiringRateSchedule
from keras_lsc.callbacks.lowest_accuracy import LowestAccuracy
from keras_lsc.callbacks.monitor import StabilityMonitor, StabilityWarning
from keras_lsc.callbacks.pretraining import StopWhenStable, UpdateCounter
from keras_lsc.callbacks.radius_regularizer import RadiusRegularizer
from keras_lsc.callbacks.sparsity import SparsitySchedule

__all__ = [
    "FiringRateSchedule",
    "LowestAccuracy",
    "NCurriculum",
    "RadiusRegularizer",
    "ResetStates",
    "SparsitySchedule",
    "StabilityMonitor",
    "StabilityWarning",
    "StopWhenStable",
    "UpdateCounter",
]


def __dir__() -> list[str]:
    return sorted(__all__)
