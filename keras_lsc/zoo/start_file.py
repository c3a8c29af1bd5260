"""Starts: the few numbers that, with its recipe, are a network pre-trained to stability.

Pre-training in mode "scales" multiplies a matrix, or the block of each of its gates, by one number,
and moves vectors; levelling does so to fewer of them. So a network is what NumPy draws by its
recipe, a scale for every block, and its vectors: a `.npz` file of some kilobytes, whatever the
width.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_lsc import datasets
from keras_lsc.zoo import guard, networks
from keras_lsc.zoo.checkpoint_file import CheckpointFile
from keras_lsc.zoo.damage import DamagedCheckpointError, as_damage
from keras_lsc.zoo.recipes import Recipe

SUFFIX = ".npz"
# No weight has this name: those of layers have a slash.
FINGERPRINT = "fingerprint"
# Largest distance of a projection, in norms of the weight: what LAPACK rounds differently is a
# tenth of it.
_SAME = 1e-5
# Largest distance of a weight from a scaled draw, in root mean squares of the weight: rounding.
_ROUNDING = 2e-6
_PROJECTIONS, _PART = 2, 2**16
# Numbers of gates side by side in a matrix.
_BLOCKS = (1, 3, 4)


@dataclass(frozen=True)
class StartFile(CheckpointFile):
    """The file of a start, read once: what was checked is what is loaded.

    Attributes:
        path: Path of the file.
        content: Its bytes.
        recipe: Recipe of the network.
    """

    recipe: Recipe
    _remedy = "Install the package, or build the checkpoint, again."

    @classmethod
    def read(cls, path: Path, recipe: Recipe) -> "StartFile":
        """Reads the file of a recipe.

        Raises:
            DamagedCheckpointError: It cannot be read.
        """
        with as_damage(path, "cannot be read"):
            return cls(path, path.read_bytes(), recipe)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of an input of the network, without the batch axis."""
        return self.recipe.input_shape or datasets.info(self.recipe.dataset).shape

    def numbers(self) -> dict[str, np.ndarray]:
        """Returns what the file has: scales of blocks, vectors and the fingerprint, by name.

        Raises:
            DamagedCheckpointError: It is no archive of such arrays.
        """
        return arrays_of(self.path, self.content, "is no start of a network")

    def model(self, *, dtype: str | None = None, is_initial: bool = False) -> keras.Sequential:
        """Returns the network with its weights.

        Args:
            dtype: Dtype policy of its layers; None for that of Keras.
            is_initial: Whether its weights are those before pre-training.

        Raises:
            DamagedCheckpointError: The file does not fit its recipe, or NumPy draws other weights
                than those that were pre-trained.
        """
        # A few numbers may stand for any number of weights.
        guard.check_network_size(self.path, networks.least_weights(self.recipe))
        model = networks.undrawn_network(self.recipe, dtype)
        drawn = networks.drawn_weights(model, self.recipe)
        numbers = self.numbers()
        with as_damage(self.path, f"does not fit the network of {self.recipe.name!r}"):
            values = expanded(drawn, numbers)
        check_fingerprint(self.path, self.recipe.name, values, numbers.get(FINGERPRINT))
        networks.set_weights(model, drawn if is_initial else values)
        return model


def arrays_of(path: Path, content: bytes, what: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.npz` file that is not compressed, by name.

    Args:
        path: Path of the file, for the message.
        content: The whole file.
        what: What is the matter with one that has none, for the message.

    Raises:
        DamagedCheckpointError: It is no archive of such arrays.
    """
    with as_damage(path, what):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # What is not compressed unpacks to no more than the file.
            if any(member.compress_type for member in archive.infolist()):
                raise ValueError("a part is compressed")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def check_fingerprint(
    path: Path, name: str, values: Mapping[str, np.ndarray], known: np.ndarray | None
) -> None:
    """Checks that weights are those that a fingerprint is of.

    Args:
        path: Path of the file that has the fingerprint, for the message.
        name: Name of the checkpoint.
        values: The weights by path.
        known: The fingerprint; None where the file has none.

    Raises:
        DamagedCheckpointError: They are others, or there is no fingerprint.
    """
    found = fingerprint(values)
    if known is None or known.shape != found.shape or known.dtype != found.dtype:
        raise DamagedCheckpointError(f"{path} has no fingerprint of its weights.")
    # So written, NaN differs.
    differs = ~(abs(found - known) <= _SAME * known[:, :1]).all(axis=1)
    if differs.any():
        weight = list(values)[int(np.argmax(differs))]
        raise DamagedCheckpointError(
            f"The weights {weight!r} of {name!r} are not those that its certificate is of: {path} "
            f"was changed, or NumPy {np.__version__} draws other numbers than the NumPy that they "
            "were drawn with."
        )


def expanded(
    drawn: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the weights that the numbers of a start make of those that were drawn.

    Args:
        drawn: The initial weights by path.
        numbers: As `numbers_of` returns them.

    Raises:
        ValueError: The numbers do not fit the weights.
    """
    unknown = [name for name in numbers if name not in drawn and name != FINGERPRINT]
    if unknown:
        raise ValueError(f"there are numbers for {unknown[0]!r:.200}, which is no weight of it")
    return {
        name: initial if name not in numbers else _expanded(name, initial, numbers[name])
        for name, initial in drawn.items()
    }


def _expanded(name: str, initial: np.ndarray, given: np.ndarray) -> np.ndarray:
    """A weight: what is given in its shape, or its draw with a scale for each of its blocks."""
    if given.dtype == np.float32 and given.shape == initial.shape:
        return given
    are_scales = given.dtype == np.float32 and given.ndim == 1 and len(given) > 0
    if not are_scales or initial.ndim < 2 or initial.shape[-1] % len(given):
        raise ValueError(
            f"{name!r}, of shape {initial.shape}, has numbers of shape {given.shape} and dtype "
            f"{given.dtype}"
        )
    return initial * np.repeat(given, initial.shape[-1] // len(given))


def numbers_of(
    drawn: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the numbers of a start: the fewest from which weights are those they are.

    Args:
        drawn: The initial weights by path, float32.
        values: The weights by path.

    Returns:
        Arrays by path, none for a weight that is as it was drawn: of the shape of the weight its
        values, `(blocks,)` scales of the blocks side by side along its last axis. And the
        fingerprint.

    Example:
        >>> drawn = {"a/kernel": np.eye(4, dtype="float32"), "a/bias": np.zeros(4, "float32")}
        >>> numbers = numbers_of(drawn, {**drawn, "a/kernel": 2 * drawn["a/kernel"]})
        >>> numbers["a/kernel"].tolist(), "a/bias" in numbers
        ([2.0], False)
    """
    numbers = {}
    for name, initial in drawn.items():
        if not np.array_equal(initial, values[name]):
            scales = _scales(initial, values[name])
            numbers[name] = values[name] if scales is None else scales
    return {**numbers, FINGERPRINT: fingerprint(expanded(drawn, numbers))}


def _scales(initial: np.ndarray, value: np.ndarray) -> np.ndarray | None:
    """The scales of the fewest blocks of a matrix that make it the other; None without any."""
    if initial.ndim < 2:
        return None
    for count in _BLOCKS:
        if initial.shape[-1] % count:
            continue
        blocks = initial.reshape(-1, count, initial.shape[-1] // count).astype("float64")
        changed = value.reshape(blocks.shape).astype("float64")
        square = np.sum(blocks**2, axis=(0, 2))
        if not square.all():
            continue
        scales = np.sum(blocks * changed, axis=(0, 2)) / square
        scales = scales.astype("float32")
        largest = np.max(abs(changed - blocks * scales[:, None]), axis=(0, 2))
        typical = np.sqrt(np.mean(changed**2, axis=(0, 2)))
        if np.all(largest <= _ROUNDING * typical):
            return scales
    return None


def fingerprint(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the norm and random projections of every weight, `(weights, 1 + projections)`.

    The signs are of a bit generator's raw stream, which NumPy never changes; of the distributions
    that the weights are drawn from it does not promise that.

    Args:
        values: The weights.
    """
    return np.array([_projected(value, k) for k, value in enumerate(values.values())])


def _projected(value: np.ndarray, position: int) -> list[float]:
    flat = value.ravel().astype("float64")
    raw = np.random.PCG64(position).random_raw(_PROJECTIONS * (len(flat) // 64 + 1))
    bits = np.unpackbits(raw.astype("<u8").view("uint8")).reshape(_PROJECTIONS, -1)
    bits = bits[:, : len(flat)]
    sums = np.zeros(_PROJECTIONS)
    # Of large weights a part at a time, which stays in the cache.
    for start in range(0, len(flat), _PART):
        part = slice(start, start + _PART)
        sums += (1.0 - 2.0 * bits[:, part]) @ flat[part]
    return [float(np.linalg.norm(flat)), *map(float, sums)]


def content_of(numbers: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of the file of a start, the same bytes every time.

    Args:
        numbers: As `numbers_of` returns them.
    """
    content = io.BytesIO()
    np.savez(content, **numbers)  # type: ignore[arg-type]
    return content.getvalue()
