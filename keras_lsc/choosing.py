"""Which start a network asks for, by what its gradient does on the way down: method "auto"."""

from typing import Any

import keras

from keras_lsc.diagnosis.thresholds import DEPTH_RATIO
from keras_lsc.levelling import leveller_of
from keras_lsc.stability.energies import check_model
from keras_lsc.stability.firing_rates import spiking_layers
from keras_lsc.stability.graph import is_graph_model

# A gradient that grows towards the inputs hurts later than one that vanishes: tanh networks of
# twenty layers, off by 1e4, trained no worse from their default start than from a level one.
GROWTH_RATIO = DEPTH_RATIO**2


def choose(model: keras.Model, x: Any, seed: int) -> tuple[str | None, str]:
    """Looks at a model's gradient, changes nothing, and names the method that helps.

    Args:
        model: a built model.
        x: its inputs.
        seed: of what is drawn.

    Returns:
        "lsc", "level" or None, which is to leave the network alone, and why.

    Raises:
        TypeError, ValueError: as `gradient_energies`.

    Source: experiments/RESULTS.md, levelled starts; docs/method/levelling.md.
    """
    check_model(model)
    spiking = spiking_layers(model)
    if spiking and is_graph_model(model):
        name = spiking[0].name
        return "lsc", f"{name!r} is a spiking layer, whose start also has to make it fire"
    try:
        leveller = leveller_of(model, x, seed)
    except ValueError as error:
        return None, str(error)
    if leveller.is_flat() and is_graph_model(model):
        return "lsc", "activations are flat, which scales alone make up for by saturating them"
    found = leveller.look()
    lowest, highest = found.energy.min(), found.energy.max()
    if lowest < 1 / DEPTH_RATIO:
        name = found.layers[int(found.energy.argmin())]
        return "level", f"{lowest:.1e} of the gradient's energy arrives at {name!r}"
    if highest > GROWTH_RATIO:
        name = found.layers[int(found.energy.argmax())]
        return "level", f"the gradient's energy grows to {highest:.1e} at {name!r}"
    return None, (
        f"the gradient's energy is between {lowest:.2g} and {highest:.2g} of that at the last "
        f"layer, and a start helps where it falls below {1 / DEPTH_RATIO:.0e} or grows beyond "
        f"{GROWTH_RATIO:.0e}"
    )
