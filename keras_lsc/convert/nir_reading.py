"""Graphs of the Neuromorphic Intermediate Representation (NIR) as Keras models."""

from typing import Any

import keras
import numpy as np
from keras import layers

from keras_lsc import arguments
from keras_lsc.convert.nir_writing import DT
from keras_lsc.layers import LIF, LeakyReadout

Weights = list[tuple[Any, np.ndarray]]


def from_nir(graph: Any, *, dt: float = DT) -> Any:
    """Returns a graph of NIR as a `keras.Sequential` over sequences.

    A product that neurons follow becomes their input kernel, scaled by their resistance; other
    products become Dense layers. Neurons are stepped by Euler's rule, as other readers do.

    Args:
        graph: a `nir.NIRGraph`, such as `nir.read("network.nir")` returns: one path of Linear,
            Affine, Conv2d, Flatten, LIF (with or without recurrent weights) and LI nodes.
        dt: how long a step is to be, in seconds; smaller than every time constant.

    Returns:
        The model, for sequences of any length `(batch, T, ...)`, pictures with channels last. Every
        layer returns all steps.

    Raises:
        ImportError: nir is not installed (extra `export`).
        ValueError: the graph branches, has a node of another kind, or neurons that reset to
            another voltage than zero, or that are connected with themselves.

    Source: Pedersen et al. 2024, Neuromorphic intermediate representation, arXiv 2311.14641.
    """
    import nir

    dt = arguments.number("dt", dt, above=0)
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"graph must be a nir.NIRGraph, got {graph!r:.200}. Use nir.read(path).")
    reader = _Reader(nir, dt)
    path = _path(nir, *_flattened(nir, graph))
    shape = path[0][1].output_type["output"]
    made = reader.layers_of(path)
    sizes = [int(size) for size in shape]
    model = keras.Sequential([keras.Input((None, *sizes[1:], sizes[0])), *made])
    for variable, value in reader.weights():
        variable.assign(value)
    return model


def _flattened(nir: Any, graph: Any, prefix: str = "") -> tuple[dict[str, Any], set[Any]]:
    """Nodes and edges with those of inner graphs beside those of the outer one."""
    nodes: dict[str, Any] = {}
    edges = {(prefix + a, prefix + b) for a, b in graph.edges}
    for name, node in graph.nodes.items():
        here = prefix + name
        if not isinstance(node, nir.NIRGraph):
            nodes[here] = node
            continue
        inner, between = _flattened(nir, node, f"{here}.")
        ends = {}
        for kind in (nir.Input, nir.Output):
            found = [key for key, value in node.nodes.items() if isinstance(value, kind)]
            if len(found) != 1:
                raise ValueError(
                    f"The graph {here!r} has {len(found)} nodes {kind.__name__}, not 1."
                )
            ends[kind] = f"{here}.{found[0]}"
        nodes |= inner
        edges = {
            (ends[nir.Output] if a == here else a, ends[nir.Input] if b == here else b)
            for a, b in edges
        } | between
    return nodes, edges


def _path(nir: Any, nodes: dict[str, Any], edges: set[Any]) -> list[tuple[str, Any, Any]]:
    """Names and nodes from the input to the output, with the recurrent product of neurons."""
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in sorted(edges):
        after[a].append(b)
    into = {b for _, b in edges}
    first = [name for name, node in nodes.items() if isinstance(node, nir.Input)]
    first = [name for name in first if name not in into]
    if len(first) != 1:
        raise ValueError(f"The graph begins with {len(first)} nodes Input; one is expected.")
    (name,) = first
    path, seen = [], set()
    while True:
        seen.add(name)
        back = None
        ways = after[name]
        if isinstance(nodes[name], nir.LIF):
            loops = [b for b in ways if after[b] == [name]]
            back = nodes[loops[0]] if loops else None
            ways = [b for b in ways if b not in loops[:1]]
        path.append((name, nodes[name], back))
        if not ways:
            return path
        if len(ways) > 1 or ways[0] in seen:
            raise ValueError(
                f"The graph is no single path: {name!r} leads to {', '.join(ways)}. Graphs of one "
                "path, with loops of one product around neurons, are read."
            )
        name = ways[0]


class _Reader:
    """Makes layers of the nodes of a path, and keeps what their weights are to be.

    Args:
        nir: the module.
        dt: seconds of a step.
    """

    def __init__(self, nir: Any, dt: float):
        self.nir = nir
        self.dt = dt
        # A product whose layer depends on what follows; weights for after the model is built.
        self.product: tuple[str, np.ndarray, np.ndarray] | None = None
        self.picture: Any = None
        self.made: list[Any] = []
        self.later: list[Any] = []

    def weights(self) -> Weights:
        """Returns the variables of the layers that were made, with their values."""
        return [pair for make in self.later for pair in make()]

    def layers_of(self, path: list[tuple[str, Any, Any]]) -> list[Any]:
        """Returns the layers of a path."""
        nir = self.nir
        for name, node, back in path:
            if isinstance(node, nir.LIF | nir.LI):
                self._neurons(name, node, back)
            elif isinstance(node, nir.Linear | nir.Affine):
                self._end_product()
                weight = np.asarray(node.weight, "float32")
                bias = getattr(node, "bias", np.zeros(len(weight)))
                self.product = (name, self._rows(weight.T), np.asarray(bias, "float32"))
            elif isinstance(node, nir.Conv2d):
                self._end_product()
                self._conv(name, node)
            elif isinstance(node, nir.Flatten):
                self._end_product()
                self.picture = [int(size) for size in node.input_type["input"]]
                self._add(layers.TimeDistributed(layers.Flatten(), name=_name(name)))
            elif not isinstance(node, nir.Input | nir.Output):
                raise ValueError(
                    "Linear, Affine, Conv2d, Flatten, LIF and LI are read; the graph has a "
                    f"{type(node).__name__} {name!r}."
                )
        self._end_product()
        return self.made

    def _add(self, layer: Any) -> None:
        self.made.append(layer)

    def _rows(self, kernel: np.ndarray) -> np.ndarray:
        """Input weights in the order in which Keras flattens pictures."""
        if self.picture is None:
            return kernel
        rows = kernel.reshape(*self.picture, -1).transpose(1, 2, 0, 3)
        self.picture = None
        return rows.reshape(kernel.shape)

    def _end_product(self) -> None:
        """A product that no neurons follow is a layer of its own."""
        if self.product is None:
            return
        name, kernel, bias = self.product
        self.product = None
        layer = layers.Dense(kernel.shape[1], name=_name(name))
        self._add(layer)
        self.later.append(lambda: [(layer.kernel, kernel), (layer.bias, bias)])

    def _neurons(self, name: str, node: Any, back: Any) -> None:
        tau = np.asarray(node.tau, "float64").ravel()
        if not (tau > self.dt).all():
            raise ValueError(
                f"{name!r} has a time constant of {tau.min():.3g} s, and steps are of "
                f"{self.dt:.3g} s. Give a smaller dt."
            )
        decay = 1.0 - self.dt / tau
        units = len(tau)
        scale = np.asarray(node.r, "float64").ravel() * self.dt / tau
        kernel, bias = np.eye(units), np.zeros(units)
        if self.product is not None:
            _, kernel, bias = self.product
            self.product = None
        elif self.picture is not None:
            kernel = self._rows(kernel)
        leak = (1.0 - decay) * np.asarray(node.v_leak, "float64").ravel()
        values = {
            "kernel": kernel * scale,
            "bias": bias * scale + leak,
            "log_tau": -np.log(-np.log(decay)),
        }
        layer: Any
        if isinstance(node, self.nir.LI):
            layer = LeakyReadout(units, return_sequences=True, name=_name(name))
        else:
            values |= self._spiking(name, node, back, scale)
            values["bias"] = values["bias"] + values.pop("bias_back", 0.0)
            layer = LIF(
                units,
                reset="multiplicative-2",
                recurrent=back is not None,
                return_sequences=True,
                name=_name(name),
            )
        self._add(layer)
        self.later.append(
            lambda: [(getattr(layer.cell, key), value) for key, value in values.items()]
        )

    def _spiking(self, name: str, node: Any, back: Any, scale: np.ndarray) -> dict[str, Any]:
        """What spiking neurons have besides: a threshold and, perhaps, recurrent weights."""
        threshold = np.asarray(node.v_threshold, "float64").ravel()
        if np.any(np.asarray(node.v_reset) != 0):
            raise ValueError(f"{name!r} resets to {node.v_reset}; LIF resets to zero.")
        if not (threshold > 0).all():
            raise ValueError(f"{name!r} has the threshold {threshold.min()}; it must be positive.")
        values: dict[str, Any] = {"log_threshold": np.log(threshold)}
        if back is None:
            return values
        weight = np.asarray(back.weight, "float64").T
        if np.any(np.diag(weight) != 0):
            raise ValueError(
                f"{name!r} has neurons that are connected with themselves, which LIF does not "
                "have. Set the diagonal of the recurrent weight to zero."
            )
        values["recurrent_kernel"] = weight * scale
        values["bias_back"] = scale * np.asarray(getattr(back, "bias", 0.0))
        return values

    def _conv(self, name: str, node: Any) -> None:
        weight = np.asarray(node.weight, "float32").transpose(2, 3, 1, 0)
        padding = node.padding
        if not isinstance(padding, str):
            sides = tuple(int(size) for size in np.atleast_1d(padding))
            if any(sides):
                self._add(layers.TimeDistributed(layers.ZeroPadding2D(sides)))
            padding = "valid"
        layer = layers.Conv2D(
            weight.shape[-1],
            weight.shape[:2],
            strides=tuple(int(size) for size in node.stride),
            padding=padding,
            dilation_rate=tuple(int(size) for size in node.dilation),
            groups=int(node.groups),
            data_format="channels_last",
        )
        self._add(layers.TimeDistributed(layer, name=_name(name)))
        bias = np.asarray(node.bias, "float32")
        self.later.append(lambda: [(layer.kernel, weight), (layer.bias, bias)])


def _name(name: str) -> str:
    """The name of a node as one of a layer: that of the graph of a neuron's own is the neuron's."""
    return name.removesuffix(".lif").replace(".", "_").replace("/", "_")
