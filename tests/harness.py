"""Models to test on, and an independent float64 reference for their Jacobians."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_lsc import zoo

ROOT = Path(__file__).parents[1]
CELLS = ("lstm", "gru", "tanh", "relu", "sigmoid", "oscillator")
UNITS = 6


def run_python(
    program: str, *arguments: Any, backend: str, timeout: int = 300, **environment: str
) -> str:
    """What `program` prints in a process of its own, on `backend`; fails the test if it fails."""
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": backend, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
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


def gradients(function, variables, *arguments):
    """Gradients of a scalar `function(*arguments)` by its arguments and by Keras variables."""
    name = keras.backend.backend()
    values = [variable.value for variable in variables]
    if name == "jax":
        import jax

        def scalar(values, arguments):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(*arguments)

        arguments = [ops.convert_to_tensor(x) for x in arguments]
        by_values, by_arguments = jax.grad(scalar, argnums=(0, 1))(values, arguments)
        found = [*by_arguments, *by_values]
    elif name == "tensorflow":
        import tensorflow as tf

        arguments = [tf.convert_to_tensor(x) for x in arguments]
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        found = tape.gradient(result, [*arguments, *values], unconnected_gradients="zero")
    else:
        import torch

        arguments = [torch.as_tensor(np.asarray(x)).requires_grad_(True) for x in arguments]
        leaves = [*arguments, *values]
        found = torch.autograd.grad(function(*arguments), leaves, allow_unused=True)
        found = [
            torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)
        ]
    return [to_numpy(gradient) for gradient in found]


def check_layer(make, features: int, units: int, weights: tuple[int, int], rng) -> None:
    """What every recurrent layer of the package has to pass.

    Args:
        make: keyword arguments of a layer -> the layer.
        features: number of features of its input.
        units: number of features of its output.
        weights: how many trainable and other weights it has.
        rng: NumPy's generator.
    """
    # Three times unit variance: enough for neurons to spike often.
    x = 3.0 * sequences(rng, batch=4, steps=9, features=features)
    _check_shapes_and_weights(make, x, units, weights)
    _check_config(make, x)
    _check_states(make, x)
    _check_masks(make, x, rng)
    _check_mixed_precision(make, x)
    _check_fit(make, x, units, rng)


def _copy_of(layer, x, **changes):
    copy = type(layer).from_config({**layer.get_config(), **changes})
    copy.build((len(x), None, x.shape[-1]))
    copy.set_weights(layer.get_weights())
    return copy


def _built(make, x, **options):
    layer = make(**options)
    layer.build((None, *x.shape[1:]))
    return layer


def _check_shapes_and_weights(make, x, units, weights):
    for sequences_out in (False, True):
        layer = _built(make, x, return_sequences=sequences_out, return_state=True)
        symbolic = layer(keras.Input(x.shape[1:]))
        eager = layer(x)
        assert len(symbolic) == len(eager) == 1 + len(layer.state_size)
        for promised, given in zip(symbolic, eager, strict=True):
            assert tuple(promised.shape[1:]) == tuple(given.shape[1:])
            assert promised.dtype == keras.backend.standardize_dtype(given.dtype)
        expected = (len(x), x.shape[1], units) if sequences_out else (len(x), units)
        assert tuple(eager[0].shape) == expected
        assert np.isfinite(to_numpy(eager[0])).all()
        assert [len(layer.trainable_weights), len(layer.non_trainable_weights)] == list(weights)
        assert len({weight.path for weight in layer.weights}) == len(layer.weights)


def _check_config(make, x):
    layer = _built(make, x, return_sequences=True, go_backwards=True)
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    cell = type(layer.cell).from_config(layer.cell.get_config())
    assert cell.get_config() == layer.cell.get_config()
    serialized = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is type(layer)
    assert again.get_config() == config


def _check_states(make, x):
    layer = _built(make, x, return_sequences=True, return_state=True)
    whole, *last = map(to_numpy, layer(x))
    # Stepping the cell gives the same as the whole sequence.
    states, stepped = layer.cell.get_initial_state(len(x)), []
    for t in range(x.shape[1]):
        output, states = layer.cell(ops.convert_to_tensor(x[:, t]), states)
        stepped.append(to_numpy(output))
    np.testing.assert_allclose(np.stack(stepped, axis=1), whole, atol=1e-5)
    for state, expected in zip(states, last, strict=True):
        np.testing.assert_allclose(to_numpy(state), expected, atol=1e-5)
    # Two halves, the second starting where the first ended, are the whole.
    first, *between = layer(x[:, :5])
    second, *end = layer(x[:, 5:], initial_state=between)
    halves = np.concatenate([to_numpy(first), to_numpy(second)], axis=1)
    np.testing.assert_allclose(halves, whole, atol=1e-5)
    for state, expected in zip(end, last, strict=True):
        np.testing.assert_allclose(to_numpy(state), expected, atol=1e-5)
    stateful = _copy_of(layer, x, stateful=True)
    halves = [to_numpy(stateful(part)[0]) for part in (x[:, :5], x[:, 5:])]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, atol=1e-5)
    stateful.reset_state()
    np.testing.assert_allclose(to_numpy(stateful(x[:, :5])[0]), whole[:, :5], atol=1e-5)
    backwards = _copy_of(layer, x, go_backwards=True)(x)[0]
    forwards = layer(np.ascontiguousarray(x[:, ::-1]))[0]
    np.testing.assert_allclose(to_numpy(backwards), to_numpy(forwards), atol=1e-5)


def _check_masks(make, x, rng):
    layer = _built(make, x, return_sequences=True, return_state=True)
    mask = rng.random(x.shape[:2]) < 0.6
    mask[0], mask[1] = True, False
    outputs, *states = map(to_numpy, layer(x, mask=ops.convert_to_tensor(mask)))
    last_only = _copy_of(layer, x, return_sequences=False)
    last = to_numpy(last_only(x, mask=ops.convert_to_tensor(mask))[0])
    zeroed = _copy_of(layer, x, zero_output_for_mask=True)
    zeroed = to_numpy(zeroed(x, mask=ops.convert_to_tensor(mask))[0])
    for row, valid in enumerate(mask):
        np.testing.assert_array_equal(zeroed[row, ~valid], 0.0)
        if not valid.any():
            np.testing.assert_array_equal(outputs[row], 0.0)
            continue
        # The valid steps alone give the same; masked ones repeat the output before them.
        alone, *end = map(to_numpy, layer(x[row : row + 1, valid]))
        np.testing.assert_allclose(outputs[row, valid], alone[0], atol=1e-5)
        np.testing.assert_allclose(zeroed[row, valid], alone[0], atol=1e-5)
        np.testing.assert_allclose(last[row], alone[0, -1], atol=1e-5)
        for state, expected in zip(states, end, strict=True):
            np.testing.assert_allclose(state[row], expected[0], atol=1e-5)
        held = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
        expected = np.where(held[:, None] < 0, 0.0, outputs[row, held])
        np.testing.assert_array_equal(outputs[row], expected)
    masking = keras.layers.Masking()
    padded = np.pad(x, [(0, 0), (0, 3), (0, 0)])
    expected = to_numpy(last_only(x)[0])
    np.testing.assert_allclose(to_numpy(last_only(masking(padded))[0]), expected, atol=1e-5)


def _check_mixed_precision(make, x):
    layer = _built(make, x, return_sequences=True, dtype="mixed_bfloat16")
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    assert np.isfinite(to_numpy(ops.cast(outputs, "float32"))).all()


def _check_fit(make, x, units, rng):
    model = keras.Sequential([keras.Input(x.shape[1:]), make(return_sequences=True), make()])
    model.compile("sgd", "mse")
    first = model.layers[0].trainable_weights
    before = [to_numpy(weight) for weight in first]
    targets = rng.standard_normal((len(x), units)).astype("float32")
    history = model.fit(x, targets, batch_size=2, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(first, before, strict=True):
        assert len(weight.shape) < 2 or np.any(to_numpy(weight) != old), weight.path


# Emptied at the end of the process.
_EXPORTED = tempfile.TemporaryDirectory()


@cache
def exported(name: str) -> Path:
    """A checkpoint of the zoo as a .keras file, which is not to be changed."""
    return zoo.export(name, Path(_EXPORTED.name) / f"{name}.keras")


def mostly_once(values, everywhere):
    """Values for `parametrize`, of which no backend changes those that are not in `everywhere`."""
    return [
        value if value in everywhere else pytest.param(value, marks=pytest.mark.once)
        for value in values
    ]


def gradients_of_layer_and_steps(layer, x):
    """Gradients of sum(sin(outputs)) by x and weights: of the layer, and of its cell's steps."""

    def whole(x):
        return ops.sum(ops.sin(layer(x)))

    def stepped(x):
        states, total = layer.cell.get_initial_state(x.shape[0]), 0.0
        for t in range(x.shape[1]):
            output, states = layer.cell(x[:, t], states)
            total = total + ops.sum(ops.sin(output))
        return total

    return tuple(gradients(f, layer.trainable_variables, x) for f in (whole, stepped))
