"""Blocks that run along time in a `call` of their own, the way each of them steps, and its truth.

Written from the published equations, without the projections in and out that change nothing about
the state. `radii` has the spectral radius of the time transition in float64 NumPy, at every step of
one sequence: in closed form where the state enters linearly, else by differences.
"""

from typing import ClassVar

import keras
import numpy as np
from harness import difference_jacobian, largest_modulus, sigmoid, to_numpy
from keras import ops

KEYS, VALUES = 4, 3


def softplus(x):
    return np.log1p(np.exp(x))


class Block(keras.Layer):
    """Its weights are matrices from the features, by name and width."""

    widths: ClassVar[dict[str, int]] = {}

    def build(self, input_shape):
        for name, width in self.widths.items():
            matrix = self.add_weight(shape=(input_shape[-1], width), name=name)
            setattr(self, name, matrix)

    def numbers(self):
        """Its weights as float64 arrays, by name."""
        return {name: to_numpy(getattr(self, name)).astype("float64") for name in self.widths}


class DeltaRule(Block):
    """A gated delta rule behind a short convolution: arXiv 2412.06464, equation 10.

    S' = a (S - b k (k^T S)) + b k v^T,  y = q^T S', with keys of unit length.
    """

    widths: ClassVar = {"query": KEYS, "key": KEYS, "value": VALUES, "write": 1, "decay": 1}

    def read(self, x, before):
        """What all steps read: of every step and the two before it."""
        x = ops.tanh(x + 0.5 * before[..., 1, :] - 0.3 * before[..., 0, :])
        q, k, v, b, a = (ops.matmul(x, getattr(self, name)) for name in self.widths)
        k = k / ops.sqrt(ops.sum(k * k, axis=-1, keepdims=True))
        return q, k, v, ops.sigmoid(b), ops.exp(-ops.softplus(a))

    @staticmethod
    def write_to(memory, q, k, v, b, a):
        known = ops.sum(memory * k[..., None], axis=-2)
        memory = a[..., None] * (memory - (b * k)[..., None] * known[..., None, :])
        memory = memory + (b * k)[..., None] * v[..., None, :]
        return memory, ops.sum(memory * q[..., None], axis=-2)

    def call(self, x):
        padded = ops.pad(x, [(0, 0), (2, 0), (0, 0)])
        all_read = self.read(x, ops.stack([padded[:, :-2], padded[:, 1:-1]], axis=-2))
        memory, outputs = ops.zeros((ops.shape(x)[0], KEYS, VALUES)), []
        for t in range(x.shape[1]):
            memory, y = self.write_to(memory, *(part[:, t] for part in all_read))
            outputs.append(y)
        return ops.stack(outputs, axis=1)

    @staticmethod
    def start(layer, batch_size):
        features = layer.query.shape[0]
        return {
            "window": ops.zeros((batch_size, 2, features)),
            "memory": ops.zeros((batch_size, KEYS, VALUES)),
        }

    @staticmethod
    def step(layer, state, x):
        window = state["window"]
        memory, y = layer.write_to(state["memory"], *layer.read(x, window))
        window = ops.concatenate([window[:, 1:], x[:, None]], axis=1)
        return {"window": window, "memory": memory}, y

    def radii(self, sequence):
        # Keys of unit length turn the memory by a and a (1 - b); the window is nilpotent.
        x = np.pad(sequence.astype("float64"), [(2, 0), (0, 0)])
        x = np.tanh(x[2:] + 0.5 * x[1:-1] - 0.3 * x[:-2])
        return np.exp(-softplus(x @ self.numbers()["decay"]))[:, 0]


class TimeMix(Block):
    """The state of RWKV-7, arXiv 2503.14456, equation 15, with values mixed from another layer.

    S' = S (diag(w) - k (a k)^T) + v k^T,  y = S' r, with a token shift before.
    """

    widths: ClassVar = {
        "receptance": KEYS,
        "decay": KEYS,
        "key": KEYS,
        "rate": KEYS,
        "value": VALUES,
    }

    def read(self, x, last, first):
        x = 0.7 * x + 0.3 * last
        r, w, k, a, v = (ops.matmul(x, getattr(self, name)) for name in self.widths)
        k = k / ops.sqrt(ops.sum(k * k, axis=-1, keepdims=True))
        v = v if first is None else v + first
        return r, ops.exp(-ops.exp(-0.5 - ops.softplus(-w))), k, ops.sigmoid(a), v

    @staticmethod
    def write_to(memory, r, w, k, a, v):
        known = ops.sum(memory * k[..., None, :], axis=-1)
        memory = memory * w[..., None, :] - known[..., None] * (a * k)[..., None, :]
        memory = memory + v[..., None] * k[..., None, :]
        return memory, ops.sum(memory * r[..., None, :], axis=-1)

    def call(self, x, first=None):
        last = ops.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        all_read = self.read(x, last, first)
        memory, outputs = ops.zeros((ops.shape(x)[0], VALUES, KEYS)), []
        for t in range(x.shape[1]):
            memory, y = self.write_to(memory, *(part[:, t] for part in all_read))
            outputs.append(y)
        return ops.stack(outputs, axis=1), memory

    @staticmethod
    def start(layer, batch_size):
        features = layer.key.shape[0]
        return ops.zeros((batch_size, features)), ops.zeros((batch_size, VALUES, KEYS))

    @staticmethod
    def step(layer, state, x, first=None):
        last, memory = state
        memory, y = layer.write_to(memory, *layer.read(x, last, first))
        return (x, memory), y

    def radii(self, sequence):
        weights, x = self.numbers(), sequence.astype("float64")
        x = 0.7 * x + 0.3 * np.pad(x, [(1, 0), (0, 0)])[:-1]
        w = np.exp(-np.exp(-0.5 - softplus(-(x @ weights["decay"]))))
        k, a = x @ weights["key"], sigmoid(x @ weights["rate"])
        k = k / np.linalg.norm(k, axis=-1, keepdims=True)
        return largest_modulus(
            [np.diag(w) - np.outer(k, a * k) for w, k, a in zip(w, k, a, strict=True)]
        )


class Selective(Block):
    """A selective state space, arXiv 2312.00752, that gives its last output alone.

    h' = exp(-d) h + d b v for every value and key, y = (c h') v, behind a convolution of two steps.
    """

    widths: ClassVar = {"value": VALUES, "delta": VALUES, "write": KEYS, "read_out": KEYS}

    def selected(self, x, last):
        x = x + 0.5 * last
        v, d, b, c = (ops.matmul(x, getattr(self, name)) for name in self.widths)
        d = ops.softplus(d)
        rates = ops.convert_to_tensor(np.arange(1, KEYS + 1), "float32")
        return ops.exp(-d[..., None] * rates), (d * v)[..., None] * b[..., None, :], c

    def call(self, x):
        decay, drive, c = self.selected(x, ops.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1])
        # The whole sequence at once: what is left of every drive at the end.
        left = ops.flip(ops.cumsum(ops.flip(ops.log(decay), 1), 1), 1) - ops.log(decay)
        return ops.sum(ops.sum(ops.exp(left) * drive, axis=1) * c[:, -1:, :], axis=-1)

    @staticmethod
    def start(layer, batch_size):
        features = layer.value.shape[0]
        return [ops.zeros((batch_size, features)), ops.zeros((batch_size, VALUES, KEYS))]

    @staticmethod
    def step(layer, state, x):
        last, h = state
        decay, drive, c = layer.selected(x, last)
        h = decay * h + drive
        return [x, h], ops.sum(h * c[..., None, :], axis=-1)

    def radii(self, sequence):
        x = sequence.astype("float64")
        x = x + 0.5 * np.pad(x, [(1, 0), (0, 0)])[:-1]
        return np.exp(-softplus(x @ self.numbers()["delta"])).max(axis=-1)


class ExponentialGates(keras.Layer):
    """The sLSTM of xLSTM, arXiv 2405.04517, equations 8 to 17, with a counter beside its state."""

    units = 3

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 4 * self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, 4 * self.units), name="recurrent")

    def call(self, x, cache=None):
        state, outputs = self.start(self, ops.shape(x)[0], cache), []
        for t in range(x.shape[1]):
            state, y = self.step(self, state, x[:, t])
            outputs.append(y)
        return ops.stack(outputs, axis=1)

    @staticmethod
    def start(layer, batch_size, cache=None):
        zeros = ops.zeros((batch_size, layer.units))
        c = zeros if cache is None else cache
        return [c, ops.ones_like(zeros), zeros, zeros, ops.zeros((batch_size, 1), "int32")]

    @staticmethod
    def step(layer, state, x):
        c, n, h, m, count = state
        gates = ops.matmul(x, layer.kernel) + ops.matmul(h, layer.recurrent)
        i, f, z, o = ops.split(gates, 4, axis=-1)
        f = ops.log_sigmoid(f) + m
        m = ops.maximum(f, i)
        c = ops.exp(f - m) * c + ops.exp(i - m) * ops.tanh(z)
        n = ops.exp(f - m) * n + ops.exp(i - m)
        h = ops.sigmoid(o) * c / n
        return [c, n, h, m, count + 1], h

    def radii(self, sequence):
        kernel, recurrent = (to_numpy(w).astype("float64") for w in (self.kernel, self.recurrent))

        def step(state, x):
            c, n, h, m = np.split(state, 4)
            i, f, z, o = np.split(x @ kernel + h @ recurrent, 4)
            f = -softplus(-f) + m
            m = np.maximum(f, i)
            c = np.exp(f - m) * c + np.exp(i - m) * np.tanh(z)
            n = np.exp(f - m) * n + np.exp(i - m)
            return np.concatenate([c, n, sigmoid(o) * c / n, m])

        state, found = np.repeat([0.0, 1.0, 0.0, 0.0], self.units), []
        for x in sequence.astype("float64"):
            jacobian = difference_jacobian(lambda s, x=x: step(s, x), state)
            found.append(largest_modulus(jacobian))
            state = step(state, x)
        return np.array(found)


BLOCKS = (DeltaRule, TimeMix, Selective, ExponentialGates)
