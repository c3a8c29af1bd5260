"""Radii stay at their target while a task is trained."""

import broken
import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

import keras_lsc
from keras_lsc.callbacks import RadiusRegularizer


def trained(*callbacks):
    keras.utils.set_random_seed(0)
    model = broken.stack(layers.SimpleRNN, 2)
    broken.compiled(model, 1e-2)
    model.fit(
        broken.noise(), broken.labels(), batch_size=8, epochs=15, verbose=0, callbacks=callbacks
    )
    return model


def test_radii_stay_where_they_are_to_be():
    without = keras_lsc.measure(trained(), broken.noise(), gradient=False)
    keep = RadiusRegularizer(broken.noise(), 0.7)
    model = trained(keep)
    held = keras_lsc.measure(model, broken.noise(), gradient=False)
    assert held.max_deviation(0.7) < 0.1 < without.max_deviation(0.7)
    # What it was trained for, it learns nevertheless.
    assert model.evaluate(broken.noise(), broken.labels(), verbose=0) < np.log(broken.CLASSES) / 2


@pytest.mark.once
def test_nothing_that_is_not_asked_for():
    seen = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["radius_deviation"])

    keep = RadiusRegularizer(broken.noise(), 0.7, every=10)
    trained(keep, Steps())
    assert np.isnan(seen[:9]).all()
    assert len(set(seen[9:])) == 6


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"strength": 0}, "strength"),
        ({"every": 0}, "every"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"target": "high"}, "high"),
        ({"mode": "all"}, "all"),
        ({"radius": "numerical"}, "numerical"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_refused_before_a_training_begins(options, match):
    with pytest.raises(ValueError, match=match):
        RadiusRegularizer(broken.noise(), **options)


@pytest.mark.once(on="jax")
def test_a_training_that_diverges_is_told_from_a_penalty_that_does():
    class Diverges(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                weight = self.model.trainable_variables[0]
                weight.assign(np.nan * to_numpy(weight))

    with pytest.warns(keras_lsc.callbacks.StabilityWarning, match="training has made") as warned:
        trained(Diverges(), RadiusRegularizer(broken.noise(), 0.7))
    assert len([w for w in warned if w.category is keras_lsc.callbacks.StabilityWarning]) == 1
    with pytest.raises(FloatingPointError, match="step of the penalty"):
        trained(RadiusRegularizer(broken.noise(), 0.7, strength=1e38))
