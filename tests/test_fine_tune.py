"""Fine-tuning: what it learns, which head and mask it takes, what both starts share, and errors."""

import json

import keras
import numpy as np
import pytest
from harness import randomized

from keras_lsc import datasets, layers, zoo

TINY = "test_gru_parity_d2_rhovar"
PATTERNS = {"classes": 3, "channels": 12, "steps": 20, "rate": 0.1}


def tune(*arguments, **options):
    return zoo.fine_tune(*arguments, **{"verbose": 0, "limit": 64, "batch_size": 16, **options})


def network(*shape, head=None, masked=False, dtype="float32", returns_steps=False):
    """A GRU of 8 units, with further layers `head`, which may be none."""
    below = [keras.layers.Masking()] if masked else []
    if dtype == "int32":
        below = [keras.layers.Embedding(65, 8)]
    above = [] if head is None else head
    core = keras.layers.GRU(8, return_sequences=returns_steps, name="core")
    return randomized(
        keras.Sequential([keras.Input(shape, dtype=dtype), *below, core, *above], name="mine"), 0.5
    )


def values(model):
    return [np.array(weight) for weight in model.get_weights()]


def test_accuracy_rises_above_chance():
    model = network(20, 12, head=[keras.layers.Dense(3)])
    options = {"limit": 256, "learning_rate": 0.02, "options": PATTERNS}
    trained, tuning = tune(model, "spike_patterns", epochs=6, **options)
    assert trained is model
    assert tuning.history["accuracy"][0] < tuning.history["accuracy"][-1]
    # Three classes, 256 sequences: 0.5 is five standard deviations above chance.
    assert tuning.validation["accuracy"] > 0.5
    assert tuning.test["accuracy"] > 0.5
    assert tuning.sequences == {"train": 256, "validation": 256, "test": 256}


def test_both_starts_share_all_but_the_weights():
    start, of_start = tune(TINY, "parity", epochs=0, seed=3)
    twin, of_twin = tune(TINY, "parity", epochs=0, seed=3, weights="initial")
    for model, weights in ((start, "stabilized"), (twin, "initial")):
        original = zoo.load(TINY, weights=weights)
        for one, other in zip(values(model), values(original), strict=True):
            np.testing.assert_array_equal(one, other)
    first, second = of_start.to_dict(), of_twin.to_dict()
    assert (first.pop("weights"), second.pop("weights")) == ("stabilized", "initial")
    for figures in ("validation", "test"):
        assert first.pop(figures) != second.pop(figures)
    del first["seconds"], second["seconds"]
    assert first == second


def test_the_same_seed_gives_the_same_history():
    first, again = (tune(TINY, "parity", epochs=1, seed=5)[1] for _ in range(2))
    assert first.history == again.history
    restored = json.loads(json.dumps(first.to_dict()))
    assert restored["history"] == first.history
    assert restored["best_epoch"] == 1
    assert TINY in str(first)


def test_a_head_that_fits_is_kept():
    model = network(20, 12, head=[keras.layers.Dense(3, name="mine")])
    before = values(model)
    trained, tuning = tune(model, "spike_patterns", epochs=0, options=PATTERNS)
    assert not tuning.fresh_head
    for one, other in zip(values(trained), before, strict=True):
        np.testing.assert_array_equal(one, other)


HEADS = {
    "none": [],
    "another number of classes": [("Dense", 7)],
    "another activation": [("Dense", 3, "sigmoid")],
    "softmax apart": [("Dense", 7), ("Softmax",)],
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("functional", [False, True])
def test_a_head_that_does_not_fit_is_replaced(head, functional):
    if functional and head == "softmax apart":
        pytest.skip("refused: see the test of errors")
    made = [getattr(keras.layers, kind)(*arguments) for kind, *arguments in HEADS[head]]
    model = network(20, 12, head=made)
    if functional:
        model = keras.Model(model.inputs, model.outputs, name="mine")
    core = model.get_layer("core").get_weights()
    trained, tuning = tune(model, "spike_patterns", epochs=0, options=PATTERNS, seed=1)
    assert tuning.fresh_head
    assert trained.output_shape == (None, 3)
    for one, other in zip(trained.get_layer("core").get_weights(), core, strict=True):
        np.testing.assert_array_equal(one, other)
    again, _ = tune(network(20, 12), "spike_patterns", epochs=0, options=PATTERNS, seed=1)
    np.testing.assert_array_equal(values(trained)[-2], values(again)[-2])
    assert [layer.name for layer in trained.layers].count("readout") == 1
    probabilities = trained.predict(np.ones((4, 20, 12)), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


def test_logits_and_probabilities_have_the_same_loss():
    losses = []
    for activation in (None, "softmax"):
        model = network(20, 12, head=[keras.layers.Dense(3, activation=activation)])
        losses.append(
            tune(model, "spike_patterns", epochs=0, options=PATTERNS)[1].validation["loss"]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class _Spoil(keras.callbacks.Callback):
    """Sets the weights to random ones, larger ones every epoch, so that the first is the best."""

    def __init__(self, good):
        super().__init__()
        self.good = good

    def on_epoch_begin(self, epoch, logs=None):
        generator = np.random.default_rng(epoch)
        size = 0.0 if epoch == 1 else 5.0
        self.model.set_weights(
            [w + size * generator.standard_normal(w.shape) for w in map(np.array, self.good)]
        )


def test_the_best_epoch_is_kept_and_patience_ends(tmp_path):
    # An epoch with the good weights between bad ones: whatever one update of size 1e-6 changes.
    model = network(20, 12, head=[keras.layers.Dense(3)])
    options = {"options": PATTERNS, "learning_rate": 0.02, "limit": 128}
    good = values(tune(model, "spike_patterns", epochs=6, **options)[0])
    path = tmp_path / "best.keras"
    trained, tuning = tune(
        model,
        "spike_patterns",
        epochs=9,
        patience=2,
        checkpoint=path,
        callbacks=[_Spoil(good)],
        **{**options, "learning_rate": 1e-6},
    )
    curve = tuning.history["val_accuracy"]
    assert tuning.best_epoch == 2
    assert len(curve) == 4
    assert tuning.validation["accuracy"] == pytest.approx(max(curve))
    saved = keras.saving.load_model(path)
    for one, other, value in zip(values(trained), values(saved), good, strict=True):
        np.testing.assert_allclose(one, value, atol=1e-4)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dataset", ["adding", "copy_memory"])
def test_values_and_labels_at_every_step(dataset):
    task = datasets.info(dataset)
    options = {"length": 10} if dataset == "adding" else {"delay": 3, "symbols": 2}
    x, y = datasets.load(dataset, limit=64, **options)
    per_step = task.target == "label per step"
    model, tuning = tune(
        network(*x.shape[1:], returns_steps=per_step), dataset, epochs=2, options=options
    )
    assert tuning.fresh_head
    assert set(tuning.test) == {"loss", task.metric}
    x, y = datasets.load(dataset, "test", limit=64, **options)
    outputs = model.predict(x, verbose=0)
    expected = (
        (outputs.argmax(axis=-1) == y).mean() if per_step else ((outputs[:, 0] - y) ** 2).mean()
    )
    assert tuning.test[task.metric] == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("tfds_folder")
def test_texts_are_measured_by_their_perplexity(tfds_folder):
    model = network(35, dtype="int32", returns_steps=True)
    trained, tuning = tune(model, "tiny_shakespeare", epochs=1, data_dir=tfds_folder)
    assert set(tuning.history) == {"loss", "perplexity", "val_loss", "val_perplexity"}
    x, y = datasets.load("tiny_shakespeare", "test", limit=64, data_dir=tfds_folder)
    chances = np.take_along_axis(trained.predict(x, verbose=0), y[..., None], axis=-1)
    expected = np.exp(-np.log(chances).mean())
    assert tuning.test["perplexity"] == pytest.approx(expected, rel=1e-3)


PADDED = {"n": 3, "length": None, "delay": 2}


def of_any_length(model, mask, x):
    """Whether what is after the end of a sequence changes the output."""
    changed = np.where(mask[..., None], x, 7.0).astype("float32")
    first, second = (
        model.predict({"x": values, "mask": mask}, verbose=0) for values in (x, changed)
    )
    return np.abs(first - second).max()


@pytest.mark.parametrize("masked", [False, True])
def test_padding_counts_for_nothing_and_zeros_before_it_do(masked):
    # Bits are 0 or 1: a Masking layer would skip the zeros too.
    x, _, mask = datasets.load("parity", "test", limit=64, masks=True, **PADDED)
    given = network(*x.shape[1:], head=[keras.layers.Dense(2)], masked=masked)
    model, tuning = tune(given, "parity", epochs=1, options=PADDED)
    assert tuning.masks == "dataset"
    assert of_any_length(model, mask, x) == 0.0
    row = int(np.argmin(mask.sum(axis=1)))
    alone = given.get_layer("core")(x[row : row + 1, mask[row]])
    alone = keras.ops.convert_to_numpy(model.layers[-1](alone))
    whole = model.predict({"x": x[row : row + 1], "mask": mask[row : row + 1]}, verbose=0)
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    predicted = model.predict({"x": x, "mask": mask}, verbose=0).argmax(axis=-1)
    y = datasets.load("parity", "test", limit=64, **PADDED)[1]
    assert tuning.test["accuracy"] == pytest.approx((predicted == y).mean())


def test_a_model_of_inputs_and_mask_is_given_both():
    x, _, mask = datasets.load("parity", "test", limit=64, masks=True, **PADDED)
    inputs = {
        "x": keras.Input(x.shape[1:], name="x"),
        "mask": keras.Input(mask.shape[1:], dtype="bool", name="mask"),
    }
    states = keras.layers.GRU(8)(inputs["x"], mask=inputs["mask"])
    model = keras.Model(inputs, keras.layers.Dense(5)(states))
    trained, tuning = tune(model, "parity", epochs=1, options=PADDED)
    assert (tuning.masks, tuning.fresh_head) == ("dataset", True)
    assert of_any_length(trained, mask, x) == 0.0


def test_a_masking_layer_that_finds_the_padding_is_left(tfds_folder):
    model = network(98, 40, head=[keras.layers.Dense(10)], masked=True)
    trained, tuning = tune(model, "spoken_digit", epochs=0, limit=16, data_dir=tfds_folder)
    assert trained is model
    assert tuning.masks == "network"


def test_silence_of_spike_trains_is_input(tfds_folder):
    model = keras.Sequential(
        [
            keras.Input((100, 64)),
            layers.LIF(8, return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    trained, tuning = tune(model, "spoken_digit_spikes", epochs=0, limit=8, data_dir=tfds_folder)
    assert tuning.masks == "none"
    assert trained.input_shape == (None, 100, 64)


def test_a_checkpoint_takes_other_numbers_of_steps():
    options = {"n": 2, "delay": 3, "length": 20}
    model, tuning = tune(TINY, "parity", epochs=0, options=options)
    assert model.input_shape == (None, 20, 1)
    assert tuning.options == options
    assert tune(TINY, "parity", epochs=0)[1].options == zoo.info(TINY).recipe.options


def test_curves_for_tensorboard_only_if_asked(tmp_path):
    pytest.importorskip("tensorflow", reason="Keras writes for TensorBoard with TensorFlow")
    tune(TINY, "parity", epochs=1, tensorboard=tmp_path / "curves")
    assert list((tmp_path / "curves").rglob("events.out.tfevents.*"))


def softmax_apart():
    model = network(20, 12, head=[keras.layers.Dense(7), keras.layers.Softmax()])
    return keras.Model(model.inputs, model.outputs, name="mine")


def unbuilt():
    return keras.Sequential([keras.layers.GRU(3)], name="young")


WRONG = {
    "unknown task": (lambda: (TINY, "party"), {}, ValueError, ["'party'", "'parity'"]),
    "unknown checkpoint": (
        lambda: ("test_gru_parity", "parity"),
        {},
        zoo.UnknownCheckpointError,
        [TINY],
    ),
    "features": (
        lambda: (TINY, "adding"),
        {},
        ValueError,
        ["12 x 1", "100 x 2", 'zoo.names(dataset="adding")'],
    ),
    "features of a model": (
        lambda: (network(20, 3), "spike_patterns"),
        {"options": PATTERNS},
        ValueError,
        ["'mine'", "20 x 3", "20 x 12"],
    ),
    "an output per step": (
        lambda: (network(120, 10), "copy_memory"),
        {},
        ValueError,
        ["'copy_memory'", "every step", "'mine'"],
    ),
    "one output": (
        lambda: (network(20, 12, returns_steps=True), "spike_patterns"),
        {"options": PATTERNS},
        ValueError,
        ["whole sequence", "20 x 8"],
    ),
    "head": (
        lambda: (softmax_apart(), "spike_patterns"),
        {"options": PATTERNS},
        ValueError,
        ["3 outputs", "7", "Sequential"],
    ),
    "not prepared": (
        lambda: (network(28, 28), "smnist"),
        {"data_dir": "absent", "download": False},
        datasets.DatasetUnavailableError,
        ["mnist is not prepared in absent", "TFDS_DATA_DIR"],
    ),
    "option": (lambda: (TINY, "parity"), {"options": {"bits": 3}}, TypeError, ["'bits'", "length"]),
    "no model": (lambda: (3, "parity"), {}, TypeError, ["keras.Model", "int"]),
    "unbuilt": (lambda: (unbuilt(), "parity"), {}, ValueError, ["'young'", "keras.Input"]),
    "twin of a model": (
        lambda: (network(12, 1), "parity"),
        {"weights": "initial"},
        ValueError,
        ["'initial'", "'mine'"],
    ),
    "epochs": (lambda: (TINY, "parity"), {"epochs": -1}, ValueError, ["epochs must be", "got -1"]),
    "callbacks": (lambda: (TINY, "parity"), {"callbacks": "x"}, ValueError, ["list or tuple"]),
    "patience": (
        lambda: (TINY, "parity"),
        {"patience": 0},
        ValueError,
        ["patience must be", "got 0"],
    ),
    "rate": (
        lambda: (TINY, "parity"),
        {"learning_rate": 0.0},
        ValueError,
        ["learning_rate must be", "got 0.0"],
    ),
    "limit": (lambda: (TINY, "parity"), {"limit": 0}, ValueError, ["limit must be", "got 0"]),
    "file": (
        lambda: (TINY, "parity"),
        {"checkpoint": "best.h5"},
        ValueError,
        ["best.h5", ".keras"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_told(wrong):
    make, options, error, parts = WRONG[wrong]
    with pytest.raises(error) as caught:
        tune(*make(), **options)
    for part in parts:
        assert part in str(caught.value)


def test_a_loss_that_is_not_finite_is_an_error():
    model = network(20, 12, head=[keras.layers.Dense(3)])
    model.set_weights([w * np.nan for w in values(model)])
    with pytest.raises(FloatingPointError, match="learning_rate"):
        tune(model, "spike_patterns", epochs=2, options=PATTERNS)


def patterns(count=60, seed=0):
    """Sequences (count, 6, 4) whose class is the feature that is lit."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, count)
    x = 0.1 * generator.standard_normal((count, 6, 4))
    x[np.arange(count), :, y] += 1.0
    return x, y


def test_arrays_of_ones_own():
    x, y = patterns()
    model = network(6, 4, head=[keras.layers.Dense(3)])
    trained, tuning = tune(
        model, (x, y), epochs=8, learning_rate=0.05, validation_data=patterns(30, seed=1)
    )
    assert trained is model
    assert not tuning.fresh_head
    assert tuning.dataset == "given arrays"
    assert tuning.sequences == {"train": 60, "validation": 30}
    # Three classes that one feature tells apart.
    assert tuning.validation["accuracy"] > 0.8
    assert tuning.test == {}
    assert "given arrays" in str(tuning)
    assert json.loads(json.dumps(tuning.to_dict()))["metric"] == "accuracy"


def test_arrays_are_held_out_by_seed_and_each_row_is_in_one_split():
    x, y = np.arange(40.0)[:, None, None] * np.ones((1, 6, 4)), np.arange(40) % 3
    seen = []

    class Notes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(set(logs))

    model = network(6, 4, head=[keras.layers.Dense(1)])
    _, tuning = tune(model, (x, y.astype("float32")), epochs=1, callbacks=[Notes()])
    assert tuning.sequences == {"train": 34, "validation": 6}
    assert tuning.metric == "mean_squared_error"
    assert {"loss", "val_loss"} <= seen[0]


def test_a_checkpoint_on_arrays_of_ones_own():
    x = np.random.default_rng(0).integers(0, 2, (32, 30, 1)).astype("float32")
    model, tuning = tune(TINY, (x, np.arange(32) % 5), epochs=0)
    assert tuning.fresh_head
    assert model.output_shape == (None, 5)


WRONG_PAIRS = {
    "one array": lambda x, y: {"dataset": (x,)},
    "a single array": lambda x, y: {"dataset": x},
    "lengths": lambda x, y: {"dataset": (x, y[:-1])},
    "nothing": lambda x, y: {"dataset": (x[:0], y[:0])},
    "one row": lambda x, y: {"dataset": (x[:1], y[:1])},
    "nan": lambda x, y: {"dataset": (np.full_like(x, np.nan), y)},
    "strings": lambda x, y: {"dataset": (x.astype(str), y)},
    "negative classes": lambda x, y: {"dataset": (x, y - 1)},
    "targets of many axes": lambda x, y: {"dataset": (x, x)},
    "other validation": lambda x, y: {"dataset": (x, y), "validation_data": (x[:, :2], y)},
    "options": lambda x, y: {"dataset": (x, y), "options": {"n": 3}},
    "validation of a task": lambda x, y: {"dataset": "parity", "validation_data": (x, y)},
    "other features": lambda x, y: {"dataset": (x[..., :2], y)},
}


@pytest.mark.parametrize("wrong", WRONG_PAIRS)
def test_wrong_arrays(wrong):
    model = network(6, 4, head=[keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"[a-z]"):
        tune(model, epochs=0, **WRONG_PAIRS[wrong](*patterns(8)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("epochs", value) for value in (-1, 1.5, None)),
        *(("batch_size", value) for value in (0, -3, "8")),
        *(("patience", value) for value in (0, True)),
        *(("limit", value) for value in (0, -1, 2.5)),
        *(("seed", value) for value in (None, -1)),
        *(("learning_rate", value) for value in (0, float("nan"), "fast")),
        *(("weights", value) for value in ("stabilised", None)),
        *(("verbose", value) for value in (3, None)),
        *(("options", value) for value in ("n=2", [2])),
        ("download", "no"),
    ],
)
def test_wrong_arguments(argument, value):
    with pytest.raises(ValueError, match=argument):
        tune(network(20, 1), "parity", **{argument: value})
