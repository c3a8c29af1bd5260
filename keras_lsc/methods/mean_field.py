"""Mean-field starts of LSTM and GRU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from keras_lsc.arguments import number
from keras_lsc.methods.cells import NamedCell, cells_of, numbers
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.gate_theory import Gates, gru_growth, lstm_growth, smallest_at_rest
from keras_lsc.methods.method import Method
from keras_lsc.methods.signals import Signals
from keras_lsc.stability.placing import place

# Sequences that a layer runs through for every sigma that is tried.
_ROWS = 16


@dataclass(frozen=True)
class MeanField(Method):
    """Draws the recurrent matrices of LSTM and GRU so that differences neither grow nor decay.

    By mean-field theory: the gate that keeps the state gets a bias, and then the one deviation of
    the normal law of all recurrent entries is found at which the energy of a small difference is
    the same after a step, on x. Input kernels and the other biases are
    left. Needs sigmoid gates with biases.

    Args:
        keep: bias of the gate that keeps the state, of the forget gate of an LSTM and the update
            gate of a GRU: the larger, the longer the memory and the smaller the entries.

    Raises:
        ValueError: no deviation does it, or gates are of another kind.

    Source: Gilboa et al., arXiv 1901.08987, sections 3 and 4. That the energies of h and c are
        taken together, on x, in place of integrals, is this project's; `gate_theory`.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> model = keras.Sequential([keras.Input((20, 3)), keras.layers.GRU(32)])
        >>> x = np.random.default_rng(0).normal(size=(64, 20, 3))
        >>> report = keras_lsc.stabilize(model, x, method="mean-field")
        >>> bool(0.6 < report.time[0] < 1.6)
        True
    """

    name: ClassVar[str] = "mean-field"
    keep: float = 2.0

    def __post_init__(self) -> None:
        number("keep", self.keep)

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Draws the matrices, from the bottom up; see `Method.apply`."""
        del y, verbose
        why = "it is the theory of the gates of LSTM and GRU"
        cells = cells_of(model, (layers.LSTMCell, layers.GRUCell), self.name, why)
        for named in cells:
            self._check(model, named)
        known = {id(named.cell): named for named in cells}
        signals = Signals(model, x, seed)
        generator = generator_of(seed, self.name)
        for reader in signals.readers:
            chosen = [known.pop(id(m.layer)) for m in reader.kernels if id(m.layer) in known]
            if chosen:
                argument = signals.of(reader).argument
                for named in chosen:
                    self._draw(model, named, argument, generator)
        if known:
            names = ", ".join(repr(named.name) for named in known.values())
            raise ValueError(
                f"Of {names} in model {model.name!r} it is not known what they read: a stack of "
                "cells, or frozen kernels. Put each cell into a layer of its own."
            )

    @staticmethod
    def _check(model: keras.Model, named: NamedCell) -> None:
        cell = named.cell
        gate = keras.activations.serialize(cell.recurrent_activation)
        activation = keras.activations.serialize(cell.activation)
        if not cell.use_bias or (gate, activation) != ("sigmoid", "tanh"):
            raise ValueError(
                f"method='mean-field' needs gates of 'sigmoid' with biases and states of 'tanh', "
                f"and {named.name!r} of model {model.name!r} has {gate!r}, {activation!r} and "
                f"use_bias={cell.use_bias}."
            )

    def _draw(
        self,
        model: keras.Model,
        named: NamedCell,
        argument: np.ndarray,
        generator: np.random.Generator,
    ) -> None:
        cell, units = named.cell, named.cell.units
        is_lstm = isinstance(cell, layers.LSTMCell)
        kept = slice(units, 2 * units) if is_lstm else slice(0, units)
        bias = numbers(cell.bias)
        bias[..., kept] = 0.0
        bias[(0, kept) if bias.ndim == 2 else kept] = self.keep
        place(cell.bias, bias)
        given, added = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        read = np.swapaxes(argument[:_ROWS] @ numbers(cell.kernel) + given, 0, 1)
        drawn = generator.standard_normal(cell.recurrent_kernel.shape) / np.sqrt(units)
        gates = Gates(read, drawn, added)
        growth: Callable[[float], float] = (
            partial(lstm_growth, gates)
            if is_lstm
            else partial(gru_growth, gates, reset_after=cell.reset_after)
        )
        sigma = smallest_at_rest(growth)
        if sigma is None:
            raise ValueError(
                f"No recurrent matrix of {named.name!r} in model {model.name!r} keeps the energy "
                f"of differences with a bias of {self.keep:g} and its inputs. Give another bias: "
                "keras_lsc.methods.MeanField(keep=...)."
            )
        place(cell.recurrent_kernel, sigma * drawn)
