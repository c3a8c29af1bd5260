"""Heads: which last layer makes the outputs of a network, and how it is replaced."""

from collections.abc import Sequence

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.layers.parameters import glorot_uniform

# The name of a task that is arrays.
GIVEN = "given arrays"


def fit_head(
    model: keras.Model, task: datasets.TaskInfo, outputs: int, seed: int
) -> tuple[keras.Model, bool]:
    """Returns the network with a head that fits the task, and whether the head is a fresh one.

    A head fits where it has as many outputs as the task, and gives probabilities or logits of
    classes, or a plain number of a value; it is kept then. Otherwise a last dense layer is left
    out, and a new one put on. The other layers are shared with the network that was given.

    Args:
        model: Built network, Sequential or functional, with one output.
        task: What is known of the task.
        outputs: Number of classes, size of the vocabulary, or 1.
        seed: Seed of the weights of a fresh head, which NumPy draws.

    Raises:
        ValueError: The network gives one output a sequence and the task wants one a step, or the
            other way round; or it is neither Sequential nor functional.
    """
    _check_rank(model, task)
    fitting = ("linear",) if task.target == "value" else ("linear", "softmax")
    if model.output_shape[-1] == outputs and output_activation(model) in fitting:
        return model, False
    core = without_head(model.layers)
    head = make_head(core, outputs, None if task.target == "value" else "softmax")
    if isinstance(model, keras.Sequential):
        fitted = keras.Sequential([sequential_input(model), *core, head], name=model.name)
    elif is_functional(model) and not _is_activation(model.layers[-1]):
        below = model.layers[-1].input if _is_dense(model.layers[-1]) else model.outputs[0]
        fitted = keras.Model(model.input, head(below), name=model.name)
    else:
        raise ValueError(
            f"{model.name!r} needs another head for {task.name!r}: {outputs} outputs, where it has "
            f"{model.output_shape[-1]}. Only Sequential models, and functional ones that end in a "
            f"dense or a recurrent layer, can be given one; build yours with {outputs} outputs."
        )
    draw_head(head, seed)
    return fitted, True


def without_head(layers: Sequence[keras.Layer]) -> list[keras.Layer]:
    """Returns the layers without a last dense one and the activations behind it, if it has one."""
    kept = len(layers)
    while kept > 1 and _is_activation(layers[kept - 1]):
        kept -= 1
    return list(layers[: kept - 1] if _is_dense(layers[kept - 1]) else layers)


def make_head(
    core: Sequence[keras.Layer], outputs: int, activation: str | None, dtype: str | None = None
) -> keras.layers.Dense:
    """Returns a new head, not built, under a name that no layer below it has.

    Args:
        core: Layers below it.
        outputs: Number of outputs.
        activation: "softmax" for classes, None for values.
        dtype: Dtype policy, or None for that of Keras.
    """
    taken = {layer.name for layer in core}
    name = "readout" if "readout" not in taken else "fresh_readout"
    return keras.layers.Dense(outputs, activation=activation, dtype=dtype, name=name)


def draw_head(head: keras.layers.Dense, seed: int) -> None:
    """Draws the kernel of a built head by NumPy: the same on every backend, for both starts."""
    drawn = glorot_uniform(tuple(head.kernel.shape), np.random.default_rng(seed))
    head.kernel.assign(drawn.astype("float32"))


def gives_logits(model: keras.Model) -> bool:
    """Returns whether the outputs of a network of classes are logits and no probabilities."""
    return output_activation(model) == "linear"


def output_activation(model: keras.Model) -> str | None:
    """Returns the name of the function that makes the outputs; None where it is not known."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    if isinstance(last, keras.layers.TimeDistributed):
        last = last.layer
    if not isinstance(last, keras.layers.Dense | keras.layers.Activation):
        return None
    return str(getattr(last.activation, "__name__", None))


def is_functional(model: keras.Model) -> bool:
    """Returns whether a network has inputs of its own, as Sequential and functional ones have."""
    return getattr(model, "inputs", None) is not None and hasattr(model, "input")


def sequential_input(model: keras.Sequential) -> keras.KerasTensor:
    """Returns an input like that of a network, for another that shares its layers."""
    given = model.inputs[0]
    return keras.Input(given.shape[1:], dtype=given.dtype, name="inputs")


def in_words(shape: tuple[int | None, ...]) -> str:
    """Returns a shape without its batch axis, as messages have it.

    Example:
        >>> in_words((None, 3))
        'any x 3'
    """
    return " x ".join("any" if size is None else str(size) for size in shape)


def other_network(task: datasets.TaskInfo) -> str:
    """Returns the sentence of a message that says where a network for a task is found."""
    if task.name == GIVEN:
        return (
            "Give one that is built for them: of a checkpoint, "
            "keras_lsc.zoo.load(name, input_shape=..., num_classes=...)."
        )
    return f'Choose a network of this task: keras_lsc.zoo.names(dataset="{task.name}").'


def _check_rank(model: keras.Model, task: datasets.TaskInfo) -> None:
    if len(model.output_shape) != (3 if task.per_step else 2):
        what = "at every step" if task.per_step else "for the whole sequence"
        raise ValueError(
            f"{task.name!r} wants an output {what}, but {model.name!r} gives outputs "
            f"{in_words(model.output_shape[1:])}, without the batch axis. {other_network(task)}"
        )


def _is_activation(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation | keras.layers.Softmax)


def _is_dense(layer: keras.Layer) -> bool:
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    return isinstance(inner, keras.layers.Dense)
