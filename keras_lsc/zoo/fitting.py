"""Fitting a network to a task: what its inputs are, which head it needs, whose mask it goes by."""

from typing import Any, Literal

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.layers import GivenMask
from keras_lsc.layers.parameters import glorot_uniform

MaskSource = Literal["none", "network", "dataset"]


def check_inputs(model: keras.Model, task: datasets.TaskInfo, shape: tuple[int, ...]) -> None:
    """Raises ValueError where a network cannot read the inputs of a task.

    Args:
        model: built; its inputs an array, or a dictionary {"x": inputs, "mask": mask}.
        task: what is known of the task.
        shape: of one input.
    """
    inputs = _sequence_input(model)
    expected = tuple(inputs.shape[1:])
    fits = len(shape) == len(expected) and all(
        wanted in (None, given) for wanted, given in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{model.name!r} takes inputs {_written(expected)}, but those of {task.name!r} are "
            f"{_written(shape)} without the batch axis. Choose a network of this task: "
            f'keras_lsc.zoo.list(dataset="{task.name}").'
        )
    if _is_integer(inputs.dtype) != _is_integer(task.dtype):
        raise ValueError(
            f"{model.name!r} takes {inputs.dtype}, but the inputs of {task.name!r} are "
            f"{task.dtype}: one reads tokens, the other numbers. Choose a network of this task: "
            f'keras_lsc.zoo.list(dataset="{task.name}").'
        )
    known = [layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    if known and task.vocabulary is not None and known[0] < task.vocabulary:
        raise ValueError(
            f"{model.name!r} knows {known[0]} tokens, but {task.name!r} has {task.vocabulary}. "
            f'Choose a network of this task: keras_lsc.zoo.list(dataset="{task.name}").'
        )


def may_have_other_steps(model: keras.Model, shape: tuple[int, ...]) -> bool:
    """Whether inputs of this shape differ from those of the network in their steps alone."""
    inputs = _sequence_input(model)
    expected = tuple(inputs.shape[1:])
    is_sequence = len(expected) == 2 or _is_integer(inputs.dtype)
    same_features = len(shape) == len(expected) and shape[1:] == expected[1:]
    return is_sequence and same_features and shape != expected


def fit_head(
    model: keras.Model, task: datasets.TaskInfo, outputs: int, seed: int
) -> tuple[keras.Model, bool]:
    """Returns the network with a head that fits the task, and whether the head is a fresh one.

    A head fits where it has as many outputs as the task, and gives probabilities or logits of
    classes, or a plain number of a value; it is kept then. Otherwise a last dense layer is left
    out, and a new one put on. The other layers are shared with the network that was given.

    Args:
        model: built, Sequential or functional, with one output.
        task: what is known of the task.
        outputs: number of classes, size of the vocabulary, or 1.
        seed: of the weights of a fresh head, which NumPy draws.

    Raises:
        ValueError: the network gives one output a sequence and the task wants one a step, or the
            other way round; or it is neither Sequential nor functional.
    """
    _check_rank(model, task)
    fitting = ("linear",) if task.target == "value" else ("linear", "softmax")
    if model.output_shape[-1] == outputs and output_activation(model) in fitting:
        return model, False
    activation = None if task.target == "value" else "softmax"
    head = keras.layers.Dense(outputs, activation=activation, name=_free_name(model))
    if isinstance(model, keras.Sequential):
        layers = [*_input_layers(model), *_without_head(model.layers), head]
        fitted = keras.Sequential(layers, name=model.name)
    elif _is_functional(model) and not _is_activation(model.layers[-1]):
        below = model.layers[-1].input if _is_dense(model.layers[-1]) else model.outputs[0]
        fitted = keras.Model(model.input, head(below), name=model.name)
    else:
        raise ValueError(
            f"{model.name!r} needs another head for {task.name!r}: {outputs} outputs, where it has "
            f"{model.output_shape[-1]}. Only Sequential models, and functional ones that end in a "
            f"dense or a recurrent layer, can be given one; build yours with {outputs} outputs."
        )
    _draw_head(head, seed)
    return fitted, True


def fit_mask(
    model: keras.Model, task: datasets.TaskInfo, batches: datasets.Batches
) -> tuple[keras.Model, MaskSource]:
    """Returns the network that goes by the true mask of a task, and where the mask is from.

    A step counts where the dataset says so. That is what a `Masking` layer of the network finds
    where padding is all that is zero; where it would skip inputs, it is left out. A network that
    has none then becomes one of {"x": inputs, "mask": mask}, if anything is padded. Spike trains
    are the exception: silence after their end is input like any other.

    Args:
        model: built.
        task: what is known of the task.
        batches: of the training split, without masks.

    Returns:
        The network; and "none" where all steps count, "network" where its own layers find the
        mask, "dataset" where it has to be given as an input.

    Raises:
        ValueError: a network that is not Sequential would have to be changed.
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
        return keras.Sequential([*_input_layers(model), *layers], name=model.name), "none"
    given = _sequence_input(model)
    x = keras.Input(given.shape[1:], dtype=given.dtype, name="x")
    mask = keras.Input((given.shape[1],), dtype="bool", name="mask")
    outputs = GivenMask(name="given_mask")([x, mask])
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model({"x": x, "mask": mask}, outputs, name=model.name), "dataset"


def own_mask(model: keras.Model) -> MaskSource:
    """Whose masks hold where the data is given as arrays without any: the network's, if it has one.

    Raises:
        ValueError: the network reads its mask from an input.
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


def gives_logits(model: keras.Model) -> bool:
    """Whether the outputs of a network of classes are logits and no probabilities."""
    return output_activation(model) == "linear"


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


def _check_rank(model: keras.Model, task: datasets.TaskInfo) -> None:
    per_step = task.target in ("next token", "label per step")
    if len(model.output_shape) != (3 if per_step else 2):
        what = "at every step" if per_step else "for the whole sequence"
        raise ValueError(
            f"{task.name!r} wants an output {what}, but {model.name!r} gives outputs "
            f"{_written(model.output_shape[1:])}, without the batch axis. Choose a network of "
            f'this task: keras_lsc.zoo.list(dataset="{task.name}").'
        )


def output_activation(model: keras.Model) -> str | None:
    """Name of the function that makes the outputs; None where it is not known."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    if isinstance(last, keras.layers.TimeDistributed):
        last = last.layer
    if not isinstance(last, keras.layers.Dense | keras.layers.Activation):
        return None
    return str(getattr(last.activation, "__name__", None))


def _without_head(layers: list[keras.Layer]) -> list[keras.Layer]:
    kept = len(layers)
    while kept > 1 and _is_activation(layers[kept - 1]):
        kept -= 1
    return layers[: kept - 1] if _is_dense(layers[kept - 1]) else layers


def _is_activation(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation | keras.layers.Softmax)


def _is_dense(layer: keras.Layer) -> bool:
    inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    return isinstance(inner, keras.layers.Dense)


def _draw_head(head: keras.layers.Dense, seed: int) -> None:
    # By NumPy: the same on every backend, and for both starts of a comparison.
    drawn = glorot_uniform(tuple(head.kernel.shape), np.random.default_rng(seed))
    head.kernel.assign(drawn.astype("float32"))


def _free_name(model: keras.Model) -> str:
    taken = {layer.name for layer in model.layers[:-1]}
    return "readout" if "readout" not in taken else "fresh_readout"


def _input_layers(model: keras.Sequential) -> list[Any]:
    given = model.inputs[0]
    return [keras.Input(given.shape[1:], dtype=given.dtype, name="inputs")]


def _takes_mask(model: keras.Model) -> bool:
    return _is_functional(model) and isinstance(model.input, dict) and "mask" in model.input


def _sequence_input(model: keras.Model) -> Any:
    return model.input["x"] if _takes_mask(model) else model.inputs[0]


def _is_functional(model: keras.Model) -> bool:
    return getattr(model, "inputs", None) is not None and hasattr(model, "input")


def _is_integer(dtype: str) -> bool:
    return "int" in dtype


def _written(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)
