"""Networks that are broken on purpose, and healthy ones, with the verdict that each has to get."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from keras_lsc.layers import LIF, LRUBlock
from keras_lsc.zoo.networks import glorot_uniform, orthogonal

STEPS, FEATURES, UNITS, CLASSES, ROWS = 20, 4, 16, 3, 32


class Patient(NamedTuple):
    """A model, its data, and what is wrong with it (None: nothing)."""

    model: keras.Model
    x: Any
    y: np.ndarray | None
    kind: str | None


def start(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives a model the weights that Keras would draw, the same on every backend."""
    for k, weight in enumerate(model.weights):
        generator = np.random.default_rng([seed, k])
        shape = tuple(weight.shape)
        if weight.name == "recurrent_kernel":
            weight.assign(orthogonal(shape, generator))
        elif weight.name == "kernel":
            weight.assign(glorot_uniform(shape, generator))
        elif weight.name == "embeddings":
            weight.assign(generator.uniform(-0.05, 0.05, shape))
    return model


def noise(steps: int = STEPS, features: int = FEATURES, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, steps, features)).astype("float32")


def labels(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(2).integers(0, CLASSES, rows)


def stack(
    layer: Callable[..., Any], depth: int = 1, steps: int = STEPS, **options: Any
) -> keras.Model:
    """Recurrent layers below a head for classes, of which the last gives out its last step."""
    parts = [layer(UNITS, return_sequences=k < depth - 1, **options) for k in range(depth)]
    return start(keras.Sequential([keras.Input((steps, FEATURES)), *parts, layers.Dense(CLASSES)]))


def dense(depth: int, activation: str, **options: Any) -> keras.Model:
    parts = [layers.Dense(UNITS, activation=activation, **options) for _ in range(depth)]
    return start(keras.Sequential([keras.Input((FEATURES,)), *parts, layers.Dense(CLASSES)]))


def compiled(model: keras.Model, rate: float = 1e-3) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def scaled(model: keras.Model, factor: float, *names: str) -> keras.Model:
    """Scales the weights of these names, those of the head excepted."""
    for layer in model.layers[:-1]:
        for weight in layer.weights:
            if weight.name in names:
                weight.assign(factor * weight.value)
    return model


class Residual(keras.Model):
    """A model with a call of its own."""

    def __init__(self, activation: str):
        super().__init__()
        self.first = layers.GRU(UNITS, return_sequences=True)
        self.second = layers.Dense(UNITS, activation=activation)
        self.last = layers.GRU(UNITS)
        self.head = layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        x = self.first(x)
        return self.head(self.last(x + self.second(x)))


class Root(layers.Layer):
    """NaN where its input is negative."""

    def call(self, x: Any) -> Any:
        return keras.ops.sqrt(x)


def healthy_lstm() -> Patient:
    return Patient(compiled(stack(layers.LSTM, 2)), noise(), labels(), None)


def healthy_gru() -> Patient:
    return Patient(compiled(stack(layers.GRU, 2)), noise(), labels(), None)


def healthy_rnn() -> Patient:
    return Patient(compiled(stack(layers.SimpleRNN)), noise(), labels(), None)


def healthy_dense() -> Patient:
    return Patient(compiled(dense(3, "relu")), noise()[:, 0], labels(), None)


def healthy_bidirectional() -> Patient:
    def both(units: int, return_sequences: bool) -> Any:
        return layers.Bidirectional(layers.GRU(units, return_sequences=return_sequences))

    return Patient(stack(both, 2), noise(), None, None)


def healthy_subclassed() -> Patient:
    model = Residual("tanh")
    model(noise()[:1])
    return Patient(compiled(start(model)), noise(), labels(), None)


def healthy_convolution() -> Patient:
    parts = [layers.Conv1D(UNITS, 3, activation="relu", padding="same") for _ in range(2)]
    parts += [layers.GlobalAveragePooling1D(), layers.Dense(CLASSES)]
    model = start(keras.Sequential([keras.Input((STEPS, FEATURES)), *parts]))
    return Patient(model, noise(), None, None)


def healthy_spiking() -> Patient:
    model = start(
        keras.Sequential(
            [keras.Input((STEPS, FEATURES)), LIF(UNITS, return_sequences=True), LIF(UNITS)]
        )
    )
    return Patient(scaled(model, 2.0, "kernel"), noise(), None, None)


def healthy_state_space() -> Patient:
    parts = [LRUBlock(UNITS, seed=k, return_sequences=k < 1) for k in range(2)]
    model = keras.Sequential([keras.Input((STEPS, UNITS)), *parts, layers.Dense(CLASSES)])
    return Patient(model, noise(features=UNITS), None, None)


def healthy_tokens() -> Patient:
    parts = [layers.Embedding(30, UNITS), layers.GRU(UNITS, return_sequences=True)]
    model = start(keras.Sequential([keras.Input((STEPS,)), *parts, layers.Dense(30)]))
    return Patient(model, np.random.default_rng(3).integers(0, 30, (ROWS, STEPS)), None, None)


def healthy_masked() -> Patient:
    model = start(
        keras.Sequential(
            [keras.Input((STEPS, FEATURES)), layers.Masking(), layers.GRU(UNITS), layers.Dense(2)]
        )
    )
    x = noise()
    x[:, STEPS // 2 :] = 0.0
    return Patient(model, x, None, None)


def healthy_on_sparse_data() -> Patient:
    """Three of four features are nothing but zero, and so is what a layer makes of them."""
    parts = [layers.Rescaling(2.0), layers.BatchNormalization(), layers.GRU(UNITS)]
    model = start(keras.Sequential([keras.Input((STEPS, FEATURES)), *parts, layers.Dense(2)]))
    x = noise()
    x[..., 1:] = 0.0
    return Patient(model, x, None, None)


def shuffled_labels() -> Patient:
    x = noise()
    x[:, 0, 0] += 3 * labels()  # they told the class, before they were shuffled
    y = np.random.default_rng(5).permutation(labels())
    return Patient(compiled(stack(layers.GRU)), x, y, None)


def nan_in_one_weight() -> Patient:
    model = stack(layers.LSTM, 2)
    weight = model.layers[1].cell.recurrent_kernel
    value = np.array(keras.ops.convert_to_numpy(weight.value))
    value[3, 5] = np.nan
    weight.assign(value)
    return Patient(model, noise(), None, "weight_not_finite")


def infinite_bias() -> Patient:
    model = dense(2, "relu")
    model.layers[0].bias.assign(np.full(UNITS, np.inf))
    return Patient(model, noise()[:, 0], None, "weight_not_finite")


def nan_in_the_data() -> Patient:
    x = noise()
    x[4, 7, 2] = np.nan
    return Patient(compiled(stack(layers.GRU)), x, labels(), "input_not_finite")


def root_of_negative_numbers() -> Patient:
    parts = [layers.GRU(UNITS, return_sequences=True), Root(), layers.GRU(UNITS)]
    model = start(keras.Sequential([keras.Input((STEPS, FEATURES)), *parts, layers.Dense(2)]))
    return Patient(model, noise(), None, "overflow")


def overflowing_linear_recurrence() -> Patient:
    model = stack(layers.SimpleRNN, steps=100, activation="linear")
    scaled(model, 10.0, "recurrent_kernel")
    return Patient(model, noise(100), None, "overflow")


def constant_data() -> Patient:
    return Patient(
        stack(layers.LSTM), np.ones((ROWS, STEPS, FEATURES), "float32"), None, "constant_input"
    )


def padding_everywhere() -> Patient:
    model = healthy_masked().model
    x = noise()
    x[:, 1:] = 0.0
    return Patient(model, x, None, "padding")


def padding_that_nothing_masks() -> Patient:
    x = noise()
    x[:, 6:] = 0.0
    return Patient(stack(layers.GRU), x, None, "unmasked_padding")


def dead_relu() -> Patient:
    model = dense(3, "relu")
    model.layers[1].bias.assign(np.full(UNITS, -20.0))
    return Patient(model, noise()[:, 0], None, "dead_units")


def dead_recurrent_relu() -> Patient:
    model = stack(layers.SimpleRNN, 2, activation="relu")
    model.layers[0].cell.bias.assign(np.full(UNITS, -20.0))
    return Patient(model, noise(), None, "dead_units")


def zero_weights() -> Patient:
    return Patient(scaled(stack(layers.GRU, 2), 0.0, "kernel"), noise(), None, "dead_units")


def dead_branch_of_a_subclassed_model() -> Patient:
    model = Residual("relu")
    model(noise()[:1])
    start(model).second.bias.assign(np.full(UNITS, -20.0))
    return Patient(model, noise(), None, "dead_units")


def silent_spikes() -> Patient:
    model = healthy_spiking().model
    return Patient(scaled(model, 1e-3, "kernel"), noise(), None, "silent_spikes")


def restless_spikes() -> Patient:
    model = healthy_spiking().model
    model.layers[0].cell.kernel.assign(np.full((FEATURES, UNITS), 50.0))
    return Patient(model, np.abs(noise()) + 1, None, "saturated_spikes")


def saturated_sigmoid() -> Patient:
    return Patient(scaled(dense(3, "sigmoid"), 100.0, "kernel"), noise()[:, 0], None, "saturated")


def saturated_tanh() -> Patient:
    model = scaled(stack(layers.SimpleRNN, 2), 30.0, "kernel")
    return Patient(model, noise(), None, "saturated")


def data_that_nobody_scaled() -> Patient:
    return Patient(stack(layers.SimpleRNN), 1e3 * noise(), None, "saturated")


def pixels_that_nobody_scaled() -> Patient:
    x = np.random.default_rng(6).integers(0, 256, (ROWS, STEPS, FEATURES)).astype("float32")
    return Patient(stack(layers.LSTM), x, None, "saturated_gates")


def large_weights_of_gates() -> Patient:
    model = scaled(stack(layers.LSTM, 2), 10.0, "kernel", "recurrent_kernel")
    return Patient(model, noise(), None, "saturated_gates")


def exploding_linear_recurrence() -> Patient:
    model = scaled(stack(layers.SimpleRNN, activation="linear"), 2.0, "recurrent_kernel")
    return Patient(model, noise(), None, "exploding_in_time")


def exploding_relu_recurrence() -> Patient:
    model = scaled(stack(layers.SimpleRNN, activation="relu"), 4.0, "recurrent_kernel")
    return Patient(model, noise(), None, "exploding_in_time")


def forget_bias_of_minus_five() -> Patient:
    model = stack(layers.LSTM)
    model.layers[0].cell.bias.assign(np.repeat([0.0, -5.0, 0.0, 0.0], UNITS))
    return Patient(model, noise(), None, "vanishing_in_time")


def contracting_recurrence() -> Patient:
    model = scaled(stack(layers.SimpleRNN), 0.1, "recurrent_kernel")
    return Patient(model, noise(), None, "vanishing_in_time")


def forty_layers_of_sigmoid() -> Patient:
    return Patient(dense(40, "sigmoid"), noise()[:, 0], None, "vanishing_in_depth")


def small_weights() -> Patient:
    return Patient(
        scaled(stack(layers.GRU, 4), 0.05, "kernel"), noise(), None, "vanishing_in_depth"
    )


def large_weights() -> Patient:
    return Patient(
        scaled(dense(8, "relu"), 8.0, "kernel"), noise()[:, 0], None, "exploding_in_depth"
    )


def learning_rate_of_ten() -> Patient:
    return Patient(compiled(stack(layers.GRU), 10.0), noise(), labels(), "learning_rate")


def learning_rate_of_sgd() -> Patient:
    model = dense(3, "relu")
    model.compile(keras.optimizers.SGD(3.0), "mse")
    y = 10 * np.random.default_rng(4).standard_normal((ROWS, CLASSES))
    return Patient(model, noise()[:, 0], y, "learning_rate")


HEALTHY = (
    healthy_lstm,
    healthy_gru,
    healthy_rnn,
    healthy_dense,
    healthy_bidirectional,
    healthy_subclassed,
    healthy_convolution,
    healthy_spiking,
    healthy_state_space,
    healthy_tokens,
    healthy_masked,
    healthy_on_sparse_data,
    shuffled_labels,
)
BROKEN = (
    nan_in_one_weight,
    infinite_bias,
    nan_in_the_data,
    root_of_negative_numbers,
    overflowing_linear_recurrence,
    constant_data,
    padding_everywhere,
    padding_that_nothing_masks,
    dead_relu,
    dead_recurrent_relu,
    zero_weights,
    dead_branch_of_a_subclassed_model,
    silent_spikes,
    restless_spikes,
    saturated_sigmoid,
    saturated_tanh,
    data_that_nobody_scaled,
    pixels_that_nobody_scaled,
    large_weights_of_gates,
    exploding_linear_recurrence,
    exploding_relu_recurrence,
    forget_bias_of_minus_five,
    contracting_recurrence,
    forty_layers_of_sigmoid,
    small_weights,
    large_weights,
    learning_rate_of_ten,
    learning_rate_of_sgd,
)
