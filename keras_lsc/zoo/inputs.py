"""What a network reads of a task: the shape and kind of its inputs, and whose mask it goes by."""

from typing import Any, Literal

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.layers import ApplyMask
from keras_lsc.zoo.heads import in_words, is_functional, other_network, sequential_input

# Of a sequence that is drawn.
_STEPS = 50
MaskSource = Literal["none", "network", "dataset"]


def check_inputs(model: keras.Model, task: datasets.TaskInfo, shape: tuple[int, ...]) -> None:
    """Checks that a network can read the inputs of a task.

    Args:
        model: Built network; its inputs an array, or a dictionary {"x": inputs, "mask": mask}.
        task: What is known of the task.
        shape: Shape of one input.

    Raises:
        ValueError: It cannot; the message says what differs.
    """
    inputs = _sequence_input(model)
    expected = tuple(inputs.shape[1:])
    fits = len(shape) == len(expected) and all(
        wanted in (None, given) for wanted, given in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{model.name!r} takes inputs {in_words(expected)}, but those of {task.name!r} are "
            f"{in_words(shape)} without the batch axis. {other_network(task)}"
        )
    if _is_integer(inputs.dtype) != _is_integer(task.dtype):
        raise ValueError(
            f"{model.name!r} takes {inputs.dtype}, but the inputs of {task.name!r} are "
            f"{task.dtype}: one reads tokens, the other numbers. {other_network(task)}"
        )
    known = [layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    if known and task.vocabulary is not None and known[0] < task.vocabulary:
        raise ValueError(
            f"{model.name!r} knows {known[0]} tokens, but {task.name!r} has {task.vocabulary}. "
            f"{other_network(task)}"
        )


def may_have_other_steps(model: keras.Model, shape: tuple[int, ...]) -> bool:
    """Returns whether inputs of this shape differ from the network's in their steps alone."""
    inputs = _sequence_input(model)
    expected = tuple(inputs.shape[1:])
    is_sequence = len(expected) == 2 or _is_integer(inputs.dtype)
    same_features = len(shape) == len(expected) and shape[1:] == expected[1:]
    return is_sequence and same_features and shape != expected


def fit_mask(
    model: keras.Model, task: datasets.TaskInfo, batches: datasets.Batches
) -> tuple[keras.Model, MaskSource]:
    """Returns the network that goes by the true mask of a task, and where the mask is from.

    A step counts where the dataset says so. That is what a `Masking` layer of the network finds
    where padding is all that is zero; where it would skip inputs, it is left out. A network that
    has none then becomes one of {"x": inputs, "mask": mask}, if anything is padded. Spike trains
    are the exception: silence after their end is input like any other.

    Args:
        model: Built network.
        task: What is known of the task.
        batches: Batches of the training split, without masks.

    Returns:
        The network; and "none" where all steps count, "network" where its own layers find the
        mask, "dataset" where it has to be given as an input.

    Raises:
        ValueError: A network that is not Sequential would have to be changed.
    """
    if _takes_mask(model):
        return model, "dataset"
    counts_by_dataset = task.padded and task.kind != "spikes"
    is_padded = counts_by_dataset and not batches.examples.mask(slice(None)).all()
    masking = [layer for layer in model.layers if isinstance(layer, keras.layers.Masking)]
    if masking and _finds_the_mask(masking[0], batches, counts_by_dataset):
        return model, "network" if is_padded else "none"
    if not masking and not is_padded:
        return model, "none"
    if not isinstance(model, keras.Sequential):
        raise ValueError(
            f"{model.name!r} does not go by the mask of {task.name!r}, whose sequences differ in "
            'length. Make it a model of {"x": inputs, "mask": mask}, as docs/datasets.md shows.'
        )
    layers = [layer for layer in model.layers if layer not in masking]
    if not is_padded:
        return keras.Sequential([sequential_input(model), *layers], name=model.name), "none"
    given = _sequence_input(model)
    x = keras.Input(given.shape[1:], dtype=given.dtype, name="x")
    mask = keras.Input((given.shape[1],), dtype="bool", name="mask")
    outputs = ApplyMask(name="given_mask")([x, mask])
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model({"x": x, "mask": mask}, outputs, name=model.name), "dataset"


def draw_inputs(
    model: keras.Model, size: int, generator: np.random.Generator, spike_rate: float | None = None
) -> np.ndarray:
    """Draws inputs of a network: tokens, spikes, or numbers that are normally distributed.

    Args:
        model: Built network with one input; where it leaves the number of steps open, there are 50.
        size: Number of inputs.
        generator: What they are drawn by.
        spike_rate: Share of ones among zeros; None for other numbers.

    Returns:
        An array of int32 for tokens, else of float32.
    """
    given = model.inputs[0]
    shape = (size, *(_STEPS if n is None else n for n in given.shape[1:]))
    if _is_integer(given.dtype):
        tokens = min(layer.input_dim for layer in model.layers if hasattr(layer, "input_dim"))
        return generator.integers(0, tokens, shape, dtype="int32")
    if spike_rate is not None:
        return (generator.random(shape) < spike_rate).astype("float32")
    return generator.standard_normal(shape).astype("float32")


def own_mask(model: keras.Model) -> MaskSource:
    """Returns whose masks hold where arrays are given without any: the network's, if it has some.

    Raises:
        ValueError: The network reads its mask from an input.
    """
    if _takes_mask(model):
        raise ValueError(
            f'{model.name!r} reads {{"x": inputs, "mask": mask}}, but the arrays given have no '
            "mask. Use a network that finds it by itself, or compile and fit the model with Keras."
        )
    masks = any(isinstance(layer, keras.layers.Masking) for layer in model.layers) or any(
        getattr(layer, "mask_zero", False) for layer in model.layers
    )
    return "network" if masks else "none"


def _finds_the_mask(
    masking: keras.layers.Masking, batches: datasets.Batches, counts_by_dataset: bool
) -> bool:
    examples = batches.examples
    for start in range(0, len(examples), batches.batch_size):
        rows = np.arange(start, min(start + batches.batch_size, len(examples)))
        x = examples.inputs[rows]
        found = (x != masking.mask_value).any(axis=-1)
        true = examples.mask(rows) if counts_by_dataset else np.ones_like(found)
        if not np.array_equal(found, true):
            return False
    return True


def _takes_mask(model: keras.Model) -> bool:
    return is_functional(model) and isinstance(model.input, dict) and "mask" in model.input


def _sequence_input(model: keras.Model) -> Any:
    return model.input["x"] if _takes_mask(model) else model.inputs[0]


def _is_integer(dtype: str) -> bool:
    return "int" in dtype
