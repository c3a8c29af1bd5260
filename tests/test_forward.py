"""The forward pass in which transitions are found is that of the model: random models agree."""

import contextlib

import keras
import numpy as np
from harness import randomized, to_numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from keras_lsc.stability.transitions import TransitionMap

STEPS, FEATURES, ROWS = 6, 3, 4
# Without masks, and with those that are known only when the model runs.
SOURCES = ("floats", "masking", "tokens", "mask beside", "integers")
POLICIES = ("float32", "float32", "float32", "mixed_bfloat16")
# Rounding of sums in another order; bfloat16 has 8 bits.
TOLERANCE = {"float32": 2e-5, "mixed_bfloat16": 6e-2}


@keras.saving.register_keras_serializable(package="keras_lsc_tests")
class EveryOther(keras.layers.Layer):
    """Masks every second step, whatever was masked before: it makes its mask itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask=None):
        every = keras.ops.all(keras.ops.equal(inputs, inputs), axis=-1)
        return keras.ops.logical_and(every, keras.ops.arange(inputs.shape[1]) % 2 == 0)


def eagerly():
    """Without the compiler of JAX, which would take most of the time."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.disable_jit()


class Builder:
    """Draws a model, layer by layer."""

    def __init__(self, data):
        self.draw = lambda *options: data.draw(st.sampled_from(options))

    def recurrent(self):
        kind = self.draw("simple", "gru", "lstm", "stack", "both", "deaf", "zero")
        if kind == "stack":
            cells = [layers.GRUCell(3), layers.SimpleRNNCell(4)]
            return layers.RNN(cells, return_sequences=True)
        if kind == "both":
            merge_mode = self.draw("concat", "sum", "ave", "mul")
            inner = layers.GRU(2, return_sequences=True)
            return layers.Bidirectional(inner, merge_mode=merge_mode)
        make = {"gru": layers.GRU, "lstm": layers.LSTM}.get(kind, layers.SimpleRNN)
        layer = make(
            3,
            return_sequences=True,
            go_backwards=self.draw(False, False, True),
            zero_output_for_mask=kind == "zero",
        )
        # As layers of later releases may be, it does not pass its mask on.
        layer.supports_masking = kind != "deaf"
        return layer

    def between(self, x):
        """What stands between two recurrent layers."""
        kind = self.draw("nothing", "dense", "norm", "pool", "branch", "masked", "spread", "merge")
        if kind == "dense":
            return layers.Dense(4, activation="tanh")(x)
        if kind == "norm":
            return layers.LayerNormalization()(x)
        if kind == "pool":
            return layers.MaxPooling1D(2, padding="same")(x)
        if kind == "branch":
            return layers.Add()([x, layers.Dense(x.shape[-1])(x)])
        if kind == "masked":
            return EveryOther()(x)
        if kind == "spread":
            return layers.TimeDistributed(layers.Dense(3))(x)
        if kind == "merge":
            return layers.Concatenate()([x, layers.Dropout(0.5)(x)])
        return x

    def source(self, kind):
        """Inputs, the sequence that is made of them, and data."""
        rng = np.random.default_rng(5)
        x = rng.standard_normal((ROWS, STEPS, FEATURES)).astype("float32")
        lengths = np.array([STEPS, 2, 0, 4])[:, None]
        valid = np.arange(STEPS) < lengths
        if kind == "tokens":
            inputs = keras.Input((STEPS,), dtype="int32")
            table = layers.Embedding(9, FEATURES, mask_zero=True)
            return inputs, table(inputs), rng.integers(1, 9, (ROWS, STEPS)) * valid
        inputs = keras.Input((STEPS, FEATURES))
        if kind == "masking":
            return inputs, layers.Masking()(inputs), x * valid[..., None]
        if kind == "integers":
            return inputs, inputs, rng.integers(0, 3, x.shape).astype(self.draw("uint8", "int64"))
        if kind == "mask beside":
            mask = keras.Input((STEPS,), dtype="bool")
            return [inputs, mask], (inputs, mask), [x, valid]
        return inputs, inputs, x.astype(self.draw("float32", "float64", "float16"))

    def block(self, x):
        """Recurrent layers in a model of their own, called with the mask if there is one."""
        x, mask = x if isinstance(x, tuple) else (x, None)
        inner = keras.Input(x.shape[1:], dtype=x.dtype)
        y = self.recurrent()(inner)
        y = self.recurrent()(self.between(y))
        if self.draw(True, False):
            block = keras.Model(inner, y)
        else:
            block = keras.Sequential(
                [keras.Input(x.shape[1:]), self.recurrent(), EveryOther(), self.recurrent()]
            )
        return block(x) if mask is None else block(x, mask=mask)

    def model(self, kind):
        inputs, x, data = self.source(kind)
        nested = isinstance(x, tuple) or self.draw(True, False)
        x = self.block(x) if nested else self.recurrent()(x)
        x = self.between(x)
        end = self.draw("last", "states", "shared", "sequence")
        if end == "last":
            return inputs, layers.GRU(3)(x), data
        if end == "states":
            y, *states = layers.LSTM(3, return_sequences=True, return_state=True)(x)
            return inputs, {"y": layers.LSTM(3)(y, initial_state=states), "s": states[0]}, data
        if end == "shared":
            shared = layers.SimpleRNN(x.shape[-1], return_sequences=True)
            return inputs, [shared(shared(x)), shared(x)], data
        return inputs, self.recurrent()(x), data


# JAX compiles every operation anew for other shapes.
EXAMPLES = 8 if keras.backend.backend() == "jax" else 25


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data(), kind=st.sampled_from(SOURCES), policy=st.sampled_from(POLICIES))
def test_the_outputs_are_those_of_the_model(data, kind, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs, outputs, x = Builder(data).model(kind)
        model = randomized(keras.Model(inputs, outputs))
        with eagerly():
            expected = keras.tree.flatten(model(x, training=False))
            found = keras.tree.flatten(TransitionMap(model).outputs(x))
    finally:
        keras.config.set_dtype_policy(before)
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        assert keras.backend.standardize_dtype(have.dtype) == keras.backend.standardize_dtype(
            want.dtype
        )
        have, want = (to_numpy(keras.ops.cast(y, "float32")) for y in (have, want))
        np.testing.assert_allclose(have, want, atol=TOLERANCE[policy])
