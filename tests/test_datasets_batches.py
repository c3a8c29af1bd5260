"""Batches, streams with carried state, and tasks that grow, as `fit` sees them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lsc import callbacks, datasets
from keras_lsc.datasets import ContiguousBatches, GrowingTask
from keras_lsc.layers import CarriedState

pytestmark = pytest.mark.once

STATEFUL = ("lstm", "gru", "tanh", "cells")


def recurrent(cell, units=5):
    if cell == "lstm":
        return layers.LSTM(units, return_sequences=True)
    if cell == "gru":
        return layers.GRU(units, return_sequences=True)
    if cell == "cells":
        return layers.RNN([layers.GRUCell(4), layers.LSTMCell(units)], return_sequences=True)
    return layers.SimpleRNN(units, return_sequences=True)


def language_model(cell, wrap=lambda layer: layer, batch=4, tokens=7):
    """A model whose weights are large enough for the past to matter."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(batch, None), dtype="int32"),
            layers.Embedding(tokens, 6),
            wrap(recurrent(cell)),
            layers.Dense(tokens),
        ]
    )
    random = np.random.default_rng(8)
    for weight in model.trainable_variables:
        weight.assign(random.normal(size=weight.shape))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


@pytest.fixture
def tokens(rng):
    return rng.integers(0, 7, size=4 * 30 + 3).astype("int32")


@pytest.mark.parametrize("batch_size", [1, 32, 100, 1_000])
def test_batches_are_the_examples_in_order(batch_size):
    x, y = datasets.load("adding", "test", limit=250, length=10)
    batches = datasets.batches("adding", "test", batch_size=batch_size, limit=250, length=10)
    assert len(batches) == -(-250 // batch_size)
    np.testing.assert_array_equal(np.concatenate([one for one, _ in batches]), x)
    np.testing.assert_array_equal(np.concatenate([one for _, one in batches]), y)


def test_a_rest_can_be_left_out():
    batches = datasets.batches("parity", "test", batch_size=100, limit=250, drop_rest=True)
    assert [len(y) for _, y in batches] == [100, 100]
    with pytest.raises(ValueError, match="250 examples do not fill one batch of batch_size=300"):
        datasets.batches("parity", "test", batch_size=300, limit=250, drop_rest=True)


def test_shuffling_is_determined_by_seed_and_epoch():
    def orders(seed):
        batches = datasets.batches("adding", batch_size=64, limit=200, length=4, seed=seed)
        found = []
        for _ in range(2):
            found.append(np.concatenate([y for _, y in batches]))
            batches.on_epoch_end()
        return found

    (first, second), (again, again_second), (other, _) = orders(1), orders(1), orders(2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(second, again_second)
    _, y = datasets.load("adding", limit=200, length=4)
    for order in (first, second, other):
        np.testing.assert_array_equal(np.sort(order), np.sort(y))
    assert not np.array_equal(first, y)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_only_training_is_shuffled_unless_asked():
    for split, shuffle, expected in (
        ("train", None, True),
        ("test", None, False),
        ("test", True, True),
    ):
        batches = datasets.batches("adding", split, shuffle=shuffle, limit=100, length=4)
        _, y = datasets.load("adding", split, limit=100, length=4)
        assert np.array_equal(np.concatenate([one for _, one in batches]), y) != expected


def test_x_and_y_are_shuffled_together():
    for x, y in datasets.batches("parity", limit=300, n=3, delay=1, length=8, seed=5):
        np.testing.assert_array_equal(x[:, 4:7, 0].sum(axis=1) % 2, y)


def test_fit_sees_every_example_of_every_epoch_once():
    seen = []

    class Recorder(keras.utils.PyDataset):
        def __init__(self, batches):
            super().__init__()
            self.batches = batches

        def __len__(self):
            return len(self.batches)

        def __getitem__(self, index):
            x, y = self.batches[index]
            seen.append(y)
            return x, y

        def on_epoch_end(self):
            self.batches.on_epoch_end()

    batches = datasets.batches("adding", batch_size=50, limit=200, length=4)
    model = keras.Sequential([keras.Input((4, 2)), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(Recorder(batches), epochs=2, shuffle=False, verbose=0)
    _, y = datasets.load("adding", limit=200, length=4)
    # TensorFlow looks at the first two batches beforehand.
    first, second = np.concatenate(seen[-8:-4]), np.concatenate(seen[-4:])
    np.testing.assert_array_equal(np.sort(first), np.sort(y))
    np.testing.assert_array_equal(np.sort(second), np.sort(y))
    assert not np.array_equal(first, second)


def test_masks_hide_the_padding_from_a_recurrent_layer():
    batches = datasets.batches("delayed_match", "test", n=3, limit=6, masks=True)
    x, mask = keras.Input((13, 1), name="x"), keras.Input((13,), dtype="bool", name="mask")
    model = keras.Model({"x": x, "mask": mask}, layers.GRU(4)(x, mask=mask))
    outputs = model.predict(batches, verbose=0)
    sequences, _, masks = datasets.load("delayed_match", "test", n=3, limit=6, masks=True)
    layer = next(layer for layer in model.layers if isinstance(layer, layers.GRU))
    for sequence, length, output in zip(sequences, masks.sum(axis=1), outputs, strict=True):
        alone = keras.ops.convert_to_numpy(layer(sequence[np.newaxis, :length]))
        np.testing.assert_allclose(output, alone[0], atol=1e-6)


def test_sequences_of_one_length_are_masked_nowhere():
    _, _, mask = datasets.load("adding", "test", limit=5, length=9, masks=True)
    assert mask.shape == (5, 9)
    assert mask.all()


@pytest.mark.parametrize("name", ["adding", "copy_memory", "parity", "spike_patterns"])
def test_losses_and_shapes_fit_a_model(name):
    info = datasets.info(name)
    batches = datasets.batches(name, batch_size=16, limit=32)
    sequences = info.per_step
    model = keras.Sequential(
        [
            keras.Input(info.shape),
            layers.SimpleRNN(4, return_sequences=sequences),
            layers.Dense(info.outputs, activation=None if info.target == "value" else "softmax"),
        ]
    )
    model.compile("adam", info.loss, metrics=[info.metric])
    history = model.fit(batches, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize("index", [-1, 4])
def test_a_batch_that_is_not_there(index):
    batches = datasets.batches("adding", limit=100, length=4)
    contiguous = ContiguousBatches(np.arange(9), batch_size=2, steps=1)
    for dataset in (batches, contiguous, GrowingTask("parity", batches=4)):
        with pytest.raises(IndexError, match=f"there are 4 batches, and no batch {index}"):
            dataset[index]


@pytest.mark.parametrize("argument", ["batch_size", "seed"])
def test_impossible_numbers_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be .*integer.*, got -1"):
        datasets.batches("adding", **{argument: -1})


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 1), (3, 5), (4, 7), (5, 24)])
@pytest.mark.parametrize("drop_rest", [True, False])
def test_contiguous_batches_continue_one_another(tokens, batch_size, steps, drop_rest):
    batches = ContiguousBatches(tokens, batch_size=batch_size, steps=steps, drop_rest=drop_rest)
    length = (len(tokens) - 1) // batch_size
    x = np.concatenate([x for x, _ in batches], axis=1)
    y = np.concatenate([y for _, y in batches], axis=1)
    kept = length // steps * steps if drop_rest else length
    assert x.shape == y.shape == (batch_size, kept)
    for row in range(batch_size):
        np.testing.assert_array_equal(x[row], tokens[row * length :][:kept])
        np.testing.assert_array_equal(y[row], tokens[row * length + 1 :][:kept])
    assert len({one.shape for one, _ in batches}) == (1 if drop_rest or length % steps == 0 else 2)


def test_too_short_a_text_is_refused():
    with pytest.raises(ValueError, match="9 tokens are too few for batch_size=4 contiguous"):
        ContiguousBatches(np.arange(9), batch_size=4, steps=3)


@pytest.mark.parametrize("cell", STATEFUL)
def test_the_carried_state_makes_batches_one_long_sequence(tokens, cell):
    plain, carried = language_model(cell), language_model(cell, CarriedState)
    pieces = ContiguousBatches(tokens, batch_size=4, steps=7, drop_rest=False)
    whole = ContiguousBatches(tokens, batch_size=4, steps=30)
    reset = callbacks.ResetStates()
    expected = plain.predict(whole, verbose=0)
    reset.set_model(carried)
    for _ in range(2):
        reset.on_predict_begin()
        outputs = np.concatenate([carried.predict_on_batch(x) for x, _ in pieces], axis=1)
        np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("cell", STATEFUL)
def test_fit_and_evaluate_carry_the_state(tokens, cell):
    plain, carried = language_model(cell), language_model(cell, CarriedState)
    pieces = ContiguousBatches(tokens, batch_size=4, steps=5)
    (expected,) = np.ravel(
        plain.evaluate(ContiguousBatches(tokens, batch_size=4, steps=30), verbose=0)
    )
    forgetful = float(np.ravel(plain.evaluate(pieces, verbose=0))[0])
    assert abs(forgetful - expected) > 0.01, "the past does not matter, so this test says nothing"
    options = {"verbose": 0, "callbacks": [callbacks.ResetStates()]}
    # The learning rate is 0, so that the loss of an epoch is that of the weights it began with.
    history = carried.fit(pieces, epochs=2, shuffle=False, validation_data=pieces, **options)
    for values in history.history.values():
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(carried.evaluate(pieces, **options), expected, rtol=1e-5)


def test_a_carried_state_lets_gradients_train(tokens):
    model = language_model("gru", CarriedState)
    model.compile(keras.optimizers.Adam(0.05), model.loss)
    pieces = ContiguousBatches(np.tile(np.arange(7, dtype="int32"), 40), batch_size=4, steps=5)
    reset = [callbacks.ResetStates()]
    losses = model.fit(pieces, epochs=15, shuffle=False, verbose=0, callbacks=reset).history["loss"]
    assert losses[-1] < 0.3 * losses[0], "seven tokens in a row are easy to learn"


def test_a_carried_state_is_saved_with_the_model(tokens, tmp_path):
    model = language_model("lstm", CarriedState)
    pieces = ContiguousBatches(tokens, batch_size=4, steps=5)
    model.predict_on_batch(pieces[0][0])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    expected = model.predict_on_batch(pieces[1][0])
    np.testing.assert_allclose(loaded.predict_on_batch(pieces[1][0]), expected, atol=1e-6)


def test_states_of_nested_models_are_reset(tokens):
    inner = language_model("gru", CarriedState)
    outer = keras.Sequential([keras.Input(batch_shape=(4, None), dtype="int32"), inner])
    x = ContiguousBatches(tokens, batch_size=4, steps=5)[0][0]
    first = outer.predict_on_batch(x)
    assert np.abs(outer.predict_on_batch(x) - first).max() > 1e-3
    reset = callbacks.ResetStates()
    reset.set_model(outer)
    reset.on_epoch_begin(0)
    np.testing.assert_allclose(outer.predict_on_batch(x), first, atol=1e-6)


def test_what_cannot_carry_a_state():
    with pytest.raises(TypeError, match=r"wraps a keras.layers.RNN, got Dense"):
        CarriedState(layers.Dense(3))
    with pytest.raises(ValueError, match="is stateful itself"):
        CarriedState(layers.GRU(3, stateful=True))
    with pytest.raises(ValueError, match="needs batches of a fixed size"):
        keras.Sequential([keras.Input((5, 2)), CarriedState(layers.GRU(3))])


def test_fit_in_random_order_is_refused(tokens):
    model = language_model("gru", CarriedState)
    pieces = ContiguousBatches(tokens, batch_size=4, steps=2)
    # TensorFlow reports what its input raises by an error of its own.
    with pytest.raises(Exception, match="pass shuffle=False to fit"):
        model.fit(pieces, verbose=0)


@pytest.mark.parametrize("name", ["parity", "delayed_match"])
def test_a_growing_task_obeys_its_law_at_every_n(name):
    task = GrowingTask(name, n=2, largest=4, batch_size=200, seed=3)
    for n in (2, 3, 4):
        assert task.n == n
        inputs, y = task[0]
        lengths = inputs["mask"].sum(axis=1)
        assert inputs["x"].shape == (200, 17, 1)
        assert set(lengths) == set(range(n + 2, 4 * n + 2))
        assert not inputs["x"][~inputs["mask"]].any()
        for bits, label, end in zip(inputs["x"][:, :, 0], y, lengths, strict=True):
            last = bits[end - n : end]
            assert label == (last.sum() % 2 if name == "parity" else last[0] == last[-1])
        assert task.grow() == (n < 4)
    assert task.n == 4


@pytest.mark.parametrize("name", ["parity", "delayed_match"])
def test_every_head_is_asked_its_own_n_of_the_same_sequences(name):
    task = GrowingTask(name, n=3, largest=5, batch_size=50, seed=3, heads="multi")
    inputs, y, weights = task[0]
    single, of_three = GrowingTask(name, n=3, largest=5, batch_size=50, seed=3)[0]
    np.testing.assert_array_equal(inputs["x"], single["x"])
    np.testing.assert_array_equal(y[:, 1], of_three)
    np.testing.assert_array_equal(weights, np.tile([1.0, 1.0, 0.0, 0.0], (50, 1)))
    lengths = inputs["mask"].sum(axis=1)
    for bits, labels, end in zip(inputs["x"][:, :, 0], y, lengths, strict=True):
        for n, label in zip((2, 3), labels[:2], strict=True):
            last = bits[end - n : end]
            assert label == (last.sum() % 2 if name == "parity" else last[0] == last[-1])


def test_the_lowest_accuracy_is_that_of_the_worst_head_that_is_asked(rng):
    metric = callbacks.LowestAccuracy(3)
    assert float(metric.result()) == 0.0
    scores = rng.standard_normal((2, 40, 3, 4)).astype("float32")
    labels = rng.integers(0, 4, (2, 40, 3))
    weights = rng.random((2, 40, 3)).astype("float32") * [1.0, 1.0, 0.0]
    for k in range(2):
        metric.update_state(labels[k], scores[k], weights[k])
    is_right = scores.argmax(axis=-1) == labels
    accuracies = (is_right * weights).sum(axis=(0, 1))[:2] / weights.sum(axis=(0, 1))[:2]
    assert float(metric.result()) == pytest.approx(accuracies.min(), rel=1e-5)
    again = callbacks.LowestAccuracy.from_config(metric.get_config())
    again.update_state(labels[0], scores[0])
    assert float(again.result()) == pytest.approx(is_right[0].mean(axis=0).min(), rel=1e-5)


def test_a_head_joins_when_every_head_before_it_is_right():
    task = GrowingTask(
        "delayed_match", n=2, largest=4, batches=25, batch_size=32, heads="multi", masks=False
    )
    x = keras.Input((17, 1))
    scores = layers.Reshape((3, 2))(layers.Dense(6)(layers.GRU(16)(x)))
    model = keras.Model(x, layers.Softmax()(scores))
    model.compile(
        keras.optimizers.Adam(0.02),
        "sparse_categorical_crossentropy",
        weighted_metrics=["accuracy", callbacks.LowestAccuracy(3)],
    )
    curriculum = callbacks.NCurriculum(task, monitor="lowest_accuracy", threshold=0.55)
    history = model.fit(task, epochs=4, verbose=0, callbacks=[curriculum]).history
    expected = [2]
    for lowest, mean in zip(history["lowest_accuracy"], history["accuracy"], strict=True):
        heads = expected[-1] - 1
        # The mean is over the heads that are asked, so that it is not below the lowest.
        assert lowest <= mean + 1e-6 if heads > 1 else lowest == pytest.approx(mean, abs=1e-6)
        expected.append(min(4, expected[-1] + (lowest > 0.55)))
    assert curriculum.history == expected[: len(curriculum.history)]


def test_a_growing_task_draws_anew_by_seed_and_epoch():
    def labels(task):
        return np.concatenate([y for _, y in task])

    task, again = (GrowingTask("parity", seed=1, batches=10) for _ in range(2))
    np.testing.assert_array_equal(labels(task), labels(again))
    before = labels(task)
    task.on_epoch_end()
    assert not np.array_equal(before, labels(task))
    assert not np.array_equal(before, labels(GrowingTask("parity", seed=2, batches=10)))


def masked_classifier(steps, units=16):
    x, mask = keras.Input((steps, 1), name="x"), keras.Input((steps,), dtype="bool", name="mask")
    outputs = layers.Dense(2, activation="softmax")(layers.GRU(units)(x, mask=mask))
    model = keras.Model({"x": x, "mask": mask}, outputs)
    model.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def test_the_curriculum_grows_n_with_the_accuracy():
    task = GrowingTask("delayed_match", n=2, largest=4, batches=25, batch_size=32)
    curriculum = callbacks.NCurriculum(task, threshold=0.6)
    history = masked_classifier(17).fit(task, epochs=12, verbose=0, callbacks=[curriculum]).history
    expected = [2]
    for accuracy in history["accuracy"][:-1]:
        expected.append(min(4, expected[-1] + (accuracy > 0.6)))
    assert curriculum.history == expected
    assert expected[-1] == 4, "chance alone would be at 0.5; the task was not learned at all"
    if len(expected) < 12:
        assert history["accuracy"][-1] > 0.6


def test_the_curriculum_waits_below_its_threshold():
    task = GrowingTask("parity", n=2, largest=5, batches=2, batch_size=8)
    curriculum = callbacks.NCurriculum(task, threshold=1.0)
    masked_classifier(21).fit(task, epochs=2, verbose=0, callbacks=[curriculum])
    assert (curriculum.history, task.n) == ([2, 2], 2)


def test_the_curriculum_names_a_missing_metric():
    task = GrowingTask("parity", largest=2, batches=1)
    curriculum = callbacks.NCurriculum(task, monitor="val_accuracy")
    with pytest.raises(ValueError, match=r"found no 'val_accuracy' among the metrics.*accuracy"):
        masked_classifier(9).fit(task, verbose=0, callbacks=[curriculum])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adding"}, "the task 'adding' cannot grow; use one of parity, delayed_match"),
        ({"name": "parity", "n": 1}, "n must be an integer of at least 2, got 1"),
        (
            {"name": "parity", "n": 5, "largest": 4},
            "largest must be an integer of at least 5",
        ),
    ],
)
def test_an_impossible_growing_task_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GrowingTask(**arguments)


@pytest.mark.parametrize(
    "tokens", [None, 3, "text", [], [[1], [1, 2]], np.zeros((9, 9)), [0.5] * 99]
)
def test_tokens_that_are_none(tokens):
    with pytest.raises(ValueError, match="tokens must be an array"):
        ContiguousBatches(tokens, batch_size=2, steps=2)


@pytest.mark.parametrize("highest", [None, "3000", [], 1j, 10**400])
def test_frequencies_that_are_none(highest):
    with pytest.raises(ValueError, match="highest must be"):
        datasets.Cochlea(highest=highest)
    with pytest.raises(ValueError, match="sensitivity must be"):
        datasets.Cochlea(sensitivity=highest)
