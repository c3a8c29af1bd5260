"""Loading checkpoints, and saving a user's own."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import archive, networks, registry, sources
from keras_lsc.zoo.undrawn import restore_initializers, without_drawing

OWN_MODEL, OWN_CERTIFICATE = "model.keras", "certificate.json"


def load(
    name: str,
    *,
    weights: Literal["stabilized", "initial"] = "stabilized",
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    dtype: str | None = None,
    sha256: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """Loads a checkpoint as a Keras model, on whichever backend runs.

    Args:
        name: of a checkpoint of the zoo (`keras_lsc.zoo.list()`); a folder or a `.keras` file that
            `keras_lsc.zoo.save` wrote; `hf://owner/repository@revision/name.keras` or
            `https://.../name.keras`, which need `sha256`.
        weights: "stabilized", or "initial" for the same network before pre-training, drawn from
            the seed of its recipe, the same bits on every backend; checkpoints of the zoo only.
        num_classes: number of classes of a fresh softmax readout in place of the checkpoint's.
        input_shape: shape of an input, without the batch axis, in place of the checkpoint's: its
            number of steps may differ, its number of features not.
        dtype: dtype policy of the layers, such as "bfloat16" or "mixed_bfloat16".
        sha256: of the file; mandatory for addresses, and checked wherever given.
        cache_dir: folder of fetched files; None for ~/.cache/keras_lsc/zoo.

    Returns:
        A `keras.Model` that is not compiled.

    Raises:
        UnknownCheckpointError: no checkpoint has the name; the message has the closest ones.
        CheckpointUnavailableError: its file is neither here nor to be had.
        DamagedCheckpointError: the file was changed or cut off.
        ValueError: an argument of no use.

    Example:
        >>> from keras_lsc import zoo
        >>> model = zoo.load("test_gru_parity_d2_rhovar")
        >>> model.count_params() > 0
        True
    """
    if weights not in ("stabilized", "initial"):
        raise ValueError(f"weights must be 'stabilized' or 'initial', got {weights!r}.")
    cache = Path(cache_dir) if cache_dir else None
    if is_path(name) or sources.is_address(name):
        if weights == "initial":
            raise ValueError(
                f"weights='initial' are drawn from the recipe of a checkpoint of the zoo; {name} "
                "is a file."
            )
        path = file_of(name, sha256, cache)
        model = archive.read_model(path)
    else:
        info = find_info(name)
        path = sources.find(name, sha256 or info.sha256, cache)
        model = archive.read_model(path)
        if weights == "initial":
            networks.draw_weights(model, info.recipe)
    if num_classes is None and input_shape is None and dtype is None:
        return model
    return _adapted(model, archive.read_configuration(path), num_classes, input_shape, dtype)


def find_info(name: str) -> registry.CheckpointInfo:
    """Returns what is known of a checkpoint of the zoo without loading it.

    Args:
        name: of the checkpoint.

    Raises:
        UnknownCheckpointError: no checkpoint has the name; the message has the closest ones.

    Example:
        >>> from keras_lsc import zoo
        >>> zoo.info("test_gru_parity_d2_rhovar").cell
        'gru'
    """
    entries = sources.entries()
    if name not in entries:
        hidden = name.startswith("test_")
        raise registry.refuse(name, [key for key in entries if key.startswith("test_") == hidden])
    return registry.info_of(name, entries[name])


def save(
    model: keras.Model, folder: str | os.PathLike[str], report: StabilityReport | None = None
) -> Path:
    """Saves a stabilised model of one's own, with its certificate, for `load` to read by its path.

    Args:
        model: Sequential or functional.
        folder: which is made; an older checkpoint in it is replaced.
        report: that `keras_lsc.stabilize` or `keras_lsc.measure` returned.

    Returns:
        The folder: `model.keras`, with the certificate inside, and `certificate.json` with that
        and the sha256 of the file.

    Example:
        >>> import keras, keras_lsc, numpy as np, tempfile
        >>> x = np.random.normal(size=(64, 20, 3))
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> report = keras_lsc.measure(model, x)
        >>> path = keras_lsc.zoo.save(model, tempfile.mkdtemp(), report)
        >>> keras_lsc.zoo.load(str(path)).count_params() == model.count_params()
        True
    """
    path = Path(folder)
    certificate = {"report": report.to_dict() if report else None}
    digest = archive.write(model, path / OWN_MODEL, certificate)
    content = json.dumps({"sha256": digest, **certificate}, indent=2) + "\n"
    temporary = path / f".{OWN_CERTIFICATE}.{os.getpid()}"
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path / OWN_CERTIFICATE)
    return path


def is_path(name: str) -> bool:
    """Whether a checkpoint is named by its place on this computer."""
    return not sources.is_address(name) and (name.endswith(".keras") or os.sep in name)


def file_of(name: str, sha256: str | None, cache: Path | None) -> Path:
    if sources.is_address(name):
        return sources.fetch(name, sha256, cache)
    path = Path(name)
    if path.is_dir():
        certificate = path / OWN_CERTIFICATE
        if not certificate.is_file():
            raise FileNotFoundError(
                f"{path} has no {OWN_CERTIFICATE}; it is not a folder of keras_lsc.zoo.save."
            )
        sha256 = sha256 or str(registry.read_index(certificate)["sha256"])
        path = path / OWN_MODEL
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    if sha256:
        archive.check(path, sha256)
    return path


def _adapted(
    model: keras.Model,
    configuration: dict[str, Any],
    num_classes: int | None,
    input_shape: tuple[int | None, ...] | None,
    dtype: str | None,
) -> keras.Model:
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes!r}.")
    if not isinstance(model, keras.Sequential):
        raise ValueError(
            f"num_classes, input_shape and dtype change Sequential checkpoints; {model.name!r} is "
            "a functional model, to be changed by hand."
        )
    old_shape = model.inputs[0].shape[1:]
    shape = old_shape if input_shape is None else tuple(input_shape)
    if len(shape) != len(old_shape) or (len(shape) > 1 and shape[1:] != old_shape[1:]):
        raise ValueError(
            f"input_shape={shape} does not fit the checkpoint, whose inputs are {old_shape}: only "
            "the number of steps, the first axis of a sequence, may differ."
        )
    kept = model.layers if num_classes is None else model.layers[:-1]
    of_layers = {of["config"]["name"]: of for of in configuration["config"]["layers"]}
    copies = [_unbuilt(of_layers[layer.name], dtype) for layer in kept]
    if num_classes is not None:
        head = keras.layers.Dense(num_classes, activation="softmax", dtype=dtype, name="readout")
        copies.append(head)
    inputs = keras.Input(shape, dtype=model.inputs[0].dtype, name="inputs")
    adapted = keras.Sequential([inputs, *copies], name=model.name)
    for layer, copy in zip(kept, copies, strict=False):
        copy.set_weights(layer.get_weights())
    restore_initializers(adapted)
    return adapted


def _unbuilt(configuration: dict[str, Any], dtype: str | None) -> keras.Layer:
    # The configuration in the file: a layer's get_config imports TensorFlow where it is installed.
    content = {**configuration["config"], "dtype": dtype} if dtype else configuration["config"]
    parts = {key: value for key, value in configuration.items() if key != "build_config"}
    # Nor could orthogonal weights be drawn in bfloat16.
    parts = without_drawing({**parts, "config": content})
    return keras.saving.deserialize_keras_object(parts, safe_mode=True)
