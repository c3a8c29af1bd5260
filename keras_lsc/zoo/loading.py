"""Loading checkpoints, and saving a user's own."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lsc.arguments import integer, one_of, text
from keras_lsc.stability.report import StabilityReport
from keras_lsc.zoo import archive, guard, networks, registry, sources
from keras_lsc.zoo.damage import as_damage
from keras_lsc.zoo.undrawn import restore_initializers, without_drawing

OWN_MODEL, OWN_CERTIFICATE = "model.keras", "certificate.json"


def load(
    name: str | os.PathLike[str],
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
        DamagedCheckpointError: the file was changed or cut off, names code to run or classes that
            are not registered, or would unpack to more than `KERAS_LSC_MAX_BYTES`.
        FileNotFoundError: there is no file or folder of this path.
        ValueError: an argument of no use.

    Example:
        >>> from keras_lsc import zoo
        >>> model = zoo.load("test_gru_parity_d2_rhovar")
        >>> model.count_params() > 0
        True
    """
    name = text("name", os.fspath(name) if isinstance(name, os.PathLike) else name)
    one_of("weights", weights, ("stabilized", "initial"))
    if num_classes is not None:
        num_classes = integer("num_classes", num_classes, at_least=2)
    shape = None if input_shape is None else _checked_shape(input_shape)
    policy = None if dtype is None else _checked_policy(dtype)
    cache = _checked_cache(cache_dir)
    if sha256 is not None:
        _check_sha256(sha256)
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
        path = find_file(info, cache, sha256)
        model = archive.read_model(path)
        if weights == "initial":
            networks.draw_weights(model, info.recipe)
    if num_classes is None and shape is None and policy is None:
        return model
    return _adapted(model, archive.read_configuration(path), num_classes, shape, policy)


def find_file(
    info: registry.CheckpointInfo,
    cache_dir: str | os.PathLike[str] | None,
    sha256: str | None = None,
) -> Path:
    """The file of a checkpoint of the zoo, fetched where it is not on this computer.

    Args:
        info: what is known of it.
        cache_dir: folder of fetched files; None for ~/.cache/keras_lsc/zoo.
        sha256: where another file than that of the index is wanted.
    """
    size = info.bytes if sha256 in (None, info.sha256) else None
    return sources.find(info.name, sha256 or info.sha256, _checked_cache(cache_dir), size)


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


def _checked_cache(given: Any) -> Path | None:
    if given is None:
        return None
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"cache_dir must be a folder, or None, got {given!r:.200}.")
    return Path(path)


def _check_sha256(given: Any) -> None:
    if not (isinstance(given, str) and len(given) == 64 and set(given) <= set("0123456789abcdef")):
        raise ValueError(
            f"sha256 must be 64 lower-case hexadecimal digits, or None, got {given!r:.200}."
        )


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
    text("name", name)
    entries = sources.entries()
    if name not in entries:
        hidden = name.startswith("test_")
        raise registry.refuse(name, [key for key in entries if key.startswith("test_") == hidden])
    return registry.info_of(name, entries[name])


def save(
    model: keras.Model, folder: str | os.PathLike[str], report: StabilityReport | None = None
) -> Path:
    """Saves a stabilised model of one's own, with its certificate, for `load` to read by its path.

    Whenever a process is killed meanwhile, the folder has the old model with the old certificate or
    the new one with the new.

    Args:
        model: Sequential or functional.
        folder: which is made; an older checkpoint in it is replaced.
        report: that `keras_lsc.stabilize` or `keras_lsc.measure` returned.

    Returns:
        The folder: `model.keras`, with the certificate inside, and `certificate.json` with that
        and the sha256 of the file.

    Raises:
        TypeError: no model, or no report.
        ValueError: `folder` is no path, or an empty one.
        OSError: the folder cannot be written to.

    Example:
        >>> import keras, keras_lsc, numpy as np, tempfile
        >>> x = np.random.normal(size=(64, 20, 3))
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(8)])
        >>> report = keras_lsc.measure(model, x)
        >>> path = keras_lsc.zoo.save(model, tempfile.mkdtemp(), report)
        >>> keras_lsc.zoo.load(str(path)).count_params() == model.count_params()
        True
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}.")
    if not isinstance(report, StabilityReport | None):
        raise TypeError(
            "report must be what keras_lsc.measure or keras_lsc.stabilize returns, or None; got "
            f"{type(report).__name__}."
        )
    path = Path(text("folder", os.fspath(folder) if isinstance(folder, os.PathLike) else folder))
    certificate = {"report": report.to_dict() if report else None}
    with archive.prepared(model, path, certificate) as (finished, digest):
        beside = finished.with_name(OWN_CERTIFICATE)
        content = json.dumps({"sha256": digest, **certificate}, indent=2) + "\n"
        beside.write_text(content, encoding="utf-8")
        archive.to_disk(beside)
        # The model, with the certificate inside, is all there is to know: moving it is the step
        # that counts. Before, the copy of the old certificate goes, lest it stand beside the new
        # model; `file_of` takes a model that vouches for itself.
        (path / OWN_CERTIFICATE).unlink(missing_ok=True)
        os.replace(finished, path / OWN_MODEL)
        os.replace(beside, path / OWN_CERTIFICATE)
    return path


def is_path(name: str) -> bool:
    """Whether a checkpoint is named by its place on this computer."""
    return not sources.is_address(name) and (
        name.endswith(".keras") or os.sep in name or "/" in name
    )


def file_of(name: str, sha256: str | None, cache: Path | None) -> Path:
    """The file of a checkpoint that is named by its place or its address, checked.

    Raises:
        FileNotFoundError: there is none.
        DamagedCheckpointError: it is another one than its sha256 says.
    """
    if sources.is_address(name):
        return sources.fetch(name, sha256, cache)
    path = Path(name)
    if path.is_dir():
        path = _model_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    if sha256:
        archive.check(path, sha256)
    return path


def _model_of(folder: Path) -> Path:
    """The model in a folder of `save`, which is that of the certificate beside it.

    Where a process was killed while it saved there is no certificate beside it, but the one within;
    where one is saving at this moment, what was read first is not what is there now.
    """
    path = folder / OWN_MODEL
    beside = _certificate_of(folder)
    while beside is not None:
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint file {path}.")
        found = archive.sha256(path)
        if found == beside["sha256"]:
            return path
        before, beside = beside, _certificate_of(folder)
        if beside == before:
            archive.check(path, before["sha256"])
    if not path.is_file() or archive.read_certificate(path) is None:
        raise FileNotFoundError(
            f"{folder} has no {OWN_CERTIFICATE}; it is not a folder of keras_lsc.zoo.save."
        )
    return path


def _certificate_of(folder: Path) -> dict[str, Any] | None:
    path = folder / OWN_CERTIFICATE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    certificate = guard.parse(path, "certificate", content)
    with as_damage(path, "is no certificate"):
        _check_sha256(certificate.get("sha256"))
    return certificate


def _adapted(
    model: keras.Model,
    configuration: dict[str, Any],
    num_classes: int | None,
    input_shape: tuple[int | None, ...] | None,
    dtype: str | None,
) -> keras.Model:
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
