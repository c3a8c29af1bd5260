"""LSCPretrainer: what it moves, what it leaves alone, how it resumes and how it fails."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lsc
from keras_lsc.pretrainer import RecentRadii
from keras_lsc.stability.firing_rates import init_firing_rates
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.parametrization import gate_blocks


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


class Fitted:
    """A stack before and after six epochs, of which several tests look at one thing each."""

    def __init__(self, mode):
        model = stack()
        pretrainer = keras_lsc.LSCPretrainer(model, mode=mode)
        pretrainer.compile()
        weights = model.get_layer("upper").cell.trainable_variables
        self.weights_before = values_of(weights)
        self.before = pretrainer.evaluate(sequences(), verbose=0, return_dict=True)
        self.history = pretrainer.fit(sequences(), epochs=6, verbose=0).history
        self.after = pretrainer.evaluate(sequences(), verbose=0, return_dict=True)
        self.weights_after = values_of(weights)


@pytest.fixture(scope="module")
def fitted():
    return Fitted("scales")


def test_the_loss_falls(fitted):
    assert fitted.after["loss"] < 0.5 * fitted.before["loss"]


def test_the_loss_falls_where_every_weight_moves():
    fitted = Fitted("weights")
    assert fitted.after["loss"] < 0.5 * fitted.before["loss"]


def test_scales_keep_every_gate_block_up_to_a_factor(fitted):
    pairs = zip(fitted.weights_before[:2], fitted.weights_after[:2], strict=True)
    for old, new in pairs:
        ratio = (new / old).reshape(old.shape[0], gate_blocks(old.shape, 8), -1)
        factors = ratio.mean(axis=(0, 2), keepdims=True)
        np.testing.assert_allclose(ratio, np.broadcast_to(factors, ratio.shape), rtol=1e-4)
        assert np.abs(np.log(factors)).max() > 1e-2


def test_metrics_name_every_transition(fitted):
    history = fitted.history
    assert {"loss", "max_deviation", "lower.time_radius", "upper.depth_gain"} <= history.keys()
    assert not any(name.startswith("lower.input") for name in history)


def test_data_in_batches_of_the_backend(fitted):
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
    assert batched == pytest.approx(fitted.before, rel=1e-4)
    pretrainer.fit(data, epochs=6, verbose=0)
    assert pretrainer.evaluate(data, verbose=0, return_dict=True)["loss"] < 0.5 * batched["loss"]


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


@pytest.mark.once
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
        model = stack(layers.SimpleRNN)
        keras_lsc.stabilize(model, sequences(), tolerance=0.1, max_updates=60, samples=64, seed=3)
        runs.append(model.get_weights())
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def test_interruption_restores_the_weights_and_backup_resumes(tmp_path):
    x = sequences()
    straight = pretrained(stack(layers.SimpleRNN), epochs=4).model.get_weights()

    model = stack(layers.SimpleRNN)
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

    resumed = keras_lsc.LSCPretrainer(stack(layers.SimpleRNN))
    resumed.compile()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    resumed.fit(x, epochs=4, shuffle=False, verbose=0, callbacks=[backup])
    for one, other in zip(resumed.model.get_weights(), straight, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_an_exploding_fit_restores_the_weights_and_says_so():
    model = stack(layers.SimpleRNN)
    before = model.get_weights()
    pretrainer = keras_lsc.LSCPretrainer(model, mode="weights")
    pretrainer.compile(keras.optimizers.SGD(float("inf")))
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        pretrainer.fit(sequences(), verbose=0)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_saved_and_loaded_it_has_the_same_radii_and_goes_on_where_it_stopped(tmp_path):
    pretrainer = pretrained(stack(), epochs=2, target=(0.9, 0.4))
    path = str(tmp_path / "pretrainer.keras")
    pretrainer.save(path)
    loaded = keras.saving.load_model(path)
    assert tuple(loaded.target) == (0.9, 0.4)
    # The first update's radii are those of what was saved.
    histories = [
        one.fit(sequences(32), batch_size=32, epochs=4, shuffle=False, verbose=0).history
        for one in (pretrainer, loaded)
    ]
    names = [name for name in histories[0] if name.endswith(("radius", "gain"))]
    assert len(names) == 6
    for name in names:
        assert histories[1][name][0] == pytest.approx(histories[0][name][0], rel=1e-5)
    assert int(loaded.optimizer.iterations) == 12
    for one, other in zip(pretrainer.model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_input_transitions_only_where_asked_for():
    model = keras.Sequential([keras.Input((10, 4)), layers.SimpleRNN(8, name="only")])
    pretrainer = keras_lsc.LSCPretrainer(model, include_input=True)
    assert [row.kind for row in pretrainer._targeted] == ["time", "input"]


@pytest.mark.parametrize(("units", "columns", "blocks"), [(8, 32, 4), (8, 24, 3), (8, 8, 1)])
def test_gate_blocks(units, columns, blocks):
    assert gate_blocks((5, columns), units) == blocks
    assert gate_blocks((5, columns), None) == 1


@keras.saving.register_keras_serializable(package="keras_lsc_tests")
class Centred(keras.constraints.Constraint):
    """A constraint of one's own: the mean of the weight is zero."""

    def __call__(self, w):
        return w - keras.ops.mean(w)


def constrained():
    """Constraints below the recurrent layers, in both directions, and in a nested model."""
    keras.utils.set_random_seed(0)
    constraints = keras.constraints
    both = layers.SimpleRNN(
        4,
        return_sequences=True,
        recurrent_constraint=constraints.MaxNorm(0.6),
        bias_constraint=constraints.NonNeg(),
        bias_initializer="random_normal",
    )
    top = layers.GRU(
        4, kernel_constraint=constraints.MinMaxNorm(0.2, 0.6), bias_constraint=Centred()
    )
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Dense(4, kernel_constraint=constraints.UnitNorm()),
            layers.Bidirectional(both),
            keras.Sequential([keras.Input((6, 8)), top]),
            layers.Dense(2, name="head"),
        ]
    )


def values_of(variables):
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def assert_same(variables, values):
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable.value), value)


@pytest.mark.parametrize("mode", ["scales", "weights"])
def test_constraints_hold_while_pretraining_and_after(mode):
    x = sequences(32, 6, 3)
    model = constrained()
    pretrainer = keras_lsc.LSCPretrainer(model, target=0.5, mode=mode)
    pretrainer.compile()
    pretrainer.fit(x, batch_size=16, epochs=2, verbose=0)
    held = [weight for weight in model.trainable_variables if weight.constraint is not None]
    assert len(held) == 7
    for weight in held:
        allowed = keras.ops.convert_to_numpy(weight.constraint(weight.value))
        # Norms divide by themselves plus 1e-7.
        np.testing.assert_allclose(weight.numpy(), allowed, rtol=1e-5, atol=1e-6)
    probe = Probe(model)  # knows nothing of constraints
    before = probe.report([x], samples=32, seed=0)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(x, np.zeros((32, 2)))
    after = probe.report([x], samples=32, seed=0)
    for one, other in zip(before.transitions, after.transitions, strict=True):
        assert one.radius == pytest.approx(other.radius, abs=1e-5)


def test_the_global_policy_rounds_no_weight():
    """Only the layers' own policy decides, as it does in the model."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6, 4)), *(layers.GRU(5, return_sequences=k == 0) for k in (0, 1))]
    )
    x = sequences(16, 6, 4)
    expected = keras_lsc.LSCPretrainer(model).predict_on_batch(x)
    for policy in ("mixed_bfloat16", "bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            pretrainer = keras_lsc.LSCPretrainer(model)
            found = pretrainer.predict_on_batch(x)
        finally:
            keras.config.set_dtype_policy("float32")
        assert {variable.dtype for variable in pretrainer.trainable_variables} == {"float32"}
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=policy)


def test_what_is_folded_has_the_radii_that_were_driven():
    x = sequences(16, 6, 3)
    pretrainer = keras_lsc.LSCPretrainer(constrained())
    for mover in pretrainer.trainable_variables:
        if "log_scale" in mover.path:
            mover.assign(keras.ops.full(mover.shape, 0.7))  # out of what the constraints allow
    driven = pretrainer.predict_on_batch(x)
    pretrainer.fold_scales()
    folded = pretrainer.predict_on_batch(x)
    np.testing.assert_allclose(folded["radius"], driven["radius"], rtol=1e-4)
    assert folded["violation"].max() < 1e-6 < 0.1 < driven["violation"].max()


@pytest.mark.once
def test_a_target_that_a_constraint_forbids():
    keras.utils.set_random_seed(0)
    options = {"recurrent_constraint": keras.constraints.MaxNorm(0.2)}
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.SimpleRNN(4, return_sequences=True, **options),
            layers.SimpleRNN(4, **options, name="upper"),
        ]
    )
    before = values_of(model.variables)
    with pytest.raises(keras_lsc.NotStabilizedError) as failure:
        keras_lsc.stabilize(model, sequences(24, 5, 3), 1.5, max_updates=3, samples=8)
    assert "MaxNorm on 'sequential" in str(failure.value)
    assert "upper/simple_rnn_cell/recurrent_kernel'" in str(failure.value)
    assert_same(model.variables, before)


def small(cell=layers.SimpleRNN):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5, 3)), cell(4, return_sequences=True), cell(4)])


OPTIMIZERS = {
    "Adam": {"amsgrad": True, "use_ema": True},
    "SGD": {"momentum": 0.9},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "Adamax": {},
    "Ftrl": {},
    "Lamb": {},
    "Lion": {"gradient_accumulation_steps": 2},
    "Muon": {},
    "Nadam": {},
}


@pytest.mark.parametrize("scaled_loss", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_forget_what_was_folded(name, scaled_loss):
    def optimizer():
        inner = getattr(keras.optimizers, name)(**OPTIMIZERS[name])
        return keras.optimizers.LossScaleOptimizer(inner) if scaled_loss else inner

    keras.utils.set_random_seed(0)
    # The simple layer's bias is moved itself, all else by scales and shifts.
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.GRU(4, return_sequences=True), layers.SimpleRNN(4)]
    )
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile(optimizer())
    pretrainer.get_compile_config()  # builds the optimiser, as saving does
    variables = pretrainer.trainable_variables
    used, fresh = pretrainer.optimizer, optimizer()
    fresh.build(variables)
    generator = np.random.default_rng(0)
    # On JAX the optimiser around another cannot be called outside of a compiled step.
    inner = used.inner_optimizer if scaled_loss else used
    for _ in range(3):
        inner.apply(
            [keras.ops.convert_to_tensor(generator.random(v.shape, "float32")) for v in variables],
            variables,
        )
    count = int(used.iterations)
    pretrainer.fold_scales()
    bias = model.layers[-1].cell.bias
    for slot, start in zip(used.variables, fresh.variables, strict=True):
        if len(slot.shape) and bias.path.replace("/", "_") not in slot.name:
            np.testing.assert_array_equal(slot.numpy(), start.numpy(), err_msg=slot.path)
    assert int(used.iterations) == count > 0


@pytest.mark.parametrize("scaled_loss", [False, True])
def test_an_update_at_rate_zero_changes_nothing_whatever_was_folded_before(scaled_loss):
    model = small(layers.GRU)  # of simple layers the bias is moved itself and keeps its momentum
    optimizer = keras.optimizers.SGD(
        0.2, momentum=0.9, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2
    )
    if scaled_loss:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    pretrainer = keras_lsc.LSCPretrainer(model, 0.5)
    pretrainer.compile(optimizer)
    x = sequences(32, 5, 3)
    before = values_of(model.weights)
    pretrainer.fit(x, batch_size=8, verbose=0)
    folded = values_of(model.weights)
    assert max(np.abs(a - b).max() for a, b in zip(before, folded, strict=True)) > 1e-3
    optimizer.learning_rate = 0.0
    pretrainer.fit(x, batch_size=8, verbose=0)
    for one, other in zip(values_of(model.weights), folded, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_averages_of_weights_reach_the_target():
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.95)
    x = sequences(96, 5, 3)
    report = keras_lsc.stabilize(
        small(layers.GRU), x, 0.5, optimizer=optimizer, tolerance=0.08, samples=64
    )
    assert report.max_deviation(0.5) <= 0.08


@pytest.mark.once(on="jax")
def test_averages_of_weights_that_are_moved_themselves_have_memory_of_their_own():
    """On JAX the bias of a simple layer was one array with its average, given away twice."""
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
    pretrainer = keras_lsc.LSCPretrainer(small(layers.SimpleRNN), 0.5)
    pretrainer.compile(optimizer)
    x = sequences(32, 5, 3)
    for _ in range(2):
        pretrainer.fit(x, batch_size=8, verbose=0)
        keras_lsc.measure(pretrainer.model, x, samples=8)
    assert all(np.isfinite(values).all() for values in values_of(optimizer.variables))


def frozen_parts():
    """A model with one layer that may be moved, and the frozen ones."""
    keras.utils.set_random_seed(0)
    nested = keras.Sequential(
        [keras.Input((5, 4)), layers.SimpleRNN(4, return_sequences=True)], name="nested"
    )
    nested.trainable = False
    late = layers.GRU(4, return_sequences=True)
    # Keras' own training moves what is inside of this one: it was frozen before its layers were.
    early = layers.Bidirectional(
        layers.SimpleRNN(2, return_sequences=True), trainable=False, name="early"
    )
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            late,
            nested,
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            early,
            layers.SimpleRNN(4, name="moved"),
            layers.Dense(2),
        ]
    )
    late.trainable = False
    return model, [late, nested, early]


def test_frozen_layers_statistics_seeds_and_metrics_stay_as_they_are():
    model, frozen = frozen_parts()
    x = sequences(24, 5, 3)
    model.compile("sgd", "mse", metrics=["mae"])
    model.evaluate(x, np.ones((24, 2)), verbose=0)
    moved = model.get_layer("moved").cell.trainable_variables
    kept = [v for v in model.variables if all(v is not other for other in moved)]
    # Between two recurrent layers a normalisation shapes their transition.
    normalization = model.layers[2]
    kept = [v for v in kept if all(v is not other for other in normalization.trainable_variables)]
    kept += model.metrics_variables
    assert any("seed" in v.path for v in kept)
    before, before_moved = values_of(kept), values_of(moved)
    keras_lsc.stabilize(model, x, tolerance=20.0, max_updates=2, samples=8, optimizer="adam")
    assert_same(kept, before)
    assert any((v.numpy() != old).any() for v, old in zip(moved, before_moved, strict=True))
    assert all(not layer.trainable for layer in frozen)


def test_frozen_spiking_layers_are_not_woken():
    lif = keras_lsc.layers.LIF(4, threshold=1e3, return_sequences=True)
    inside = keras_lsc.layers.LIF(4, threshold=1e3, return_sequences=True)
    both = layers.Bidirectional(inside, trainable=False)
    model = keras.Sequential([keras.Input((5, 3)), lif, both, layers.SimpleRNN(4)])
    lif.trainable = False
    pretrainer = keras_lsc.LSCPretrainer(model)
    before = values_of(model.variables)
    init_firing_rates(pretrainer.transition_map, [sequences(8, 5, 3)])
    assert_same(model.variables, before)
    weights = {weight.path for weight in pretrainer._parametrization.weights}
    assert all(path.split("/")[1].startswith("simple_rnn") for path in weights)


@pytest.mark.parametrize("mode", ["scales", "weights"])
@pytest.mark.parametrize("what", ["model", "layers", "spiking"])
def test_nothing_to_move_is_said_before_any_update(mode, what):
    layer = keras_lsc.layers.LIF if what == "spiking" else layers.GRU
    model = keras.Sequential(
        [keras.Input((5, 3)), layer(4, return_sequences=True), layer(4), layers.Dense(2)]
    )
    for part in [model] if what == "model" else model.layers[:2]:
        part.trainable = False
    with pytest.raises(ValueError, match=r"frozen.*trainable=True"):
        keras_lsc.LSCPretrainer(model, mode=mode)
    with pytest.raises(ValueError, match=r"frozen.*trainable=True"):
        keras_lsc.stabilize(model, sequences(8, 5, 3), mode=mode)


def test_layers_frozen_after_the_pretrainer_was_made():
    model = small()
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile()
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="frozen after this pretrainer was made"):
        pretrainer.fit(sequences(8, 5, 3), verbose=0)


class Spoil(keras.callbacks.Callback):
    """Raises in one of its hooks, at the `at`-th time it is called."""

    def __init__(self, hook, error, at):
        super().__init__()
        self.left = at

        def raises(*_, **__):
            self.left -= 1
            if self.left < 0:
                raise error

        setattr(self, hook, raises)


class BadBatches(keras.utils.PyDataset):
    def __init__(self, error, at):
        super().__init__()
        self.error, self.at = error, at

    num_batches = 4

    def __getitem__(self, index):
        if index == self.at:
            raise self.error
        return (sequences(8, 5, 3),)


def test_an_error_at_any_point_of_fit_gives_everything_back():
    model = small()
    pretrainer = keras_lsc.LSCPretrainer(model, mode="weights")
    pretrainer.compile(keras.optimizers.Adam(0.1))
    x = sequences(32, 5, 3)
    pretrainer.fit(x, batch_size=8, verbose=0)
    everything = [*pretrainer.variables, *pretrainer.optimizer.variables]
    before = values_of(everything)
    for hook in (
        *("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end"),
        *("on_epoch_end", "on_train_end"),
    ):
        for error in (KeyboardInterrupt(), ZeroDivisionError()):
            spoil = Spoil(hook, error, at=2 if "batch" in hook else 0)
            with pytest.raises(type(error)):
                pretrainer.fit(x, batch_size=8, verbose=0, callbacks=[spoil])
            assert_same(everything, before)
    # TensorFlow has errors of its own for what its pipeline of data meets.
    for at in range(4):
        with pytest.raises((KeyboardInterrupt, Exception)):
            pretrainer.fit(BadBatches(KeyboardInterrupt(), at), shuffle=False, verbose=0)
        assert_same(everything, before)


@pytest.mark.once
def test_an_error_of_a_callback_leaves_the_model_of_stabilize_whole():
    model = small()
    before = values_of(model.variables)
    for hook in ("on_train_batch_end", "on_train_end"):
        spoil = Spoil(hook, ZeroDivisionError(), at=1 if "batch" in hook else 0)
        with pytest.raises(ZeroDivisionError):
            keras_lsc.stabilize(
                model,
                sequences(24, 5, 3),
                mode="weights",
                max_updates=2,
                samples=8,
                callbacks=[spoil],
            )
        assert_same(model.variables, before)


def test_folding_to_infinity_is_refused_and_changes_nothing():
    model = small()
    pretrainer = keras_lsc.LSCPretrainer(model)
    before = values_of(model.variables)
    mover = pretrainer.trainable_variables[0]
    mover.assign(keras.ops.full(mover.shape, 500.0))  # finite, and its exponential is not
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        pretrainer.fold_scales()
    assert_same(model.variables, before)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_radius_that_is_not_a_number_is_the_worst(at):
    metric = RecentRadii(["a.time", "b.time", "b.depth"])
    radii = np.ones(3, "float32")
    radii[at] = np.nan
    metric.update_state(*map(keras.ops.convert_to_tensor, (radii, radii, np.ones(3, "float32"))))
    assert np.isnan(float(metric.result()["max_deviation"]))


def test_a_scalar_weight_is_moved_as_others_are():
    class Leaky(keras.Layer):
        state_size = output_size = 3

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
            self.leak = self.add_weight(shape=(), initializer="ones", name="leak")

        def call(self, inputs, states):
            state = keras.ops.tanh(inputs @ self.kernel + self.leak * states[0])
            return state, [state]

    model = keras.Sequential(
        [keras.Input((5, 3)), layers.RNN(Leaky(), return_sequences=True), layers.RNN(Leaky())]
    )
    leak = model.layers[1].cell.leak
    pretrainer = keras_lsc.LSCPretrainer(model, 0.5)
    pretrainer.compile()
    pretrainer.fit(sequences(16, 5, 3), batch_size=8, verbose=0)
    assert float(leak.numpy()) < 1.0
