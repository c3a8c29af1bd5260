"""What `diagnose` says of networks that are broken on purpose, and of healthy ones."""

import json
import math

import broken
import keras
import numpy as np
import pytest
from harness import mostly_once
from keras import layers

import keras_lsc
from keras_lsc.diagnosis.findings import FAULTS
from keras_lsc.diagnosis.trial import try_rates

# A verdict of every kind of arithmetic on every backend; the others on one.
EVERYWHERE = (
    broken.healthy_subclassed,
    broken.root_of_negative_numbers,
    broken.padding_everywhere,
    broken.dead_relu,
    broken.exploding_linear_recurrence,
    broken.forty_layers_of_sigmoid,
    broken.learning_rate_of_sgd,
)


def names(patient):
    return getattr(patient, "__name__", None)


@pytest.mark.parametrize(
    "patient", mostly_once((*broken.HEALTHY, *broken.BROKEN), EVERYWHERE), ids=names
)
def test_verdict(patient):
    model, x, y, kind = patient()
    weights = [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]
    found = keras_lsc.diagnose(model, x, y, radii=False)
    assert found.kind == kind, str(found)
    assert found.is_healthy == (kind is None)
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), before)


def test_there_are_enough_networks_and_every_kind_is_among_them():
    assert len(broken.BROKEN) + len(broken.HEALTHY) >= 30
    kinds = {patient().kind for patient in broken.BROKEN}
    # Signals that explode or vanish forward do so backward too, which is told first.
    assert set(FAULTS) - kinds <= {"exploding_forward", "vanishing_forward"}


def test_where_it_begins():
    model, x, _, _ = broken.dead_relu()
    assert keras_lsc.diagnose(model, x, radii=False).findings[0].where == model.layers[1].name
    model, x, _, _ = broken.nan_in_one_weight()
    found = keras_lsc.diagnose(model, x)
    assert found.findings[0].where == model.layers[1].cell.recurrent_kernel.path
    assert "1 of the" in found.verdict


def test_the_operation_that_made_the_first_nan_is_named():
    model, x, _, _ = broken.root_of_negative_numbers()
    finding = keras_lsc.diagnose(model, x).findings[0]
    assert finding.where == model.layers[1].name
    assert "sqrt" in finding.what.lower()


def test_energies_and_memory_are_those_of_a_linear_recurrence():
    """h_t = a h_(t-1) + x_t: the gradient of the last output by x_t is a^(T - t)."""
    steps, a = 12, 0.6
    layer = layers.SimpleRNN(2, activation="linear")
    model = keras.Sequential([keras.Input((steps, 2)), layer])
    layer.cell.kernel.assign(np.eye(2))
    layer.cell.recurrent_kernel.assign(a * np.eye(2))
    checkup = keras_lsc.diagnose(model, broken.noise(steps, 2), radii=False).checkup
    shares = (a**2) ** np.arange(steps)
    shares /= shares.sum()
    assert checkup.early == pytest.approx(shares[-3:].sum(), rel=1e-4)
    assert checkup.memory == np.searchsorted(np.cumsum(shares), 0.99) + 1
    assert checkup.steps == steps
    assert checkup.padding is None


@pytest.mark.once
def test_gates_are_those_of_the_layer():
    """Of an LSTM whose gates are set by biases alone two of three are at their bounds."""
    model = broken.stack(layers.LSTM)
    cell = model.layers[0].cell
    for kernel in (cell.kernel, cell.recurrent_kernel):
        kernel.assign(np.zeros(kernel.shape))
    cell.bias.assign(np.repeat([9.0, 0.0, 1.0, -9.0], broken.UNITS))
    checkup = keras_lsc.diagnose(model, broken.noise(), radii=False).checkup
    assert checkup.layers[0].gates == pytest.approx(2 / 3)


@pytest.mark.once
def test_masked_steps_are_no_forgotten_ones():
    """Two thirds of a sequence are padding: the first quarter is one of what is not."""
    model = broken.healthy_masked().model
    x = broken.noise()
    x[:, 6:] = 0.0
    short = keras.Sequential([keras.Input((6, broken.FEATURES)), *model.layers[1:]])
    long = keras_lsc.diagnose(model, x, radii=False).checkup
    cut = keras_lsc.diagnose(short, x[:, :6], radii=False).checkup
    assert long.padding == pytest.approx(1 - 6 / broken.STEPS)
    assert long.steps == cut.steps == 6
    assert long.memory == cut.memory


def test_learning_rates_of_a_parabola():
    """On w^2 gradient descent holds rates below 1 and no others."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[2.0]])
    x, y = np.ones((8, 1), "float32"), np.zeros((8, 1), "float32")
    for rate, holds, fails in ((0.03, 0.3, 3.0), (30.0, 0.3, 3.0)):
        model.compile(keras.optimizers.SGD(rate), "mse")
        found = try_rates(model, model.inputs[0], [x], y)
        assert found.holds == pytest.approx(holds)
        assert found.fails == pytest.approx(fails)
        assert found.rate_fails == (rate > 1)
        assert float(model.layers[0].kernel.value[0, 0]) == 2.0


@pytest.mark.once
def test_nothing_of_a_trained_model_changes():
    model, x, y, _ = broken.healthy_gru()
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)),
        model.loss,
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=2, verbose=0)

    def state():
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

    before = state()
    assert keras_lsc.diagnose(model, x, y, radii=False).trial.rate == pytest.approx(
        float(model.optimizer.learning_rate)
    )
    for one, other in zip(before, state(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        model.evaluate(x, y, verbose=0)[0], model.history.history["loss"][-1], rtol=0.2
    )


@pytest.mark.once
def test_a_page_says_all_of_it():
    pytest.importorskip("matplotlib")
    model, x, y, _ = broken.learning_rate_of_ten()
    found = keras_lsc.diagnose(model, x, y)
    page = str(found)
    assert page.splitlines()[0].startswith("learning rate: ")
    assert found.report.time.shape == (1,)
    for text in (page, found._repr_html_()):
        assert found.findings[0].advice in text.replace("&#x27;", "'")
        assert "memory: " in text
    content = json.loads(json.dumps(found.to_dict()))
    assert content["kind"] == "learning_rate"
    assert content["findings"][0]["evidence"]
    assert content["report"]["transitions"]
    axes = found.plot()
    assert len(axes.lines[-1].get_ydata()) == len(found.gradient.layers)
    with pytest.raises(ValueError, match="no gradient to draw"):
        keras_lsc.diagnose(broken.nan_in_one_weight().model, x).plot()


@pytest.mark.once
@pytest.mark.parametrize(("activation", "is_left_alone"), [("tanh", True), ("sigmoid", False)])
def test_a_healthy_start_is_left_alone_unless_its_steps_keep_little(activation, is_left_alone):
    keras.utils.set_random_seed(0)
    stack = [layers.SimpleRNN(16, activation, return_sequences=True) for _ in range(2)]
    model = keras.Sequential([keras.Input((8, 3)), *stack])
    found = keras_lsc.diagnose(model, np.random.default_rng(0).standard_normal((64, 8, 3)))
    assert found.is_healthy
    assert (found.report.energy_sum > 0.25) == is_left_alone
    assert ("Leave this start alone" in found.verdict) == is_left_alone
    assert ("keras_lsc.stabilize" in found.verdict) != is_left_alone
    assert ("helped all of such networks" in str(found)) != is_left_alone


@pytest.mark.once
def test_what_was_not_looked_at_is_said():
    model, x, y, _ = broken.healthy_subclassed()
    unseen = keras_lsc.diagnose(model, x, y).unseen
    assert [what.split(":")[0] for what in unseen] == ["radii in depth"]
    assert "learning rate" in keras_lsc.diagnose(model, x, radii=False).unseen[0]


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "model.keras"}, "keras.Model"),
        ({"model": keras.Sequential([layers.Dense(2)])}, "not built"),
        ({"x": np.zeros((32, 3), "float32")}, "rows of shape"),
        ({"x": np.array(["a"])}, "not numeric"),
        ({"y": np.zeros(3)}, "rows"),
        ({"y": np.zeros((32, 5, 2))}, "cannot compare with its outputs"),
        ({"samples": 0}, "samples"),
        ({"seed": -1}, "seed"),
        ({"radii": "yes"}, "radii"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_refused(change, match):
    model, x, y, _ = broken.healthy_gru()
    given = {"model": model, "x": x, "y": y, **change}
    with pytest.raises((TypeError, ValueError), match=match):
        keras_lsc.diagnose(given.pop("model"), given.pop("x"), given.pop("y"), **given)


@pytest.mark.once
def test_targets_of_a_model_without_a_loss_are_refused():
    with pytest.raises(ValueError, match="not compiled"):
        keras_lsc.diagnose(broken.stack(layers.GRU), broken.noise(), broken.labels())


def test_energies_are_those_that_gradient_energies_finds():
    model, x, y, _ = broken.healthy_gru()
    found = keras_lsc.diagnose(model, x, y, radii=False).gradient
    other = keras_lsc.gradient_energies(model, x, y)
    assert found.layers == other.layers[:-1]
    np.testing.assert_allclose(found.energies, other.energies[:-1], rtol=1e-4)
    assert math.isfinite(found.spread)
