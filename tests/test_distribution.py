"""Several devices, or processes, give what one of them gives."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from harness import ROOT, run_python

BACKEND = keras.backend.backend()

# Of every way to move or to measure a network: radii, or energies, and the weights after it.
WORK = """
import contextlib, json, sys
import keras, numpy as np
import keras_lsc

generator = np.random.default_rng(0)
x = generator.standard_normal((27, 6, 3)).astype("float32")
labels = generator.integers(0, 3, 27)


def network():
    model = keras.Sequential([
        keras.Input((6, 3)),
        keras.layers.SimpleRNN(6, return_sequences=True),
        keras.layers.SimpleRNN(6),
        keras.layers.Dense(3, activation="softmax"),
    ])
    fixed = np.random.default_rng(1)
    model.set_weights([0.6 * fixed.standard_normal(w.shape) for w in model.get_weights()])
    return model


def radii(report):
    return [row.radius for row in report.transitions]


def measured(model):
    report = keras_lsc.measure(model, x, samples=9)
    return radii(report) + report.energy.tolist()


def fitted(model):
    pretrainer = keras_lsc.LSCPretrainer(model)
    pretrainer.compile()
    # Batches of 9 rows, which no number of devices has even shares of.
    logs = pretrainer.fit(x, batch_size=9, epochs=2, shuffle=False, verbose=0).history
    return [values[-1] for name, values in logs.items() if name.endswith("radius")]


def solved(model):
    return radii(keras_lsc.stabilize(model, x, 0.5, tolerance=0.1, samples=32, verbose=0))


def levelled(model):
    options = {"method": "level", "tolerance": 0.3, "verbose": 0}
    return keras_lsc.stabilize(model, x, **options).energy.tolist()


def tuned(model):
    # Even shares for two devices, as TensorFlow needs them, and none for four.
    data, validation = (x[:22], labels[:22]), (x[22:26], labels[22:26])
    _, tuning = keras_lsc.zoo.fine_tune(
        model, data, validation, epochs=1, batch_size=22, verbose=0
    )
    return [tuning.history["loss"][0], tuning.validation["loss"]]


def weights(model):
    return [float(value) for weight in model.get_weights() for value in np.ravel(weight)]


def found(*ways):
    results = {}
    for way in ways:
        model = network()
        results[way.__name__] = [*way(model), *weights(model)]
    return results
"""

ON_JAX = (
    WORK
    + """
def on_devices(count, *ways):
    devices = [f"cpu:{k}" for k in range(count)]
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    return found(*ways)


two = on_devices(2, measured, fitted)
four = on_devices(4, measured, fitted, solved, levelled, tuned)
print(json.dumps([two, four]))
"""
)

ON_TORCH = (
    WORK
    + """
import torch
from torch.nn.parallel import DistributedDataParallel

rank, count, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count
)
results = {"alike": found(measured, fitted, levelled)}

# Pre-trained on rows of its own each, and then wrapped.
share = slice(rank, 26, count)
model = network()
pretrainer = keras_lsc.LSCPretrainer(model)
pretrainer.compile()
pretrainer.fit(x[share], batch_size=13, verbose=0)
results["own"] = weights(model)
parallel = DistributedDataParallel(model)
results["wrapped"] = weights(model)

# A step of training on shares of the rows.
model = network()
solved(model)
parallel = DistributedDataParallel(model)
criterion = keras.losses.SparseCategoricalCrossentropy()
criterion(torch.as_tensor(labels[:26][share]), parallel(torch.as_tensor(x[:26][share]))).backward()
gradients = [weight.value.grad for weight in model.trainable_variables]
keras.optimizers.SGD(0.5).apply(gradients, model.trainable_variables)
results["trained"] = [*measured(model), *weights(model)]
torch.distributed.destroy_process_group()
print(json.dumps(results))
"""
)

ON_TENSORFLOW = (
    """
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
    + WORK
    + """
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    results = found(measured, levelled, tuned)
    model = network()
before, messages = weights(model), []
for scope in (strategy.scope(), contextlib.nullcontext()):
    with scope:
        try:
            fitted(model)
        except RuntimeError as error:
            messages.append(str(error))
print(json.dumps([results, messages, weights(model) == before]))
"""
)


def on_one(*ways):
    """What one device, or process, gives."""
    scope = {}
    exec(WORK, scope)
    return scope["found"](*(scope[way] for way in ways))


def assert_alike(several, one):
    assert several.keys() <= one.keys()
    for name in several:
        np.testing.assert_allclose(several[name], one[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.skipif(BACKEND != "jax", reason="of keras.distribution, which JAX alone has")
def test_devices_of_a_distribution_give_what_one_gives():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    printed = run_python(ON_JAX, backend="jax", XLA_FLAGS=flags)
    two, four = json.loads(printed.splitlines()[-1])
    one = on_one("measured", "fitted", "solved", "levelled", "tuned")
    assert_alike(two, one)
    assert_alike(four, one)


@pytest.mark.skipif(BACKEND != "torch", reason="of torch.distributed")
def test_processes_of_torch_give_what_one_gives(tmp_path):
    command = [sys.executable, "-c", ON_TORCH]
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", str(tmp_path / "meeting")],
            env={**os.environ, "KERAS_BACKEND": "torch"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), [err for _, err in printed]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in printed)
    assert first["alike"] == second["alike"]
    assert_alike(first["alike"], on_one("measured", "fitted", "levelled"))
    # Of networks that differ, wrapping leaves that of the first process.
    assert first["own"] != second["own"]
    assert first["wrapped"] == second["wrapped"] == first["own"]
    assert first["trained"] == second["trained"]
    assert_alike({"trained": first["trained"]}, {"trained": _trained_on_one()})


def _trained_on_one():
    """Radii and weights after a step on all rows that the processes share."""
    scope = {}
    exec(WORK, scope)
    model = scope["network"]()
    scope["solved"](model)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model.train_on_batch(scope["x"][:26], scope["labels"][:26])
    return [*scope["measured"](model), *scope["weights"](model)]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of tf.distribute")
def test_a_mirrored_model_is_measured_levelled_and_trained_or_refused():
    printed = run_python(ON_TENSORFLOW, backend="tensorflow")
    results, messages, is_as_before = json.loads(printed.splitlines()[-1])
    assert_alike(results, on_one("measured", "levelled", "tuned"))
    assert len(messages) == 2
    for message in messages:
        assert "Build a copy outside of strategy.scope()" in message
    assert is_as_before
