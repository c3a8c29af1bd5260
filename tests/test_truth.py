"""Whether `measure` tells the truth of the models that users bring: brute force beside it.

It is the graphs that differ, not the backends: those cases in which no backend has a part are
marked `once`.
"""

import math

import keras
import numpy as np
import pytest
import truth
from harness import OscillatorCell, mostly_once, randomized
from keras import layers as L  # noqa: N812 - as its users write it
from keras import ops

import keras_lsc
from keras_lsc import layers as lsc

ON_EVERY_BACKEND = (
    "between: mean of steps",
    "mask: multi-head attention",
    "mask: rows of padding alone, nested and spiking",
    "input: bytes into linear recurrent blocks",
    "own cell: nested states",
    "package: alif refractory",
)
ROWS, STEPS, FEATURES, UNITS = 8, 5, 3, 4
RELATIVE = 2e-3
# Below this a relative error says nothing.
NEAR_ZERO = 0.05


@pytest.fixture(autouse=True)
def _without_compiling():
    """Models of so few units are compiled for longer than they run."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    elif name == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32")


def sequence(features=FEATURES, steps=STEPS, seed=0):
    return normal(ROWS, steps, features, seed=seed)


def tokens(words=9, steps=6, padded=True):
    """Words from 1 on; of the rows, some end, some begin and one is interrupted by padding."""
    ids = np.random.default_rng(0).integers(1, words, (ROWS, steps))
    if padded:
        ids[1, 3:] = ids[2, :4] = ids[3, 2:4] = ids[5, 1:] = 0
    return ids.astype("int32")


def rnn(units=UNITS, **options):
    return L.SimpleRNN(units, return_sequences=True, **options)


def gru(units=UNITS, **options):
    return L.GRU(units, return_sequences=True, **options)


def lstm(units=UNITS, **options):
    return L.LSTM(units, return_sequences=True, **options)


def stacked(*stack, features=FEATURES, steps=STEPS):
    return keras.Sequential([keras.Input((steps, features)), *stack]), sequence(features, steps)


def between(*stage):
    """What stands between two recurrent layers."""
    return lambda: stacked(rnn(), *(make() for make in stage), rnn(3))


def wired(wire, features=FEATURES):
    """A functional model of one sequence."""

    def make():
        x = keras.Input((STEPS, features))
        return keras.Model(x, wire(x)), sequence(features)

    return make


def residual(merge):
    def wire(x):
        y = rnn()(x)
        return rnn(3)(merge()([y, L.Dense(UNITS)(y)]))

    return wired(wire)


CASES = {}


def case(*names):
    """Registers a model and its inputs under a name."""

    def register(make):
        CASES[" ".join(names) or make.__name__.replace("_", " ")] = make
        return make

    return register


# What may stand between two recurrent layers.

BETWEEN = {
    "nothing": [],
    "dense": [lambda: L.Dense(UNITS)],
    "dense relu": [lambda: L.Dense(6, activation="relu")],
    "dense stack": [lambda: L.Dense(5, activation="gelu"), lambda: L.Dense(4, "softplus")],
    "time distributed": [lambda: L.TimeDistributed(L.Dense(5, activation="tanh"))],
    "dropout": [lambda: L.Dropout(0.5)],
    "spatial dropout": [lambda: L.SpatialDropout1D(0.5)],
    "alpha dropout": [lambda: L.AlphaDropout(0.5)],
    "gaussian dropout": [lambda: L.GaussianDropout(0.5)],
    "gaussian noise": [lambda: L.GaussianNoise(0.5)],
    "identity": [L.Identity],
    "activity regularization": [lambda: L.ActivityRegularization(l2=0.1)],
    "activation": [lambda: L.Activation("silu")],
    "relu": [L.ReLU],
    "bounded relu": [lambda: L.ReLU(max_value=0.6, negative_slope=0.1, threshold=0.1)],
    "leaky relu": [L.LeakyReLU],
    "prelu": [L.PReLU],
    "prelu shared": [lambda: L.PReLU(shared_axes=[1])],
    "elu": [L.ELU],
    "softmax": [L.Softmax],
    "softmax over time": [lambda: L.Softmax(axis=1)],
    "rescaling": [lambda: L.Rescaling(2.0, offset=0.3)],
    "layer norm": [L.LayerNormalization],
    "layer norm over both": [lambda: L.LayerNormalization(axis=[1, 2])],
    "batch norm": [L.BatchNormalization],
    "batch norm of steps": [lambda: L.BatchNormalization(axis=1)],
    "rms norm": [L.RMSNormalization],
    "group norm": [lambda: L.GroupNormalization(groups=2)],
    "unit norm": [L.UnitNormalization],
    "spectral norm": [lambda: L.SpectralNormalization(L.Dense(5))],
    "convolution causal": [lambda: L.Conv1D(5, 3, padding="causal", activation="tanh")],
    "convolution same": [lambda: L.Conv1D(5, 2, padding="same")],
    "convolution dilated": [lambda: L.Conv1D(4, 2, padding="causal", dilation_rate=2)],
    "convolution grouped": [lambda: L.Conv1D(4, 3, padding="same", groups=2)],
    "separable convolution": [lambda: L.SeparableConv1D(5, 3, padding="same")],
    "depthwise convolution": [lambda: L.DepthwiseConv1D(3, padding="same", depth_multiplier=2)],
    "einsum of features": [lambda: L.EinsumDense("btf,fg->btg", (None, 5), bias_axes="g")],
    "einsum of steps": [lambda: L.EinsumDense("btf,ts->bsf", (STEPS, UNITS))],
    "dense along time": [
        lambda: L.Permute((2, 1)),
        lambda: L.Dense(STEPS, activation="tanh"),
        lambda: L.Permute((2, 1)),
    ],
    "reshape": [L.Flatten, lambda: L.Dense(2 * STEPS), lambda: L.Reshape((STEPS, 2))],
    "mean repeated": [L.GlobalAveragePooling1D, lambda: L.RepeatVector(STEPS)],
    "up and down": [lambda: L.UpSampling1D(2), lambda: L.AveragePooling1D(2)],
    "pooling without stride": [
        lambda: L.MaxPooling1D(2, strides=1),
        lambda: L.ZeroPadding1D((1, 0)),
    ],
    "padding and cropping": [lambda: L.ZeroPadding1D((1, 0)), lambda: L.Cropping1D((0, 1))],
    "maximum of steps": [lambda: L.MaxPooling1D(2)],
    "mean of steps": [lambda: L.Dense(4), lambda: L.AveragePooling1D(2, padding="same")],
    "strided convolution": [lambda: L.Conv1D(4, 3, strides=2, padding="same")],
    "strided causal convolution": [lambda: L.Conv1D(4, 2, strides=2, padding="causal")],
    "convolution without padding": [lambda: L.Conv1D(4, 3, activation="tanh")],
    "cropping": [lambda: L.Cropping1D((1, 2))],
    "padding": [lambda: L.ZeroPadding1D((1, 2))],
    "upsampling": [lambda: L.UpSampling1D(2)],
    "masking": [L.Masking],
    "firing rate regularizer": [lsc.FiringRateRegularizer],
}
for name, stage in BETWEEN.items():
    case("between:", name)(between(*stage))


@keras.saving.register_keras_serializable(package="test_truth")
class Squash(keras.Layer):
    """A layer of a user's that treats every step by itself, and says nothing about it."""

    def build(self, input_shape):
        self.height = self.add_weight(shape=(input_shape[-1],), name="height")

    def call(self, inputs):
        return self.height * ops.tanh(2.0 * inputs)


@keras.saving.register_keras_serializable(package="test_truth")
class Mix(keras.Layer):
    """A layer of a user's that mixes the steps."""

    def call(self, inputs):
        return inputs + 0.5 * ops.tanh(ops.cumsum(inputs, axis=1))


case("between: own layer")(between(Squash))
case("between: own layer that mixes steps")(between(Mix))
case("between: lambda")(between(lambda: L.Lambda(lambda x: 0.5 * x * x)))


def attending(make):
    return wired(lambda x: rnn(3)(make(rnn()(x))))


case("between: multi-head attention")(attending(lambda y: L.MultiHeadAttention(2, 3)(y, y)))
case("between: causal multi-head attention")(
    attending(lambda y: L.MultiHeadAttention(1, 3, use_bias=False)(y, y, use_causal_mask=True))
)
case("between: attention")(attending(lambda y: L.Attention(use_scale=True)([y, y])))
case("between: causal attention")(attending(lambda y: L.Attention()([y, y], use_causal_mask=True)))
case("between: additive attention")(attending(lambda y: L.AdditiveAttention()([y, y])))
case("between: transformer block")(
    attending(lambda y: L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(1, 4)(y, y)])))
)
case("between: operations")(attending(lambda y: y * 2.0 + ops.tanh(y)))
case("between: some features")(attending(lambda y: y[:, :, 1:]))
case("between: reversed steps")(attending(lambda y: ops.flip(y, axis=1)))
case("between: gate of a mean")(
    attending(
        lambda y: L.Multiply()(
            [y, L.Dense(4, "sigmoid")(L.GlobalAveragePooling1D(keepdims=False)(y))[:, None]]
        )
    )
)

# Merges, as residuals and as skips.

MERGES = {
    "add": L.Add,
    "average": L.Average,
    "maximum": L.Maximum,
    "minimum": L.Minimum,
    "multiply": L.Multiply,
    "subtract": L.Subtract,
    "concatenate": L.Concatenate,
    "concatenate steps apart": lambda: lambda ys: L.Concatenate(axis=1)(ys)[:, :STEPS],
    "dot of features": lambda: L.Dot(axes=(2, 2)),
    "dot normalised": lambda: L.Dot(axes=(2, 2), normalize=True),
}
for name, merge in MERGES.items():
    case("merge:", name)(residual(merge))


@case("between: pooling and recurrent layers in turn")
def _():
    return stacked(rnn(), L.MaxPooling1D(2), gru(3), L.AveragePooling1D(2), rnn(3), steps=8)


@case("merge: pooled and strided side by side")
def _():
    def wire(x):
        y = rnn()(x)
        return gru(3)(L.Add()([L.MaxPooling1D(2)(y), L.Conv1D(4, 2, strides=2)(y)]))

    return wired(wire)()


@case("between: maximum and padding")
def _():
    return stacked(rnn(), L.MaxPooling1D(2, strides=1), L.ZeroPadding1D((0, 1)), rnn(3))


@case("between: sequences of any length")
def _():
    x = keras.Input((None, 3))
    y = rnn()(x)
    y = L.MaxPooling1D(2)(L.Add()([y, L.MultiHeadAttention(1, 3)(y, y)]))
    return keras.Model(x, gru(3)(y)), sequence(steps=6)


@case("merge: sequences of a length left open and of a known one")
def _():
    def wire(x):
        y = rnn()(L.EinsumDense("btf,fg->btg", (None, 5))(x))
        return gru(3)(L.Concatenate()([x, y]))

    return wired(wire)()


@case("forward: a first tensor read twice")
def _():
    x = keras.Input((6,))
    y = L.Rescaling(0.5)(x)
    y = L.Add()([L.Dense(4, "tanh")(L.Dense(5, "tanh")(y)), L.Dense(4)(y)])
    return keras.Model(x, L.Dense(3)(y)), normal(ROWS, 6)


@case("recurrent: state repeated")
def _():
    def wire(x):
        _, state = gru(return_state=True)(rnn()(x))
        return gru(3)(L.Concatenate()([x, L.RepeatVector(STEPS)(state)]))

    return wired(wire)()


@case("merge: skip of a layer")
def _():
    def wire(x):
        first = rnn(name="first")(x)
        second = gru(name="second")(first)
        return rnn(3, name="third")(L.Add()([first, second]))

    return wired(wire)()


@case("merge: skip of the input")
def _():
    return wired(lambda x: gru(3)(L.Concatenate()([x, rnn()(x)])))()


@case("merge: dense network")
def _():
    def wire(x):
        parts = [x]
        for _ in range(3):
            y = rnn(3)(L.Concatenate()(parts) if len(parts) > 1 else x)
            parts.append(y)
        return parts[-1]

    return wired(wire)()


@case("merge: two branches")
def _():
    return wired(
        lambda x: gru(3)(L.Maximum()([rnn(name="left")(x), lstm(name="right")(L.Dense(2)(x))]))
    )()


# Recurrent layers and their options.

RECURRENT = {
    "lstm": lambda: [lstm(), lstm()],
    "lstm without bias": lambda: [lstm(use_bias=False), lstm(3, use_bias=False)],
    "lstm other activations": lambda: [
        lstm(activation="elu", recurrent_activation="hard_sigmoid"),
        lstm(activation="softsign"),
    ],
    "gru": lambda: [gru(), gru()],
    "gru reset before": lambda: [gru(reset_after=False), gru(3, reset_after=False)],
    "gru without bias": lambda: [gru(use_bias=False), gru(use_bias=False, reset_after=False)],
    "gru other activations": lambda: [gru(activation="elu", recurrent_activation="tanh"), gru()],
    "simple rnn linear": lambda: [rnn(activation="linear"), rnn(activation="linear")],
    "simple rnn relu": lambda: [rnn(activation="relu", use_bias=False), rnn(activation="sigmoid")],
    "dropout inside": lambda: [gru(dropout=0.5, recurrent_dropout=0.5), lstm(dropout=0.5)],
    "unrolled": lambda: [gru(unroll=True), rnn(unroll=True)],
    "backwards below": lambda: [rnn(go_backwards=True), gru(3)],
    "backwards above": lambda: [rnn(), gru(3, go_backwards=True)],
    "backwards both": lambda: [lstm(go_backwards=True), rnn(go_backwards=True)],
    "last output": lambda: [gru(), L.LSTM(3), L.Dense(2)],
    "rnn of cells": lambda: [
        L.RNN(L.LSTMCell(4), return_sequences=True),
        L.RNN(L.GRUCell(3), return_sequences=True),
        L.RNN(L.SimpleRNNCell(3)),
    ],
    "stacked cells": lambda: [
        L.RNN(L.StackedRNNCells([L.GRUCell(3), L.LSTMCell(4)]), return_sequences=True),
        L.RNN([L.SimpleRNNCell(3), L.SimpleRNNCell(4)], return_sequences=True),
    ],
    "stacked lstm cells backwards": lambda: [
        rnn(),
        L.RNN([L.LSTMCell(3), L.LSTMCell(3)], go_backwards=True),
    ],
    **{
        f"bidirectional {mode}": lambda mode=mode: [
            rnn(),
            L.Bidirectional(gru(3), merge_mode=mode),
            rnn(3),
        ]
        for mode in ("concat", "sum", "ave", "mul")
    },
    "bidirectional lstm": lambda: [L.Bidirectional(lstm(3)), L.Bidirectional(L.LSTM(2))],
    "bidirectional unlike": lambda: [
        rnn(),
        L.Bidirectional(gru(3), backward_layer=lstm(3, go_backwards=True), merge_mode="sum"),
    ],
}
for name, make in RECURRENT.items():
    case("recurrent:", name)(lambda make=make: stacked(*make()))


@case("recurrent: states returned")
def _():
    def wire(x):
        y, h, c = lstm(return_state=True)(x)
        top, last = L.GRU(4, return_sequences=True, return_state=True)(L.Dense(3)(y))
        return [top, last, h, c]

    return wired(wire)()


@case("recurrent: initial state")
def _():
    x, start = keras.Input((STEPS, FEATURES)), keras.Input((2,))
    h, c = L.Dense(4, name="h")(start), L.Dense(4, name="c")(start)
    y = lstm()(x, initial_state=[h, c])
    return keras.Model([x, start], gru(3)(y)), [sequence(), normal(ROWS, 2)]


@case("recurrent: bidirectional initial state")
def _():
    x, start = keras.Input((STEPS, FEATURES)), keras.Input((2,))
    states = [L.Dense(3, name=name)(start) for name in ("ahead", "back")]
    y = L.Bidirectional(gru(3))(rnn()(x), initial_state=states)
    return keras.Model([x, start], y), [sequence(), normal(ROWS, 2)]


@case("recurrent: encoder and decoder")
def _():
    source, target = keras.Input((STEPS, FEATURES)), keras.Input((4, 2))
    y, *_ = lstm(return_state=True, name="first")(source)
    _, h, c = L.LSTM(4, return_state=True, name="encoder")(y)
    z = lstm(name="decoder")(target, initial_state=[h, c])
    z = lstm(3, name="second")(z)
    return keras.Model([source, target], L.Dense(2)(z)), [sequence(), sequence(2, 4)]


@case("recurrent: decoder that attends")
def _():
    source, target = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, 2))
    memory, state = gru(return_state=True, name="encoder")(source)
    y = gru(name="decoder")(target, initial_state=state)
    y = L.Concatenate()([y, L.Attention()([y, memory])])
    return keras.Model([source, target], gru(3, name="top")(y)), [sequence(), sequence(2)]


# Masks.


def reading(*stack, **options):
    """Layers above an embedding of padded words."""

    def make():
        ids = keras.Input((6,), dtype="int32")
        y = L.Embedding(9, 3, mask_zero=True)(ids)
        for layer in stack:
            y = layer()(y)
        return keras.Model(ids, y), tokens(**options)

    return make


MASKED = {
    "nothing padded": [rnn, gru],
    "two layers": [rnn, lambda: L.GRU(3)],
    "three layers": [gru, lstm, rnn],
    "dense": [rnn, lambda: L.Dense(5, activation="tanh"), rnn],
    "norm": [rnn, L.LayerNormalization, L.BatchNormalization, rnn],
    "dropout and relu": [rnn, lambda: L.Dropout(0.5), L.LeakyReLU, rnn],
    "time distributed": [rnn, lambda: L.TimeDistributed(L.Dense(4)), rnn],
    "norm that loses the mask": [rnn, L.RMSNormalization, rnn],
    "convolution that loses the mask": [rnn, lambda: L.Conv1D(4, 2, padding="causal"), rnn],
    "zero output": [
        lambda: rnn(zero_output_for_mask=True),
        lambda: L.Dense(3),
        lambda: gru(zero_output_for_mask=True),
    ],
    "backwards": [rnn, lambda: L.GRU(3, go_backwards=True)],
    "bidirectional": [lambda: L.Bidirectional(gru(3)), lambda: L.Bidirectional(L.LSTM(2))],
    "stacked cells": [lambda: L.RNN([L.GRUCell(3), L.LSTMCell(3)], return_sequences=True), rnn],
    "own cell": [lambda: L.RNN(OscillatorCell(4), return_sequences=True), rnn],
    "spiking": [lambda: lsc.LIF(4, return_sequences=True), lambda: lsc.ALIF(4)],
    "linear recurrent": [lambda: lsc.LRU(4, return_sequences=True), lambda: lsc.LRUBlock(4)],
    "readout": [lambda: lsc.LIF(4, return_sequences=True), lambda: lsc.LeakyReadout(3)],
    "leaky": [lambda: lsc.LeakyRNN(4, tau=3.0, return_sequences=True), lambda: lsc.LeakyRNN(3)],
    "pooled": [rnn, rnn, L.GlobalAveragePooling1D, lambda: L.Dense(2)],
}
for name, stack in MASKED.items():
    case("mask:", name)(reading(*stack, padded=name != "nothing padded"))


def embedding_model():
    words = keras.Input((6,), dtype="int32")
    return keras.Model(words, L.Embedding(9, 3, mask_zero=True)(words), name="embedder")


@case("mask: from a nested model")
def _():
    ids = keras.Input((6,), dtype="int32")
    return keras.Model(ids, L.GRU(3)(rnn()(embedding_model()(ids)))), tokens()


@case("mask: into a nested model")
def _():
    ids = keras.Input((6,), dtype="int32")
    above = keras.Sequential([keras.Input((6, 3)), rnn(), L.Dense(3), L.GRU(3)])
    return keras.Model(ids, above(embedding_model()(ids))), tokens()


@case("mask: through a nested model")
def _():
    ids = keras.Input((6,), dtype="int32")
    middle = keras.Sequential([keras.Input((6, 3)), gru(), L.Dropout(0.3)])
    y = L.Embedding(9, 3, mask_zero=True)(ids)
    return keras.Model(ids, rnn(3)(L.Dense(4)(middle(y)))), tokens()


def mask_input():
    return keras.Input((6,), dtype="bool", name="mask"), tokens() != 0


@case("mask: argument of a layer")
def _():
    x, (mask, given) = keras.Input((6, 3)), mask_input()
    y = rnn()(x, mask=mask)
    return keras.Model([x, mask], L.GRU(3)(L.Dense(4)(y))), [sequence(steps=6), given]


@case("mask: argument of both layers")
def _():
    x, (mask, given) = keras.Input((6, 3)), mask_input()
    y = L.Conv1D(4, 2, padding="same")(rnn()(x, mask=mask))
    return keras.Model([x, mask], L.GRU(3)(y, mask=mask)), [sequence(steps=6), given]


@case("mask: argument of a nested model")
def _():
    x, (mask, given) = keras.Input((6, 3)), mask_input()
    inner = keras.Sequential([keras.Input((6, 3)), rnn(), L.Dense(3), rnn()])
    return keras.Model([x, mask], inner(x, mask=mask)), [sequence(steps=6), given]


@case("mask: argument of a nested functional model")
def _():
    x, (mask, given) = keras.Input((6, 3)), mask_input()
    z = keras.Input((6, 3))
    inner = keras.Model(z, rnn()(gru()(z)))
    return keras.Model([x, mask], rnn(3)(inner(x, mask=mask))), [sequence(steps=6), given]


@case("mask: given beside the sequence")
def _():
    x, (mask, given) = keras.Input((6, 3), name="x"), mask_input()
    y = L.GRU(3)(rnn()(lsc.ApplyMask()([x, mask])))
    return keras.Model({"x": x, "mask": mask}, y), {"x": sequence(steps=6), "mask": given}


@case("mask: computed by operations")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = L.Embedding(9, 3)(ids)
    mask = ops.not_equal(ids, 0)
    return keras.Model(ids, L.GRU(3)(rnn()(y, mask=mask), mask=mask)), tokens()


@case("mask: rows of padding alone")
def _():
    model, ids = reading(rnn, lambda: L.Dense(3), gru)()
    ids[[0, 6]] = 0
    return model, ids


@case("mask: rows of padding alone, nested and spiking")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = lif()(embedding_model()(ids))
    words = tokens()
    words[:3] = 0
    return keras.Model(ids, lsc.LRUBlock(4)(y)), words


@case("mask: masking layer")
def _():
    x = sequence(steps=6) * (tokens() != 0)[..., None]
    return keras.Sequential([keras.Input((6, 3)), L.Masking(), rnn(), L.GRU(3)]), x


@case("mask: masking of another value")
def _():
    x = np.where((tokens() != 0)[..., None], sequence(steps=6), -1.0).astype("float32")
    model = keras.Sequential([keras.Input((6, 3)), L.Masking(-1.0), gru(), L.Dense(3), rnn()])
    return model, x


@case("mask: residual")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = rnn()(L.Embedding(9, 3, mask_zero=True)(ids))
    return keras.Model(ids, rnn(3)(L.Add()([y, L.Dense(4)(y)]))), tokens()


@case("mask: concatenated with what has none")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = rnn()(L.Embedding(9, 3, mask_zero=True)(ids))
    return keras.Model(ids, rnn(3)(L.Concatenate()([y, L.Conv1D(2, 1)(y)]))), tokens()


@case("mask: multi-head attention")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = rnn()(L.Embedding(9, 3, mask_zero=True)(ids))
    return keras.Model(ids, rnn(3)(L.MultiHeadAttention(1, 3)(y, y))), tokens()


@case("mask: transformer block")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = rnn()(L.Embedding(9, 3, mask_zero=True)(ids))
    y = L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(1, 4)(y, y)]))
    return keras.Model(ids, rnn(3)(y)), tokens()


@case("mask: attention")
def _():
    ids = keras.Input((6,), dtype="int32")
    y = rnn()(L.Embedding(9, 3, mask_zero=True)(ids))
    return keras.Model(ids, rnn(3)(L.Attention()([y, y]))), tokens()


@case("mask: of encoder and decoder")
def _():
    source, target = keras.Input((6,), dtype="int32"), keras.Input((4,), dtype="int32")
    _, h = L.GRU(4, return_state=True)(rnn()(L.Embedding(9, 3, mask_zero=True)(source)))
    y = gru()(L.Embedding(9, 2, mask_zero=True)(target), initial_state=h)
    return keras.Model([source, target], rnn(3)(y)), [tokens(), tokens(steps=7)[:, 3:]]


# Inputs as they come.

RASTER = (np.random.default_rng(1).random((ROWS, STEPS, 4)) < 0.5).astype("uint8")


def given(stack, x):
    return lambda: (keras.Sequential([keras.Input(x.shape[1:]), *(make() for make in stack)]), x)


INTEGERS = {
    "bytes into spiking": (
        [lambda: lsc.LIF(4, return_sequences=True), lambda: lsc.ALIF(4)],
        RASTER,
    ),
    "bytes into linear recurrent blocks": (
        [lambda: lsc.LRUBlock(4, return_sequences=True), lambda: lsc.LRUBlock(4)],
        RASTER,
    ),
    "long integers": ([gru, lambda: L.Dense(3), rnn], RASTER.astype("int64") * 3),
    "booleans": ([lstm, rnn], RASTER.astype(bool)),
    "doubles": ([rnn, gru], RASTER * 0.7),
    "integers into own cell": (
        [lambda: L.RNN(OscillatorCell(4), return_sequences=True), rnn],
        RASTER,
    ),
    "integers into dense": ([lambda: L.Dense(4, "tanh"), lambda: L.Dense(3)], RASTER[:, 0]),
    "integers into convolutions": (
        [lambda: L.Conv1D(3, 2, activation="tanh"), L.Flatten, lambda: L.Dense(2)],
        RASTER,
    ),
}
for name, (stack, x) in INTEGERS.items():
    case("input:", name)(given(stack, x))


@case("input: floats as words")
def _():
    model, ids = reading(rnn, gru)()
    return model, ids.astype("float32")


def two_inputs(as_dictionary):
    x, y = keras.Input((STEPS, 3), name="zeta"), keras.Input((STEPS, 2), name="alpha")
    z = gru(3)(L.Concatenate()([rnn()(x), y]))
    return keras.Model({"first": x, "second": y} if as_dictionary else [x, y], z)


ARRAYS = (sequence(3), sequence(2))
GIVEN = {
    "list": (False, list(ARRAYS)),
    "tuple": (False, ARRAYS),
    "dictionary of names": (False, {"alpha": ARRAYS[1], "zeta": ARRAYS[0]}),
    "dictionary of the structure": (True, {"second": ARRAYS[1], "first": ARRAYS[0]}),
    "dictionary with more": (
        True,
        {"first": ARRAYS[0], "id": np.arange(ROWS), "second": ARRAYS[1]},
    ),
}
for name, (as_dictionary, x) in GIVEN.items():
    case("input:", name)(lambda d=as_dictionary, x=x: (two_inputs(d), x))


# Nested and shared.


def block(features=FEATURES, units=UNITS, steps=STEPS):
    x = keras.Input((steps, features))
    return keras.Model(x, L.Dense(units)(gru(units)(x)), name="block")


@case("nested: sequential in functional")
def _():
    inner = keras.Sequential([keras.Input((STEPS, 3)), rnn(), L.Dense(3)])
    return wired(lambda x: rnn(3)(inner(L.Dense(3)(x))))()


@case("nested: functional in sequential")
def _():
    return stacked(rnn(), block(UNITS), rnn(3))


@case("nested: three deep")
def _():
    inner = keras.Sequential([keras.Input((STEPS, 4)), L.Dense(4, "tanh"), block(4)])
    middle = keras.Sequential([keras.Input((STEPS, 3)), rnn(), inner])
    return stacked(middle, rnn(3))


@case("nested: called twice")
def _():
    shared = block(UNITS)
    return wired(lambda x: shared(L.Dropout(0.1)(shared(rnn()(x)))))()


@case("nested: siamese")
def _():
    one, other, shared = keras.Input((STEPS, 3)), keras.Input((STEPS, 3)), block()
    y = rnn(3)(L.Concatenate()([shared(one), shared(other)]))
    return keras.Model([one, other], y), [sequence(), sequence(seed=1)]


@case("nested: two inputs and two outputs")
def _():
    x, y = keras.Input((STEPS, 3)), keras.Input((STEPS, 2))
    inner = keras.Model([x, y], [rnn()(x), gru()(L.Concatenate()([x, y]))])
    a, b = keras.Input((STEPS, 2)), keras.Input((STEPS, 3))
    return keras.Model([a, b], rnn(3)(L.Subtract()(inner([b, a])))), [sequence(2), sequence()]


@case("nested: integers into floats")
def _():
    x, inner = keras.Input((STEPS, 4), dtype="int32"), block(4)
    return keras.Model(x, rnn(3)(inner(x))), RASTER


@case("shared: layer called twice")
def _():
    shared = lstm(3, name="shared")
    return wired(lambda x: shared(L.Dense(3)(shared(x))))()


@case("shared: layer on two inputs")
def _():
    one, other, shared = keras.Input((STEPS, 3)), keras.Input((STEPS, 3)), gru(name="shared")
    y = rnn(3, name="top")(L.Multiply()([shared(one), shared(other)]))
    return keras.Model([one, other], y), [sequence(), sequence(seed=1)]


@case("shared: dense between")
def _():
    shared = L.Dense(4, activation="tanh")
    return wired(lambda x: rnn(3)(shared(rnn()(shared(rnn()(x))))))()


@case("shared: bidirectional called twice")
def _():
    shared = L.Bidirectional(rnn(2), name="shared")
    return wired(lambda x: shared(shared(x)), features=4)()


# Cells of users.


@keras.saving.register_keras_serializable(package="test_truth")
class NestedCell(keras.Layer):
    """States in a nest: `[[u, u], u]`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [[units, units], units]

    def build(self, input_shape):
        n = self.units
        self.into = self.add_weight(shape=(input_shape[-1], n), name="into")
        self.mix = self.add_weight(shape=(3, n, n), name="mix")

    def call(self, inputs, states):
        (fast, slow), memory = states
        fast = ops.tanh(inputs @ self.into + fast @ self.mix[0] + memory @ self.mix[1])
        slow = 0.9 * slow + 0.1 * fast
        memory = ops.tanh(memory @ self.mix[2] + slow)
        return fast + memory, [[fast, slow], memory]

    def get_initial_state(self, batch_size=None):
        zeros = ops.zeros((batch_size, self.units))
        return [[zeros, zeros], zeros]


@keras.saving.register_keras_serializable(package="test_truth")
class MatrixCell(keras.Layer):
    """A state that is a matrix, as of linear attention, and a vector; they start at ones."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [(units, 2), units]

    def build(self, input_shape):
        self.key = self.add_weight(shape=(input_shape[-1], 2), name="key")
        self.value = self.add_weight(shape=(input_shape[-1], self.units), name="value")

    def call(self, inputs, states):
        matrix, mean = states
        key = ops.tanh(inputs @ self.key)
        change = ops.expand_dims(inputs @ self.value, -1) * ops.expand_dims(key, 1)
        matrix = ops.tanh(0.8 * matrix + change * ops.expand_dims(ops.sigmoid(mean), -1))
        mean = 0.5 * mean + ops.sum(matrix * ops.expand_dims(key, 1), axis=-1)
        return mean, [matrix, mean]

    def get_initial_state(self, batch_size=None):
        return [ops.ones((batch_size, self.units, 2)), ops.ones((batch_size, self.units))]


@keras.saving.register_keras_serializable(package="test_truth")
class MinimalCell(keras.Layer):
    """The cell of Keras' own documentation, with a bare integer as state size."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs, states):
        output = ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return output, [output]


OWN = {
    "minimal": MinimalCell,
    "two sizes": OscillatorCell,
    "nested states": NestedCell,
    "matrix as state": MatrixCell,
}
for name, cell in OWN.items():
    case("own cell:", name)(
        lambda cell=cell: stacked(
            L.RNN(cell(3), return_sequences=True), L.Dense(3), L.RNN(cell(4), return_sequences=True)
        )
    )
case("own cell: in a stack")(
    lambda: stacked(L.RNN([L.GRUCell(3), MinimalCell(3)], return_sequences=True), rnn())
)
case("own cell: nested states in a stack")(
    lambda: stacked(L.RNN([NestedCell(3), L.LSTMCell(3)], return_sequences=True), rnn())
)
case("own cell: both directions")(
    lambda: stacked(rnn(), L.Bidirectional(L.RNN(MatrixCell(3), return_sequences=True)))
)

# The layers of the package.


def lif(units=UNITS, **options):
    return lsc.LIF(units, return_sequences=True, **options)


def alif(units=UNITS, **options):
    return lsc.ALIF(units, return_sequences=True, **options)


SPIKING = {
    **{
        f"lif {reset}": lambda reset=reset: [lif(reset=reset), lif(reset=reset)]
        for reset in ("subtractive", "multiplicative-1", "multiplicative-2")
    },
    "lif refractory": lambda: [lif(refractory=1), lif(refractory=2)],
    "lif refractory multiplicative": lambda: [
        lif(refractory=2, reset="multiplicative-1"),
        lif(3, refractory=1, reset="multiplicative-2", output="voltage"),
    ],
    "lif without reset gradient": lambda: [
        lif(reset_gradient=False),
        lif(reset_gradient=False, reset="multiplicative-2"),
    ],
    "lif without recurrence": lambda: [lif(recurrent=False), lif(3, recurrent=False)],
    "lif without recurrence or bias": lambda: [
        lif(recurrent=False, use_bias=False, reset_gradient=False),
        lif(recurrent=False),
    ],
    "lif voltage": lambda: [lif(output="voltage"), lif(3, output="voltage")],
    "lif backwards": lambda: [lif(go_backwards=True), lif()],
    "lif cells": lambda: [
        L.RNN(lsc.LIFCell(4), return_sequences=True),
        L.RNN([lsc.LIFCell(3), lsc.ALIFCell(4)], return_sequences=True),
    ],
    "lif both directions": lambda: [lif(), L.Bidirectional(lif(3), merge_mode="sum")],
    "alif": lambda: [alif(), alif()],
    "alif refractory": lambda: [alif(refractory=2), alif(3, refractory=1)],
    "alif other resets": lambda: [
        alif(reset="multiplicative-1"),
        alif(reset="multiplicative-2", reset_gradient=False),
    ],
    "alif without recurrence": lambda: [alif(recurrent=False), alif(recurrent=False, beta=-0.5)],
    "surrogates one": lambda: [
        lif(surrogate=lsc.Surrogate(shape, dampening=0.8, sharpness=0.7))
        for shape in ("rectangular", "triangular", "exponential", "gaussian")
    ],
    "surrogates two": lambda: [
        lif(surrogate=lsc.Surrogate(shape, dampening=0.9, sharpness=1.5, tail=3.0))
        for shape in ("sigmoid_derivative", "fast_sigmoid", "cauchy", "q_pseudo_spike")
    ],
    "lru": lambda: [
        lsc.LRU(4, return_sequences=True),
        L.Activation("gelu"),
        lsc.LRU(4, return_sequences=True),
    ],
    "lru wide state": lambda: [
        lsc.LRU(3, state_units=5, return_sequences=True),
        lsc.LRU(4, state_units=2),
    ],
    "lru backwards": lambda: [lsc.LRU(4, return_sequences=True, go_backwards=True), lsc.LRU(4)],
    "lru blocks": lambda: [
        L.Dense(4),
        lsc.LRUBlock(4, return_sequences=True, dropout=0.3),
        lsc.LRUBlock(4, state_units=3),
    ],
    "readout": lambda: [lif(), lsc.LeakyReadout(4, return_sequences=True), lsc.LeakyReadout(3)],
    "leaky": lambda: [
        lsc.LeakyRNN(4, tau=6.0, return_sequences=True),
        lsc.LeakyRNN(3, activation="tanh", use_bias=False),
    ],
    "readout without bias": lambda: [rnn(), lsc.LeakyReadout(3, use_bias=False)],
    "rate regularizer": lambda: [alif(), lsc.FiringRateRegularizer(), L.Dense(3), lif()],
}


def with_current(stack):
    model, x = stacked(*stack)
    return model, 3.0 * x  # enough for neurons to fire


for name, make in SPIKING.items():
    case("package:", name)(lambda make=make: with_current(make()))


# Feed-forward models.


def forward(*stack, shape=(5,)):
    return lambda: (
        keras.Sequential([keras.Input(shape), *(make() for make in stack)]),
        normal(ROWS, *shape),
    )


def forward_wired(wire, shape=(4,)):
    def make():
        x = keras.Input(shape)
        return keras.Model(x, wire(x)), normal(ROWS, *shape)

    return make


def residual_block(x):
    return L.Add()([x, L.Dense(4)(L.Activation("relu")(L.Dense(6)(x)))])


FORWARD = {
    "dense": forward(lambda: L.Dense(4, "tanh"), lambda: L.Dense(4, "relu"), lambda: L.Dense(3)),
    "activations": forward(
        lambda: L.Dense(4, "gelu"),
        lambda: L.Dense(4, "selu"),
        lambda: L.Dense(4, "softsign"),
        lambda: L.Dense(4),
        lambda: L.Activation("elu"),
        lambda: L.Dense(3, "silu"),
    ),
    "one layer": forward(lambda: L.Dense(5)),
    "softmax": forward(lambda: L.Dense(4, "tanh"), lambda: L.Dense(3, "softmax")),
    "softmax layer": forward(lambda: L.Dense(4, "tanh"), lambda: L.Dense(3), L.Softmax),
    "sigmoid": forward(lambda: L.Dense(4, "sigmoid"), lambda: L.Dense(1, "sigmoid")),
    "norms": forward(
        lambda: L.Dense(4),
        L.BatchNormalization,
        L.ReLU,
        lambda: L.Dropout(0.5),
        lambda: L.Dense(4),
        L.LayerNormalization,
        L.ELU,
        lambda: L.Dense(4),
        L.PReLU,
        lambda: L.Dense(2),
    ),
    "spectral norm": forward(
        lambda: L.SpectralNormalization(L.Dense(4)), L.ReLU, lambda: L.Dense(3)
    ),
    "convolution 1d": forward(
        lambda: L.Conv1D(3, 2, activation="tanh"),
        lambda: L.MaxPooling1D(2),
        lambda: L.Conv1D(2, 2, padding="same"),
        L.Flatten,
        lambda: L.Dense(3),
        shape=(7, 2),
    ),
    "convolution 2d": forward(
        lambda: L.Conv2D(2, 3, strides=2, padding="same", activation="relu"),
        lambda: L.AveragePooling2D(2),
        lambda: L.Conv2D(3, 1, activation="tanh"),
        L.GlobalAveragePooling2D,
        lambda: L.Dense(3, "softmax"),
        shape=(8, 8, 1),
    ),
    "separable": forward(
        lambda: L.DepthwiseConv2D(2, activation="tanh"),
        lambda: L.SeparableConv2D(2, 2),
        L.GlobalMaxPooling2D,
        lambda: L.Dense(2),
        shape=(4, 4, 2),
    ),
    "dense along a sequence": forward(
        lambda: L.TimeDistributed(L.Dense(3, activation="tanh")),
        lambda: L.Dense(2),
        lambda: L.EinsumDense("btf,tfg->bg", (4,)),
        shape=(3, 2),
    ),
    "residual": forward_wired(lambda x: L.Dense(2)(residual_block(residual_block(x)))),
    "projected shortcut": forward_wired(
        lambda x: L.Dense(2)(L.Add()([L.Dense(3)(L.Dense(5, "tanh")(x)), L.Dense(3)(x)]))
    ),
    "attention": forward_wired(
        lambda x: L.Dense(2)(L.Add()([x, L.MultiHeadAttention(2, 2)(x, x)])), shape=(3, 4)
    ),
    "gated": forward_wired(
        lambda x: L.Dense(2)(L.Multiply()([L.Dense(4, "sigmoid")(x), L.Dense(4)(x)]))
    ),
    "two heads": forward_wired(
        lambda x: [L.Dense(2, "softmax")(y := L.Dense(4, "tanh")(x)), L.Dense(3)(y)]
    ),
    "nested": forward_wired(
        lambda x: L.Dense(2)(
            keras.Sequential([keras.Input((4,)), L.Dense(4, "tanh"), L.Dense(4, "relu")])(x)
        )
    ),
    "operations": forward_wired(lambda x: L.Dense(2)(ops.tanh(L.Dense(4)(x) * 2.0) + x)),
}
for name, make in FORWARD.items():
    case("forward:", name)(make)


@case("forward: words")
def _():
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            L.Embedding(9, 3, mask_zero=True),
            L.GlobalAveragePooling1D(),
            L.Dense(4, "tanh"),
            L.Dense(3),
        ]
    )
    return model, tokens()


@case("forward: two inputs")
def _():
    x, y = keras.Input((3,)), keras.Input((2,))
    z = L.Concatenate()([L.Dense(4, "tanh")(x), L.Dense(3, "tanh")(y)])
    return keras.Model([x, y], L.Dense(2)(z)), [normal(ROWS, 3), normal(ROWS, 2)]


@case("forward: shared dense")
def _():
    shared = L.Dense(4, activation="tanh", name="shared")
    return forward_wired(lambda x: L.Dense(3)(shared(shared(x))))()


# -------------------------------------------------------------------------------------------


def check(model, x, samples=2 * ROWS, spread=0.7):
    """Fails unless every transition of the model is measured as it is."""
    randomized(model, spread)
    expected = truth.facts(model, x, samples)
    # The gradient of all of them on the one backend where nothing is compiled for it.
    of_gradient = keras.backend.backend() == "torch"
    report = keras_lsc.measure(model, x, samples=samples, gradient=of_gradient)
    pairs = matched(expected, report.transitions)
    wrong = [
        f"{fact.name}: {figure} {getattr(row, figure):.5f}, in truth {getattr(fact, figure):.5f}"
        for fact, row in pairs
        for figure in ("radius", "gain")
        if not is_close(getattr(row, figure), getattr(fact, figure))
    ]
    assert not wrong, "\n".join(wrong)


def is_close(found, true):
    return abs(found - true) <= RELATIVE * max(abs(true), NEAR_ZERO)


def matched(expected, rows, of=lambda row: (row.radius, row.gain)):
    """Pairs of what is true and what was measured: by name, or where names differ by value."""
    assert len({row.name for row in rows}) == len(rows), [row.name for row in rows]
    assert sorted(fact.kind for fact in expected) == sorted(row.kind for row in rows), (
        f"{[fact.name for fact in expected]} in truth, {[row.name for row in rows]} measured"
    )
    once = {fact.name for fact in expected if sum(f.name == fact.name for f in expected) == 1}
    by_name = {row.name: row for row in rows}
    pairs = [(fact, by_name[fact.name]) for fact in expected if fact.name in once & set(by_name)]
    rest = [fact for fact in expected if fact.name not in once & set(by_name)]
    used = {row.name for _, row in pairs}
    others = [row for row in rows if row.name not in used]
    for kind in ("time", "depth", "input"):
        facts = sorted((f for f in rest if f.kind == kind), key=of)
        left = sorted((r for r in others if r.kind == kind), key=of)
        pairs.extend(zip(facts, left, strict=True))
    return pairs


@pytest.mark.parametrize("name", mostly_once(CASES, ON_EVERY_BACKEND))
def test_every_transition_is_measured_as_it_is(name):
    check(*CASES[name]())


WITH_SPECTRA = (
    "recurrent: lstm",
    "recurrent: gru reset before",
    "recurrent: bidirectional unlike",
    "between: multi-head attention",
    "mask: argument of a nested functional model",
    "shared: layer called twice",
    "own cell: matrix as state",
    "package: alif other resets",
    "package: lru wide state",
    "forward: residual",
)


@pytest.mark.parametrize("name", mostly_once(WITH_SPECTRA, WITH_SPECTRA[4:5]))
def test_every_eigenvalue_is_found(name):
    model, x = CASES[name]()
    randomized(model)
    expected = truth.facts(model, x, ROWS)
    spectra = keras_lsc.eigenvalues(model, x, samples=ROWS)
    square = [f for f in expected if f.jacobians.shape[1] == f.jacobians.shape[2]]
    assert len(spectra) == len(square)
    for fact, spectrum in matched(square, list(spectra.values()), of=lambda s: s.radius):
        for found, true in zip(spectrum.values, fact.eigenvalues, strict=True):
            distances = np.abs(found[:, None] - true)
            # Every one found is true, and every true one found. A pair that nearly coincides moves
            # by the root of the rounding of float32.
            assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 5e-3, fact.name


LARGE = {
    "diagonal": lambda: [lif(300, recurrent=False), lif(300)],
    "low rank": lambda: [gru(300), L.Dense(8), gru(300)],
    "pairs": lambda: [lsc.LRU(150, return_sequences=True, seed=0), lsc.LRU(150, seed=1)],
}


@pytest.mark.once
@pytest.mark.parametrize("name", LARGE)
def test_large_states(name):
    """Jacobians too large to be formed, with the spectra that Krylov methods trip over."""
    model, x = keras.Sequential([keras.Input((4, 6)), *LARGE[name]()]), sequence(6, 4)
    randomized(model, 0.1)
    rows = {
        row.name: row for row in keras_lsc.measure(model, x, samples=3, gradient=False).transitions
    }
    for fact in truth.facts(model, x, 3):
        assert is_close(rows[fact.name].radius, fact.radius), fact.name
        # The gain of a Jacobian that is not formed is an estimate from random directions.
        assert rows[fact.name].gain == pytest.approx(fact.gain, rel=0.1), fact.name


def images_in_time(layer):
    model = keras.Sequential([keras.Input((STEPS, 4, 3)), layer])
    return lambda: (model, normal(ROWS, STEPS, 4, 3))


# What has no transitions by the definitions, or is not supported: the error says which, and why.
REFUSED = {
    "two outputs of a bidirectional": (
        wired(lambda x: L.Bidirectional(gru(name="inner"), merge_mode=None, name="both")(x)),
        "'both'.*merge_mode=None",
    ),
    "bidirectional of stacked cells": (
        lambda: stacked(L.Bidirectional(L.RNN([L.GRUCell(3), L.GRUCell(3)]), name="both")),
        "'both'.*stacked cells",
    ),
    "last output repeated": (
        lambda: stacked(L.GRU(4, name="below"), L.RepeatVector(3), L.GRU(3, name="above")),
        "'above' reads only the last output of 'below'",
    ),
    "steps pooled away": (
        lambda: stacked(
            gru(name="below"), L.GlobalMaxPooling1D(), L.RepeatVector(3), gru(name="above")
        ),
        "'below' and 'above'.*steps from 5 to 3",
    ),
    "steps regrouped": (
        lambda: stacked(gru(name="below"), L.Reshape((2, 10)), gru(name="above")),
        "'below' and 'above'.*steps from 5 to 2",
    ),
    "steps of two sequences in a row": (
        wired(lambda x: gru(name="above")(L.Concatenate(axis=1)([y := gru(name="below")(x), y]))),
        "'below' and 'above'.*steps from 5 to 10",
    ),
    "recurrence in time distributed": (
        images_in_time(L.TimeDistributed(L.LSTM(3, name="inner"), name="outer")),
        "'outer'.*hides the recurrent layer 'inner'",
    ),
    "convolutional recurrence": (images_in_time(L.ConvLSTM1D(2, 2)), "convolutional recurrent"),
    "no weights": (lambda: stacked(L.ReLU(), L.Flatten()), "no recurrent layer and no layer with"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_transitions_is_refused(name):
    make, message = REFUSED[name]
    model, x = make()
    with pytest.raises((ValueError, TypeError), match=message):
        keras_lsc.measure(model, x, samples=4)


# Whether the truth is true: closed forms.


def exact(model, x=None, samples=4):
    """The Jacobians of every transition, by kind and in order."""
    found = {}
    for fact in truth.facts(model, sequence() if x is None else x, samples):
        found.setdefault(fact.kind, []).append(fact)
    return found


@pytest.mark.once
def test_truth_of_a_linear_network_is_its_matrices():
    model, x = stacked(*(rnn(activation="linear") for _ in range(2)))
    randomized(model)
    kernel, recurrent, _, upper, upper_recurrent, _ = map(truth.to_numpy, model.weights)
    found = exact(model, x)
    for fact, matrix in [
        (found["time"][0], recurrent),
        (found["time"][1], upper_recurrent),
        (found["depth"][0], upper),
        (found["input"][0], kernel),
    ]:
        np.testing.assert_allclose(fact.jacobians, [matrix.T] * 4, atol=1e-8)
        assert fact.gain == pytest.approx(
            np.linalg.norm(matrix) * math.sqrt(sum(matrix.shape) / (2 * matrix.size))
        )
    largest = np.abs(np.linalg.eigvals(recurrent)).max()
    assert found["time"][0].radius == pytest.approx(largest)
    assert found["input"][0].radius == pytest.approx(found["input"][0].gain)


@pytest.mark.once
def test_truth_of_linear_recurrent_units_is_their_eigenvalues():
    model, x = stacked(lsc.LRU(4, return_sequences=True, seed=0))
    real, imag = map(truth.to_numpy, model.layers[0].cell.eigenvalues())
    (fact,) = exact(model, x)["time"]
    expected = np.sort_complex(np.concatenate([real + 1j * imag, real - 1j * imag]))
    for found in fact.eigenvalues:
        np.testing.assert_allclose(np.sort_complex(found), expected, atol=1e-6)
    assert fact.radius == pytest.approx(np.hypot(real, imag).max())
    assert fact.gain == pytest.approx(math.sqrt(np.mean(real**2 + imag**2)))


@pytest.mark.once
def test_truth_of_pascals_network():
    """y = rho_t y_before + rho_l y_below, one unit a layer."""
    model, x = stacked(*(rnn(1, activation="linear") for _ in range(3)), features=1)
    for layer, rates in zip(model.layers, [(0.5, 0.7), (0.6, 0.8), (0.3, 0.9)], strict=True):
        layer.set_weights([np.array([[rates[1]]]), np.array([[rates[0]]]), np.zeros(1)])
    found = exact(model, x)
    assert [f.radius for f in found["time"]] == pytest.approx([0.5, 0.6, 0.3])
    assert [f.gain for f in found["depth"]] == pytest.approx([0.8, 0.9])


@pytest.mark.once
def test_truth_of_dense_layers_is_their_product():
    model, x = stacked(rnn(activation="linear"), L.Dense(5), L.Dense(4), rnn(activation="linear"))
    randomized(model)
    first, second, kernel = (truth.to_numpy(layer.weights[0]) for layer in model.layers[1:])
    (fact,) = exact(model, x)["depth"]
    np.testing.assert_allclose(fact.jacobians, [(first @ second @ kernel).T] * 4, atol=1e-8)
    model = keras.Sequential([keras.Input((4,)), L.Dense(5), L.Dense(4, "softmax")])
    randomized(model)
    found = exact(model, normal(ROWS, 4))
    for kind, layer in zip(("input", "depth"), model.layers, strict=True):
        matrix = truth.to_numpy(layer.kernel)
        np.testing.assert_allclose(found[kind][0].jacobians, [matrix.T] * 4, atol=1e-8)


@pytest.mark.once
def test_truth_of_spikes_is_their_surrogate():
    """Without recurrence: alpha plus what the reset takes away, each neuron by itself."""
    model, x = stacked(lif(3, recurrent=False, surrogate="triangular", tau=5.0))
    (fact,) = exact(model, 3 * x, samples=6)["time"]
    alpha = math.exp(-1 / 5.0)
    diagonal = np.einsum("pii->pi", fact.jacobians)
    off = fact.jacobians - diagonal[..., None] * np.eye(3)
    np.testing.assert_allclose(off, 0.0, atol=1e-8)
    assert (diagonal <= alpha + 1e-6).all()
    assert (diagonal >= alpha - 0.5 - 1e-6).all()
    assert diagonal.min() < alpha - 0.01


@pytest.mark.once
def test_truth_of_padding():
    """One valid step a row, all the same: every point is that step, however they are drawn."""
    ids = np.zeros((ROWS, 6), dtype="int32")
    ids[1:, 2] = 5
    model, _ = reading(lambda: rnn(activation="tanh"), lambda: rnn(activation="tanh"))()
    randomized(model)
    table, kernel, recurrent, bias, *_ = map(truth.to_numpy, model.weights)
    h = np.tanh(table[5] @ kernel + bias)
    time, *_ = exact(model, ids, samples=ROWS)["time"]
    assert len(time.jacobians) == ROWS - 1
    np.testing.assert_allclose(time.jacobians, [((1 - h**2) * recurrent).T] * (ROWS - 1), atol=1e-7)
