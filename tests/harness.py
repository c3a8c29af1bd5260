"""Models to test on, and an independent float64 reference for their Jacobians."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

ROOT = Path(__file__).parents[1]
CELLS = ("lstm", "gru", "tanh", "relu", "sigmoid", "oscillator")
UNITS = 6


def run_python(program: str, *arguments: Any, backend: str, **environment: str) -> str:
    """What `program` prints in a process of its own, on `backend`; fails the test if it fails."""
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": backend, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


class OscillatorCell(keras.Layer):
    """A cell as a user writes it: not registered, no get_config, states of two sizes."""

    def __init__(self, units, inner=3):
        super().__init__()
        self.units, self.inner = units, inner
        self.state_size = [units, inner]
        self.output_size = units

    def build(self, input_shape):
        shapes = {
            "drive": (input_shape[-1], self.inner),
            "coupling": (self.units, self.inner),
            "memory": (self.inner, self.inner),
            "gate": (self.units, self.units),
            "lift": (self.inner, self.units),
        }
        for name, shape in shapes.items():
            setattr(self, name, self.add_weight(shape=shape, name=name))

    def call(self, inputs, states):
        position, velocity = states
        velocity = ops.tanh(inputs @ self.drive + position @ self.coupling + velocity @ self.memory)
        gate = ops.sigmoid(position @ self.gate)
        position = gate * position + (1 - gate) * (velocity @ self.lift)
        return position, [position, velocity]


def recurrent_layer(cell: str, units: int = UNITS, **kwargs) -> keras.Layer:
    if cell == "lstm":
        return layers.LSTM(units, **kwargs)
    if cell == "gru":
        return layers.GRU(units, **kwargs)
    if cell == "oscillator":
        return layers.RNN(OscillatorCell(units), **kwargs)
    return layers.SimpleRNN(units, activation=cell, **kwargs)


def recurrent_model(
    cell: str,
    depth: int = 2,
    units: int = UNITS,
    features: int = 4,
    steps: int | None = 5,
    between: Callable[[], list[keras.Layer]] = list,
    spread: float = 0.7,
    seed: int = 0,
) -> keras.Sequential:
    """A Sequential of `depth` recurrent layers with layers `between()` any two of them."""
    stack = [keras.Input((steps, features))]
    for index in range(depth):
        stack.extend(between() if index else [])
        stack.append(recurrent_layer(cell, units, return_sequences=True))
    return randomized(keras.Sequential(stack), spread, seed)


def randomized(model: keras.Model, spread: float = 0.7, seed: int = 0) -> keras.Model:
    """Gives the model weights drawn by NumPy: the same on every backend, biases not zero."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype:
            value = spread * generator.standard_normal(weight.shape)
            # Variances of a normalisation must be positive.
            weight.assign(np.abs(value) + 0.1 if "variance" in weight.name else value)
    return model


def sequences(rng, batch=8, steps=5, features=4):
    return rng.standard_normal((batch, steps, features)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
}


class NumpyCell:
    """A cell of Keras (or the one above) in float64 NumPy, on one sequence without batch axis.

    The state is one flat vector. `step(x, state)` returns the output and the new state.
    """

    def __init__(self, cell: keras.Layer):
        self._weights = [np.asarray(w, dtype="float64") for w in map(_value, cell.weights)]
        if isinstance(cell, layers.LSTMCell):
            self.step, self.size = self._lstm, 2 * cell.units
        elif isinstance(cell, layers.GRUCell):
            assert cell.reset_after
            self.step, self.size = self._gru, cell.units
        elif isinstance(cell, layers.SimpleRNNCell):
            self._activation = ACTIVATIONS[cell.activation.__name__]
            self.step, self.size = self._simple, cell.units
        elif isinstance(cell, OscillatorCell):
            self._units = cell.units
            self.step, self.size = self._oscillator, cell.units + cell.inner
        else:
            raise TypeError(type(cell))

    def _simple(self, x, h):
        kernel, recurrent, bias = self._weights
        h = self._activation(x @ kernel + h @ recurrent + bias)
        return h, h

    def _lstm(self, x, state):
        kernel, recurrent, bias = self._weights
        h, c = np.split(state, 2)
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h, np.concatenate([h, c])

    def _gru(self, x, h):
        kernel, recurrent, (input_bias, recurrent_bias) = self._weights
        z_x, r_x, n_x = np.split(x @ kernel + input_bias, 3)
        z_h, r_h, n_h = np.split(h @ recurrent + recurrent_bias, 3)
        z = sigmoid(z_x + z_h)
        candidate = np.tanh(n_x + sigmoid(r_x + r_h) * n_h)
        h = z * h + (1 - z) * candidate
        return h, h

    def _oscillator(self, x, state):
        drive, coupling, memory, gate, lift = self._weights
        position, velocity = state[: self._units], state[self._units :]
        velocity = np.tanh(x @ drive + position @ coupling + velocity @ memory)
        opened = sigmoid(position @ gate)
        position = opened * position + (1 - opened) * (velocity @ lift)
        return position, np.concatenate([position, velocity])

    def run(self, inputs, state=None):
        """Outputs `(T, units)` and the states before every step `(T, size)`."""
        state = np.zeros(self.size) if state is None else state
        outputs, before = [], []
        for x in np.asarray(inputs, dtype="float64"):
            before.append(state)
            output, state = self.step(x, state)
            outputs.append(output)
        return np.stack(outputs), np.stack(before)


def _value(variable):
    return ops.convert_to_numpy(variable)


def difference_jacobian(function, x, epsilon=1e-5):
    """Central differences of a NumPy function in float64: exact to about 1e-9."""
    x = np.asarray(x, dtype="float64")
    columns = []
    for unit in np.eye(x.size).reshape(x.size, *x.shape):
        change = function(x + epsilon * unit) - function(x - epsilon * unit)
        columns.append(np.ravel(change) / (2 * epsilon))
    return np.stack(columns, axis=-1)


def largest_modulus(matrices):
    return np.abs(np.linalg.eigvals(np.asarray(matrices, dtype="float64"))).max(axis=-1)


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(tensor))


def value_and_gradient(function, x):
    """A scalar function of one tensor and its gradient, by the backend's own means."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(ops.convert_to_tensor(x))
    elif name == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        gradient = tape.gradient(value, x, unconnected_gradients="zero")
    else:
        import torch

        x = torch.as_tensor(np.asarray(x)).requires_grad_(True)
        value = function(x)
        (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
        gradient = torch.zeros_like(x) if gradient is None else gradient
    return float(to_numpy(value)), to_numpy(gradient)
