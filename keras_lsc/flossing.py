"""Gradient flossing: the leading Lyapunov exponents of recurrent layers are driven to zero.

Where they are zero, gradients of many steps neither explode nor vanish along the directions that
lead. The exponents are means of logarithms along real sequences (`stability.lyapunov`), and weights
are moved by the gradient of their squares through the QR decompositions of every step, at the
states that the sequences went through: through the states themselves, gradients of a chaotic
network explode.

Source: Engelken 2023, "Gradient Flossing", arXiv 2312.17306.
"""

import math
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.pretrainer import State
from keras_lsc.progress import Progress
from keras_lsc.stability.data import draw_rows, hold_out, input_structure, rows_to_draw
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.lyapunov import ExponentProbe, LyapunovExponents, exponents_of
from keras_lsc.stability.measure import Probe
from keras_lsc.stability.report import StabilityReport
from keras_lsc.stability.trains_chosen import TrainsChosen
from keras_lsc.stability.transitions import TransitionMap

Tensor = Any
Array = np.ndarray

# Updates between two looks at sequences that are held out, and sequences of a look.
_ROUND = 20
_LOOKED_AT = 256
# A direction that is lost in one step has a logarithm of -69; what it is pulled by is bounded.
_FLOOR = -5.0


class NotFlossedError(RuntimeError):
    """Flossing ended with an exponent outside the tolerance; the model was left as it was.

    Attributes:
        exponents: `LyapunovExponents` at the end.
    """

    def __init__(self, message: str, exponents: LyapunovExponents):
        super().__init__(message)
        self.exponents = exponents


def floss(
    model: keras.Model,
    x: Any,
    k: int,
    tolerance: float,
    max_updates: int,
    batch_size: int,
    learning_rate: float,
    samples: int | None,
    seed: int,
    verbose: str | int,
) -> StabilityReport:
    """Flosses a model in place; see `keras_lsc.stabilize`.

    Args:
        model: a built Sequential or functional `keras.Model` with recurrent layers.
        x: its inputs.
        k: number of leading exponents of every layer.
        tolerance: largest distance of one from zero that is accepted; while there are updates left
            its standard error counts as well.
        max_updates: number of updates after which it gives up.
        batch_size: sequences in an update.
        learning_rate: of Adam.
        samples: points at which radii are measured; None for no radii.
        seed: of what is drawn.
        verbose: as of `stabilize`.

    Returns:
        The report, with exponents of sequences that it was not flossed on.
    """
    flosser = Flosser(model, k)
    refuse_non_finite_weights(model)
    training, held_out = hold_out(
        draw_rows(x, rows_to_draw(model.inputs), seed, input_structure(model))
    )
    flosser.compile(keras.optimizers.Adam(learning_rate), jit_compile=_compiles())
    generator = np.random.default_rng([seed, 10])
    looked_at = [array[:_LOOKED_AT] for array in held_out]
    before = State(model.variables)
    progress = Progress(model.name, max_updates, verbose)
    size = min(batch_size, len(training[0]))
    try:
        for update in range(1, max_updates + 1):
            chosen = generator.choice(len(training[0]), size, replace=False)
            parts = [array[chosen] for array in training]
            inputs = [*parts, *flosser.probe.draw(size, generator)]
            loss = flosser.train_on_batch(inputs, return_dict=True)["loss"]
            flosser.reset_metrics()
            progress.on_train_batch_end(update, {"max_deviation": math.sqrt(float(loss))})
            if update % _ROUND and update < max_updates:
                continue
            refuse_non_finite_weights(model)
            found = exponents_of(flosser.probe, looked_at, None, seed)
            farthest = _farthest(found, 0.0 if update == max_updates else 1.0)
            if farthest <= tolerance:
                progress.end(farthest)
                return replace(_report(flosser, held_out, samples, seed), exponents=found)
        worst = int(np.argmax([np.abs(values).max() for values in found.exponents]))
        values = ", ".join(f"{value:+.3f}" for value in found.exponents[worst])
        raise NotFlossedError(
            f"{model.name!r} is not within {tolerance:g} of exponents of zero after {max_updates} "
            f"updates: those of {found.layers[worst]!r} are {values}, the farthest of "
            f"{len(found.layers)} layer(s). The model has its former weights. Allow more updates, "
            "fewer exponents or a larger tolerance.",
            found,
        )
    except BaseException:
        before.restore()
        progress.leave()
        raise


def _farthest(found: LyapunovExponents, standard_errors: float) -> float:
    """The largest distance of an exponent from zero, with so many standard errors."""
    distances = np.abs(np.concatenate(found.exponents))
    # Of a single block there is none.
    errors = np.nan_to_num(np.concatenate(found.errors))
    return float((distances + standard_errors * errors).max())


def _compiles() -> bool:
    # XLA compiles loops with QR for minutes on TensorFlow.
    return keras.backend.backend() == "jax"


def _report(
    flosser: "Flosser", rows: list[Array], samples: int | None, seed: int
) -> StabilityReport:
    if samples is None:
        why = "flossing does not go by them; give samples=64, or measure(model, x)"
        found = StabilityReport.without_radii(flosser.model.name, why, seed)
        depth, steps = flosser.transition_map.depth, flosser.transition_map.steps(rows)
        return replace(found, layers=depth, steps=steps)
    return Probe(flosser.model, transition_map=flosser.transition_map).report(rows, samples, seed)


class Flosser(TrainsChosen):
    """A model that is trained in place of another, until leading exponents are zero.

    Args:
        model: a built model with recurrent layers.
        k: number of leading exponents of every layer.

    Raises:
        ValueError: it has none, or all weights of these are frozen.
    """

    def __init__(self, model: keras.Model, k: int):
        transition_map = TransitionMap(model)
        if not transition_map.is_recurrent:
            raise ValueError(
                f"Model {model.name!r} is feed-forward: it has no time in which distances could "
                "grow, and no exponents."
            )
        super().__init__(name=f"flosser_of_{model.name}", autocast=False, dtype="float32")
        self.model = model
        self.transition_map = transition_map
        self.probe = ExponentProbe(transition_map, k)
        frozen = frozen_variables(model)
        found = {
            id(variable): variable
            for cell in self.probe.cells
            for variable in cell.cell.trainable_variables
            if id(variable) not in frozen
        }
        self._trained = list(found.values())
        if not self._trained:
            raise ValueError(
                f"Nothing of model {model.name!r} may be moved: every recurrent layer is frozen. "
                "Set trainable=True on those to floss."
            )
        self.built = True

    @property
    def trainable_variables(self) -> list[Any]:
        """The weights of the recurrent layers."""
        return self._trained

    def call(self, inputs: list[Tensor], training: bool = False) -> list[Tensor]:
        """Returns of every cell its exponents on the batch, `(k,)`."""
        del training
        found = []
        for part in self.probe(inputs):
            stretches, valid = part["stretches"], ops.cast(part["valid"], "float32")
            steps = stretches.shape[1]
            skipped = 0 if steps is None else steps // 10
            inside = ops.cast(ops.arange(ops.shape(valid)[1]) >= skipped, "float32")
            weights = ops.expand_dims(valid * inside, -1)
            bounded = ops.maximum(stretches, _FLOOR)
            found.append(ops.sum(bounded * weights, axis=(0, 1)) / ops.sum(weights))
        return found

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Mean of the squared exponents."""
        del x, y, sample_weight, training
        return ops.mean(ops.stack([ops.mean(ops.square(exponents)) for exponents in y_pred]))
