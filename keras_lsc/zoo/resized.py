"""Another width, depth or number of features of a checkpoint: made on the spot, and certified."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal
from weakref import WeakKeyDictionary

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.stability.data import draw_rows, hold_out, input_structure
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import networks, start_file
from keras_lsc.zoo.certificate import make_certificate, training_data
from keras_lsc.zoo.inputs import draw_inputs
from keras_lsc.zoo.pretraining import Gauge, pretrain
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.start_file import StartFile

# Sequences that are drawn where no data is at hand, and the share of spikes in those of events.
_DRAWN, _SPIKE_RATE = 768, 0.05
# Points at which a levelled network has its radii measured, which takes longer than levelling.
_FEW = 16
_CERTIFICATES: WeakKeyDictionary[keras.Model, dict[str, Any]] = WeakKeyDictionary()


def certificate(model: keras.Model) -> dict[str, Any]:
    """Returns the certificate of a model that `keras_lsc.zoo.load` made in another size.

    Args:
        model: What `load` returned for other `units`, `depth` or features.

    Returns:
        The fields that `keras_lsc.zoo.info(name).certificate` has.

    Raises:
        ValueError: `load` did not make the model; that of a checkpoint as it is stored is in its
            `info`.

    Example:
        >>> from keras_lsc import zoo
        >>> model = zoo.load("test_gru_parity_d2_rhovar", units=12)
        >>> zoo.certificate(model)["deviation"] <= 0.02
        True
    """
    found = _CERTIFICATES.get(model) if isinstance(model, keras.Model) else None
    if found is None:
        given = model.name if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(
            f"{given!r} is no model that keras_lsc.zoo.load made with other units, depth or "
            "features. Of a checkpoint as it is stored the certificate is "
            "keras_lsc.zoo.info(name).certificate."
        )
    return found


def certify(model: keras.Model, made: dict[str, Any]) -> None:
    """Keeps the certificate of a model, as long as that lives, for `certificate`."""
    _CERTIFICATES[model] = made


def resized(
    stored: StartFile,
    recipe: Recipe,
    x: Any,
    weights: Literal["stabilized", "initial"],
    seed: int,
) -> tuple[keras.Sequential, dict[str, Any] | None]:
    """Makes the network of another recipe from the numbers of a start of the same cell and method.

    Its scales are those of the stored layers at the same height, a start that a few updates bring
    to the target, or a few passes to the same energies.

    Args:
        stored: The start.
        recipe: Its recipe with other units, depth or input shape.
        x: Sequences to pre-train on; None for those of the task, where they fit and are on this
            computer, else drawn ones.
        weights: "stabilized", or "initial" for the network as it is drawn.
        seed: Seed of pre-training and of drawn sequences.

    Returns:
        The network, and its certificate; None in place of that for the network as it is drawn.

    Raises:
        NotStabilizedError, NotLevelledError: It stayed outside the tolerance of the recipe.
        ValueError: `x` does not fit the network.
    """
    model = networks.build_network(recipe)
    if weights == "initial":
        return model, None
    drawn = networks.weights_of(model)
    sequences, origin = _sequences(recipe, x, seed, model)
    training, validation = hold_out(sequences)
    networks.set_weights(model, _carried_over(stored.recipe, stored.numbers(), recipe, drawn))
    pretrain(model, training[0], recipe, recipe.pretraining_tolerance, seed)
    gauge = Gauge(model, validation[0], recipe, seed)
    report = _measured(recipe, gauge)
    values = networks.weights_of(model)
    networks.set_weights(model, drawn)
    initial = _measured(recipe, gauge)
    networks.set_weights(model, values)
    made = make_certificate(recipe, initial, report, training[0], validation[0])
    made["certificate_data"]["split"] = origin
    return model, made


def _measured(recipe: Recipe, gauge: Gauge) -> StabilityReport:
    """What the recipe goes by: radii, or energies, and then few radii."""
    if recipe.method == "lsc":
        return gauge.radii(recipe.samples)
    return gauge.with_energies(gauge.radii(min(_FEW, recipe.samples)))


def _sequences(
    recipe: Recipe, x: Any, seed: int, model: keras.Model
) -> tuple[list[np.ndarray], str]:
    """Sequences that the network reads, and where they are from."""
    if x is not None:
        return draw_rows(x, recipe.sequences, seed, input_structure(model)), "given"
    task = datasets.info(recipe.dataset)
    shape = model.inputs[0].shape[1:]
    try:
        data = training_data(recipe)
        if data.shape[1:] == shape:
            return [data], "train"
        reason = f"those of {recipe.dataset} have the shape {data.shape[1:]}"
    except (datasets.DatasetUnavailableError, ModuleNotFoundError):
        reason = f"those of {recipe.dataset} are not on this computer"
    warnings.warn(
        f"The network of inputs {shape} is pre-trained on sequences that are drawn, because "
        f"{reason}. Give some of your own: x=...",
        stacklevel=4,
    )
    rate = _SPIKE_RATE if task.kind == "spikes" else None
    return [draw_inputs(model, _DRAWN, np.random.default_rng([seed, 4]), rate)], "drawn"


def _carried_over(
    stored: Recipe,
    numbers: Mapping[str, np.ndarray],
    recipe: Recipe,
    drawn: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The weights of the recipe, moved as those of the stored layer at the same height were."""
    before = networks.drawn_weights(networks.undrawn_network(stored), stored)
    values = dict(drawn)
    for name, initial in drawn.items():
        below = _at_the_same_height(name, stored.depth, recipe.depth)
        given = numbers.get(below)
        if given is None:
            continue
        if given.shape == initial.shape:
            values[name] = given
        elif given.shape == before[below].shape:
            sizes = recipe.units, stored.units
            moved = _moved_vector(initial, before[below], given, *sizes)
            values[name] = initial if moved is None else moved
        else:
            values[name] = start_file.expanded({name: initial}, {name: given})[name]
    return values


def _at_the_same_height(name: str, stored: int, wanted: int) -> str:
    """The path of the weight of the stored layer that is as far between first and last."""
    layer, _, rest = name.partition("/")
    if not layer.startswith("layer_"):
        return name
    height = (int(layer.removeprefix("layer_")) - 1) / max(1, wanted - 1)
    return f"layer_{1 + round(height * (stored - 1))}/{rest}"


def _moved_vector(
    initial: np.ndarray, before: np.ndarray, after: np.ndarray, units: int, stored_units: int
) -> np.ndarray | None:
    """A vector moved as another was in the mean of each gate; None for what is no vector of units.

    A GRU has two biases, `(2, 3 * units)`.
    """
    if not initial.ndim:
        return (initial + (after - before)).astype("float32")
    gates = initial.shape[-1] // units
    sizes = (*initial.shape[:-1], gates * units), (*initial.shape[:-1], gates * stored_units)
    if (initial.shape, before.shape) != sizes:
        return None
    step = (after - before).reshape(*initial.shape[:-1], gates, stored_units).mean(axis=-1)
    return (initial + np.repeat(step, units, axis=-1)).astype("float32")
