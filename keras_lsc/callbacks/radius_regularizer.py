"""Keeps radii at their target while a network is trained on its task."""

import warnings
from typing import Any

import keras
import numpy as np

from keras_lsc import backend
from keras_lsc.arguments import integer, number, one_of, positive_integer
from keras_lsc.callbacks.monitor import StabilityWarning
from keras_lsc.callbacks.weights import bring_weights
from keras_lsc.pretrainer import LSCPretrainer
from keras_lsc.stability.data import draw_rows, input_structure, rows_to_draw
from keras_lsc.stability.finite import non_finite_weights
from keras_lsc.stability.parametrization import Mode
from keras_lsc.stability.radius import RadiusKind, check_radius_kind
from keras_lsc.stability.targets import Target, checked

_RATES = {"scales": 0.02, "weights": 0.002}


class RadiusRegularizer(keras.callbacks.Callback):
    """Pulls the radii of a model towards a target after every few updates of its training.

    The penalty is the loss of `keras_lsc.LSCPretrainer`. It is decoupled from the task's, as weight
    decay is in AdamW: a step against its own gradient, not mixed with the moments of the optimizer
    that trains on the task.

    Args:
        x: inputs of the model, as `keras_lsc.measure` takes them; sequences are drawn of them.
        target: Target, as `LSCPretrainer` takes it.
        strength: size of a step, as the learning rate of Adam on the penalty; without it 0.02 in
            mode "scales", a relative change of a weight, and 0.002 in mode "weights".
        every: number of updates on the task between two steps.
        mode: "scales" or "weights", see `LSCPretrainer`.
        radius: "spectral", "rms" or "norm".
        batch_size: sequences in a step.
        seed: Integer, seed of the choice of sequences and points.

    Where the training itself makes weights NaN, the penalty warns (`StabilityWarning`) and rests.

    Raises:
        FloatingPointError: a step of the penalty would make weights NaN; they are not changed.
        TypeError: as training begins, the model is not a Sequential or functional Keras model.
        ValueError: an argument is of no use, or x does not fit.

    Source: arXiv 2308.12075, section 4, as a penalty; decoupled as in arXiv 1711.05101.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> stack = [keras.layers.SimpleRNN(8, return_sequences=k < 1) for k in range(2)]
        >>> model = keras.Sequential([keras.Input((20, 3)), *stack, keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.random.normal(size=(64, 20, 3)), np.zeros((64, 1))
        >>> keep = keras_lsc.callbacks.RadiusRegularizer(x, 0.7)
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[keep])
        >>> len(history.history["radius_deviation"])
        2
    """

    def __init__(
        self,
        x: Any,
        target: Target = "variance",
        strength: float | None = None,
        *,
        every: int = 1,
        mode: Mode = "scales",
        radius: RadiusKind = "spectral",
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__()
        self.x = x
        self.target = checked(target)
        self.strength = None if strength is None else number("strength", strength, above=0)
        self.every = positive_integer("every", every)
        self.mode = one_of("mode", mode, _RATES)
        check_radius_kind(radius)
        self.radius = radius
        self.batch_size = positive_integer("batch_size", batch_size)
        self.seed = integer("seed", seed, at_least=0)
        self._updates = 0
        self._deviation = float("nan")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the transitions, and draws sequences."""
        del logs
        structure = input_structure(self.model)
        with backend.aside_from_random_draws():
            self._pretrainer = LSCPretrainer(
                self.model, self.target, self.mode, self.radius, seed=self.seed
            )
            rate = _RATES[self.mode] if self.strength is None else self.strength
            self._pretrainer.compile("adam", learning_rate=rate, decay_updates=None)
            self._rows = draw_rows(self.x, rows_to_draw(structure), self.seed, structure)
        self._generator = np.random.default_rng([self.seed, 9])
        self._is_over = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes a step."""
        del batch
        self._updates += 1
        if self._updates % self.every == 0 and not self._is_over:
            bring_weights(self)
            size = min(self.batch_size, len(self._rows[0]))
            chosen = self._generator.choice(len(self._rows[0]), size, replace=False)
            with backend.aside_from_random_draws():
                self._pretrainer.reset_metrics()
                seen = self._pretrainer.train_on_batch(
                    [array[chosen] for array in self._rows], return_dict=True
                )
            self._fold(float(seen["max_deviation"]))
        if logs is not None:
            logs["radius_deviation"] = self._deviation

    def _fold(self, deviation: float) -> None:
        """Puts a step into the weights, if the training has left any that are numbers."""
        try:
            self._pretrainer.fold_scales()
            self._deviation = deviation
        except FloatingPointError as error:
            found = non_finite_weights(self.model)
            if not found:
                raise FloatingPointError(
                    f"update {self._updates}: a step of the penalty on the radii would make "
                    "weights NaN or infinite; they are as the training left them. Use a smaller "
                    "`strength`."
                ) from error
            self._is_over, self._deviation = True, float("nan")
            warnings.warn(
                f"update {self._updates}: the training has made {len(found)} weight(s) NaN or "
                f"infinite, {found[0][0]!r} first, so there is no radius left to hold. Lower the "
                "learning rate of the task or clip its gradient.",
                StabilityWarning,
                stacklevel=2,
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the largest deviation that was seen last."""
        del epoch
        if logs is not None:
            logs["radius_deviation"] = self._deviation
