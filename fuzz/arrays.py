"""Arrays in files, as `keras-lsc measure` and `stabilize` read them."""

import io
from pathlib import Path

import numpy as np

from fuzz.kind import RIGHT, Kind, require
from fuzz.mutate import damaged_bytes
from keras_lsc_command.files import load_data

_STRANGE_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 6, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 6, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (" + "1, " * 80 + "), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<U9', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (10000000000,), }",
    "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '<c8', 'fortran_order': False, 'shape': (36,), }",
    "{'descr': '<f4', 'shape': (4,), }",
    "__import__('os').system('true')",
    "(" * 3000,
    "9" * 5000,
)


def _draw(random: np.random.Generator) -> bytes:
    written = io.BytesIO()
    dtype = random.choice(["float32", "float64", "int8", "bool", "uint8", "float16", ">f4"])
    np.save(written, random.integers(0, 2, size=(4, 6, 3)).astype(dtype))
    content = written.getvalue()
    if random.random() < 0.7:
        return damaged_bytes(random, content)
    header = _STRANGE_HEADERS[random.integers(len(_STRANGE_HEADERS))].encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    version = bytes([int(random.choice([1, 1, 1, 2, 3, 9])), 0])
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(header).to_bytes(width, "little") + header + content[128:]


def _attempt(content: bytes, folder: Path) -> str:
    path = folder / "data.npy"
    path.write_bytes(content)
    found = load_data(path)
    require(found.dtype.kind in "biuf" and found.size > 0, f"{found.dtype} of {found.shape}")
    require(found.nbytes <= len(content), "more values than the file has")
    again = np.load(path, allow_pickle=False)
    require(np.array_equal(found, again, equal_nan=True), "other values than numpy.load reads")
    return RIGHT


NPY = Kind("npy", 60, _draw, _attempt, (ValueError,))
