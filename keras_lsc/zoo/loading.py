"""Loading checkpoints."""

import os
from dataclasses import replace
from typing import Any, Literal, get_args

import keras

from keras_lsc import datasets
from keras_lsc.arguments import integer, one_of, positive_integer, text
from keras_lsc.zoo import heads, networks
from keras_lsc.zoo.initializers import skipped_initializers
from keras_lsc.zoo.recipes import Recipe
from keras_lsc.zoo.resized import certify, resized
from keras_lsc.zoo.resolver import Located, locate, locate_trained
from keras_lsc.zoo.start_file import StartFile

Weights = Literal["stabilized", "initial", "trained"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
# Those that have a certificate, of which there are files.
Stored = Literal["stabilized", "trained"]
STORED: tuple[Stored, ...] = get_args(Stored)


def load(
    name: str | os.PathLike[str],
    *,
    weights: Weights = "stabilized",
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    units: int | None = None,
    depth: int | None = None,
    x: Any = None,
    dtype: str | None = None,
    seed: int = 0,
    sha256: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Loads a checkpoint as a Keras model, on whichever backend runs.

    A checkpoint of the zoo comes in any size: with other `units`, another `depth` or another number
    of features its weights are drawn anew by its recipe, scaled as the stored ones are, and
    pre-trained until they have the target again, or levelled until the gradient has the same energy
    at every layer. `keras_lsc.zoo.certificate` has what was measured.

    Args:
        name: Name of a checkpoint of the zoo (`keras_lsc.zoo.names()`); a folder or a `.keras` file
            that `keras_lsc.zoo.save` wrote; `hf://owner/repository@revision/name.keras` or
            `https://.../name.keras`, which need `sha256`.
        weights: "stabilized", or "initial" for the same network before pre-training, drawn from
            the seed of its recipe, the same bits on every backend; or "trained" for weights that
            were trained on the task, whose scores `keras_lsc.zoo.info(name).trained` has, where
            there are some. Checkpoints of the zoo only.
        num_classes: Number of classes of a fresh softmax readout, in place of the dense layer that
            the checkpoint ends in, or after its last layer where that is none.
        input_shape: Shape of an input, without the batch axis, in place of the checkpoint's. The
            number of steps may be any; another number of features of checkpoints of the zoo only.
        units: Units of each layer; None for those of the checkpoint.
        depth: Number of layers; None for that of the checkpoint.
        x: Sequences to pre-train another size on, as `keras_lsc.stabilize` takes them; None for
            those of the task where they fit and are on this computer, else drawn ones, of which a
            warning tells.
        dtype: Dtype policy of the layers, such as "bfloat16" or "mixed_bfloat16".
        seed: Seed of a fresh readout, which NumPy draws, the same on every backend; and of the
            pre-training of another size.
        sha256: The sha256 of the file; mandatory for addresses, and checked wherever given.
        cache_dir: Folder of fetched files; None for ~/.cache/keras_lsc/zoo.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        UnknownCheckpointError: No checkpoint has the name; the message has the closest ones.
        UntrainedCheckpointError: It has no trained weights; the message has the names that do.
        CheckpointUnavailableError: Its file is neither here nor to be had.
        DamagedCheckpointError: The file was changed or cut off, names code to run or classes that
            are not registered, or would unpack to more than `KERAS_LSC_MAX_BYTES`.
        FileNotFoundError: There is no file or folder of this path.
        NotStabilizedError, NotLevelledError: Another size did not get there.
        ValueError: An argument of no use.

    Example:
        >>> from keras_lsc import zoo
        >>> model = zoo.load("test_gru_parity_d2_rhovar")
        >>> model.count_params() > 0
        True
    """
    one_of("weights", weights, WEIGHTS)
    if num_classes is not None:
        num_classes = integer("num_classes", num_classes, at_least=2)
    shape = None if input_shape is None else _checked_shape(input_shape)
    policy = None if dtype is None else _checked_policy(dtype)
    seed = integer("seed", seed, at_least=0)
    sizes = {
        key: positive_integer(key, value)
        for key, value in (("units", units), ("depth", depth))
        if value is not None
    }
    located = locate(name, sha256=sha256, cache_dir=cache_dir)
    stored = located.file
    if sizes and not isinstance(stored, StartFile):
        raise ValueError(
            f"units and depth are those of a recipe of the zoo; {located.name} is a file, whose "
            "network is as it is."
        )
    recipe = _of_size(stored, shape, sizes) if isinstance(stored, StartFile) else None
    if recipe is None or not isinstance(stored, StartFile):
        if x is not None:
            raise ValueError(
                "x is what another size is pre-trained on; units, depth and features are those of "
                "the checkpoint. Leave it out."
            )
        model = read(located, weights, cache_dir)
        if num_classes is None and shape is None and policy is None:
            return model
        return adapted(located, model, num_classes, shape, policy, seed)
    if weights == "trained":
        raise ValueError(
            f"The trained weights of {located.name!r} are of its own size. Leave out units, depth "
            "and another number of features, or load another size's start and train it: "
            "keras_lsc.zoo.fine_tune."
        )
    model, certificate = resized(stored, recipe, x, weights, seed)
    if num_classes is not None or policy is not None:
        of_size = replace(located, file=replace(stored, recipe=recipe))
        model = adapted(of_size, model, num_classes, None, policy, seed)
    if certificate is not None:
        certify(model, certificate)
    return model


def _of_size(
    stored: StartFile, shape: tuple[int | None, ...] | None, sizes: dict[str, Any]
) -> Recipe | None:
    """The recipe of another size; None where the stored one is of that size."""
    own, dtype = stored.shape, datasets.info(stored.recipe.dataset).dtype
    recipe = replace(stored.recipe, **sizes)
    if shape is not None and len(shape) == len(own) and not fits(shape, own, dtype):
        return replace(recipe, input_shape=shape)
    if recipe == stored.recipe:
        return None
    return recipe if shape is None else replace(recipe, input_shape=shape)


def read(
    located: Located, weights: Weights, cache_dir: str | os.PathLike[str] | None = None
) -> keras.Model:
    """Returns the model of a checkpoint that was found.

    Args:
        located: The checkpoint.
        weights: As `load` takes it.
        cache_dir: As `load` takes it.

    Raises:
        UntrainedCheckpointError, CheckpointUnavailableError, DamagedCheckpointError: As `load`.
        ValueError: "initial" weights of a file that has no recipe.
    """
    if weights == "trained":
        return locate_trained(located, cache_dir).model()
    if isinstance(located.file, StartFile):
        return located.file.model(is_initial=weights == "initial")
    if weights == "initial":
        raise ValueError(
            f"weights='initial' are drawn from the recipe of a checkpoint of the zoo; "
            f"{located.name} is a file."
        )
    return located.file.model()


def adapted(
    located: Located,
    model: keras.Model,
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    dtype: str | None = None,
    seed: int = 0,
) -> keras.Model:
    """Returns a model with the weights of a checkpoint and another head, shape or dtype.

    Args:
        located: The checkpoint.
        model: What `read` returned.
        num_classes: As `load` takes it.
        input_shape: As `load` takes it.
        dtype: As `load` takes it.
        seed: As `load` takes it.

    Raises:
        ValueError: The model is not Sequential, or the shape does not fit it.
    """
    if not isinstance(model, keras.Sequential):
        raise ValueError(
            f"num_classes, input_shape and dtype change Sequential checkpoints; {model.name!r} is "
            "a functional model, to be changed by hand."
        )
    old_shape = model.inputs[0].shape[1:]
    shape = old_shape if input_shape is None else tuple(input_shape)
    if not fits(shape, old_shape, model.inputs[0].dtype):
        raise ValueError(
            f"input_shape={shape} does not fit the checkpoint, whose inputs are {old_shape}: only "
            "the number of steps, the first axis of a sequence, may differ."
        )
    kept = model.layers if num_classes is None else heads.without_head(model.layers)
    unbuilt = _unbuilt(located, dtype)
    copies = [unbuilt[layer.name] for layer in kept]
    head = None
    if num_classes is not None:
        head = heads.make_head(kept, num_classes, "softmax", dtype)
    inputs = keras.Input(shape, dtype=model.inputs[0].dtype, name="inputs")
    # Nor could orthogonal weights be drawn in bfloat16.
    with skipped_initializers(copies):
        layers = [inputs, *copies] if head is None else [inputs, *copies, head]
        result = keras.Sequential(layers, name=model.name)
    if head is not None:
        heads.draw_head(head, seed)
    for layer, copy in zip(kept, copies, strict=True):
        copy.set_weights(layer.get_weights())
    return result


def fits(shape: tuple[int | None, ...], old: tuple[int | None, ...], dtype: str) -> bool:
    """Returns whether inputs of a shape differ from others in the number of their steps alone."""
    is_sequence = len(old) > 1 or "int" in dtype
    same = shape[1:] == old[1:] if is_sequence else shape == old
    return len(shape) == len(old) and same


def _unbuilt(located: Located, dtype: str | None) -> dict[str, keras.Layer]:
    """The layers of a checkpoint by name, not built, of a dtype policy where one is given."""
    if isinstance(located.file, StartFile):
        return {layer.name: layer for layer in networks.layers_of(located.file.recipe, dtype)}
    # The configuration in the file: a layer's get_config imports TensorFlow where it is installed.
    found = {}
    for layer in located.file.configuration()["config"]["layers"]:
        parts = {key: value for key, value in layer.items() if key != "build_config"}
        if dtype:
            parts["config"] = {**parts["config"], "dtype": dtype}
        if parts["class_name"] != "InputLayer":
            found[parts["config"]["name"]] = keras.saving.deserialize_keras_object(
                parts, safe_mode=True
            )
    return found


def _checked_shape(given: Any) -> tuple[int | None, ...]:
    expected = (
        f"input_shape must be the sizes of an input without the batch axis, such as (None, 3), "
        f"each a positive integer or None; got {given!r:.200}."
    )
    if not isinstance(given, tuple | list):
        raise ValueError(expected)
    try:
        return tuple(
            None if size is None else integer("input_shape", size, at_least=1) for size in given
        )
    except ValueError:
        raise ValueError(expected) from None


def _checked_policy(given: Any) -> str:
    name = text("dtype", given, advice='Expected a dtype policy, such as "mixed_bfloat16".')
    try:
        policy = keras.dtype_policies.get(name)
    except (ValueError, TypeError):
        policy = None
    if not (policy is not None and policy.quantization_mode is None and "float" in name):
        raise ValueError(
            f'dtype must be a dtype policy of floats, such as "float32", "bfloat16" or '
            f'"mixed_bfloat16", got {name!r:.200}.'
        )
    return name
