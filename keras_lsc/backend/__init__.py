"""The few primitives that Keras does not offer, mostly of differentiation, for the backend in use.

Every other module of the package reaches TensorFlow, JAX and torch through `keras.ops` and these
functions alone; the backend's module is the only one imported, so the other frameworks
need not be installed.
"""

from collections.abc import Callable
from typing import Any

import keras

_NAME = keras.backend.backend()

if _NAME == "jax":
    from keras_lsc.backend.jax import (
        as_graph,
        aside_from_random_draws,
        compiled,
        cos_and_sin,
        custom_gradient,
        device_name,
        dry_run,
        export_options,
        first_non_finite_operation,
        gradients,
        heaviside,
        is_concrete,
        is_exporting,
        is_mirrored,
        jacobian,
        loops_are_slow,
        multiply_add,
        no_gradient,
        peak_device_memory,
        pullbacks,
        quiet_tracing,
        running_states,
        static_length,
        tally,
        trace_level,
    )
elif _NAME == "tensorflow":
    from keras_lsc.backend.tensorflow import (
        as_graph,
        aside_from_random_draws,
        compiled,
        cos_and_sin,
        custom_gradient,
        device_name,
        dry_run,
        export_options,
        first_non_finite_operation,
        gradients,
        heaviside,
        is_concrete,
        is_exporting,
        is_mirrored,
        jacobian,
        loops_are_slow,
        multiply_add,
        no_gradient,
        peak_device_memory,
        pullbacks,
        quiet_tracing,
        running_states,
        static_length,
        tally,
        trace_level,
    )
elif _NAME == "torch":
    from keras_lsc.backend.torch import (
        as_graph,
        aside_from_random_draws,
        compiled,
        cos_and_sin,
        custom_gradient,
        device_name,
        dry_run,
        export_options,
        first_non_finite_operation,
        gradients,
        heaviside,
        is_concrete,
        is_exporting,
        is_mirrored,
        jacobian,
        loops_are_slow,
        multiply_add,
        no_gradient,
        peak_device_memory,
        pullbacks,
        quiet_tracing,
        running_states,
        static_length,
        tally,
        trace_level,
    )
else:
    raise ImportError(
        f"keras_lsc needs the jax, tensorflow or torch backend, but Keras uses {_NAME!r}. "
        'Set the environment variable KERAS_BACKEND to "jax", "tensorflow" or "torch" before the '
        "first import of keras."
    )

__all__ = [
    "as_graph",
    "aside_from_random_draws",
    "compiled",
    "cos_and_sin",
    "custom_gradient",
    "device_name",
    "dry_run",
    "export_options",
    "first_non_finite_operation",
    "gradients",
    "heaviside",
    "is_concrete",
    "is_exporting",
    "is_mirrored",
    "jacobian",
    "loops_are_slow",
    "multiply_add",
    "no_gradient",
    "peak_device_memory",
    "pullbacks",
    "quiet_tracing",
    "running_states",
    "static_length",
    "tally",
    "trace_level",
    "vjp",
]


def vjp(function: Callable[[Any], Any], x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Returns `function(x)` and the map from a cotangent of it to the cotangent of `x`."""
    (y,), (pullback,), _ = pullbacks(lambda x: ((function(x),), ()), x)
    return y, pullback
