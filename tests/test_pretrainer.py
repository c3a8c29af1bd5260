"""LSCPretrainer: what it moves, what it leaves alone, how it resumes and how it fails."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lsc
from keras_lsc.stability.scales import gate_blocks


def sequences(count=128, steps=10, features=4):
    return np.random.default_rng(0).standard_normal((count, steps, features)).astype("float32")


def stack(cell=layers.GRU, units=8, features=4):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((10, features)),
            cell(units, return_sequences=True, name="lower"),
            cell(units, name="upper"),
            layers.Dense(3, name="head"),
        ]
    )


def pretrained(model, mode="scales", epochs=3, **options):
    pretrainer = keras_lsc.LSCPretrainer(model, mode=mode, **options)
    pretrainer.compile()
    pretrainer.fit(sequences(), batch_size=32, epochs=epochs, shuffle=False, verbose=0)
    return pretrainer


@pytest.mark.parametrize("mode", ["scales", "weights"])
def test_the_loss_falls(mode):
    pretrainer = keras_lsc.LSCPretrainer(stack(), mode=mode)
    pretrainer.compile()
    before = pretrainer.evaluate(sequences(), verbose=0, return_dict=True)["loss"]
    pretrainer.fit(sequences(), epochs=6, verbose=0)
    assert pretrainer.evaluate(sequences(), verbose=0, return_dict=True)["loss"] < 0.5 * before


def test_scales_keep_every_gate_block_up_to_a_factor():
    model = stack()
    before = [weight.numpy() for weight in model.get_layer("upper").cell.trainable_variables]
    pretrained(model)
    after = [weight.numpy() for weight in model.get_layer("upper").cell.trainable_variables]
    for old, new in zip(before[:2], after[:2], strict=True):
        ratio = (new / old).reshape(old.shape[0], gate_blocks(old.shape, 8), -1)
        factors = ratio.mean(axis=(0, 2), keepdims=True)
        np.testing.assert_allclose(ratio, np.broadcast_to(factors, ratio.shape), rtol=1e-4)
        assert np.abs(np.log(factors)).max() > 1e-2


@pytest.mark.parametrize("mode", ["scales", "weights"])
def test_weights_that_take_no_part_are_unchanged(mode):
    model = stack()
    frozen = model.get_layer("lower").cell
    frozen.trainable = False
    idle = [*model.get_layer("head").weights, *frozen.weights]
    before = [weight.numpy().copy() for weight in idle]
    pretrained(model, mode)
    for weight, value in zip(idle, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_labels_change_nothing():
    with_labels, without = stack(), stack()
    x, labels = sequences(), np.arange(128)
    for model, data in ((with_labels, (x, labels)), (without, (x,))):
        pretrainer = keras_lsc.LSCPretrainer(model)
        pretrainer.compile()
        pretrainer.fit(*data, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(with_labels.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_gives_the_same_weights():
    runs = []
    for _ in range(2):
        model = stack()
        keras_lsc.stabilize(model, sequences(), tolerance=0.1, max_updates=60, seed=3)
        runs.append(model.get_weights())
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_data_in_batches_of_the_backend():
    x, labels = sequences(), np.zeros(128)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(32)
    elif backend == "torch":
        import torch

        rows = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(labels))
        data = torch.utils.data.DataLoader(rows, batch_size=32)
    else:

        class Rows(keras.utils.PyDataset):
            num_batches = 4

            def __getitem__(self, index):
                part = slice(32 * index, 32 * index + 32)
                return x[part], labels[part]

        data = Rows()
    pretrainer = keras_lsc.LSCPretrainer(stack())
    pretrainer.compile()
    batched = pretrainer.evaluate(data, verbose=0, return_dict=True)
    whole = pretrainer.evaluate(x, batch_size=32, verbose=0, return_dict=True)
    assert batched == pytest.approx(whole, rel=1e-4)
    pretrainer.fit(data, epochs=6, verbose=0)
    assert pretrainer.evaluate(data, verbose=0, return_dict=True)["loss"] < 0.5 * batched["loss"]


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_interruption_restores_the_weights_and_backup_resumes(tmp_path):
    x = sequences()
    straight = pretrained(stack(), epochs=4).model.get_weights()

    model = stack()
    before = model.get_weights()
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        pretrainer.fit(
            x, epochs=4, shuffle=False, verbose=0, callbacks=[backup, Interrupt(epoch=2)]
        )
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)

    resumed = keras_lsc.LSCPretrainer(stack())
    resumed.compile()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    resumed.fit(x, epochs=4, shuffle=False, verbose=0, callbacks=[backup])
    for one, other in zip(resumed.model.get_weights(), straight, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_an_exploding_fit_restores_the_weights_and_says_so():
    model = stack()
    before = model.get_weights()
    pretrainer = keras_lsc.LSCPretrainer(model, mode="weights")
    pretrainer.compile(keras.optimizers.SGD(float("inf")))
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        pretrainer.fit(sequences(), verbose=0)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_saved_and_loaded_it_gives_the_same_radii(tmp_path):
    pretrainer = keras_lsc.LSCPretrainer(stack(), target=(0.9, 0.4))
    pretrainer.compile()
    path = str(tmp_path / "pretrainer.keras")
    pretrainer.save(path)
    loaded = keras.saving.load_model(path)
    assert tuple(loaded.target) == (0.9, 0.4)
    one = keras.ops.convert_to_numpy(pretrainer(sequences())["radius"])
    other = keras.ops.convert_to_numpy(loaded(sequences())["radius"])
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_saved_and_loaded_it_goes_on_where_it_stopped(tmp_path):
    pretrainer = pretrained(stack(), epochs=2)
    path = str(tmp_path / "pretrainer.keras")
    pretrainer.save(path)
    loaded = keras.saving.load_model(path)
    for one in (pretrainer, loaded):
        one.fit(sequences(), batch_size=32, shuffle=False, verbose=0)
    assert int(loaded.optimizer.iterations) == 12
    for one, other in zip(pretrainer.model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_metrics_name_every_transition():
    pretrainer = keras_lsc.LSCPretrainer(stack())
    pretrainer.compile()
    history = pretrainer.fit(sequences(), verbose=0).history
    assert {"loss", "max_deviation", "lower.time_radius", "upper.depth_gain"} <= history.keys()
    assert not any(name.startswith("lower.input") for name in history)


def test_input_transitions_only_where_asked_for():
    model = keras.Sequential([keras.Input((10, 4)), layers.SimpleRNN(8, name="only")])
    pretrainer = keras_lsc.LSCPretrainer(model, include_input=True)
    assert [row.kind for row in pretrainer._driven] == ["time", "input"]


@pytest.mark.parametrize(("units", "columns", "blocks"), [(8, 32, 4), (8, 24, 3), (8, 8, 1)])
def test_gate_blocks(units, columns, blocks):
    assert gate_blocks((5, columns), units) == blocks
    assert gate_blocks((5, columns), None) == 1
