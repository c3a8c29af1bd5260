"""The pictures: radii, gradients, eigenvalues, spikes, learning curves, backends, on matplotlib.

Every function draws what was measured elsewhere and returns the `Axes`. Colours are those of
Okabe and Ito, which the colour-blind can tell apart; a marker of its own tells each thing too.
"""

from keras_lsc.plot.comparisons import backends
from keras_lsc.plot.curves import learning_curves
from keras_lsc.plot.depth import energies
from keras_lsc.plot.gradients import gradient_grids
from keras_lsc.plot.rasters import spike_raster
from keras_lsc.plot.spectra import eigenvalues
from keras_lsc.plot.style import STYLES as STYLES
from keras_lsc.plot.style import WIDTH as WIDTH
from keras_lsc.plot.style import new_figure as new_figure
from keras_lsc.plot.transitions import height_of_radii as height_of_radii
from keras_lsc.plot.transitions import radii

__all__ = [
    "backends",
    "eigenvalues",
    "energies",
    "gradient_grids",
    "learning_curves",
    "radii",
    "spike_raster",
]


def __dir__() -> list[str]:
    return sorted(__all__)
