"""keras_lsc.export: a model as a file that runs without Keras."""

import os
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_lsc import arguments
from keras_lsc import backend as primitives
from keras_lsc.stability.data import input_structure

# What each backend writes; benchmarks/exports.py tries every layer in each.
FORMATS = {
    "jax": ("tf_saved_model",),
    "tensorflow": ("tf_saved_model", "onnx", "litert"),
    "torch": ("onnx", "torch"),
}
# Keras writes a file where its name ends like this, and says of others why not or adds it.
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "torch": ".pt2"}


def export(
    model: Any,
    path: str | os.PathLike[str],
    *,
    format: str = "onnx",  # noqa: A002, as `model.export` of Keras calls it
    steps: int | None = None,
) -> Path:
    """Writes a model for inference without Keras: ONNX, SavedModel, TFLite or torch.export.

    It is `model.export` of Keras, but the model need not have been called, no signature need be
    given, and the batch stays open. A file of TFLite takes one sequence at a time, and needs no
    operations but those that every runtime has.

    Args:
        model: a Functional or Sequential `keras.Model`, in float32.
        path: the file, which ends in .onnx, .tflite or .pt2, or the folder of a SavedModel.
        format: "onnx", "tf_saved_model", "litert" (TFLite) or "torch". TensorFlow writes the first
            three, torch the first and the last, JAX a SavedModel (where TensorFlow is installed).
        steps: length of the sequences, where the model leaves it open. A graph of torch, and one of
            TFLite, is of one length; others stay open without it.

    Returns:
        The path.

    Raises:
        ImportError: a package that writes the format is not installed (extra `export`).
        RuntimeError: torch cannot leave the batch open, as of a SimpleRNN in the format "torch".
        ValueError: a format that the backend does not write, another ending, a model without known
            inputs or not in float32, or a graph of one length for sequences of any.

    Example:
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(4)])
        >>> export(model, "model.onnx")  # doctest: +SKIP
        PosixPath('model.onnx')
    """
    backend = keras.backend.backend()
    others = [name for name, formats in FORMATS.items() if format in formats]
    advice = f"That is what {backend} writes."
    if others:
        advice = f"{advice} Load the model on {' or '.join(others)} for {format!r}."
    arguments.one_of("format", format, FORMATS[backend], advice=advice)
    path = Path(path)
    if path.suffix != _SUFFIXES.get(format, path.suffix):
        raise ValueError(f"A file of {format!r} ends in {_SUFFIXES[format]}, got {path.name!r}.")
    signature = _signature(model, steps, batch=1 if format == "litert" else None)
    flat = keras.tree.flatten(signature)
    is_of_one_length = backend == "torch" or format == "litert"
    if is_of_one_length and any(None in spec.shape[1:] for spec in flat):
        raise ValueError(
            f"A graph of {backend} in the format {format!r} is of one length, and {model.name!r} "
            f"takes sequences of any: {[spec.shape for spec in flat]}. Give steps=."
        )
    _call_once(model, signature)
    options = primitives.export_options(format, signature)
    model.export(str(path), format=format, verbose=False, input_signature=[signature], **options)
    return path


def _signature(model: Any, steps: int | None, batch: int | None) -> Any:
    """What the model takes, its batch open or of a size, in the nest in which it takes it."""
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        raise ValueError(
            "A Functional or Sequential keras.Model is exported, whose inputs are known; got "
            f"{model!r:.200}. Give it a keras.Input."
        )
    # That of an input is its dtype.
    computing = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    policies = {layer.dtype_policy.name for layer in computing}
    if policies - {"float32"}:
        raise ValueError(
            f"Models in float32 are exported; {model.name!r} has the dtype policies "
            f"{', '.join(sorted(policies))}. Make it in float32 and set_weights."
        )
    if steps is not None:
        steps = arguments.positive_integer("steps", steps)

    def spec(symbolic: Any) -> Any:
        given, *sizes = symbolic.shape
        if len(sizes) > 1 and sizes[0] is None:
            sizes[0] = steps
        return keras.InputSpec(
            shape=(batch or given, *sizes), dtype=symbolic.dtype, name=symbolic.name
        )

    return keras.tree.map_structure(spec, input_structure(model))


def _call_once(model: Any, signature: Any) -> None:
    """Calls the model on zeros: of one from a file Keras does not know what its layers take."""

    def zeros(spec: Any) -> Any:
        return ops.zeros([1 if size is None else size for size in spec.shape], spec.dtype)

    model(keras.tree.map_structure(zeros, signature))
