"""Graphs of NIR: the equations of the format stepped by hand, round trips, and snnTorch."""

import keras
import numpy as np
import pytest
from harness import to_numpy
from keras import layers

from keras_lsc.convert import from_nir, to_nir
from keras_lsc.layers import LIF, LeakyReadout

nir = pytest.importorskip("nir", reason="nir is not installed")

STEPS, FEATURES, UNITS = 12, 4, 5


def spiking(recurrent=True, units=UNITS, **options):
    return LIF(
        units,
        reset="multiplicative-2",
        recurrent=recurrent,
        bias_initializer=keras.initializers.RandomUniform(-0.1, 0.3, seed=2),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.8, seed=3),
        return_sequences=True,
        **options,
    )


def network(recurrent=True):
    hidden = spiking(recurrent, tau=keras.initializers.RandomUniform(2.0, 9.0, seed=1))
    readout = LeakyReadout(2, tau=7.0, return_sequences=True, name="readout")
    return keras.Sequential([keras.Input((STEPS, FEATURES)), layers.Dense(3), hidden, readout])


@pytest.fixture
def x(rng):
    return rng.standard_normal((3, STEPS, FEATURES)).astype("float32")


def stepped(graph, x, dt):
    """Euler's rule on the equations of the format, one node after the other."""
    for name in [b for _, b in graph.edges]:
        node = graph.nodes[name]
        if isinstance(node, nir.Linear | nir.Affine):
            x = x @ node.weight.T + getattr(node, "bias", 0.0)
            continue
        if isinstance(node, nir.Output):
            return x
        back = np.zeros((x.shape[-1],) * 2)
        if isinstance(node, nir.NIRGraph):
            back, node = node.nodes["w_rec"].weight.T, node.nodes["lif"]
        v, z, outputs = np.zeros_like(x[:, 0]), np.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            v = v + dt / node.tau * (node.v_leak - v + node.r * (x[:, t] + z @ back))
            outputs.append(v)
            if isinstance(node, nir.LIF):
                z = (v > node.v_threshold).astype(float)
                v = np.where(z > 0, node.v_reset, v)
                outputs[-1] = z
        x = np.stack(outputs, axis=1)
    return None


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_graph_obeys_the_equations_of_the_format(recurrent, x):
    model, dt = network(recurrent), 2e-3
    graph = to_nir(model, dt=dt)
    # The format counts in seconds: Euler's decay over a step is the layer's.
    np.testing.assert_allclose(1 - dt / graph.nodes["readout"].tau, np.exp(-1 / 7), rtol=1e-5)
    hidden = keras.Sequential([*model.layers[:2]])
    rate = to_numpy(hidden(x)).mean()
    assert 0.05 < rate < 0.9
    np.testing.assert_allclose(stepped(graph, x, dt), to_numpy(model(x)), atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_what_was_written_is_read_again(recurrent, x, tmp_path):
    model = network(recurrent)
    nir.write(tmp_path / "network.nir", to_nir(model))
    again = from_nir(nir.read(tmp_path / "network.nir"))
    np.testing.assert_allclose(to_numpy(again(x)), to_numpy(model(x)), atol=1e-5)
    for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
        if expected.shape == (UNITS, UNITS):
            expected = expected * (1 - np.eye(UNITS))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_any_resistance_leak_and_step_are_those_of_the_equations(rng, x):
    dt, units = 1e-3, 3
    tau = np.array([3e-3, 8e-3, 2e-2])
    graph = nir.NIRGraph.from_list(
        nir.Affine(weight=rng.standard_normal((units, FEATURES)), bias=np.ones(units)),
        nir.LIF(
            tau=tau,
            r=np.array([2.0, 5.0, 9.0]),
            v_leak=np.array([0.1, -0.2, 0.0]),
            v_threshold=np.array([0.3, 0.5, 0.8]),
        ),
        nir.Linear(weight=rng.standard_normal((2, units))),
    )
    model = from_nir(graph, dt=dt)
    assert [type(layer).__name__ for layer in model.layers] == ["LIF", "Dense"]
    np.testing.assert_allclose(to_numpy(model(x)), stepped(graph, x, dt), atol=1e-5)


def test_convolutions_and_the_order_of_pictures_come_back(rng):
    each = layers.TimeDistributed
    model = keras.Sequential(
        [
            keras.Input((3, 5, 6, 2)),
            each(layers.Conv2D(3, 3, strides=2)),
            each(layers.Conv2D(4, (1, 3), padding="same")),
            each(layers.Flatten()),
            spiking(units=UNITS),
        ]
    )
    x = rng.standard_normal((2, 3, 5, 6, 2)).astype("float32")
    graph = to_nir(model)
    assert graph.nodes["input"].output_type["output"].tolist() == [2, 5, 6]
    again = from_nir(graph)
    assert again.input_shape == (None, None, 5, 6, 2)
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(model(x)))
    torch = pytest.importorskip("torch", reason="torch is not installed")
    # The format is that of torch: channels first.
    (conv,) = [node for node in graph.nodes.values() if isinstance(node, nir.Conv2d)][:1]
    expected = torch.nn.functional.conv2d(
        torch.as_tensor(x[:, 0].transpose(0, 3, 1, 2).copy(), device="cpu"),
        torch.as_tensor(conv.weight, device="cpu"),
        torch.as_tensor(conv.bias, device="cpu"),
        stride=tuple(conv.stride),
    ).numpy()
    found = to_numpy(model.layers[0](x))[:, 0].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_snntorch_computes_the_same_spikes_of_the_same_graph(recurrent, rng, x):
    pytest.importorskip("snntorch", reason="snntorch is not installed")
    import torch
    from snntorch.import_nir import import_from_nir

    model = keras.Sequential([keras.Input((STEPS, FEATURES)), spiking(recurrent, tau=6.0)])
    expected = to_numpy(model(x))
    assert 0.05 < expected.mean() < 0.9
    peer = import_from_nir(to_nir(model)).to("cpu")
    state, spikes = None, []
    with torch.no_grad():
        for t in range(STEPS):
            output, state = peer(torch.as_tensor(x[:, t], device="cpu"), state)
            spikes.append(output[0] if isinstance(output, tuple) else output)
    np.testing.assert_array_equal(torch.stack(spikes, dim=1).numpy(), expected)


def test_norse_computes_the_same_spikes_of_a_graph_with_resistances_of_1(x):
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    import torch

    model, dt = keras.Sequential([keras.Input((STEPS, FEATURES)), spiking(False, tau=6.0)]), 1e-3
    graph = to_nir(model, dt=dt)
    product, neurons = (graph.nodes[name] for name in list(graph.nodes)[1:3])
    # It leaves resistances out: so they become a part of the weights, which changes no equation.
    r, neurons.r = neurons.r, np.ones_like(neurons.r)
    product.weight, product.bias = product.weight * r[:, None], product.bias * r
    peer = norse.from_nir(nir.NIRGraph.from_list(product, neurons), dt=dt).to("cpu")
    state, spikes = None, []
    with torch.no_grad():
        for t in range(STEPS):
            output, state = peer(torch.as_tensor(x[:, t], device="cpu"), state)
            spikes.append(output)
    expected = to_numpy(model(x))
    np.testing.assert_array_equal(torch.stack(spikes, dim=1).numpy(), expected)
    np.testing.assert_array_equal(to_numpy(from_nir(graph, dt=dt)(x)), expected)


def test_what_the_format_cannot_say_is_refused():
    def sequence(*made):
        return keras.Sequential([keras.Input((STEPS, FEATURES)), *made])

    refused = {
        "reset='subtractive'": LIF(2),
        "refractory=2": spiking(refractory=2),
        "output='voltage'": spiking(output="voltage"),
        "activation 'relu'": layers.Dense(2, activation="relu"),
        "got GRU": layers.GRU(2),
        "goes backwards": LeakyReadout(2, go_backwards=True),
    }
    for message, layer in refused.items():
        with pytest.raises(ValueError, match=message):
            to_nir(sequence(layer))
    with pytest.raises(ValueError, match="A built keras"):
        to_nir(layers.Dense(2))


def test_graphs_that_are_not_read_are_told_why():
    def lif(**changes):
        ones = np.ones(2)
        options = {"tau": 1e-2 * ones, "r": ones, "v_leak": 0 * ones, "v_threshold": ones}
        return nir.LIF(**{**options, **changes})

    def recurrent(weight):
        return nir.NIRGraph(
            nodes={
                "input": nir.Input(np.array([2])),
                "lif": lif(),
                "w": nir.Linear(weight=weight),
                "output": nir.Output(np.array([2])),
            },
            edges=[("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
        )

    refused = {
        "Give a smaller dt": lif(tau=np.full(2, 1e-5)),
        "resets to": lif(v_reset=np.full(2, 0.5)),
        "must be positive": lif(v_threshold=np.zeros(2)),
        "connected with themselves": recurrent(np.ones((2, 2))),
        "the graph has a Scale": nir.Scale(scale=np.ones(2)),
    }
    for message, node in refused.items():
        with pytest.raises(ValueError, match=message):
            from_nir(nir.NIRGraph.from_list(node))
    branching = nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([2])),
            "a": nir.Linear(weight=np.eye(2)),
            "b": nir.Linear(weight=np.eye(2)),
            "output": nir.Output(np.array([2])),
        },
        edges=[("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")],
    )
    with pytest.raises(ValueError, match="no single path"):
        from_nir(branching)
    with pytest.raises(ValueError, match="graph must be a nir"):
        from_nir("network.nir")
