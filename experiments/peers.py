"""Stacks of layers as each library draws them by its own constructors, carried over to Keras.

Weights of torch and Flax go by `keras_lsc.convert`; those of spiking neurons are assigned, to
`keras_lsc.layers.LIF` where it has the same step, to `NeuronCell` elsewhere. Of spiking libraries
whose layers have neurons alone, the weights between them are those of the Linear layer of the same
framework, which their documentation puts there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

import keras_lsc
from experiments.peer_cells import NeuronCell
from keras_lsc.layers import LIF, Surrogate

Tensor = Any
Array = np.ndarray
# Of snnTorch, whose constructors ask for it: that of the examples in their docstrings.
BETA = 0.5


@dataclass(frozen=True)
class Size:
    """What is drawn.

    Attributes:
        features: of the input.
        units: of every layer.
        depth: number of layers.
        seed: of the weights.
        return_sequences: whether the model returns all steps of its last layer or the last one.
    """

    features: int
    units: int
    depth: int
    seed: int
    return_sequences: bool = False


@dataclass(frozen=True)
class Carried:
    """A stack in Keras, and the one it was carried over from.

    Attributes:
        model: the Keras model.
        original: of all steps, `(batch, steps, features)` to `(batch, steps, units)`, tensors of
            its own framework; None for what was drawn in Keras.
        delay: number of steps by which the original's outputs come later.
    """

    model: keras.Model
    original: Callable[[Tensor], Tensor] | None = None
    delay: int = 0


@dataclass(frozen=True)
class Peer:
    """A layer of a library.

    Attributes:
        library: name of its package in the index.
        layer: its name there.
        draw: makes a stack.
        is_spiking: whether its outputs are spikes.
        also: other packages whose code draws weights.
    """

    library: str
    layer: str
    draw: Callable[[Size], Carried]
    is_spiking: bool = False
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Library and layer."""
        return f"{self.library} {self.layer}"

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages whose code draws the weights."""
        return {package: version(package) for package in (self.library, *self.also)}


def _keras(make: Callable[..., keras.Layer]) -> Callable[[Size], Carried]:
    """Stacks of a Keras layer."""

    def draw(size: Size) -> Carried:
        keras.utils.set_random_seed(size.seed)
        model = keras.Sequential([keras.Input((None, size.features))])
        for layer in range(size.depth):
            model.add(make(size.units, return_sequences=_returns_sequences(size, layer)))
        return Carried(model)

    return draw


def _torch(kind: str) -> Callable[[Size], Carried]:
    """Stacks of `torch.nn.RNN`, `LSTM` and `GRU`."""

    def draw(size: Size) -> Carried:
        import torch

        torch.manual_seed(size.seed)
        module = getattr(torch.nn, kind)(
            size.features, size.units, num_layers=size.depth, batch_first=True
        )
        model = keras_lsc.convert.from_torch(module, return_sequences=size.return_sequences)
        return Carried(model, lambda x: module(x)[0])

    return draw


def _nnx(kind: str) -> Callable[[Size], Carried]:
    """Stacks of the cells of `flax.nnx`."""

    def draw(size: Size) -> Carried:
        from flax import nnx

        rngs = nnx.Rngs(size.seed)
        cells = [getattr(nnx, kind)(read, size.units, rngs=rngs) for read in _reads(size)]
        layers = [nnx.RNN(cell) for cell in cells]

        def outputs(x: Tensor) -> Tensor:
            for layer in layers:
                x = layer(x, rngs=nnx.Rngs(0))  # of first states, which are zeros
            return x

        # Layers are read in the order of their names.
        tree = {
            f"layers_{k}": nnx.to_pure_dict(nnx.state(cell, nnx.Param))
            for k, cell in enumerate(cells)
        }
        model = keras_lsc.convert.from_flax(tree, return_sequences=size.return_sequences)
        return Carried(model, outputs)

    return draw


def _linen(kind: str) -> Callable[[Size], Carried]:
    """Stacks of the cells of `flax.linen`."""

    def draw(size: Size) -> Carried:
        import jax
        from flax import linen

        cells = [getattr(linen, kind)(size.units) for _ in range(size.depth)]
        module = linen.Sequential([linen.RNN(cell) for cell in cells])
        variables = module.init(jax.random.key(size.seed), np.zeros((1, 2, size.features), "f4"))
        model = keras_lsc.convert.from_flax(variables, return_sequences=size.return_sequences)
        return Carried(model, lambda x: module.apply(variables, x))

    return draw


def _snntorch(recurrent: bool) -> Callable[[Size], Carried]:
    """Linear, then Leaky or RLeaky: I = W x, u' = beta u + I - theta z, detached z."""

    def draw(size: Size) -> Carried:
        import snntorch
        import torch

        torch.manual_seed(size.seed)
        stack = []
        for read in _reads(size):
            linear = torch.nn.Linear(read, size.units)
            neuron = (
                snntorch.RLeaky(beta=BETA, linear_features=size.units)
                if recurrent
                else snntorch.Leaky(beta=BETA)
            )
            stack.append((linear, neuron))

        def outputs(x: Tensor) -> Tensor:
            for linear, neuron in stack:
                shape = (len(x), size.units)
                spikes, state = [], (torch.zeros(shape),) * (1 + recurrent)
                for current in linear(x).unbind(1):
                    spike, *others = neuron(current, *state)
                    state = (spike, *others) if recurrent else tuple(others)
                    spikes.append(spike)
                x = torch.stack(spikes, 1)
            return x

        surrogate = Surrogate("cauchy", dampening=1.0)
        if not recurrent:
            options = {"reset": "subtractive", "reset_gradient": False, "surrogate": surrogate}
            weights = [_linear(linear) | {"log_tau": _log_tau(BETA)} for linear, _ in stack]
            return Carried(_lif(size, options, weights), outputs)
        options = {"reset": "subtract", "reset_gradient": False, "surrogate": surrogate}
        weights = []
        for linear, neuron in stack:
            first, back = _linear(linear), _linear(neuron.recurrent)
            weights.append(
                {
                    "kernel": first["kernel"],
                    "recurrent_kernel": back["kernel"],
                    "bias": first["bias"] + back["bias"],
                    "decay": BETA,
                }
            )
        return Carried(_neurons(size, options, weights), outputs)

    return draw


def _norse(recurrent: bool) -> Callable[[Size], Carried]:
    """Linear, then LIF; or LIFRecurrent, which has its own weights; steps of 1 ms.

    Its superspike divides by (1 + |u|)^2, whatever the parameter alpha is.
    """

    def draw(size: Size) -> Carried:
        import torch
        from norse.torch.module import lif

        torch.manual_seed(size.seed)
        stack = [
            [lif.LIFRecurrent(read, size.units)]
            if recurrent
            else [torch.nn.Linear(read, size.units), lif.LIF()]
            for read in _reads(size)
        ]

        def outputs(x: Tensor) -> Tensor:
            x = x.transpose(0, 1)
            for modules in stack:
                for module in modules:
                    x = module(x)
                    x = x[0] if isinstance(x, tuple) else x
            return x.transpose(0, 1)

        parameters, dt = stack[0][-1].p, stack[0][-1].dt
        of_membrane = dt * float(parameters.tau_mem_inv)
        options = {
            "reset": "zero",
            # lif_step detaches the spikes that reset, lif_feed_forward_step does not.
            "reset_gradient": not recurrent,
            "surrogate": Surrogate("fast_sigmoid", dampening=1.0, sharpness=0.5),
            "synapse": 1.0 - dt * float(parameters.tau_syn_inv),
            "gain": of_membrane,
        }
        weights: list[dict[str, Any]] = [
            {
                "kernel": _array(modules[0].input_weights).T,
                "recurrent_kernel": _array(modules[0].recurrent_weights).T,
            }
            if recurrent
            else _linear(modules[0])
            for modules in stack
        ]
        weights = [{**of_layer, "decay": 1.0 - of_membrane} for of_layer in weights]
        return Carried(_neurons(size, options, weights), outputs)

    return draw


def _spyx(recurrent: bool) -> Callable[[Size], Carried]:
    """Linear, then LIF or RLIF.

    They return the spikes of the voltage before a step, so a layer's come one step later than here.
    """

    def draw(size: Size) -> Carried:
        import spyx.nn
        from flax import nnx
        from jax import numpy as jnp

        rngs = nnx.Rngs(size.seed)
        kind = spyx.nn.RLIF if recurrent else spyx.nn.LIF
        stack = [
            (nnx.Linear(read, size.units, rngs=rngs), kind((size.units,), rngs=rngs))
            for read in _reads(size)
        ]

        def outputs(x: Tensor) -> Tensor:
            for linear, neuron in stack:
                currents, state, spikes = linear(x), neuron.initial_state(len(x)), []
                for step in range(x.shape[1]):
                    spike, state = neuron(currents[:, step], state)
                    spikes.append(spike)
                x = jnp.stack(spikes, 1)
            return x

        options = {
            "reset": "subtract",
            "reset_gradient": True,
            "surrogate": Surrogate("fast_sigmoid", dampening=1.0, sharpness=12.5),
        }
        weights = []
        for linear, neuron in stack:
            of_layer = {
                "kernel": linear.kernel[...],
                "bias": linear.bias[...],
                "decay": np.clip(neuron.beta[...], 0, 1),
            }
            if recurrent:
                of_layer["recurrent_kernel"] = neuron.recurrent_w[...]
            weights.append(of_layer)
        return Carried(_neurons(size, options, weights), outputs, delay=size.depth)

    return draw


def _spikingjelly(recurrent: bool) -> Callable[[Size], Carried]:
    """Linear, then LIFNode, alone or in a LinearRecurrentContainer: u' = u + (I - u)/tau.

    The container has a product of its own of what it reads, so that two follow each other.
    """

    def draw(size: Size) -> Carried:
        import torch
        from spikingjelly.activation_based import functional, layer, neuron

        torch.manual_seed(size.seed)
        stack = []
        for read in _reads(size):
            linear, node = torch.nn.Linear(read, size.units), neuron.LIFNode()
            if recurrent:
                node = layer.LinearRecurrentContainer(node, size.units, size.units)
            stack.append((linear, node))

        def outputs(x: Tensor) -> Tensor:
            for linear, node in stack:
                functional.reset_net(node)
                x = torch.stack([node(current) for current in linear(x).unbind(1)], 1)
            return x

        surrogate = Surrogate("sigmoid_derivative", dampening=1.0)
        weights: list[dict[str, Any]] = []
        if not recurrent:
            for linear, node in stack:
                read = _linear(linear)
                weights.append(
                    {
                        "kernel": read["kernel"] / node.tau,
                        "bias": read["bias"] / node.tau,
                        "log_tau": _log_tau(1.0 - 1.0 / node.tau),
                    }
                )
            options = {"reset": "multiplicative-2", "surrogate": surrogate}
            return Carried(_lif(size, options, weights), outputs)
        for linear, node in stack:
            read, again = _linear(linear), _linear(node.rc)
            forward, back = np.split(again["kernel"], [size.units])
            weights.append(
                {
                    "kernel": read["kernel"] @ forward,
                    "recurrent_kernel": back,
                    "bias": read["bias"] @ forward + again["bias"],
                    "decay": 1.0 - 1.0 / node.sub_module.tau,
                }
            )
        tau = stack[0][1].sub_module.tau
        options = {
            "reset": "zero", "reset_gradient": True, "surrogate": surrogate, "gain": 1.0 / tau
        }  # fmt: skip
        return Carried(_neurons(size, options, weights), outputs)

    return draw


PEERS = (
    Peer("keras", "SimpleRNN", _keras(keras.layers.SimpleRNN)),
    Peer("torch", "RNN", _torch("RNN")),
    Peer("flax", "nnx.SimpleCell", _nnx("SimpleCell")),
    Peer("keras", "LSTM", _keras(keras.layers.LSTM)),
    Peer("torch", "LSTM", _torch("LSTM")),
    Peer("flax", "nnx.LSTMCell", _nnx("LSTMCell")),
    Peer("keras", "GRU", _keras(keras.layers.GRU)),
    Peer("torch", "GRU", _torch("GRU")),
    Peer("flax", "linen.GRUCell", _linen("GRUCell")),
    Peer("flax", "nnx.GRUCell", _nnx("GRUCell")),
    Peer("snntorch", "Leaky", _snntorch(False), True, ("torch",)),
    Peer("snntorch", "RLeaky", _snntorch(True), True, ("torch",)),
    Peer("norse", "LIF", _norse(False), True, ("torch",)),
    Peer("norse", "LIFRecurrent", _norse(True), True, ("torch",)),
    Peer("spyx", "LIF", _spyx(False), True, ("flax",)),
    Peer("spyx", "RLIF", _spyx(True), True, ("flax",)),
    Peer("spikingjelly", "LIFNode", _spikingjelly(False), True, ("torch",)),
    Peer("spikingjelly", "LIFNode, recurrent", _spikingjelly(True), True, ("torch",)),
    Peer("keras-lsc", "LIF", _keras(LIF), True),
)


def _reads(size: Size) -> list[int]:
    """How many features every layer reads."""
    return [size.features] + [size.units] * (size.depth - 1)


def _returns_sequences(size: Size, layer: int) -> bool:
    return size.return_sequences or layer < size.depth - 1


def _array(tensor: Any) -> Array:
    return tensor.detach().numpy()


def _linear(module: Any) -> dict[str, Array]:
    """Kernel and bias of a `torch.nn.Linear`."""
    return {"kernel": _array(module.weight).T, "bias": _array(module.bias)}


def _log_tau(decay: float) -> float:
    """The weight of a LIF whose voltage decays by so much a step."""
    return -float(np.log(-np.log(decay)))


def _lif(
    size: Size, options: Mapping[str, Any], weights: Sequence[Mapping[str, Any]]
) -> keras.Model:
    """Layers of LIF without recurrence."""

    def make(layer: int) -> keras.Layer:
        sequences = _returns_sequences(size, layer)
        return LIF(size.units, recurrent=False, return_sequences=sequences, **options)

    return _assigned(size, make, weights)


def _neurons(
    size: Size, options: Mapping[str, Any], weights: Sequence[Mapping[str, Any]]
) -> keras.Model:
    """Layers of `NeuronCell`, recurrent where there are weights for it."""

    def make(layer: int) -> keras.Layer:
        cell = NeuronCell(size.units, recurrent="recurrent_kernel" in weights[layer], **options)
        return keras.layers.RNN(cell, return_sequences=_returns_sequences(size, layer))

    return _assigned(size, make, weights)


def _assigned(
    size: Size, make: Callable[[int], keras.Layer], weights: Sequence[Mapping[str, Any]]
) -> keras.Model:
    model = keras.Sequential([keras.Input((None, size.features))])
    for layer in range(size.depth):
        model.add(make(layer))
    for layer, of_layer in zip(model.layers, weights, strict=True):
        for name, value in of_layer.items():
            variable = getattr(layer.cell, name)
            variable.assign(np.broadcast_to(np.asarray(value, "float32"), variable.shape))
    return model
