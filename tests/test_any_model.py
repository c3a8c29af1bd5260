"""Models with a call of their own, layers that hide others, recurrences that are no Keras cells.

What is measured of a model that is watched is what is measured of the same network with a graph,
whose truth is in test_truth.py; what a registered class does is held against NumPy.
"""

import json

import keras
import numpy as np
import pytest
from harness import mostly_once, randomized, sequences, to_numpy
from keras import layers, ops
from recurrences import BLOCKS, ExponentialGates, Selective, TimeMix
from typer.testing import CliRunner

import keras_lsc
from keras_lsc.callbacks import StabilityMonitor
from keras_lsc_command.app import app

STEPS, FEATURES, ROWS = 6, 4, 12
TRACES_LOOPS = keras.backend.backend() != "torch"


@pytest.fixture(autouse=True, scope="module")
def registered():
    for block in BLOCKS:
        keras_lsc.register_recurrence(block, step=block.step, start=block.start)


@pytest.fixture
def x(rng):
    return sequences(rng, ROWS, STEPS, FEATURES)


@keras.saving.register_keras_serializable(package="any_model")
class Own(keras.Model):
    """Calls layers one after the other, in a `call` of its own."""

    def __init__(self, parts, **options):
        super().__init__(name="own", **options)
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return {"parts": [keras.saving.serialize_keras_object(part) for part in self.parts]}

    @classmethod
    def from_config(cls, config):
        return cls([keras.saving.deserialize_keras_object(part) for part in config["parts"]])


def built(model, x):
    model(x[:2])
    return randomized(model)


def stack():
    """Recurrent layers of every kind, the last of which keeps the last step alone."""
    return [
        layers.Masking(name="masking"),
        layers.LSTM(5, return_sequences=True, name="lstm"),
        layers.Bidirectional(layers.GRU(3, return_sequences=True, name="inner"), name="both"),
        layers.LayerNormalization(name="norm"),
        layers.RNN([layers.GRUCell(3, name="a"), layers.LSTMCell(2, name="b")], name="two"),
        layers.Dense(2, name="head"),
    ]


def padded(x):
    x = x.copy()
    x[1::2, 4:] = 0.0
    return x


def pair(x):
    """A model with a call of its own, and the same network with a graph, of the same weights."""
    own = built(Own(stack()), x)
    graph = keras.Sequential([keras.Input(x.shape[1:]), *stack()])
    for mine, other in zip(own.parts, graph.layers, strict=True):
        other.set_weights(mine.get_weights())
    np.testing.assert_allclose(to_numpy(own(x)), to_numpy(graph(x)), atol=1e-6)
    return own, graph


def of_kind(report, kind="time"):
    return {row.name: (row.radius, row.gain) for row in report.transitions if row.kind == kind}


def assert_same(found, expected, tolerance=1e-5):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, err_msg=name)


def test_the_same_network_has_the_same_radii_in_time(x):
    x = padded(x)
    own, graph = pair(x)
    before = [to_numpy(weight) for weight in own.weights]
    report, expected = (keras_lsc.measure(m, x, samples=ROWS) for m in (own, graph))
    assert len(of_kind(report)) == 5
    assert_same(of_kind(report), of_kind(expected))
    assert np.isnan(report.depth).all()
    assert report.energy_sum is None
    # Energies go by taps in both.
    assert report.gradient.layers == expected.gradient.layers
    np.testing.assert_allclose(report.energy, expected.energy, rtol=1e-4)
    np.testing.assert_allclose(report.gradient.forward, expected.gradient.forward, rtol=1e-3)
    # What is not given is named, and the model is as it was.
    (what,) = report.unseen
    assert "radii in depth" in what
    assert f"not seen: {what}" in str(report)
    assert expected.unseen == ()
    assert type(report).from_dict(report.to_dict()) == report
    for weight, value in zip(own.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


class Box(keras.Layer):
    """Hides what it calls: a layer, twice, the second time from the states of the first."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.GRU(3, return_sequences=True, return_state=True, name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        first, state = self.inner(x)
        again, _ = self.inner(x[:, ::2], initial_state=state)
        return ops.concatenate([first, again], axis=1)


def test_a_hidden_layer_is_found_with_every_call_of_it(x):
    inputs = keras.Input(x.shape[1:])
    box = Box(name="box")
    boxed = keras.Model(inputs, layers.Dense(2)(layers.GRU(3, name="above")(box(inputs))))
    randomized(boxed)
    # The calls are those of a layer that is shared by a graph.
    shared = box.inner
    first, state = shared(inputs)
    again, _ = shared(inputs[:, ::2], initial_state=state)
    open_ = keras.Model(inputs, [first, again])
    found = of_kind(keras_lsc.measure(boxed, x, samples=ROWS, gradient=False))
    expected = of_kind(keras_lsc.measure(open_, x, samples=ROWS, gradient=False))
    assert list(expected) == ["inner.time", "inner.time[2]"]
    assert list(found) == [*expected, "above.time"]
    assert_same({name: found[name] for name in expected}, expected)


class Loop(keras.Model):
    """Steps a cell itself, as a decoder does; `forgetful` starts anew every three steps."""

    def __init__(self, cell, forgetful=False):
        super().__init__(name="loop")
        self.cell, self.forgetful = cell, forgetful
        self.head = layers.Dense(2)

    def call(self, x):
        zeros = states = self.cell.get_initial_state(ops.shape(x)[0])
        for t in range(x.shape[1]):
            y, states = self.cell(x[:, t], zeros if self.forgetful and t % 3 == 0 else states)
        return self.head(y)


def test_a_cell_that_the_model_steps_has_the_radii_of_a_layer_of_it(x):
    own = built(Loop(layers.LSTMCell(3, name="rnn")), x)
    graph = keras.Sequential([keras.Input(x.shape[1:]), layers.RNN(own.cell, name="rnn")])
    report = keras_lsc.measure(own, x, samples=ROWS)
    expected = keras_lsc.measure(graph, x, samples=ROWS)
    assert report.steps == STEPS
    assert_same(of_kind(report), of_kind(expected))
    exponents, of_graph = (keras_lsc.lyapunov(m, x, k=2) for m in (own, graph))
    np.testing.assert_allclose(exponents.stack, of_graph.stack, rtol=1e-3, atol=1e-3)


def test_states_that_do_not_follow_one_another_have_radii_and_no_exponents(x):
    own = built(Loop(layers.GRUCell(3, name="cell"), forgetful=True), x)
    assert len(keras_lsc.measure(own, x, samples=ROWS).time) == 1
    with pytest.raises(ValueError, match="exponents of 'cell': the model gives the cell other"):
        keras_lsc.lyapunov(own, x)


class Scanned(keras.Model):
    """Steps a cell in a loop that JAX and TensorFlow trace once."""

    def __init__(self):
        super().__init__(name="scanned")
        self.below = layers.GRU(FEATURES, return_sequences=True, name="below")
        self.cell = layers.GRUCell(3, name="cell")

    def build(self, input_shape):
        self.below.build(input_shape)
        self.cell.build((None, FEATURES))

    def call(self, x):
        def advance(state, x):
            state = self.cell(x, [state])[0]
            return state, state

        x = ops.swapaxes(self.below(x), 0, 1)
        return ops.scan(advance, ops.zeros((ops.shape(x)[1], 3)), x)[0]


def test_a_loop_that_is_traced_once_is_named(x):
    report = keras_lsc.measure(built(Scanned(), x), x, samples=ROWS)
    named = [what for what in report.unseen if "'cell' (GRUCell) runs in a loop" in what]
    assert next(iter(of_kind(report))) == "below.time"
    # torch traces nothing: there the steps are calls.
    assert (len(report.time), len(named)) == ((1, 1) if TRACES_LOOPS else (2, 0))


class Twice(layers.GRU):
    """A recurrent layer whose own call does more than its cell."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2.0 * super().call(sequences, initial_state, mask, training)


@pytest.mark.once
def test_what_cannot_be_seen_is_named(x):
    parts = [
        layers.GRU(FEATURES, return_sequences=True, name="gru"),
        Twice(FEATURES, return_sequences=True, name="twice"),
    ]
    own = built(Own(parts), x)
    report = keras_lsc.measure(own, x, samples=ROWS)
    assert list(of_kind(report)) == ["gru.time"]
    assert "'twice' (Twice) gives something else than its cell" in report.unseen[-1]
    own.compile("sgd", "mse")
    monitor = StabilityMonitor(x)
    own.fit(x, x, verbose=0, callbacks=[monitor])
    assert monitor.unseen == report.unseen[1:]
    images = sequences(np.random.default_rng(0), 4, 24, 5).reshape(4, 4, 6, 5)
    idle = Own(parts[:1])
    idle.spare = layers.GRU(2, name="spare")
    idle.spare.build(x.shape)
    assert keras_lsc.measure(built(idle, x), x).unseen[1:] == ("'spare' (GRU) is not called",)
    outer = layers.TimeDistributed(layers.GRU(3, name="inner"), name="outer")
    with pytest.raises(ValueError, match=r"no radii.*'outer'.*hides the recurrent layer 'inner'"):
        keras_lsc.measure(built(Own([outer]), images), images, gradient=False)
    stateful = layers.GRU(3, stateful=True, name="kept")
    with pytest.raises(ValueError, match="'kept' is stateful"):
        keras_lsc.measure(built(Own([stateful]), x), x)


@pytest.mark.once
def test_a_model_without_recurrence_has_energies_alone(x):
    own = built(Own([layers.Dense(FEATURES, activation="tanh"), layers.Dense(FEATURES)]), x)
    with pytest.raises(ValueError, match="'own' has no radii: no recurrent layer was seen to run"):
        keras_lsc.measure(own, x, gradient=False)
    deep = built(Own([layers.Dense(4, activation="tanh", name=f"d{k}") for k in range(3)]), x)
    report = keras_lsc.measure(deep, x)
    assert "no recurrent layer was seen to run" in report.unmeasured
    assert report.gradient.layers == ("d0", "d1")


@pytest.mark.once
def test_calls_that_depend_on_the_inputs_are_refused(x):
    class Fickle(keras.Model):
        def __init__(self):
            super().__init__(name="fickle")
            self.pair = [layers.GRU(3, name="a"), layers.GRU(3, name="b")]

        def build(self, input_shape):
            for part in self.pair:
                part.build(input_shape)

        def call(self, x):
            return self.pair[x.shape[0] > 2](x)

    model = Fickle()
    model.build(x.shape)
    with pytest.raises(RuntimeError, match="'fickle' calls its recurrent layers in another order"):
        keras_lsc.measure(model, x, gradient=False)


@pytest.mark.parametrize(
    "block", mostly_once(BLOCKS, {Selective, TimeMix}), ids=lambda block: block.__name__
)
def test_radii_of_a_registered_class_are_those_of_brute_force(block, x):
    layer = block(name="block")
    own = built(Own([layer]), x) if block is not TimeMix else built(Mixed(layer), x)
    spectra = keras_lsc.eigenvalues(own, x[:1], samples=STEPS)
    report = keras_lsc.measure(own, x[:1], samples=STEPS, gradient=False)
    # One sequence; at which steps is what `measure` says of its points.
    generator = np.random.default_rng([0, 1])
    generator.permutation(1)
    steps = np.floor(generator.random(STEPS).astype("float32") * STEPS).astype(int)
    expected = layer.radii(x[0])[steps]
    found = np.abs(spectra["block.time"].values).max(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert report.time[0] == pytest.approx(expected.mean(), rel=1e-4)


class Mixed(keras.Model):
    """Gives a layer a second sequence by name."""

    def __init__(self, layer):
        super().__init__(name="mixed")
        self.layer, self.values = layer, layers.Dense(3)

    def call(self, x):
        return self.layer(x, first=self.values(x))[0]


def test_exponents_of_a_registered_class_are_those_of_its_decay(x):
    # While the input stays the same, the state of a selective state space decays at one rate.
    layer = Selective(name="block")
    own = built(Own([layer]), x)
    same = np.repeat(x[:1, :1], 30, axis=1)
    found = keras_lsc.lyapunov(own, same, k=1, transient=10)
    assert found.layers == ("block",)
    assert found.stack[0] == pytest.approx(np.log(layer.radii(same[0])[-1]), abs=1e-4)


@pytest.mark.once
def test_a_step_that_is_not_that_of_its_layer_is_refused(x):
    class Leaky(keras.Layer):
        def call(self, x):
            return ops.cumsum(x, axis=1)

    def start(layer, batch_size):
        return ops.zeros((batch_size, FEATURES))

    own = built(Own([Leaky(name="leaky")]), x)
    keras_lsc.register_recurrence(Leaky, step=lambda _, s, x: (0.9 * s + x,) * 2, start=start)
    with pytest.raises(ValueError, match="registered for Leaky does not do what layer 'leaky'"):
        keras_lsc.measure(own, x)
    keras_lsc.register_recurrence(Leaky, step=lambda _, s, x: (s + x,) * 2, start=start)
    assert keras_lsc.measure(own, x, gradient=False).time.tolist() == [1.0]


@pytest.mark.once
def test_start_reads_what_the_model_gives_and_counters_are_no_state(x):
    class Started(keras.Model):
        def __init__(self):
            super().__init__(name="started")
            self.first = layers.Dense(3)
            self.block = ExponentialGates(name="block")

        def call(self, x):
            return self.block(x, cache=self.first(x[:, 0]))

    own = built(Started(), x)
    # Were the cache not read, the first steps would not be those of the layer.
    (row,) = keras_lsc.measure(own, x, gradient=False).transitions
    assert row.shape == (12, 12)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((layers.GRU(3), None, None), "class of Keras layers"),
        ((int, None, None), "class of Keras layers"),
        ((layers.Dense, None, max), "step must be a function"),
        ((layers.Dense, max, 3), "start must be a function"),
    ],
)
def test_what_is_registered_is_checked(arguments, message):
    layer_class, step, start = arguments
    with pytest.raises(TypeError, match=message):
        keras_lsc.register_recurrence(layer_class, step=step, start=start)


@pytest.mark.once
def test_diagnosis_monitor_levelling_and_methods_see_the_radii(x):
    own = built(Own(stack()), x)
    diagnosis = keras_lsc.diagnose(own, x)
    assert len(diagnosis.report.time) == 4
    assert any("radii in depth" in what for what in diagnosis.unseen)
    own.compile("sgd", "mse")
    y = np.zeros((ROWS, 2), "float32")
    monitor = StabilityMonitor(x, every=1)
    seen = own.fit(x, y, batch_size=4, verbose=0, callbacks=[monitor]).history
    assert {"radius/lstm.time", "gain/both.backward.time", "radius/a.time"} <= set(seen) or (
        "radius/two.a.time" in seen
    )
    report = keras_lsc.stabilize(own, x, method="orthogonal", samples=8, verbose=0)
    assert len(report.time) == 4
    gru = [layers.GRU(FEATURES, return_sequences=True, name=f"gru_{k}") for k in range(2)]
    two = Own(gru)
    two(x)
    # Enough for those that are held out to be like the others.
    many = np.random.default_rng(0).standard_normal((600, *x.shape[1:])).astype("float32")
    assert len(keras_lsc.stabilize(two, many, method="level", samples=8, verbose=0).time) == 2
    with pytest.raises(TypeError, match=r"own call\(\).*method=\"level\""):
        keras_lsc.stabilize(two, x)


@pytest.mark.once
def test_the_command_measures_a_saved_model_with_a_call_of_its_own(x, tmp_path):
    own = built(Own([layers.GRU(3, name="gru"), layers.Dense(2)]), x)
    own.save(tmp_path / "own.keras")
    np.save(tmp_path / "x.npy", x)
    files = [str(tmp_path / name) for name in ("own.keras", "x.npy")]
    result = CliRunner().invoke(app, ["measure", *files, "--samples", "4", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [row["name"] for row in report["transitions"]] == ["gru.time"]
    assert "radii in depth" in report["unseen"][0]
    assert "not seen: radii in depth" in CliRunner().invoke(app, ["measure", *files]).stdout
    result = CliRunner().invoke(app, ["diagnose", *files, "--json"])
    assert json.loads(result.stdout)["report"]["transitions"]
