"""What the engine asks of a layer, whichever layer it is."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import layers, ops

Tensor = Any

# Inference-mode layers that treat every time step by itself: fed with one step of a sequence
# they return that step of their output. Any other layer is run on the whole sequence.
_PER_STEP = (
    layers.Activation,
    layers.ActivityRegularization,
    layers.Add,
    layers.AlphaDropout,
    layers.Average,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.Embedding,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout1D,
    layers.Subtract,
    layers.TimeDistributed,
)
_PER_STEP_ON_LAST_AXIS = (
    layers.BatchNormalization,
    layers.Concatenate,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.Softmax,
)
# Layers that look at a window of steps, and move it along by their strides.
_POOLING = (layers.AveragePooling1D, layers.MaxPooling1D)
_WINDOWED = (*_POOLING, layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D)
_RESAMPLING = (*_WINDOWED, layers.Cropping1D, layers.UpSampling1D, layers.ZeroPadding1D)
# Layers whose weights of rank two or more are not the matrix of a linear map.
_TABLES = (layers.Embedding, layers.PReLU)


def call_in_inference(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls `layer` with `training=False` where it takes that argument.

    Said outright, because inside `fit` a layer inherits `training=True` from the model around it.
    """
    return layer(*args, **{**kwargs, **_inference_argument(layer)})


def inference_call(layer: keras.Layer) -> Callable:
    """`layer.call` in inference, without what Keras does around it (casts, masks, checks)."""
    return functools.partial(layer.call, **_inference_argument(layer))


def _inference_argument(layer: Any) -> dict[str, bool]:
    takes_it = "training" in inspect.signature(layer.call).parameters
    return {"training": False} if takes_it else {}


def is_recurrent(layer: Any) -> bool:
    """Whether `layer` applies a cell with a state along time, alone or in both directions."""
    if isinstance(layer, layers.Bidirectional):
        return True
    if not isinstance(layer, keras.Layer) or not hasattr(layer, "return_sequences"):
        return False  # a layer that steps a cell of its own in a loop of its own
    return hasattr(getattr(layer, "cell", None), "state_size")


def hidden_recurrent_layer(layer: Any) -> keras.Layer | None:
    """The first recurrent layer inside `layer` (an attribute of it, at any depth), or None."""
    inside = (inner for inner in _inner_layers(layer) if inner is not layer)
    return next((inner for inner in inside if is_recurrent(inner)), None)


def _inner_layers(layer: Any) -> Iterator[keras.Layer]:
    """`layer` and the layers that are attributes of it, at any depth."""
    pending, seen = [layer], set()
    while pending:
        inner = pending.pop(0)
        if isinstance(inner, list | tuple):
            pending.extend(inner)
        elif isinstance(inner, keras.Layer) and id(inner) not in seen:
            seen.add(id(inner))
            yield inner
            pending.extend(vars(inner).values())


def is_weighted(layer: Any) -> bool:
    """Whether `layer` multiplies its input by a weight matrix (Dense, convolutions, ...)."""
    return (
        isinstance(layer, keras.Layer)
        and not isinstance(layer, _TABLES)
        and any(len(weight.shape) >= 2 for weight in layer.weights)
    )


def acts_per_step(layer: Any) -> bool:
    """Whether `layer`, in inference, is known to treat every time step by itself.

    A layer of one's own says so with an attribute `acts_per_step = True`.
    """
    if isinstance(layer, _PER_STEP_ON_LAST_AXIS):
        return layer.axis in (-1, [-1], (-1,))
    return isinstance(layer, _PER_STEP) or getattr(layer, "acts_per_step", False) is True


def can_map_steps(layer: Any) -> bool:
    """Whether `feeding` knows which steps of its input `layer` makes a step of."""
    return isinstance(layer, _RESAMPLING) and getattr(layer, "data_format", "") != "channels_first"


def feeding(layer: Any, wanted: Tensor, length: Tensor | int) -> Tensor:
    """Which steps of a layer's input feed any of some steps of its output.

    Args:
        layer: one for which `can_map_steps`.
        wanted: booleans `(points, steps of the output)`.
        length: number of steps of the input.

    Returns:
        Booleans `(points, length)`.
    """
    steps = ops.arange(length, dtype="int32")
    # Step j of the input meets steps (j + shift) / stride of the output, where that is whole.
    stride, shifts = 1, [0]
    if isinstance(layer, layers.UpSampling1D):
        steps, shifts = steps * layer.size, list(range(layer.size))
    elif isinstance(layer, layers.Cropping1D):
        shifts = [-layer.cropping[0]]
    elif isinstance(layer, layers.ZeroPadding1D):
        shifts = [layer.padding[0]]
    else:
        (width,) = layer.pool_size if isinstance(layer, _POOLING) else layer.kernel_size
        (stride,) = layer.strides
        (dilation,) = getattr(layer, "dilation_rate", (1,))
        reach = (width - 1) * dilation
        padded: Any = reach if layer.padding == "causal" else 0
        if layer.padding == "same":
            windows = (length + stride - 1) // stride
            padded = ops.maximum((windows - 1) * stride + reach + 1 - length, 0) // 2
        shifts = [padded - k * dilation for k in range(width)]
    count = ops.shape(wanted)[1]
    found = []
    for shift in shifts:
        above = (steps + shift) // stride
        meets = ops.logical_and((steps + shift) % stride == 0, above >= 0)
        meets = ops.logical_and(meets, above < count)
        above = ops.minimum(ops.maximum(above, 0), count - 1)
        found.append(ops.logical_and(ops.take(wanted, above, axis=1), meets))
    return functools.reduce(ops.logical_or, found)


def is_probability(layer: Any) -> bool:
    """Whether `layer` ends in a softmax or a sigmoid, or is one."""
    activations = (keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(layer, layers.Softmax) or getattr(layer, "activation", None) in activations


class without_activation:  # noqa: N801 - reads as a statement: `with without_activation(layer):`
    """While the context lasts, `layer` returns what it passes to its activation."""

    def __init__(self, layer: keras.Layer):
        self._layer = layer

    def __enter__(self) -> None:
        self._activation = self._layer.activation
        self._layer.activation = None

    def __exit__(self, *_: object) -> None:
        self._layer.activation = self._activation
