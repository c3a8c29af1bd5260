"""keras_lsc.spiking: what a spiking network would have to compute, and how little of it."""

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from keras_lsc.layers.lif import LIFCell
from keras_lsc.layers.sequence import SequenceLayer
from keras_lsc.stability.data import draw_rows, input_structure
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.parametrization import is_bias
from keras_lsc.stability.tables import html_table, text_table
from keras_lsc.stability.taps import Run, Tap, Taps

Tensor = Any

__all__ = ["LayerOperations", "Operations", "operations"]


_TOTALS = (
    "dense",
    "synaptic",
    "updates",
    "footprint",
    "connection_sparsity",
    "activation_sparsity",
)


def __dir__() -> list[str]:
    return sorted(__all__)


@dataclass(frozen=True)
class LayerOperations:
    """Operations of one layer for one input, a mean over those that were given.

    Attributes:
        name: name of the layer; of one that is called again also "name[2]", ...
        dense: products with weights, if every input counts: multiplications and additions.
        synaptic: those whose input and weight are not zero, which is all that event-driven
            hardware computes.
        additions_only: whether all of its inputs were 0 or 1, so that nothing is multiplied.
        updates: of neurons: units times steps; 0 of a layer without a state.
        firing_rate: spikes a neuron and step; None where the outputs are no spikes.
    """

    name: str
    dense: float
    synaptic: float
    additions_only: bool
    updates: float
    firing_rate: float | None


@dataclass(frozen=True)
class Operations:
    """Operations of a network for one input, layer by layer; printed as a table.

    Attributes:
        layers: one row a layer that has weights or a state.
        sequences: how many inputs it is the mean of.
        footprint: bytes of all weights as the model holds them.
        connection_sparsity: share of the entries of kernels and other matrices that are zero.
    """

    layers: tuple[LayerOperations, ...]
    sequences: int
    footprint: int
    connection_sparsity: float

    @property
    def dense(self) -> float:
        """Products with weights, if every input counts."""
        return sum(layer.dense for layer in self.layers)

    @property
    def synaptic(self) -> float:
        """Products whose input and weight are not zero."""
        return sum(layer.synaptic for layer in self.layers)

    @property
    def updates(self) -> float:
        """Updates of neurons."""
        return sum(layer.updates for layer in self.layers)

    @property
    def activation_sparsity(self) -> float | None:
        """Share of neurons and steps without a spike; None where no layer spikes."""
        spiking = [
            (row.firing_rate, row.updates) for row in self.layers if row.firing_rate is not None
        ]
        if not spiking:
            return None
        spikes = sum(rate * updates for rate, updates in spiking)
        return 1 - spikes / sum(updates for _, updates in spiking)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON types."""
        rows = [asdict(layer) for layer in self.layers]
        return {
            "sequences": self.sequences,
            "layers": rows,
            **{name: getattr(self, name) for name in _TOTALS},
        }

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["layer", "dense", "synaptic", "of them", "only added", "updates", "rate"]
        rows = [
            [
                layer.name,
                f"{layer.dense:,.0f}",
                f"{layer.synaptic:,.0f}",
                _share(layer.synaptic, layer.dense),
                "yes" if layer.additions_only else "no",
                f"{layer.updates:,.0f}",
                "" if layer.firing_rate is None else f"{layer.firing_rate:.3f}",
            ]
            for layer in self.layers
        ]
        total = ["in all", f"{self.dense:,.0f}", f"{self.synaptic:,.0f}"]
        total += [_share(self.synaptic, self.dense), "", f"{self.updates:,.0f}", ""]
        return header, [*rows, total]

    def __str__(self) -> str:
        below = (
            f"{self.footprint:,} bytes, {100 * self.connection_sparsity:.1f} % of connections zero"
        )
        if self.activation_sparsity is not None:
            below += f", {100 * self.activation_sparsity:.1f} % of activations"
        return f"{text_table(*self._table(), texts=1)}\n{below}"

    def _repr_html_(self) -> str:
        return html_table("Operations for one input", *self._table(), texts=1)


def operations(model: keras.Model, x: Any, *, samples: int = 64, seed: int = 0) -> Operations:
    """Counts the operations of a network for one input, by layer.

    A synaptic operation is a product of a weight with an input, neither of them zero. The counts
    are proxies and no energy: what is spent depends on memory traffic, which they leave out, and on
    hardware, where an update of a neuron may cost more than many synaptic operations. Compare
    networks for one and the same machine with them, and never report them as joules. Padded steps
    count as others do. Of a convolution the inputs that are not zero are counted by channel, as if
    every one met the whole kernel, borders included. Of recurrent layers that do not spike, whose
    state is not zero, all products of the state count whose weight is not zero.

    Args:
        model: a built `keras.Model`.
        x: inputs, as `fit` takes them.
        samples: how many of them to count on.
        seed: Seed of their choice.

    Returns:
        Counts of every layer with weights or a state.

    Raises:
        ValueError: the model is not built, or the inputs do not fit.

    Source: Yik et al. 2025, NeuroBench, arXiv 2304.04640 (effective and dense operations,
    footprint, connection and activation sparsity).

    Example:
        >>> import keras_lsc
        >>> spikes = np.tile([[1.0, 0.0, 0.0, 0.0]], (2, 5, 1))
        >>> model = keras.Sequential([keras.Input((5, 4)), keras.layers.Dense(3)])
        >>> found = keras_lsc.spiking.operations(model, spikes)
        >>> found.dense, found.synaptic, found.layers[0].additions_only
        (60.0, 15.0, True)
    """
    if not getattr(model, "built", False) or not isinstance(model, keras.Model):
        raise ValueError(f"model must be a built keras.Model, got {model!r:.200}.")
    structure = input_structure(model)
    rows = draw_rows(x, samples, seed, model.inputs)
    given = keras.tree.pack_sequence_as(structure, [ops.convert_to_tensor(array) for array in rows])
    taps = Taps(model, given)
    with taps.untouched():
        ran = taps.run(given, taps.nothing(len(rows[0])))
        found = [_counted(call, k, ran) for k, call in enumerate(taps.calls)]
    layers = tuple(row for row in found if row.dense or row.updates)
    matrices = [ops.convert_to_numpy(weight) for weight in model.weights if len(weight.shape) > 1]
    entries = sum(matrix.size for matrix in matrices)
    zeros = entries - sum(int(np.count_nonzero(matrix)) for matrix in matrices)
    return Operations(
        layers,
        len(rows[0]),
        footprint=sum(
            int(np.prod(weight.shape)) * np.dtype(standardize_dtype(weight.dtype)).itemsize
            for weight in model.weights
        ),
        connection_sparsity=zeros / entries if entries else 0.0,
    )


def _counted(call: Tap, k: int, ran: Run) -> LayerOperations:
    x, output = ran.arguments[k], ran.outputs[k]
    inner = call.layer
    if isinstance(inner, keras.layers.TimeDistributed):
        inner = inner.layer
    numbers = np.asarray(ops.convert_to_numpy(x), "float64") if hasattr(x, "shape") else np.ones(1)
    # Of every feature: how often it is not zero.
    shares = (numbers != 0).mean(axis=tuple(range(numbers.ndim - 1)))
    is_binary = bool(np.isin(numbers, (0, 1)).all())
    if not is_recurrent(call.layer):
        dense, synaptic = _products(inner, output, shares)
        return LayerOperations(call.name, dense, synaptic, is_binary, 0.0, None)
    steps = int(x.shape[1])
    of_input, of_state = _recurrent_kernels(call.layer)
    dense = steps * float(sum(kernel.size for kernel in (*of_input, *of_state)))
    by_state, rate = steps * float(sum(_fan_out(kernel).sum() for kernel in of_state)), None
    if isinstance(getattr(inner, "cell", None), LIFCell):
        # Neurons are not connected with themselves.
        dense -= steps * float(sum(len(kernel) for kernel in of_state))
        if inner.cell.is_spiking:
            spikes = _spikes(inner, x, ran.masks[k])
            rate = float(spikes.mean())
            # The last spikes reach no step after them.
            events = spikes[:, :-1].mean(axis=0).sum(axis=0)
            by_state = float(sum(events @ _fan_out(_others(kernel)) for kernel in of_state))
    by_input = steps * sum(float(shares @ _fan_out(kernel)) for kernel in of_input)
    return LayerOperations(
        call.name,
        dense=dense,
        synaptic=by_input + by_state,
        # What a state that is not of spikes is multiplied with is multiplied.
        additions_only=is_binary and (rate is not None or not of_state),
        updates=float(steps * int(output.shape[-1])),
        firing_rate=rate,
    )


def _products(layer: Any, output: Tensor, shares: np.ndarray) -> tuple[float, float]:
    """Products of a layer without a state: all, and those of which neither factor is zero."""
    if getattr(layer, "kernel", None) is None:
        return 0.0, 0.0
    kernel = np.asarray(ops.convert_to_numpy(layer.kernel), "float64")
    # Every output is made of a whole kernel but its last axis, which the outputs have.
    places = float(np.prod(output.shape[1:])) / kernel.shape[-1]
    if kernel.ndim < 2 or kernel.shape[-2] != len(shares):
        shares, nonzero = shares.mean(), (kernel != 0).sum()
    else:
        nonzero = (kernel != 0).sum(axis=(*range(kernel.ndim - 2), -1))
    return places * kernel.size, places * float(np.sum(shares * nonzero))


def _recurrent_kernels(layer: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The matrices that read the inputs, and those that read the state."""
    matrices = [w for w in layer.weights if len(w.shape) == 2 and not is_bias(w)]
    kernels: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for weight in matrices:
        of_state = weight.path.endswith("recurrent_kernel")
        kernels[of_state].append(np.asarray(ops.convert_to_numpy(weight), "float64"))
    return kernels


def _fan_out(kernel: np.ndarray) -> np.ndarray:
    """To how many outputs every input goes by a weight that is not zero."""
    return (kernel != 0).sum(axis=1)


def _others(kernel: np.ndarray) -> np.ndarray:
    """A square matrix without its diagonal."""
    return kernel * (1 - np.eye(len(kernel)))


def _spikes(layer: SequenceLayer, x: Tensor, mask: Tensor | None) -> np.ndarray:
    """The spikes of all steps, whichever the layer returns."""
    start = layer.cell.get_initial_state(x.shape[0])
    _, spikes, _ = layer.inner_loop(x, start, mask)
    return np.asarray(ops.convert_to_numpy(spikes), "float64")


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
