"""pLSTM over a grid: memories that run to the right and down, and share out what they hold."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers.parallel.grid import grid_states
from keras_lsc.layers.parallel.plstm import (
    SourceTransitionMark,
    bias_of_decays,
    read_out,
)

Tensor = Any

MODES = ("P", "D")
# Axes that are turned round so that signals begin at the corner: the upper left one is the first.
_FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))
# Between which the logits of the share that goes right are spread over the heads, as published.
_STEEPEST = 2.0


@keras.saving.register_keras_serializable(package="keras_lsc")
class PLSTM2D(SourceTransitionMark):
    """A pLSTM over a grid, such as a picture, all nodes of an anti-diagonal at once.

    Every node writes a value v under a key k to the edges that leave it to the right and down, and
    reads by a query q what arrives on the edges from the left, L, and from above, A:

        y = m q (L + A) + d (q k) v + D v

    In mode "P" (propagation) a node shares out all that arrives, with what it writes itself:

        right = a (L + A + s k v),    down = (1 - a) (L + A + s k v)

    The share a depends on the input, and both shares sum to 1: rho_t + rho_l = 1, the condition of
    arXiv 2308.12075. Nothing is lost or gained, however far it is handed on, and at a constant a it
    goes along a line. In mode "D" (diffusion) each direction keeps a part, t_r or t_d, and what
    comes from the left may turn down, by c, but not back:

        right = t_r L + s_r k v,    down = t_d A + c L + s_d k v
        y = q (m_r L + m_d A) + d (q k) v + D v

    so that a signal decays. All gates a, s, t, c, m and d are sigmoids of the node's input, for
    each head. From every corner such signals run, with gates of their own; outputs are averaged.

    Args:
        units: number of features of the output.
        heads: number of memories side by side, each with gates of its own; it divides `units`.
        key_units: number of features of a key.
        mode: "P" or "D".
        corners: 4, or 1 for signals from the upper left corner alone.
        seed: integer of the initial weights, which NumPy draws, the same on every backend; or None.
        **kwargs: Other arguments, as `keras.Layer` takes them.

    Raises:
        ValueError: `heads` does not divide `units`, or an argument is out of range.

    Source: arXiv 2506.11997 with scalar transitions, without its convolution, norm, skip and output
        projection; keys and queries are bounded, and a source is shared out as all that arrives is.

    Example:
        >>> layer = PLSTM2D(16, heads=4)
        >>> layer(ops.ones((2, 5, 7, 3))).shape == (2, 5, 7, 16)
        True
    """

    def __init__(
        self,
        units: int,
        *,
        heads: int = 1,
        key_units: int = 8,
        mode: str = "P",
        corners: int = 4,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, heads=heads, key_units=key_units, seed=seed, **kwargs)
        self.mode = arguments.one_of("mode", mode, MODES)
        if isinstance(corners, bool) or corners not in (1, 4):
            raise ValueError(f"corners must be 1 or 4, got {corners!r}.")
        self.corners = corners
        self.input_spec = keras.InputSpec(ndim=4)

    def build(self, input_shape: tuple) -> None:
        """Makes the weights.

        Raises:
            ValueError: height or width of the grid is not known.
        """
        if None in input_shape[1:]:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes grids of known size "
                f"(batch, height, width, features), got {tuple(input_shape)}. Give the sizes in "
                "keras.Input."
            )
        super().build(input_shape)

    def _gate_biases(self, generator: np.random.Generator) -> Sequence[np.ndarray]:
        many = self.corners * self.heads
        half, direct = np.zeros(many), np.zeros(self.heads)
        if self.mode == "P":
            slopes = np.linspace(-_STEEPEST, _STEEPEST, self.heads) if self.heads > 1 else [0.0]
            # Share, source, mark.
            return np.tile(slopes, self.corners), half, half, direct
        kept = [bias_of_decays(many, generator) for _ in range(2)]
        # What is kept to the right and down, what turns, sources and marks of both.
        return *kept, half, half, half, half, half, direct

    def call(self, inputs: Tensor) -> Tensor:
        """Runs the layer.

        Args:
            inputs: `(batch, height, width, features)`.

        Returns:
            `(batch, height, width, units)`, in the compute dtype.
        """
        # The grid first: (height, width, batch, ...).
        queries, keys, values, (*gates, direct) = self._read(ops.transpose(inputs, (1, 2, 0, 3)))
        at_corners = [self._from_corners([gate], self.heads) for gate in gates]
        query, key, value = (
            self._from_corners(self.corners * [part], None) for part in (queries, keys, values)
        )
        nothing = ops.zeros_like(key[:, 0] * value[:, 0])
        if self.mode == "P":
            share, source, mark = at_corners
            left, above = grid_states(_share_out, (share, source, key, value), nothing)
            memory = mark * (left + above)
        else:
            *transitions, mark_left, mark_above = at_corners
            left, above = grid_states(_diffuse, (*transitions, key, value), nothing)
            memory = mark_left * left + mark_above * above
        found = self._to_the_grid(read_out(query, memory))
        found = found + read_out(queries, direct * keys * values)
        return ops.transpose(self._outputs(found, values), (2, 0, 1, 3))

    def _from_corners(self, parts: list[Tensor], heads: int | None) -> Tensor:
        """For each corner its part, turned so that the corner is the upper left one."""
        if heads is not None:
            (gate,) = parts
            parts = [gate[:, :, :, k * heads : (k + 1) * heads] for k in range(self.corners)]
        turned = [_flipped(part, axes) for part, axes in zip(parts, _FLIPS, strict=False)]
        return ops.concatenate(turned, axis=3)

    def _to_the_grid(self, found: Tensor) -> Tensor:
        """The mean over corners, each turned back."""
        parts = ops.split(found, self.corners, axis=3)
        turned = [_flipped(part, axes) for part, axes in zip(parts, _FLIPS, strict=False)]
        return sum(turned[1:], turned[0]) / self.corners

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Returns the shape of the outputs."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "mode": self.mode, "corners": self.corners}


def _share_out(left: Tensor, above: Tensor, at: tuple) -> tuple[Tensor, Tensor]:
    share, source, key, value = at
    held = left + above + source * key * value
    right = share * held
    return right, held - right


def _diffuse(left: Tensor, above: Tensor, at: tuple) -> tuple[Tensor, Tensor]:
    keep_right, keep_down, turn, source_right, source_down, key, value = at
    written = key * value
    right = keep_right * left + source_right * written
    return right, keep_down * above + turn * left + source_down * written


def _flipped(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return ops.flip(x, axis=axes) if axes else x
