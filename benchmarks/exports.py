"""Which layer goes into which format from which backend, and how far its outputs are from Keras'.

    KERAS_BACKEND=torch python benchmarks/exports.py

Every layer is written in every format that the backend has, run by the format's own runtime on
zeros, on rows of digits and on random inputs, in batches of three sizes, and compared.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from environment import environment

from keras_lsc import datasets, export, layers
from keras_lsc.exporting import FORMATS

RESULTS = Path(__file__).parent / "results"
STEPS, FEATURES, UNITS = 8, 8, 6


def over_a_grid(**_: Any) -> keras.Layer:
    """A layer over grids that takes sequences: a grid of one feature."""
    return keras.Sequential(
        [
            keras.layers.Reshape((STEPS, FEATURES, 1)),
            layers.PLSTM2D(UNITS, heads=2, seed=1),
        ]
    )


LAYERS: dict[str, Callable[..., Any]] = {
    "LSTM": lambda **o: keras.layers.LSTM(UNITS, **o),
    "GRU": lambda **o: keras.layers.GRU(UNITS, **o),
    "SimpleRNN": lambda **o: keras.layers.SimpleRNN(UNITS, **o),
    "LIF": lambda **o: layers.LIF(UNITS, **o),
    "ALIF": lambda **o: layers.ALIF(UNITS, **o),
    "LeakyReadout": lambda **o: layers.LeakyReadout(UNITS, **o),
    "LRU": lambda **o: layers.LRU(UNITS, state_units=UNITS, seed=1, **o),
    "LRUBlock": lambda **o: layers.LRUBlock(FEATURES, seed=1, **o),
    "MinGRU": lambda **o: layers.MinGRU(UNITS, seed=1, **o),
    "MinLSTM": lambda **o: layers.MinLSTM(UNITS, seed=1, **o),
    "ParaGRU": lambda **o: layers.ParaGRU(UNITS, seed=1, solver="newton", **o),
    "ParaLSTM": lambda **o: layers.ParaLSTM(UNITS, seed=1, solver="newton", **o),
    "ParaLeaky": lambda **o: layers.ParaLeaky(UNITS, seed=1, solver="newton", **o),
    "SelectiveSSM": lambda **o: layers.SelectiveSSM(UNITS, state_units=4, seed=1, **o),
    "LinOSS": lambda **o: layers.LinOSS(UNITS, seed=1, **o),
    "PLSTM1D": lambda **o: layers.PLSTM1D(UNITS, heads=2, seed=1, **o),
    "PLSTM2D": over_a_grid,
}
SPIKING = ("LIF", "ALIF")
SUFFIXES = {"onnx": "model.onnx", "litert": "model.tflite", "torch": "model.pt2"}


def of_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a graph of ONNX."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: session.run(None, {given.name: x})[0]


def of_saved_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda x: np.asarray(loaded.serve(tf.constant(x)))


def of_litert(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a file of TFLite, which takes one sequence at a time."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=str(path))
    interpreter.allocate_tensors()

    def run(x: np.ndarray) -> np.ndarray:
        outputs = []
        for row in x:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
        return np.stack(outputs)

    return run


def of_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Runs a program of torch.export."""
    import torch

    module = torch.export.load(str(path)).module()
    return lambda x: module(torch.as_tensor(x)).detach().cpu().numpy()


# `tf.lite` of tensorflow-cpu has no Flex delegate.
RUNTIMES = {
    "onnx": of_onnx,
    "tf_saved_model": of_saved_model,
    "litert": of_litert,
    "torch": of_torch,
}


def inputs() -> dict[str, np.ndarray]:
    """Zeros, rows of digits and random numbers, of other batches than the graph was made with."""
    rng = np.random.default_rng(7)
    digits, _ = datasets.load("digits", limit=5)
    return {
        "zeros": np.zeros((1, STEPS, FEATURES), "float32"),
        "real": 3 * np.asarray(digits, "float32"),
        "random": (2 * rng.standard_normal((3, STEPS, FEATURES))).astype("float32"),
    }


def tried(name: str, kind: str, folder: Path) -> dict[str, Any]:
    """What comes of one layer in one format."""
    keras.utils.set_random_seed(0)
    layer = LAYERS[name](return_sequences=True)
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer])
    row: dict[str, Any] = {"layer": name, "format": kind}
    try:
        run = RUNTIMES[kind](export(model, folder / SUFFIXES.get(kind, "model"), format=kind))
        differences, values = {}, set()
        for given, x in inputs().items():
            found = run(x)
            expected = keras.ops.convert_to_numpy(model(x))
            differences[given] = float(np.abs(found - expected).max())
            values |= set(np.unique(found).tolist()) if name in SPIKING else set()
    # A table of what works also says what does not, whatever the exporter or the runtime raised.
    except Exception as error:  # noqa: BLE001
        return {**row, "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
    row["differences"] = differences
    if name in SPIKING:
        row["only_0_or_1"] = values <= {0.0, 1.0}
    return row


def main() -> None:
    """Tries every layer in every format of this backend, and writes what came of it."""
    rows = []
    for kind in FORMATS[keras.backend.backend()]:
        for name in LAYERS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(tried(name, kind, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    path = RESULTS / f"exports_{keras.backend.backend()}.json"
    path.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
