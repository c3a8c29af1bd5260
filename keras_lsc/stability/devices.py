"""Rows over the devices of a `keras.distribution`, in batches of any size.

Keras splits the batches of `fit` over the devices, and refuses one that does not come out even. The
models of this package are given whole batches and split them where they compute: there a device may
have a row less than another, and the result is that of one device.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from keras_lsc import backend

Tensor = Any


def over_devices(rows: Any) -> Any:
    """A nest of tensors `(rows, ...)`, split over the devices inside of a compiled function."""
    distribution = keras.distribution.distribution()

    def split(x: Tensor) -> Tensor:
        if distribution is None or backend.is_concrete(x):
            return x
        axes = [distribution.batch_dim_name, *(None for _ in x.shape[1:])]
        layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)
        return keras.distribution.distribute_tensor(x, layout)

    return tree.map_structure(split, rows)


@contextlib.contextmanager
def whole_batches(*sizes: int) -> Iterator[None]:
    """A scope in which Keras gives every device whole batches.

    Args:
        *sizes: of batches that Keras may split nevertheless, if each of them comes out even: those
            of a model that does not split its inputs itself.
    """
    given = keras.distribution.distribution()
    if given is None or (sizes and not any(size % _devices(given) for size in sizes)):
        yield
        return

    def whole(shape: tuple[int | None, ...]) -> Any:
        return keras.distribution.TensorLayout([None] * len(shape), given.device_mesh)

    # Keras asks for the layout of a first batch, and has others follow it.
    undivided = copy.copy(given)
    undivided.get_data_layout = whole
    keras.distribution.set_distribution(undivided)
    try:
        yield
    finally:
        keras.distribution.set_distribution(given)


def _devices(distribution: Any) -> int:
    """Over how many devices a distribution splits a batch."""
    mesh = distribution.device_mesh
    return int(dict(zip(mesh.axis_names, mesh.shape, strict=True))[distribution.batch_dim_name])


def batch_sizes(count: int, size: int) -> tuple[int, ...]:
    """The sizes that batches of so many rows have."""
    return tuple({min(count, size), count % size} - {0})
