"""What comes of learning rates from the weights that a model has: a few training steps tell."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lsc.diagnosis import thresholds
from keras_lsc.pretrainer import State
from keras_lsc.stability.devices import whole_batches

Array = np.ndarray
# Learning rates are tried in steps of 10, at most so many up or down.
_TRIALS = 6


@dataclass(frozen=True)
class RateTrial:
    """What came of training steps at some learning rates.

    Attributes:
        rate: learning rate that the model is compiled with.
        holds: largest of those tried, each ten times the next, at which the loss did not grow; None
            if it grew at all of them.
        fails: smallest at which it did; None if it grew at none.
    """

    rate: float
    holds: float | None
    fails: float | None

    @property
    def rate_fails(self) -> bool:
        """Whether the loss grows at the model's own learning rate."""
        return self.fails is not None and self.fails <= self.rate


class _Trainee(keras.Model):
    """A model that is trained in place of another, by an optimizer of its own."""

    def __init__(self, model: keras.Model, structure: Any):
        super().__init__(name=f"trial_of_{model.name}", autocast=False)
        self.model = model
        self._structure = structure
        self.built = True

    def call(self, inputs: list[Any], training: bool | None = None) -> Any:
        return self.model(tree.pack_sequence_as(self._structure, inputs), training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return self.model.compute_loss(x, y, y_pred, sample_weight, training)


def try_rates(model: keras.Model, structure: Any, rows: list[Array], targets: Array) -> RateTrial:
    """Trains a model for some steps at several learning rates; it is left as it was.

    Args:
        model: compiled.
        structure: a nest of the inputs that it takes.
        rows: one array an input, flat; all of them are one batch.
        targets: what belongs to them.
    """
    rate = _rate_of(model)
    with _losses(model, structure, rows, targets) as losses:

        def grows(rate: float) -> bool:
            first, last = losses(rate)
            return not last <= thresholds.TRIAL_GROWTH * abs(first)

        return _bracket(rate, grows)


def loss_by_rate(
    model: keras.Model,
    structure: Any,
    rows: list[Array],
    targets: Array,
    rates: Sequence[float],
) -> list[float]:
    """Returns the loss after some training steps at each of several learning rates.

    Args:
        model: compiled; it is left as it was.
        structure: a nest of the inputs that it takes.
        rows: one array an input, flat; all of them are one batch.
        targets: what belongs to them.
        rates: learning rates.
    """
    with _losses(model, structure, rows, targets) as losses:
        return [losses(rate)[1] for rate in rates]


def _rate_of(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


@contextmanager
def _losses(
    model: keras.Model, structure: Any, rows: list[Array], targets: Array
) -> Iterator[Callable[[float], tuple[float, float]]]:
    """From a learning rate to the loss before some steps, and at their end; infinite if it is."""
    before = State(model.variables, model.metrics_variables)
    trainee = _Trainee(model, structure)
    # A number, also where a schedule is followed, and moments that are 0.
    config = {**model.optimizer.get_config(), "learning_rate": _rate_of(model)}
    optimizer = type(model.optimizer).from_config(config)
    trainee.compile(
        optimizer=optimizer,
        jit_compile=keras.backend.backend() == "jax",
        run_eagerly=model.run_eagerly,
    )
    optimizer.build(trainee.trainable_variables)
    fresh = State(optimizer.variables)

    def losses_at(rate: float) -> tuple[float, float]:
        before.restore()
        fresh.restore()
        optimizer.learning_rate = rate
        losses = []
        for _ in range(thresholds.TRIAL_STEPS):
            with whole_batches(len(targets)):
                logs = trainee.train_on_batch(rows, targets, return_dict=True)
            losses.append(float(logs["loss"]))
            trainee.reset_metrics()
            if not math.isfinite(losses[-1]):
                return losses[0], math.inf
        last = int(thresholds.TRIAL_END * len(losses))
        return losses[0], float(np.mean(losses[-last:]))

    try:
        yield losses_at
    finally:
        before.restore()


def _bracket(rate: float, grows: Any) -> RateTrial:
    if grows(rate):
        for k in range(1, _TRIALS + 1):
            smaller = rate / 10**k
            if not grows(smaller):
                return RateTrial(rate, smaller, 10 * smaller)
        return RateTrial(rate, None, smaller)
    for k in range(1, _TRIALS + 1):
        larger = rate * 10**k
        if grows(larger):
            return RateTrial(rate, larger / 10, larger)
    return RateTrial(rate, larger, None)
