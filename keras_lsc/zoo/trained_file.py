"""Trained weights: how far every weight is from its start, in one byte.

Training moves a weight by little, so a step of 1/127 of the largest move towards a unit is a small
one: smaller than what rounding the weight itself to as many bits would take. Biases and other
vectors are stored as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_lsc.zoo import networks
from keras_lsc.zoo.checkpoint_file import CheckpointFile
from keras_lsc.zoo.damage import as_damage
from keras_lsc.zoo.start_file import FINGERPRINT, StartFile, arrays_of, check_fingerprint
from keras_lsc.zoo.start_file import fingerprint as fingerprint_of

# After the path of a matrix, the name of the sizes of its steps.
_STEP = ".step"
_MOST_STEPS = 127


@dataclass(frozen=True)
class TrainedFile(CheckpointFile):
    """The file of trained weights, read once: what was checked is what is loaded.

    Attributes:
        path: Path of the file.
        content: Its bytes.
        start: The start that was trained.
    """

    start: StartFile
    _remedy = "Install the package, or train the checkpoint, again."

    @classmethod
    def read(cls, path: Path, start: StartFile) -> "TrainedFile":
        """Reads the file of the weights that were trained from a start.

        Raises:
            DamagedCheckpointError: It cannot be read.
        """
        with as_damage(path, "cannot be read"):
            return cls(path, path.read_bytes(), start)

    def model(self) -> keras.Sequential:
        """Returns the network with its trained weights.

        Raises:
            DamagedCheckpointError: The file does not fit its start, or the start is damaged.
        """
        model = self.start.model()
        before = networks.weights_of(model)
        numbers = arrays_of(self.path, self.content, "has no trained weights")
        name = self.start.recipe.name
        with as_damage(self.path, f"does not fit the network of {name!r}"):
            values = moved(before, numbers)
        check_fingerprint(self.path, name, values, numbers.get(FINGERPRINT))
        networks.set_weights(model, values)
        return model


def numbers_of(
    before: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the numbers of trained weights: the way of each from its start, in rounded steps.

    Args:
        before: The weights of the start by path, float32.
        values: The trained weights by path.

    Returns:
        Arrays by path: of a matrix steps of int8 in its shape, and under its path with ".step" the
        size of a step, float32, for every entry of its last axis; of a vector its values; none
        for a weight that is as it was. And the fingerprint of what `moved` makes of them.

    Example:
        >>> before = {"a/kernel": np.zeros((2, 1), "float32"), "a/bias": np.zeros(1, "float32")}
        >>> kernel = np.array([[0.5], [-0.25]], "float32")
        >>> numbers = numbers_of(before, {**before, "a/kernel": kernel})
        >>> numbers["a/kernel"].tolist(), moved(before, numbers)["a/kernel"][0].tolist()
        ([[127], [-64]], [0.5])
    """
    numbers: dict[str, np.ndarray] = {}
    for name, start in before.items():
        value = np.asarray(values[name], "float32")
        if np.array_equal(start, value):
            continue
        if start.ndim < 2:
            numbers[name] = value
            continue
        way = value - start
        step = np.abs(way).max(axis=tuple(range(way.ndim - 1))) / np.float32(_MOST_STEPS)
        taken = np.divide(way, step, out=np.zeros_like(way), where=step > 0)
        numbers[name] = np.rint(taken).astype("int8")
        numbers[f"{name}{_STEP}"] = step
    return {**numbers, FINGERPRINT: fingerprint_of(moved(before, numbers))}


def moved(
    before: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the weights that the numbers of `numbers_of` make of those of the start.

    Args:
        before: The weights of the start by path.
        numbers: As `numbers_of` returns them.

    Raises:
        ValueError: The numbers do not fit the weights.
    """
    known = {FINGERPRINT, *before, *(f"{name}{_STEP}" for name in before)}
    unknown = [name for name in numbers if name not in known]
    if unknown:
        raise ValueError(f"there are numbers for {unknown[0]!r:.200}, which is no weight of it")
    return {name: _moved(name, start, numbers) for name, start in before.items()}


def _moved(name: str, start: np.ndarray, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    given, step = numbers.get(name), numbers.get(f"{name}{_STEP}")
    if given is None and step is None:
        return start
    if given is not None and given.shape == start.shape:
        if step is None and given.dtype == np.float32:
            return given
        if (
            step is not None
            and given.dtype == np.int8
            and step.dtype == np.float32
            and step.shape == start.shape[-1:] != ()
        ):
            return start + given * step
    found = [None if part is None else (part.shape, str(part.dtype)) for part in (given, step)]
    raise ValueError(
        f"{name!r}, of shape {start.shape}, has numbers {found[0]} with steps {found[1]}"
    )
