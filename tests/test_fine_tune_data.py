"""Fine-tuning on data of one's own: in which forms it comes, and what is made to fit it."""

import keras
import numpy as np
import pytest
from test_fine_tune import network, patterns, tune, values

import keras_lsc
from keras_lsc import zoo

TINY = "test_gru_parity_d2_rhovar"


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    @property
    def num_batches(self):
        return 4

    def __getitem__(self, k):
        return self.x[k::4], self.y[k::4]


def of_tensorflow(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(7)


def of_torch(x, y):
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    return data.DataLoader(data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=7)


def regular(x, y):
    """The rows in the order in which `Batches` gives them."""
    order = np.concatenate([np.arange(k, len(x), 4) for k in range(4)])
    return x[order], y[order]


FORMS = {
    "PyDataset": (Batches, regular),
    "tf.data": (of_tensorflow, lambda x, y: (x, y)),
    "DataLoader": (of_torch, lambda x, y: (x, y)),
    "generator": (lambda x, y: ((x[k : k + 5], y[k : k + 5]) for k in range(0, 60, 5)), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_is_the_arrays_that_are_in_it(form):
    make, rows = FORMS[form]
    x, y = (
        array.astype(kind) for array, kind in zip(patterns(), ("float32", "int32"), strict=True)
    )
    expected, arrays = tune(
        network(6, 4, head=[keras.layers.Dense(3)]),
        (x, y) if rows is None else rows(x, y),
        epochs=1,
    )
    trained, tuning = tune(network(6, 4, head=[keras.layers.Dense(3)]), make(x, y), epochs=1)
    assert tuning.sequences == arrays.sequences == {"train": 51, "validation": 9}
    for one, other in zip(values(trained), values(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_more_of_an_endless_dataset_is_read_than_is_asked_for():
    def endless():
        while True:
            yield patterns(10)

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return patterns(10)

    for dataset in (endless(), Endless()):
        _, tuning = tune(network(6, 4), dataset, validation_data=patterns(6), limit=20, epochs=0)
        assert tuning.sequences == {"train": 20, "validation": 6}


def test_test_scores_are_those_of_the_weights_that_are_kept():
    x, y = patterns(30, seed=3)
    model = network(6, 4, head=[keras.layers.Dense(3)])
    trained, tuning = tune(model, patterns(), test_data=(x, y), epochs=2, learning_rate=0.02)
    guesses = keras.ops.convert_to_numpy(trained(x.astype("float32"))).argmax(axis=-1)
    assert np.isclose(tuning.test["accuracy"], np.mean(guesses == y))


@pytest.mark.once
def test_a_class_of_no_weight_is_not_learned():
    """The head of the third class falls, as if there were none of it."""
    x, y = patterns(60)
    head = [keras.layers.Dense(3, activation="softmax")]
    model, _ = tune(
        network(6, 4, head=head),
        (x, y),
        epochs=4,
        learning_rate=0.05,
        class_weight={0: 1, 1: 1, 2: 0},
    )
    of_third = keras.ops.convert_to_numpy(model(x.astype("float32")))[y == 2, 2]
    equal, _ = tune(
        network(6, 4, head=[keras.layers.Dense(3, activation="softmax")]),
        (x, y),
        epochs=4,
        learning_rate=0.05,
    )
    assert (
        of_third.mean() < keras.ops.convert_to_numpy(equal(x.astype("float32")))[y == 2, 2].mean()
    )


def test_a_checkpoint_is_made_for_the_features_of_the_arrays():
    x, y = patterns(300)
    model, tuning = tune(TINY, (x, y), limit=None, epochs=0)
    assert model.input_shape == (None, 6, 4)
    assert model.output_shape == (None, 3)
    assert tuning.fresh_head
    assert tuning.weights == "stabilized"
    stable = keras_lsc.measure(model, x, samples=256, gradient=False)
    assert stable.max_deviation("variance") < 0.05
    twin, of_twin = tune(TINY, (x, y), epochs=0, weights="initial")
    assert of_twin.weights == "initial"
    for one, other in zip(
        values(twin)[:-2],
        zoo.load(TINY, input_shape=(6, 4), weights="initial").get_weights()[:-2],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.once
def test_a_learning_rate_is_found_that_holds():
    """Training at it lowers the loss more than at the smallest of all that are tried."""
    x, y = patterns(64)
    model = network(6, 4, head=[keras.layers.Dense(3)])
    before = values(model)
    _, tuning = tune(model, (x, y), epochs=0, learning_rate="find")
    assert tuning.learning_rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    for one, other in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    reached = {}
    for rate in (1e-4, tuning.learning_rate):
        model.set_weights(before)
        _, trained = tune(model, (x, y), epochs=2, learning_rate=rate)
        reached[rate] = trained.history["loss"][-1]
    assert reached[tuning.learning_rate] < reached[1e-4]


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dataset": [[1, 2, 3]]}, "a name, a pair of arrays"),
        ({"dataset": 7}, "a name, a pair of arrays"),
        ({"dataset": iter([])}, "no batch"),
        ({"dataset": iter([np.ones((3, 6, 4))])}, r"batches \(x, y\)"),
        ({"dataset": iter([patterns(3), (np.ones((2, 5, 4)), np.ones(2))])}, "different shapes"),
        ({"dataset": "parity", "test_data": patterns(4)}, "has a test split"),
        ({"test_data": (np.ones((2, 5, 4)), np.zeros(2, int))}, "test_data has rows"),
        ({"class_weight": [1, 2]}, "class_weight must be a dictionary"),
        ({"class_weight": {0: -1}}, "class_weight"),
        ({"learning_rate": "search"}, "learning_rate"),
    ],
)
def test_data_of_no_use_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        tune(network(6, 4), **{"dataset": patterns(20), "epochs": 0, **options})
