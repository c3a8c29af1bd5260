"""A spiking network as a graph of the Neuromorphic Intermediate Representation (NIR).

A neuron of NIR obeys tau dv/dt = v_leak - v + r I, with tau in seconds, and is set to v_reset when
it spikes. The peers that read it step by Euler's rule, v' = (1 - dt/tau) v + r dt/tau I. So a layer
with decay alpha has tau = dt / (1 - alpha) and r = tau / dt: its weights stay what they are.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments
from keras_lsc.layers import LIF, LeakyReadout

# The step of the peers that have one of their own, in seconds.
DT = 1e-4


def to_nir(model: Any, *, dt: float = DT) -> Any:
    """Returns a spiking network as a graph of NIR.

    Args:
        model: a built `keras.Sequential` over sequences `(batch, T, ...)` of Dense layers without
            activation, `LIF` with `reset="multiplicative-2"` (the reset of the format), with or
            without recurrent weights, `LeakyReadout`, and `TimeDistributed` of Conv2D, Flatten
            or Dense.
        dt: how long a step of the model is, in seconds, as the time constants of the format are.

    Returns:
        A `nir.NIRGraph`; `nir.write("network.nir", graph)` stores it. Recurrent neurons are a graph
        of their own in it. Pictures are channels first there.

    Raises:
        ImportError: nir is not installed (extra `export`).
        ValueError: a layer of another kind, or one with what the format has no word for: other
            resets, a refractory period, voltages as output, an activation.

    Source: Pedersen et al. 2024, Neuromorphic intermediate representation, arXiv 2311.14641.

    Example:
        >>> model = keras.Sequential([keras.Input((20, 3)), LeakyReadout(2, tau=10.0)])
        >>> graph = to_nir(model, dt=1e-3)  # doctest: +SKIP
        >>> graph.nodes["leaky_readout"].tau  # doctest: +SKIP
        array([0.0105, 0.0105])
    """
    import nir

    dt = arguments.number("dt", dt, above=0)
    if not isinstance(model, keras.Sequential) or not model.built:
        raise ValueError(
            f"A built keras.Sequential is written as NIR, got {model!r:.200}. Put the layers in "
            "one, with a keras.Input first."
        )
    _, _, *shape = model.input_shape
    writer = _Writer(nir, shape, dt)
    for layer in model.layers:
        writer.add(layer)
    return writer.graph()


class _Writer:
    """Adds one layer after the other to a graph.

    Args:
        nir: the module.
        shape: shape of a step of the input, as Keras has it.
        dt: seconds of a step.
    """

    def __init__(self, nir: Any, shape: list[int], dt: float):
        self.nir = nir
        self.dt = dt
        self.shape = list(shape)
        # The picture that was flattened, whose order differs between Keras and the format.
        self.picture: list[int] | None = None
        self.nodes = {"input": nir.Input(input_type={"input": np.array(_first(shape))})}
        self.edges: list[tuple[str, str]] = []
        self.last = "input"

    def graph(self) -> Any:
        """Returns the graph of the layers so far."""
        node = self.nir.Output(output_type={"output": np.array(_first(self.shape))})
        self._append("output", node)
        return self.nir.NIRGraph(nodes=self.nodes, edges=self.edges)

    def add(self, layer: Any) -> None:
        """Adds a layer."""
        inner = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
        if isinstance(inner, keras.layers.Dense):
            _refuse_activation(inner)
            bias = _numpy(inner.bias) if inner.use_bias else None
            self._product(layer.name, _numpy(inner.kernel), bias)
        elif isinstance(layer, LIF):
            self._lif(layer)
        elif isinstance(layer, LeakyReadout):
            self._readout(layer)
        elif inner is not layer and isinstance(inner, keras.layers.Conv2D):
            self._conv(layer.name, inner)
        elif inner is not layer and isinstance(inner, keras.layers.Flatten):
            kind = {"input": np.array(_first(self.shape))}
            self._append(layer.name, self.nir.Flatten(kind, start_dim=0, end_dim=-1))
            self.picture, self.shape = self.shape, [int(np.prod(self.shape))]
        else:
            raise ValueError(
                "Dense, LIF, LeakyReadout and TimeDistributed of Conv2D, Flatten and Dense are "
                f"written as NIR; got {type(inner).__name__} {layer.name!r}."
            )

    def _append(self, name: str, node: Any) -> None:
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name

    def _product(self, name: str, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        if self.picture is not None:
            height, width, channels = self.picture
            rows = kernel.reshape(height, width, channels, -1)
            kernel, self.picture = rows.transpose(2, 0, 1, 3).reshape(kernel.shape), None
        if bias is None:
            self._append(name, self.nir.Linear(weight=kernel.T))
        else:
            self._append(name, self.nir.Affine(weight=kernel.T, bias=bias))
        self.shape = [kernel.shape[1]]

    def _lif(self, layer: LIF) -> None:
        cell = layer.cell
        expected = {"reset": "multiplicative-2", "refractory": 0, "output_kind": "spikes"}
        for option, value in expected.items():
            if getattr(cell, option) != value:
                raise ValueError(
                    f"LIF {layer.name!r} has {option.removesuffix('_kind')}="
                    f"{getattr(cell, option)!r}; neurons of NIR are those of {value!r}."
                )
        _refuse_backwards(layer)
        bias = _numpy(cell.bias) if cell.use_bias else None
        self._product(f"{layer.name}_in", _numpy(cell.kernel), bias)
        tau, r = self._time(cell.log_tau)
        theta = np.exp(_numpy(cell.log_threshold))
        zeros = np.zeros_like(tau)
        neurons = self.nir.LIF(tau=tau, r=r, v_leak=zeros, v_threshold=theta, v_reset=zeros)
        if not cell.recurrent:
            self._append(layer.name, neurons)
            return
        recurrent = _numpy(cell.recurrent_kernel) * (1.0 - np.eye(cell.units, dtype="float32"))
        units = np.array([cell.units])
        nodes = {
            "input": self.nir.Input(input_type={"input": units}),
            "lif": neurons,
            "w_rec": self.nir.Linear(weight=recurrent.T),
            "output": self.nir.Output(output_type={"output": units}),
        }
        edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        self._append(layer.name, self.nir.NIRGraph(nodes=nodes, edges=edges))

    def _readout(self, layer: LeakyReadout) -> None:
        _refuse_backwards(layer)
        cell = layer.cell
        bias = _numpy(cell.bias) if cell.use_bias else None
        self._product(f"{layer.name}_in", _numpy(cell.kernel), bias)
        tau, r = self._time(cell.log_tau)
        self._append(layer.name, self.nir.LI(tau=tau, r=r, v_leak=np.zeros_like(tau)))

    def _conv(self, name: str, layer: Any) -> None:
        _refuse_activation(layer)
        if layer.data_format != "channels_last":
            raise ValueError(f"Conv2D {name!r} takes channels first; use channels_last.")
        same = layer.padding == "same"
        if same and tuple(layer.strides) != (1, 1):
            raise ValueError(
                f'Conv2D {name!r} has padding="same" and strides {layer.strides}, which pads '
                "unlike the format. Use ZeroPadding2D where it is trained, or strides of 1."
            )
        kernel = _numpy(layer.kernel)
        bias = _numpy(layer.bias) if layer.use_bias else np.zeros(layer.filters, kernel.dtype)
        node = self.nir.Conv2d(
            input_shape=tuple(self.shape[:2]),
            weight=kernel.transpose(3, 2, 0, 1),
            stride=tuple(layer.strides),
            padding="same" if same else (0, 0),
            dilation=tuple(layer.dilation_rate),
            groups=layer.groups,
            bias=bias,
        )
        self._append(name, node)
        self.shape = list(layer.compute_output_shape((None, *self.shape))[1:])

    def _time(self, log_tau: Any) -> tuple[np.ndarray, np.ndarray]:
        """Time constants in seconds, and resistances, of a layer's decay."""
        decay = np.exp(-np.exp(-_numpy(log_tau).astype("float64")))
        tau = self.dt / (1.0 - decay)
        return tau.astype("float32"), (tau / self.dt).astype("float32")


def _first(shape: list[int]) -> list[int]:
    """The shape with its channels first, where it is one of pictures."""
    return [shape[-1], *shape[:-1]]


def _numpy(variable: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), dtype="float32")


def _refuse_activation(layer: Any) -> None:
    if layer.activation is not keras.activations.linear:
        raise ValueError(
            f"{type(layer).__name__} {layer.name!r} has the activation "
            f"{layer.activation.__name__!r}, which NIR has no word for. Use one without."
        )


def _refuse_backwards(layer: Any) -> None:
    if layer.go_backwards:
        raise ValueError(f"{layer.name!r} goes backwards, which NIR has no word for.")
