"""From a high firing rate at the start of a training to a low one."""

from typing import Any

from keras_lsc import backend
from keras_lsc.arguments import integer, number
from keras_lsc.callbacks.firing_rates import FiringRateSchedule
from keras_lsc.stability.data import draw_rows, input_structure, rows_to_draw
from keras_lsc.stability.firing_rates import init_firing_rates
from keras_lsc.stability.transitions import TransitionMap


class SparsitySchedule(FiringRateSchedule):
    """Has spiking layers begin at a high firing rate, and the loss ask for a low one later.

    As a training begins, the biases of every spiking layer are moved by one current that gives it
    the initial rate. The penalties of the model's `keras_lsc.layers.FiringRateRegularizer`s, which
    have the rate that is wanted in the end, are 0 in the first epochs, then rise linearly to 1.

    Args:
        x: inputs of the model, as `keras_lsc.measure` takes them.
        initial_rate: firing rate at the beginning, between 0 and 1.
        begin: fraction of the epochs after which the penalties rise.
        end: fraction of the epochs after which they are whole.
        seed: Integer, seed of the choice of sequences.

    Raises:
        TypeError: as training begins, the model is not a Sequential or functional Keras model.
        ValueError: a number is out of range; the model has no `FiringRateRegularizer`.

    Source: arXiv 2202.00282, sparsity schedule (1/5 and 3/5).

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(32, 20, 4)).astype("float32")
        >>> model = keras.Sequential([keras.Input((20, 4)),
        ...     keras_lsc.layers.LIF(8, return_sequences=True),
        ...     keras_lsc.layers.FiringRateRegularizer(0.05, penalty="kl"),
        ...     keras_lsc.layers.LIF(2)])
        >>> model.compile("adam", "mse")
        >>> schedule = keras_lsc.callbacks.SparsitySchedule(x, initial_rate=0.4)
        >>> history = model.fit(x, np.zeros((32, 2)), epochs=5, verbose=0, callbacks=[schedule])
    """

    def __init__(
        self,
        x: Any,
        initial_rate: float = 0.5,
        begin: float = 0.2,
        end: float = 0.6,
        seed: int = 0,
    ):
        super().__init__(begin, end)
        self.x = x
        self.initial_rate = number("initial_rate", initial_rate, above=0, below=1)
        self.seed = integer("seed", seed, at_least=0)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the regularisers, and sets the first rates."""
        super().on_train_begin(logs)
        structure = input_structure(self.model)
        with backend.aside_from_random_draws():
            rows = draw_rows(self.x, rows_to_draw(structure), self.seed, structure)
            init_firing_rates(TransitionMap(self.model), rows, self.initial_rate)
