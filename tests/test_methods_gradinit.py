"""GradInit: the derivative of the virtual step, and nets that it rescues."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers, ops

import keras_lsc
from keras_lsc import methods
from keras_lsc.methods.virtual_step import VirtualStep

generator = np.random.default_rng(0)
ROWS = generator.standard_normal((96, 6, 3)).astype("float32")
LABELS = (ROWS[:, :, 0].sum(axis=1) > 0).astype("int32")


def scaled(model, factor):
    draw = np.random.default_rng(1)
    for weight in model.trainable_variables:
        fan = np.prod(weight.shape[:-1])
        weight.assign(factor * draw.standard_normal(weight.shape) / np.sqrt(fan))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def recurrent(factor):
    stack = [layers.GRU(6, return_sequences=True), layers.GRU(6), layers.Dense(2)]
    return scaled(keras.Sequential([keras.Input((6, 3)), *stack]), factor)


def dense(factor, depth=4):
    stack = [layers.Dense(8, "tanh") for _ in range(depth)]
    return scaled(
        keras.Sequential([keras.Input((6, 3)), layers.Flatten(), *stack, layers.Dense(2)]), factor
    )


def of(function, scales, virtual, *batches):
    parts = [[ops.convert_to_tensor(array) for array in batch] for batch in batches]
    found = function(ops.convert_to_tensor(scales), ops.convert_to_tensor(virtual.values), *parts)
    return [to_numpy(part) for part in found]


@pytest.mark.parametrize(
    ("make", "is_adam"), [pytest.param(recurrent, False, marks=pytest.mark.once), (recurrent, True)]
)
def test_derivatives_are_those_of_differences(make, is_adam):
    model = make(1.0)
    weights = model.trainable_variables
    step = 0.01 if is_adam else 0.5
    virtual = VirtualStep(model, weights, model.inputs[0], step, is_adam)
    first, second = ([ROWS[k : k + 32], LABELS[k : k + 32]] for k in (0, 32))
    scales = np.random.default_rng(2).uniform(0.7, 1.4, len(weights)).astype("float32")
    for function, batches in ((virtual.norm, (first,)), (virtual.loss, (first, second))):
        value, slope = of(function, scales, virtual, *batches)
        assert value.shape == (1,)
        # The largest alone: of the others float32 differences are rounding.
        for k in np.argsort(-np.abs(slope))[:3]:
            moved = []
            for sign in (1, -1):
                at = scales.copy()
                at[k] += sign * 0.005
                moved.append(of(function, at, virtual, *batches)[0][0])
            assert slope[k] == pytest.approx((moved[0] - moved[1]) / 0.01, rel=0.05, abs=2e-3)


@pytest.mark.once
@pytest.mark.parametrize("is_adam", [False, True])
def test_the_virtual_step_is_a_step_of_training(is_adam):
    """Taken by Keras' own optimiser: of Adam the first step, which is the sign of the gradient."""
    model = dense(1.0)
    virtual = VirtualStep(model, model.trainable_variables, model.inputs[0], 0.1, is_adam)
    batch = [ROWS[:32], LABELS[:32]]
    found, _ = of(virtual.loss, np.ones(len(virtual.sizes), "float32"), virtual, batch, batch)
    optimizer = keras.optimizers.Adam(0.1, epsilon=1e-12) if is_adam else keras.optimizers.SGD(0.1)
    model.compile(optimizer, model.loss)
    model.train_on_batch(*batch)
    assert found[0] == pytest.approx(model.evaluate(*batch, verbose=0), rel=1e-4)


def loss_after(model, step):
    """The loss after a real step of SGD on all data."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(keras.optimizers.SGD(step), model.loss)
    copy.fit(ROWS, LABELS, batch_size=len(ROWS), verbose=0)
    return copy.evaluate(ROWS, LABELS, verbose=0)


@pytest.mark.once
@pytest.mark.parametrize(("make", "factor"), [(recurrent, 5.0), (dense, 5.0)])
def test_a_badly_scaled_net_is_rescued_within_the_bound(make, factor):
    model = make(factor)
    before = loss_after(model, 0.1)
    method = methods.GradInit(iterations=40, learning_rate=0.05, batch_size=32)
    report = keras_lsc.stabilize(model, ROWS, y=LABELS, method=method)
    assert loss_after(model, 0.1) < 0.6 * before
    assert report.energy.shape[0] >= 2
    virtual = VirtualStep(model, model.trainable_variables, model.inputs[0], 0.1, False)
    norm, _ = of(virtual.norm, np.ones(len(virtual.sizes), "float32"), virtual, [ROWS, LABELS])
    # That of all data, where a batch of 32 was held below 1.
    assert norm[0] < 1.2


@pytest.mark.once
def test_a_convolutional_net_is_rescued_with_the_step_of_adam():
    x = np.random.default_rng(0).standard_normal((64, 8, 8, 1)).astype("float32")
    y = (x[:, :4].sum(axis=(1, 2, 3)) > 0).astype("int32")
    stack = []
    for filters in (4, 8):
        stack += [layers.Conv2D(filters, 3, padding="same", activation="relu") for _ in range(2)]
        stack += [layers.MaxPooling2D()]
    model = scaled(
        keras.Sequential([keras.Input((8, 8, 1)), *stack, layers.Flatten(), layers.Dense(2)]), 3.0
    )
    before = model.evaluate(x, y, verbose=0)
    method = methods.GradInit("adam", step=0.01, iterations=60, learning_rate=0.03, batch_size=32)
    keras_lsc.stabilize(model, x, y=y, method=method)
    assert model.evaluate(x, y, verbose=0) < 0.5 * before


@pytest.mark.once
def test_labels_and_a_loss_are_needed_and_errors_leave_the_model():
    model = dense(1.0)
    before = model.get_weights()
    with pytest.raises(ValueError, match="needs labels"):
        keras_lsc.stabilize(model, ROWS, method="gradinit")
    plain = keras.Sequential([keras.Input((6, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="is not compiled"):
        keras_lsc.stabilize(plain, ROWS, y=LABELS, method="gradinit")
    with pytest.raises(ValueError, match="which the loss of model"):
        keras_lsc.stabilize(model, ROWS, y=np.zeros((96, 7, 5)), method="gradinit")
    tight = methods.GradInit(bound=1e-6, iterations=1)
    with pytest.raises(ValueError, match="above the bound"):
        keras_lsc.stabilize(model, ROWS, y=LABELS, method=tight)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.once
def test_frozen_layers_keep_their_scale():
    model = dense(2.0)
    model.layers[1].trainable = False
    before = to_numpy(model.layers[1].kernel.value)
    moved = to_numpy(model.layers[2].kernel.value)
    methods.GradInit(iterations=3, bound=100.0).apply(model, ROWS, LABELS)
    np.testing.assert_array_equal(to_numpy(model.layers[1].kernel.value), before)
    ratio = to_numpy(model.layers[2].kernel.value) / moved
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
    assert abs(ratio.flat[0] - 1) > 1e-4


@pytest.mark.once
@pytest.mark.parametrize("options", [{"optimizer": "lamb"}, {"step": 0}, {"bound": -1.0}], ids=str)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="must be"):
        methods.GradInit(**options)
