"""keras_lsc: recurrent networks whose gradients neither explode nor vanish, in Keras 3."""

from keras_lsc import (
    callbacks,
    comparison,
    convert,
    datasets,
    layers,
    methods,
    optimizers,
    plot,
    spiking,
    stability,
    zoo,
)
from keras_lsc.citing import cite
from keras_lsc.diagnosis import Diagnosis, diagnose
from keras_lsc.exporting import export
from keras_lsc.flossing import NotFlossedError
from keras_lsc.levelling import NotLevelledError
from keras_lsc.pretrainer import LSCPretrainer
from keras_lsc.pretraining import NotStabilizedError
from keras_lsc.race import StartRace, best_start
from keras_lsc.stability.eigenvalues import Spectrum, eigenvalues
from keras_lsc.stability.energies import gradient_energies
from keras_lsc.stability.gradients import GradientGrid, gradient_grid
from keras_lsc.stability.lyapunov import LyapunovExponents, lyapunov
from keras_lsc.stability.measure import measure
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.stability.steps import register_recurrence
from keras_lsc.stabilization import stabilize
from keras_lsc.version import __version__

__all__ = [
    "Diagnosis",
    "GradientEnergies",
    "GradientGrid",
    "LSCPretrainer",
    "LyapunovExponents",
    "NotFlossedError",
    "NotLevelledError",
    "NotStabilizedError",
    "Spectrum",
    "StabilityReport",
    "StartRace",
    "__version__",
    "best_start",
    "callbacks",
    "cite",
    "comparison",
    "convert",
    "datasets",
    "diagnose",
    "eigenvalues",
    "export",
    "gradient_energies",
    "gradient_grid",
    "layers",
    "lyapunov",
    "measure",
    "methods",
    "optimizers",
    "plot",
    "register_recurrence",
    "spiking",
    "stability",
    "stabilize",
    "zoo",
]


def __dir__() -> list[str]:
    return sorted(__all__)
