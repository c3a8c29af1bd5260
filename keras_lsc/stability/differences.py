"""How much of a small difference between two signals arrives at every layer of a model."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.stability.taps import Taps, TapsProbe, flat

Tensor = Any
Array = np.ndarray

# Size of the difference, of the deviation of what it is added to, and how many times the rounding
# of float32, of what is compared, it has to leave.
_SIZE = 0.01
_ROUNDINGS = 4.0


class DifferenceProbe(TapsProbe):
    """A model whose output are energies of differences in another, so `predict` compiles it.

    White noise is added to what the sources give out, 1 % of its deviation.

    Args:
        model: the model to look at.
        taps: its layer calls.
        structure: a nest of the inputs that the model takes.
        sources: index of the calls that it is added to.
    """

    # The size of the noise is by the deviation over all of them.
    rows_interact = True

    def __init__(self, model: keras.Model, taps: Taps, structure: Any, sources: Sequence[int]):
        super().__init__(model, taps, structure, "difference")
        self._sources = tuple(sources)

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Returns energies of differences, `(rows, calls)`, of `[*inputs, *noise of sources]`."""
        given, others = self.parted(inputs)
        noise = dict(zip(self._sources, others, strict=True))
        rows = ops.shape(inputs[0])[0]
        nothing = self.taps.nothing(rows)
        with self.taps.untouched():
            outputs = [ops.cast(x, "float32") for x in self.taps.run(given, nothing).outputs]
            added = list(nothing)
            for k, what in noise.items():
                added[k] = _SIZE * ops.std(outputs[k]) * what
            moved = [ops.cast(x, "float32") for x in self.taps.run(given, added).outputs]
        energies = [
            ops.sum(ops.square(flat(one - other)), axis=-1)
            for one, other in zip(moved, outputs, strict=True)
        ]
        rounding = _ROUNDINGS * np.finfo("float32").eps
        least = [ops.sum(ops.square(rounding * flat(output)), axis=-1) for output in outputs]
        kept = [
            ops.where(energy > floor, energy, 0.0)
            for energy, floor in zip(energies, least, strict=True)
        ]
        return ops.stack(kept, axis=-1)

    def measure(self, rows: list[Array], generator: np.random.Generator) -> tuple[float, ...]:
        """The energy of the difference at every call over that at the sources.

        Args:
            rows: one array an input, flat.
            generator: of the noise.

        Returns:
            One number a call, mean over the sequences; 0 where it is lost in rounding.
        """
        count = len(rows[0])
        shapes = [self.taps.calls[k].shape for k in self._sources]
        noise = [generator.standard_normal((count, *shape)).astype("float32") for shape in shapes]
        energy = self.by_batches([*rows, *noise]).mean(axis=0)
        source = energy[list(self._sources)].mean()
        return tuple((energy / source).tolist()) if source > 0 else (math.nan,) * len(energy)
