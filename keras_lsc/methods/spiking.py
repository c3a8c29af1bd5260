"""What methods ask of layers of spiking neurons."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.layers import LIFCell
from keras_lsc.methods.cells import cells_of, numbers
from keras_lsc.methods.signals import Reader, Signals

Array = np.ndarray


def spiking_readers(
    model: keras.Model, x: Any, seed: int, method: str
) -> tuple[Signals, list[tuple[Reader, LIFCell]]]:
    """The signals of a model, and its layers of spiking neurons from below up.

    Returns:
        The `Signals`, and pairs of a `Reader` and the cell of it.

    Raises:
        ValueError: there are none, or one has frozen weights.
    """
    why = "it is about the voltage of leaky integrate-and-fire neurons (LIF, ALIF)"
    known = {id(c): name for c, name in cells_of(model, (LIFCell,), method, why)}
    signals = Signals(model, x, seed)
    found = []
    for reader in signals.readers:
        for kernel in reader.kernels:
            if known.pop(id(kernel.layer), None):
                found.append((reader, kernel.layer))
    if known:
        names = ", ".join(map(repr, known.values()))
        raise ValueError(
            f"method={method!r} does not know what {names} of model {model.name!r} reads: its "
            "kernel is frozen, or it is one of a stack of cells. Give it a layer of its own."
        )
    return signals, found


def decays(cell: LIFCell) -> Array:
    """alpha = exp(-1/tau) of every neuron."""
    return np.exp(-np.exp(-numbers(cell.log_tau)))


def thresholds(cell: LIFCell) -> Array:
    """theta of every neuron."""
    return np.exp(numbers(cell.log_threshold))


def filtered(x: Array, decay: float) -> Array:
    """k_t = decay k_(t-1) + x_t along the second axis, from zero."""
    kept = np.zeros_like(x[:, 0])
    found = np.empty(x.shape)
    for t in range(x.shape[1]):
        kept = decay * kept + x[:, t]
        found[:, t] = kept
    return found


def spikes_of(reader: Reader, cell: LIFCell, argument: Array) -> Array:
    """The spikes of a layer at every step, `(rows, steps, units)`.

    Raises:
        ValueError: its outputs are voltages.
    """
    if not cell.is_spiking:
        raise ValueError(
            f"The outputs of layer {reader.name!r} are voltages, not spikes. Give it "
            'output="spikes".'
        )
    x = ops.convert_to_tensor(argument.astype("float32"))
    spikes, _ = cell.run(x, cell.get_initial_state(len(argument)), None, False)
    return np.array(ops.convert_to_numpy(spikes), "float64")


def one_step_later(x: Array) -> Array:
    """Zeros at the first step, and at every other what was at the one before."""
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


class Traces:
    """Mean and covariance of what synapses leave in the voltages, filtered by every decay.

    Of the steps after the voltages have forgotten where they began, of all sequences.

    Args:
        sources: what the synapses are given, `(rows, steps, sources)`.
        alphas: decays of the neurons, `(units,)`.
    """

    def __init__(self, sources: Array, alphas: Array):
        decays, self._group = np.unique(np.round(alphas, 6), return_inverse=True)
        slowest = -3.0 / np.log(np.clip(decays.max(), 1e-6, 1.0 - 1e-6))
        first = int(min(sources.shape[1] // 2, np.ceil(slowest)))
        self._means, self._covariances = [], []
        for decay in decays:
            kept = filtered(sources, decay)[:, first:].reshape(-1, sources.shape[-1])
            self._means.append(kept.mean(axis=0))
            self._covariances.append(np.cov(kept.T, bias=True).reshape(kept.shape[1], -1))

    def mean(self, weights: Array) -> float:
        """Mean over neurons of the mean of their voltage, for weights `(sources, units)`."""
        means = np.stack(self._means)[self._group]
        return float(np.mean(np.sum(means.T * weights, axis=0)))

    def covariance(self, weights: Array, others: Array) -> float:
        """Mean over neurons of the covariance of two parts of their voltage."""
        total = 0.0
        for k, covariance in enumerate(self._covariances):
            mine = self._group == k
            total += float(np.sum(weights[:, mine] * (covariance @ others[:, mine])))
        return total / weights.shape[1]

    def centred(self, weights: Array) -> Array:
        """Weights whose mean voltage over all neurons is zero, the nearest to those given."""
        common = np.stack(self._means)[self._group].mean(axis=0)
        size = float(common @ common)
        return (
            weights
            if size == 0
            else weights - np.outer(common * self.mean(weights) / size, np.ones(weights.shape[1]))
        )
