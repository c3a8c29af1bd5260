"""Files that commands read and write; imported when one runs, since it imports Keras."""

import math
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tokenize import TokenError

import keras
import numpy as np

from keras_lsc import arguments, zoo
from keras_lsc.files import replacing

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_output(output: Path, *inputs: Path) -> None:
    """Raises OSError where a file cannot be written, before anything else is done.

    Args:
        output: File that the command will write.
        *inputs: Files that it must not be.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder of the output {output} does not exist; make it first.")
    if output.is_dir():
        raise IsADirectoryError(f"The output {output} is a folder; name a file in it.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"The folder of the output {output} cannot be written to.")
    for given in inputs:
        if given.exists() and output.exists() and output.samefile(given):
            raise FileExistsError(f"The output {output} is an input as well; name another file.")


def check_model_output(output: Path, *inputs: Path) -> None:
    """As `check_output`, and raises ValueError where the file does not end in .keras."""
    check_output(output, *inputs)
    if output.suffix != ".keras":
        raise ValueError(f"The output {output} must end in .keras, the format of the model.")


def check_picture_output(output: Path, *inputs: Path) -> None:
    """As `check_output`, and raises ValueError where the file is none that matplotlib writes.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    check_output(output, *inputs)
    if find_spec("matplotlib") is None:
        raise ImportError(
            'Pictures are drawn with matplotlib; install it: pip install "keras-lsc[plot]"'
        )
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if output.suffix.removeprefix(".").lower() not in known:
        raise ValueError(
            f"The output {output} must end in one of {', '.join(f'.{kind}' for kind in known)}."
        )


def load_model(path: Path) -> keras.Model:
    """Loads a saved model, without running code of it.

    Raises:
        OSError: There is no such file, or it is damaged.
    """
    _check_file(path, "model", "a model saved as .keras")
    # With its folder, so that it is no name of a checkpoint.
    return zoo.load(os.path.join(path.parent, path.name))


def compile_for_trial(model: keras.Model, loss: str, optimizer: str, rate: float) -> None:
    """Compiles a model by the names of a loss and an optimizer.

    Raises:
        ValueError: Keras has none of that name, or the learning rate is not positive.
    """
    arguments.number("--learning-rate", rate, above=0)
    model.compile(loss=keras.losses.get(loss), optimizer=keras.optimizers.get(optimizer))
    model.optimizer.learning_rate = rate


def load_data(path: Path) -> np.ndarray:
    """Loads an array of real numbers that numpy.save wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else, nothing, or less than it declares.
    """
    _check_file(path, "data", "an array saved with numpy.save")
    try:
        _check_header(path)
        return np.load(path, allow_pickle=False)
    # NumPy reads the header as a Python literal, of which the last four are told.
    except (ValueError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"The data file {path} is not an array of numbers saved with numpy.save: {error}"
        ) from error


def _check_header(path: Path) -> None:
    """Compares what a file declares with its size, before anything is allocated for it."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(path):
            raise ValueError("it is an archive (.npz?), and a single array is expected (.npy)")
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its format {version} is for fields with names")
        shape, _, dtype = _HEADERS[version](file)
        found = os.fstat(file.fileno()).st_size - file.tell()
    if dtype.kind not in "biuf":
        raise ValueError(f"its dtype is {dtype}, and real numbers are expected")
    if not all(size > 0 for size in shape):
        raise ValueError(f"its shape is {shape}, so it has no values")
    declared = math.prod(shape) * dtype.itemsize
    if declared != found:
        raise ValueError(
            f"its shape {shape} of {dtype} takes {declared} bytes, and the file has {found}"
        )


def _check_file(path: Path, what: str, expected: str) -> None:
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"The {what} file {path} {problem}; expected {expected}.")


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model, in one piece or not at all."""
    with replacing(path) as written:
        model.save(written)
