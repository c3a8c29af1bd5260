"""Arrow pointing: a generated task over pictures whose answer lies along a line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_lsc.arguments import integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.generators import random_stream
from keras_lsc.datasets.info import GENERATED_SIZES, generated

INFO = generated(
    "arrow_pointing",
    "Pictures of an arrow and a disc: whether the arrow points at the disc.",
    shape=(24, 24, 1),
    target="label",
    outputs=2,
    homepage="https://arxiv.org/abs/2506.11997",
    citation="""@article{poppel2025plstm,
  title   = {{pLSTM}: parallelizable Linear Source Transition Mark networks},
  author  = {P{\\"o}ppel, Korbinian and Freinschlag, Richard and Schmied, Thomas and Lin, Wei and
             Hochreiter, Sepp},
  journal = {arXiv preprint arXiv:2506.11997},
  year    = {2025}
}""",
)

# In units of the side of a picture.
_LENGTHS, _RADII, _GAP = (0.2, 0.3), (0.08, 0.12), 0.05
# How far off the centre of the disc an arrow at it points at most, and one past it at least, in
# radii.
_AT, _PAST = 0.8, 1.2
# Of the head, in lengths of the arrow, and its angle.
_BARB, _ANGLE = 0.4, np.pi / 6
# In pixels.
_WIDTH = 1.0
_CHUNK = 1024


class Scene(NamedTuple):
    """Where the arrows and discs are; y runs down, in units of the side of a picture.

    Attributes:
        middle: of the arrows, x and y, `(count, 2)`.
        direction: unit vectors from tail to tip, `(count, 2)`.
        length: of the arrows, `(count,)`.
        centre: of the discs, `(count, 2)`.
        radius: of the discs, `(count,)`.
        label: 1 where the arrow points at the disc, `(count,)`.
    """

    middle: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    label: np.ndarray

    def first(self, limit: int | None) -> Scene:
        """The first of them; all without a limit."""
        return Scene(*(part[:limit] for part in self))


def draw(random: np.random.Generator, count: int) -> Scene:
    """Draws arrows and discs that do not touch, half of the arrows pointing at the disc.

    An arrow that does points to within 0.8 radii of the centre; the line of one that does not
    passes it by 1.2 radii or more, or leads away from it, and is drawn uniformly of all such.

    Args:
        random: the source of random numbers.
        count: number of pictures.
    """
    label = random.integers(0, 2, size=count)
    length = random.uniform(*_LENGTHS, size=count)
    radius = random.uniform(*_RADII, size=count)
    middle, centre = np.zeros((2, count, 2))
    missing = np.arange(count)
    while len(missing):
        for place, margin in ((middle, length / 2), (centre, radius)):
            edge = margin[missing, np.newaxis]
            place[missing] = edge + (1 - 2 * edge) * random.random((len(missing), 2))
        apart = np.linalg.norm(centre[missing] - middle[missing], axis=1)
        missing = missing[apart < (length / 2 + radius)[missing] + _GAP]
    towards = centre - middle
    apart = np.linalg.norm(towards, axis=1)
    off = random.uniform(-1, 1, size=count)
    at, past = np.arcsin(_AT * off * radius / apart), np.arcsin(_PAST * radius / apart)
    turned = np.where(label == 1, at, np.pi + off * (np.pi - past))
    angle = np.arctan2(towards[:, 1], towards[:, 0]) + turned
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Scene(middle, direction, length, centre, radius, label)


def picture(scene: Scene, size: int) -> np.ndarray:
    """Draws scenes as float32 pictures `(count, size, size, 1)`, 0 to 1, with smooth edges."""
    pictures = np.empty((len(scene.label), size, size, 1), np.float32)
    side = (np.arange(size) + 0.5) / size
    pixels = np.stack(np.meshgrid(side, side, indexing="xy"), axis=-1).astype(np.float32)
    for start in range(0, len(pictures), _CHUNK):
        part = Scene(*(of[start : start + _CHUNK] for of in scene))
        half = part.length[:, np.newaxis] / 2 * part.direction
        tip = part.middle + half
        lines = [(part.middle - half, tip)]
        for turn in (np.pi - _ANGLE, np.pi + _ANGLE):
            matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            barb = part.direction @ matrix.T * (_BARB * part.length)[:, np.newaxis]
            lines.append((tip, tip + barb))
        # In pixels: how far each is outside of what is drawn.
        outside = [size * _distance(pixels, *line) - _WIDTH / 2 for line in lines]
        from_centre = np.linalg.norm(pixels - _spread(part.centre), axis=-1)
        outside.append(size * (from_centre - part.radius[:, np.newaxis, np.newaxis]))
        pictures[start : start + _CHUNK, ..., 0] = np.clip(0.5 - np.min(outside, axis=0), 0, 1)
    return pictures


def _distance(pixels: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Of pixels `(size, size, 2)` from segments between points `(count, 2)`."""
    along = _spread(end - begin)
    offset = pixels - _spread(begin)
    share = np.sum(offset * along, axis=-1) / np.sum(along * along, axis=-1)
    return np.linalg.norm(offset - np.clip(share, 0, 1)[..., np.newaxis] * along, axis=-1)


def _spread(points: np.ndarray) -> np.ndarray:
    return points[:, np.newaxis, np.newaxis].astype(np.float32)


def read(
    split: str = "train", *, limit: int | None = None, size: int = 24, seed: int = 0
) -> Examples:
    """Draws pictures of an arrow and a disc, labelled by whether the arrow points at the disc.

    Args:
        split: "train" (50,000 pictures), "validation" (5,000) or "test" (5,000), each from a
            random stream of its own.
        limit: return only the first `limit` pictures of the split; None returns them all.
        size: pixels of a side, at least 16; scenes are the same at every size.
        seed: non-negative integer; the same seed gives the same pictures everywhere.

    Returns:
        Inputs: float32 (N, size, size, 1), 0 to 1: arrow and disc are light.
        Targets: int32 (N,), 1 where the arrow points at the disc, else 0.

    Raises:
        ValueError: the split is unknown, or a number is out of range.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("arrow_pointing", limit=3, size=32)
        >>> x.shape, y.shape
        ((3, 32, 32, 1), (3,))

    Source:
        After the arrow pointing task of arXiv 2506.11997, whose pictures are of 192 pixels a side
        or more, with smaller arrows.
    """
    integer("size", size, at_least=16)
    scene = draw(random_stream(split, seed), GENERATED_SIZES[split]).first(limit)
    return Examples(picture(scene, size), scene.label.astype(np.int32))
