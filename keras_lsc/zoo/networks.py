"""From a recipe to its network, with initial weights that NumPy draws."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lsc import datasets, layers
from keras_lsc.convert.named_weights import by_path
from keras_lsc.layers import ring
from keras_lsc.layers.parameters import glorot_uniform, orthogonal
from keras_lsc.zoo.initializers import skipped_initializers
from keras_lsc.zoo.recipes import Recipe

_TAU, _ADAPTATION_TAU, _THRESHOLD, _BETA = 10.0, 100.0, 1.0, 1.8
_MIN_RADIUS, _MAX_RADIUS, _MAX_PHASE = 0.5, 0.99, 2 * math.pi

_RECURRENT: dict[str, Callable[..., keras.Layer]] = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    **{
        activation: lambda units, activation=activation, **options: keras.layers.SimpleRNN(
            units, activation=activation, **options
        )
        for activation in ("sigmoid", "tanh", "relu")
    },
    "lif": lambda units, **options: layers.LIF(units, tau=_TAU, threshold=_THRESHOLD, **options),
    "alif": lambda units, **options: layers.ALIF(
        units,
        tau=_TAU,
        threshold=_THRESHOLD,
        tau_adaptation=_ADAPTATION_TAU,
        beta=_BETA,
        **options,
    ),
    "lru": lambda units, **options: layers.LRUBlock(
        units, min_radius=_MIN_RADIUS, max_radius=_MAX_RADIUS, max_phase=_MAX_PHASE, **options
    ),
}
_DENSE = {"dense_relu": "relu", "dense_sin": "sin", "dense_cos": "cos"}
CELLS = (*_RECURRENT, *_DENSE)
SPIKING = ("lif", "alif")


@keras.saving.register_keras_serializable(package="keras_lsc")
def sin(x: Any) -> Any:
    """The sine, as an activation that can be saved."""
    return keras.ops.sin(x)


@keras.saving.register_keras_serializable(package="keras_lsc")
def cos(x: Any) -> Any:
    """The cosine, as an activation that can be saved."""
    return keras.ops.cos(x)


def build_network(recipe: Recipe) -> keras.Sequential:
    """Makes the network of a recipe with its initial weights.

    The weights are drawn by NumPy from the recipe's seed, so they are the same, bit by bit, on
    every backend.

    Args:
        recipe: Recipe of the checkpoint.

    Returns:
        A built `keras.Sequential`: inputs as the dataset gives them, the layers `layer_1` to
        `layer_<depth>`, and a softmax readout named `readout`.

    Raises:
        ValueError: An unknown cell.
    """
    model = undrawn_network(recipe)
    draw_weights(model, recipe)
    return model


def undrawn_network(recipe: Recipe, dtype: str | None = None) -> keras.Sequential:
    """Makes the network of a recipe, as `build_network`, with weights that are still to be set.

    Args:
        recipe: Recipe of the checkpoint.
        dtype: Dtype policy of the layers; None for that of Keras.

    Raises:
        ValueError: An unknown cell.
    """
    task = datasets.info(recipe.dataset)
    inputs = keras.Input(recipe.input_shape or task.shape, dtype=task.dtype, name="inputs")
    layers_of_it = layers_of(recipe, dtype)
    with skipped_initializers(layers_of_it):
        return keras.Sequential([inputs, *layers_of_it], name=recipe.name)


def least_weights(recipe: Recipe) -> int:
    """Returns how many weights the network of a recipe has at least."""
    task = datasets.info(recipe.dataset)
    outputs, embedding = task.outputs or 1, recipe.embedding or 0
    features = embedding or (recipe.input_shape or task.shape)[-1] or 1
    between = (recipe.depth - 1) * recipe.units
    return embedding * outputs + recipe.units * (features + between + outputs)


def layers_of(recipe: Recipe, dtype: str | None = None) -> list[keras.Layer]:
    """Makes the layers of the network of a recipe, which are not built.

    Args:
        recipe: Recipe of the checkpoint.
        dtype: Dtype policy of the layers; None for that of Keras.

    Raises:
        ValueError: An unknown cell.
    """
    if recipe.cell not in CELLS:
        raise ValueError(f"Unknown cell {recipe.cell!r}. Expected one of {', '.join(CELLS)}.")
    task = datasets.info(recipe.dataset)
    first: list[keras.Layer] = []
    if recipe.embedding:
        first.append(
            keras.layers.Embedding(task.outputs, recipe.embedding, dtype=dtype, name="embedding")
        )
    elif task.padded and task.kind != "generated" and recipe.cell not in SPIKING:
        # A frame of zeros is padding; a bit that is 0, or a step without spikes, is not.
        first.append(keras.layers.Masking(dtype=dtype, name="padding"))
    activation = None if task.target == "value" else "softmax"
    readout = keras.layers.Dense(task.outputs, activation=activation, dtype=dtype, name="readout")
    return [*first, *_stack(recipe, task.per_step, dtype), readout]


def _stack(recipe: Recipe, per_step: bool, dtype: str | None) -> list[keras.Layer]:
    names = [f"layer_{k + 1}" for k in range(recipe.depth)]
    if recipe.cell in _DENSE:
        activation = {"relu": "relu", "sin": sin, "cos": cos}[_DENSE[recipe.cell]]
        return [
            keras.layers.Dense(recipe.units, activation=activation, dtype=dtype, name=n)
            for n in names
        ]
    make = _RECURRENT[recipe.cell]
    # Spikes are read out by their rate, whole sequences of linear units by their mean.
    averaged = recipe.cell in (*SPIKING, "lru") and not per_step
    stack = [
        make(
            recipe.units,
            return_sequences=per_step or averaged or name != names[-1],
            dtype=dtype,
            name=name,
        )
        for name in names
    ]
    if recipe.cell == "lru":
        stack.insert(0, keras.layers.Dense(recipe.units, dtype=dtype, name="encoder"))
    if averaged:
        stack.append(keras.layers.GlobalAveragePooling1D(dtype=dtype, name="rate"))
    return stack


def draw_weights(model: keras.Model, recipe: Recipe) -> None:
    """Sets every weight to what `drawn_weights` draws.

    Args:
        model: Network of the recipe; its weights have the names that Keras and this package give.
        recipe: Recipe with the seed.

    Raises:
        ValueError: A weight of an unknown name, for which there is no rule.
    """
    set_weights(model, drawn_weights(model, recipe))


def drawn_weights(model: keras.Model, recipe: Recipe) -> dict[str, np.ndarray]:
    """Draws every weight by NumPy: one generator a weight, so none depends on the others' sizes.

    Args:
        model: Network of the recipe; its weights have the names that Keras and this package give.
        recipe: Recipe with the seed.

    Returns:
        Arrays of float32 by the path of the weight, in the order of the model.

    Raises:
        ValueError: A weight of an unknown name, for which there is no rule.
    """
    drawn: dict[str, np.ndarray] = {}
    for position, (path, weight) in enumerate(by_path(model).items()):
        generator = np.random.default_rng([recipe.seed, position])
        shape = tuple(weight.shape)
        drawn[path] = _draw(path, shape, recipe, generator, drawn).astype("float32")
    return drawn


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a network by path, as `set_weights` takes them."""
    return {path: keras.ops.convert_to_numpy(weight) for path, weight in by_path(model).items()}


def set_weights(model: keras.Model, values: Mapping[str, np.ndarray]) -> None:
    """Sets the weights of a network by path."""
    for path, weight in by_path(model).items():
        weight.assign(values[path])


def _draw(
    path: str,
    shape: tuple[int, ...],
    recipe: Recipe,
    generator: np.random.Generator,
    drawn: Mapping[str, np.ndarray],
) -> np.ndarray:
    name = path.rpartition("/")[2]
    if name in _DRAWS:
        return _DRAWS[name](shape, generator)
    if name == "bias":
        forgets = recipe.cell == "lstm" and shape == (4 * recipe.units,)
        blocks = np.zeros((4, recipe.units)) if forgets else np.zeros(shape)
        if forgets:
            blocks[1] = 1.0
        return blocks.reshape(shape)
    if name == "log_gamma":
        log_nu = drawn[path.replace("log_gamma", "log_nu")]
        return ring.log_gamma(log_nu, _MAX_RADIUS)
    if name == "beta":  # the shift of a normalisation, or of a threshold
        return np.full(shape, _BETA if recipe.cell == "alif" else 0.0)
    if name in _CONSTANTS:
        return np.full(shape, _CONSTANTS[name])
    raise ValueError(f"There is no rule to draw the weight {path!r}.")


_CONSTANTS: dict[str, float] = {
    "gamma": 1.0,
    "log_tau": math.log(_TAU),
    "log_threshold": math.log(_THRESHOLD),
    "log_tau_adaptation": math.log(_ADAPTATION_TAU),
    "log_slope": 0.0,
    "log_damping": math.log(ring.damping(_MAX_RADIUS)),
    "skip": 1.0,
}
_DRAWS: dict[str, Callable[..., np.ndarray]] = {
    "kernel": glorot_uniform,
    "recurrent_kernel": orthogonal,
    "embeddings": lambda shape, generator: generator.uniform(-0.05, 0.05, shape),
    "log_nu": lambda shape, generator: ring.draw_log_nu(shape, generator, _MIN_RADIUS, _MAX_RADIUS),
    "log_theta": lambda shape, generator: ring.draw_log_theta(shape, generator, _MAX_PHASE),
    "input_real": ring.draw_input,
    "input_imag": ring.draw_input,
    "output_real": ring.draw_output,
    "output_imag": ring.draw_output,
    "feedthrough": lambda shape, generator: generator.standard_normal(shape),
}
