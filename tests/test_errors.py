"""Wrong use raises at once: with what was given, what was expected, and what to do."""

import importlib
import json

import keras
import numpy as np
import pytest
from harness import recurrent_model, sequences
from keras import layers

import keras_lsc
from keras_lsc.stability.targets import resolve


@pytest.fixture
def x(rng):
    return sequences(rng)


@pytest.fixture
def model():
    return recurrent_model("gru")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.rnn = layers.GRU(3)
        self(np.zeros((1, 5, 4), "float32"))

    def call(self, x):
        return self.rnn(x)


class Unbuilt(keras.Model):
    def call(self, x):
        return x


class Hiding(keras.layers.Layer):
    """A layer that keeps recurrent layers where nobody sees their steps."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [layers.LSTM(4, return_sequences=True, name="deep_inside")]

    def call(self, x):
        return self.inner[0](x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


def without_weights():
    return keras.Sequential(
        [keras.Input((5, 4)), layers.Flatten(), layers.Activation("relu")], name="bare"
    )


def last_step_repeated():
    return keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.GRU(3, name="encoder"),
            layers.RepeatVector(5, name="repeat"),
            layers.GRU(3, name="decoder"),
        ]
    )


def transposed():
    return keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.GRU(3, return_sequences=True, name="below"),
            layers.Conv1DTranspose(3, 2, strides=2, name="transposed"),
            layers.GRU(3, name="above"),
        ]
    )


def two_outputs():
    both = layers.Bidirectional(layers.GRU(3), merge_mode=None, name="both")
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, both(inputs))


def convolutional():
    return keras.Sequential([keras.Input((5, 6, 6, 1)), layers.ConvLSTM2D(2, 3, name="images")])


def hidden():
    return keras.Sequential(
        [keras.Input((5, 4)), layers.GRU(3, return_sequences=True), Hiding(name="box")]
    )


def hidden_in_a_feed_forward_model():
    return keras.Sequential([keras.Input((5, 4)), Hiding(name="box"), layers.Dense(2)])


# What is wrong, the error, and what its message must name.
WRONG_MODELS = {
    "no weights": (without_weights, ValueError, ["'bare'", "no recurrent", "Flatten"]),
    "unbuilt": (
        lambda: keras.Sequential([layers.GRU(3)], name="young"),
        ValueError,
        ["'young'", "not built", "Input("],
    ),
    "subclassed": (
        Subclassed,
        TypeError,
        ["'mine'", "subclass", "functional API", 'stabilize(method="level")'],
    ),
    "unbuilt subclass": (lambda: Unbuilt(name="young"), ValueError, ["'young'", "not built"]),
    "a layer": (lambda: layers.LSTM(3), TypeError, ["keras.Model", "LSTM"]),
    "a string": (lambda: "lstm", TypeError, ["keras.Model", "str"]),
    "none": (lambda: None, TypeError, ["keras.Model", "NoneType"]),
    "last step repeated": (
        last_step_repeated,
        ValueError,
        ["'encoder'", "'decoder'", "'repeat'", "return_sequences=True"],
    ),
    "transposed": (
        transposed,
        ValueError,
        ["'below'", "'above'", "'transposed'", "from 6 to 12"],
    ),
    "two outputs": (two_outputs, ValueError, ["'both'", "merge_mode=None", '"concat"']),
    "convolutional": (convolutional, ValueError, ["'images'", "ConvLSTM2D", "not supported"]),
    "hidden": (hidden, ValueError, ["'box'", "Hiding", "'deep_inside'", "directly"]),
    "hidden, else feed-forward": (
        hidden_in_a_feed_forward_model,
        ValueError,
        ["'box'", "Hiding", "'deep_inside'", "directly"],
    ),
}
# What `measure` measures as it is (test_any_model.py).
WATCHED = ("subclassed", "hidden", "hidden, else feed-forward")
ENTRIES = {
    "measure": keras_lsc.measure,
    "LSCPretrainer": lambda model, x: keras_lsc.LSCPretrainer(model),
    "stabilize": keras_lsc.stabilize,
}


def assert_says(error, parts):
    for part in parts:
        assert part in str(error.value), f"{part!r} is not in: {error.value}"


@pytest.mark.once
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("wrong", WRONG_MODELS)
def test_wrong_model(wrong, entry, x):
    make, error, parts = WRONG_MODELS[wrong]
    if entry == "measure" and wrong in WATCHED:
        assert keras_lsc.measure(make(), x).unseen
        return
    with pytest.raises(error) as caught:
        ENTRIES[entry](make(), x)
    assert_says(caught, parts)


def with_one(x, value):
    changed = x.copy()
    changed[2, 1, 3] = value
    return changed


WRONG_DATA = {
    "nan": (lambda x: with_one(x, np.nan), ValueError, ["1 NaN or infinite", "Clean"]),
    "infinite": (lambda x: with_one(x, np.inf), ValueError, ["1 NaN or infinite", "Clean"]),
    "strings": (lambda x: x.astype(str), TypeError, ["not numeric", "floats or integers"]),
    "list of strings": (lambda x: ["a", "b"], TypeError, ["not numeric", "floats or integers"]),
    "complex": (lambda x: x.astype("complex64"), TypeError, ["complex64", "not numeric"]),
    "time": (lambda x: x.astype("timedelta64[s]"), TypeError, ["timedelta64", "not numeric"]),
    "objects": (lambda x: np.array([[{}]]), TypeError, ["object", "not numeric"]),
    "features": (lambda x: x[..., :3], ValueError, ["(5, 4)", "(5, 3)"]),
    "steps": (lambda x: x[:, :2], ValueError, ["(5, 4)", "(2, 4)"]),
    "one sequence": (lambda x: x[0], ValueError, ["(5, 4)", "(4,)"]),
    "empty": (lambda x: x[:0], ValueError, ["[0] rows", "at least one row"]),
    "empty generator": (lambda x: iter(()), ValueError, ["no batch", "at least one"]),
    "a number": (lambda x: 3.0, ValueError, ["single number", "array of rows"]),
    "two inputs": (lambda x: [x, x], ValueError, ["1 input(s)", "2 array(s)"]),
    "unequal": (lambda x: [x, x[:3]], ValueError, ["[3, 8] rows", "the same number"]),
    "ragged batches": (
        lambda x: iter([x[:4, :3], x[4:, :2]]),
        ValueError,
        ["different shapes", "(3, 4)", "(2, 4)", "Pad"],
    ),
}


@pytest.mark.parametrize("entry", ["measure", "stabilize"])
@pytest.mark.parametrize("wrong", WRONG_DATA)
def test_wrong_data(wrong, entry, model, x):
    make, error, parts = WRONG_DATA[wrong]
    before = model.get_weights()
    with pytest.raises(error) as caught:
        ENTRIES[entry](model, make(x))
    assert_says(caught, parts)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


WRONG_TARGETS = [
    0, 0.0, -1, float("nan"), float("inf"), -float("inf"), True, False, None, "foo", "1", "",
    (1.0, 1.0, 1.0), (1.0,), (), (1.0, 0.0), (float("nan"), 1.0), (True, 1.0), ("a", "b"), {}, 1j,
    1e300, 1e-300, (0.5, 1e30),
]  # fmt: skip


@pytest.mark.parametrize("target", WRONG_TARGETS, ids=repr)
@pytest.mark.parametrize("entry", ["resolve", "LSCPretrainer", "stabilize", "report"])
def test_wrong_target(target, entry, model, x):
    entries = {
        "resolve": lambda: resolve(target, depth=2, steps=5),
        "LSCPretrainer": lambda: keras_lsc.LSCPretrainer(model, target),
        "stabilize": lambda: keras_lsc.stabilize(model, x, target),
        "report": lambda: _REPORT.max_deviation(target),
    }
    with pytest.raises(ValueError, match="positive") as caught:
        entries[entry]()
    assert_says(caught, [repr(target), "'variance'", "'unbalanced'", "(rho_t, rho_l)"])


_REPORT = keras_lsc.StabilityReport("m", (), layers=1, steps=5, samples=1, seed=0)


@pytest.mark.parametrize("mode", ["scale", "", None, 1])
def test_unknown_mode(mode, model, x):
    for entry in (
        lambda: keras_lsc.LSCPretrainer(model, mode=mode),
        lambda: keras_lsc.stabilize(model, x, mode=mode),
    ):
        with pytest.raises(ValueError, match="mode") as caught:
            entry()
        assert_says(caught, [repr(mode), "'scales'", "'weights'"])


@pytest.mark.parametrize("radius", ["eigenvalue", None, 1.0])
def test_unknown_radius(radius, model, x):
    for entry in (
        lambda: keras_lsc.LSCPretrainer(model, radius=radius),
        lambda: keras_lsc.measure(model, x, radius=radius),
        lambda: keras_lsc.stabilize(model, x, radius=radius),
    ):
        with pytest.raises(ValueError, match="radius") as caught:
            entry()
        assert_says(caught, [repr(radius), "'spectral'", "'rms'", "'norm'"])


@pytest.mark.parametrize("samples", [0, -3, 2.5, "64", None])
def test_wrong_number_of_samples(samples, model, x):
    with pytest.raises(ValueError, match="positive integer") as caught:
        keras_lsc.measure(model, x, samples=samples)
    assert_says(caught, [repr(samples), "samples"])


@pytest.mark.parametrize("tolerance", [0, -0.1, float("nan")])
def test_wrong_tolerance(tolerance, model, x):
    for entry in (
        lambda: keras_lsc.stabilize(model, x, tolerance=tolerance),
        lambda: keras_lsc.callbacks.StopWhenStable(tolerance),
    ):
        with pytest.raises(ValueError, match="tolerance") as caught:
            entry()
        assert_says(caught, [repr(tolerance), "positive"])


def test_a_single_layer_has_nothing_to_stabilise():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="one")
    with pytest.raises(ValueError, match="only an input transition") as caught:
        keras_lsc.LSCPretrainer(model)
    assert_says(caught, ["'one'", "include_input=True"])


def test_a_single_sequence_cannot_be_held_out(model, x):
    with pytest.raises(ValueError, match="single sequence") as caught:
        keras_lsc.stabilize(model, x[:1])
    assert_says(caught, ["at least two"])


def test_stop_when_stable_on_another_model(x):
    model = keras.Sequential([keras.Input((5, 4)), layers.Flatten(), layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="max_deviation") as caught:
        model.fit(x, np.zeros(8), callbacks=[keras_lsc.callbacks.StopWhenStable()], verbose=0)
    assert_says(caught, ["LSCPretrainer"])


def test_backend_unknown_to_the_library(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ImportError, match="'openvino'") as caught:
        importlib.reload(keras_lsc.backend)
    assert_says(caught, ["KERAS_BACKEND", "jax, tensorflow or torch"])


def test_what_every_test_above_spoils_is_accepted_as_it_is(model, x):
    assert keras_lsc.measure(model, x, samples=2).samples == 2
    assert keras_lsc.LSCPretrainer(model).target == "variance"


def spoiled(weight, value):
    model = recurrent_model("gru", spread=0.5)
    kernel = model.weights[weight].numpy().copy()
    kernel[0, 0] = value
    model.weights[weight].assign(kernel)
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", ["LSCPretrainer", "stabilize"])
def test_weights_that_are_not_finite(entry, value, x):
    model = spoiled(1, value)
    with pytest.raises(ValueError, match="NaN or") as caught:
        ENTRIES[entry](model, x)
    assert_says(caught, [model.weights[1].path, repr(model.name), "1 NaN or infinite"])


def test_weights_that_became_nan_after_the_pretrainer_was_made(model, x):
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    with pytest.raises(ValueError, match="NaN or"):
        pretrainer.fit(x, verbose=0)


NO_COUNTS = [-3, 0, 2.5, "8", None, True, [4], float("nan"), float("inf")]
NO_SEEDS = [-1, 1.5, None, "0", True]
WRONG_ARGUMENTS = [
    *(("batch_size", value) for value in NO_COUNTS),
    *(("max_updates", value) for value in NO_COUNTS),
    *(("samples", value) for value in NO_COUNTS if value is not None),
    *(("seed", value) for value in NO_SEEDS),
    *(("tolerance", value) for value in ["0.1", True, float("inf"), 10**400]),
    *(("learning_rate", value) for value in [-0.1, "mse", True, float("nan")]),
    *(("callbacks", value) for value in ["stop", keras.callbacks.History(), [3], 5]),
    ("callbacks", [keras.callbacks.History]),
    ("optimizer", {}),
    *(("verbose", value) for value in [3, "loud", None, True]),
    *(("include_input", value) for value in [1, None, "yes"]),
    *(("optimizer", value) for value in [3, keras.optimizers.Adam, "gradient-descent"]),
]


@pytest.mark.parametrize(("argument", "value"), WRONG_ARGUMENTS)
def test_wrong_arguments_of_stabilize(argument, value, model, x):
    before = [weight.numpy().copy() for weight in model.weights]
    with pytest.raises(ValueError, match=argument):
        keras_lsc.stabilize(model, x, **{argument: value})
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


@pytest.mark.parametrize("seed", NO_SEEDS)
def test_wrong_seed_of_the_pretrainer(seed, model):
    with pytest.raises(ValueError, match="seed"):
        keras_lsc.LSCPretrainer(model, seed=seed)


WRONG_COMPILATIONS = {
    "a loss": (lambda: {"loss": "mse"}, ["loss", "'mse'", "its own"]),
    "no learning rate": (lambda: {"learning_rate": "mse"}, ["'mse'", "learning_rate"]),
    "metrics": (lambda: {"metrics": ["mae"]}, ["metrics", "Leave it out"]),
    "decay": (lambda: {"decay_updates": 0}, ["decay_updates", "positive"]),
    "two rates": (
        lambda: {"optimizer": keras.optimizers.SGD(0.1), "learning_rate": 0.2},
        ["0.2", "SGD", "Leave learning_rate out"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG_COMPILATIONS)
def test_wrong_compilations(wrong, model):
    make, parts = WRONG_COMPILATIONS[wrong]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the parts are checked below
        keras_lsc.LSCPretrainer(model).compile(**make())
    assert_says(caught, parts)


def test_an_optimizer_of_other_variables_is_refused(model):
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    pretrainer = keras_lsc.LSCPretrainer(model)
    with pytest.raises(ValueError, match="already trains other variables"):
        pretrainer.compile(optimizer)


def test_a_loss_by_position_is_refused_and_a_rate_there_deprecated(model):
    pretrainer = keras_lsc.LSCPretrainer(model)
    with pytest.raises(ValueError, match="loss='mse'"):
        pretrainer.compile("adam", "mse")
    with pytest.warns(DeprecationWarning, match=r"learning_rate=0\.125"):
        pretrainer.compile("sgd", 0.125, decay_updates=None)
    assert float(pretrainer.optimizer.learning_rate) == 0.125


def test_a_learning_rate_of_zero_is_zero(model):
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile("adam", learning_rate=0.0)
    assert float(pretrainer.optimizer.learning_rate) == 0.0
    pretrainer.compile("adam")
    assert float(pretrainer.optimizer.learning_rate) == pytest.approx(0.05)


def test_wrong_arguments_of_fit(model, x):
    pretrainer = keras_lsc.LSCPretrainer(model)
    with pytest.raises(ValueError, match="compile"):
        pretrainer.fit(x)
    pretrainer.compile()
    for arguments in ({"batch_size": -3}, {"batch_size": 0}, {"epochs": -1}, {"epochs": 1.5}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            pretrainer.fit(x, verbose=0, **arguments)


@pytest.mark.once
def test_numbers_of_numpy_are_taken(model, x):
    pretrainer = keras_lsc.LSCPretrainer(model, np.float32(0.5), seed=np.int64(3))
    assert json.loads(json.dumps(pretrainer.get_config()))["target"] == 0.5
    pair = keras_lsc.LSCPretrainer(model, np.array([0.5, 0.25]))
    assert pair.target == (0.5, 0.25)
    report = keras_lsc.stabilize(
        model,
        x,
        np.float64(0.5),
        tolerance=np.float32(50.0),
        batch_size=np.int64(4),
        max_updates=np.int32(1),
        samples=np.int16(4),
        seed=np.uint8(1),
        learning_rate=np.float32(0.01),
    )
    assert report.samples == 4


@pytest.mark.once
def test_fewer_sequences_than_a_batch(model, x):
    report = keras_lsc.stabilize(
        model, x[:2], tolerance=50.0, max_updates=1, samples=4, batch_size=64
    )
    assert report.max_deviation("variance") < 50.0


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: keras_lsc.callbacks.StopWhenStable("0.1"), "tolerance"),
        (lambda: keras_lsc.callbacks.StopWhenStable(min_updates=-1), "min_updates"),
        (lambda: keras_lsc.callbacks.StopWhenStable(min_updates=1.5), "min_updates"),
        (lambda: keras_lsc.callbacks.NCurriculum("parity"), "GrowingTask"),
        (lambda: _curriculum(monitor=3), "monitor"),
        (lambda: _curriculum(threshold=float("nan")), "threshold"),
        (lambda: _curriculum(stop_at_largest=1), "stop_at_largest"),
        (lambda: keras_lsc.datasets.load(["parity"]), "name"),
        (lambda: keras_lsc.datasets.load(3), "name"),
        (lambda: keras_lsc.datasets.load("parity", ["train"]), "split"),
        (lambda: keras_lsc.datasets.load("parity", None), "split"),
        (lambda: keras_lsc.datasets.load("parity", limit=-1), "limit"),
        (lambda: keras_lsc.datasets.load("parity", limit=True), "limit"),
        (lambda: keras_lsc.datasets.load("parity", seed=None), "seed"),
        (lambda: keras_lsc.datasets.load("parity", masks="no"), "masks"),
        (lambda: keras_lsc.datasets.load("spike_patterns", rate=10**400), "rate"),
        (lambda: keras_lsc.datasets.batches("parity", batch_size=0), "batch_size"),
        (lambda: keras_lsc.datasets.batches("parity", batch_size=None), "batch_size"),
        (lambda: keras_lsc.datasets.batches("parity", shuffle="yes"), "shuffle"),
        (lambda: keras_lsc.datasets.batches("parity", drop_rest=1), "drop_rest"),
        (lambda: keras_lsc.datasets.batches("parity", seed=None), "seed"),
        (lambda: keras_lsc.datasets.batches("ptb", seed="0"), "seed"),
        (lambda: keras_lsc.datasets.GrowingTask(["parity"]), "grow"),
        (lambda: keras_lsc.datasets.GrowingTask("parity", masks=None), "masks"),
        (lambda: keras_lsc.datasets.GrowingTask("parity", batches=0), "batches"),
    ],
)
def test_other_wrong_arguments(make, part):
    with pytest.raises(ValueError, match=part):
        make()


def _curriculum(**options):
    task = keras_lsc.datasets.GrowingTask("parity")
    return keras_lsc.callbacks.NCurriculum(task, **options)
