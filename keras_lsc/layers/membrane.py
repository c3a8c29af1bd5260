"""A population of (adaptive) LIF neurons over a whole sequence, with its gradient written out.

Only what really depends on the step before runs in the loops: forward the voltage, backward its
adjoint, a few operations a step. Surrogate slopes, resets and all gradients of weights are taken
for all steps at once. The result is that of stepping the cell and back-propagating through time.

Forward, from step t-1 to t (arXiv 2202.00282, section 2), for the current I_t = i_t + W^T z_{t-1}:

    subtractive          v_t = alpha v_{t-1} + I_t - theta z_{t-1}
    multiplicative-1     v_t = (alpha v_{t-1} + I_t) (1 - z_{t-1})
    multiplicative-2     v_t = alpha v_{t-1} (1 - z_{t-1}) + I_t
    adaptation           a_t = rho a_{t-1} + (1 - rho) z_{t-1}
    spikes               z_t = H(u_t),  u_t = v_t - theta - beta a_t

Backward, for the adjoints lambda of v and mu of a, y_t being what reaches u_t through z_t:

    y_t      = s_t (g_t + W (q_{t+1} lambda_{t+1}) + e_t lambda_{t+1} + (1 - rho) mu_{t+1})
    lambda_t = k_t lambda_{t+1} + y_t
    mu_t     = rho mu_{t+1} - beta y_t

with s_t the surrogate slope, g_t the incoming gradient, k_t = d v_{t+1}/d v_t, e_t what the reset
does to v_{t+1} as z_t grows, and q_{t+1} = d v_{t+1}/d I_{t+1}. Without recurrent weights and
adaptation these are one diagonal linear recurrence in reverse (EXODUS, arXiv 2205.10242).

Arithmetic is written with operators where `keras.ops` would turn float64 into float32 on torch.
"""

from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_lsc import backend
from keras_lsc.layers.scan import linear_scan
from keras_lsc.layers.surrogates import Surrogate

Tensor = Any

RESETS = ("subtractive", "multiplicative-1", "multiplicative-2")


@dataclass(frozen=True)
class Membrane:
    """What kind of neurons: everything about them that is not a tensor.

    Attributes:
        surrogate: the spike function.
        reset: one of `RESETS`.
        reset_gradient: whether a gradient passes through the reset.
        refractory: number of steps after a spike without another one.
    """

    surrogate: Surrogate
    reset: str
    reset_gradient: bool
    refractory: int

    def may_spike(self, counter: Tensor) -> Tensor:
        """1 where the step that left this counter was free to spike, else 0.

        A spike sets the counter to refractory + 1; every step counts it down to 0.
        """
        is_free = ops.logical_or(counter <= 0, counter > self.refractory)
        return ops.cast(is_free, counter.dtype)

    def spikes(self, u: Tensor, counter: Tensor | None) -> Tensor:
        """0 or 1, without a gradient."""
        hard = ops.cast(u > 0, u.dtype)
        return hard if counter is None else hard * self.may_spike(counter)

    def slopes(self, u: Tensor, counter: Tensor | None) -> Tensor:
        """The surrogate derivative of the spikes by u."""
        slope = self.surrogate.derivative(u)
        return slope if counter is None else slope * self.may_spike(counter)

    def next_voltage(self, v: Tensor, z: Tensor, current: Tensor, alpha: Any, theta: Any) -> Tensor:
        """The voltage one step on; `z` are the spikes of the step before."""
        if self.reset == "subtractive":
            return alpha * v + current - theta * z
        if self.reset == "multiplicative-1":
            return (alpha * v + current) * (1.0 - z)
        return alpha * v * (1.0 - z) + current

    def next_counter(self, counter: Tensor, u: Tensor) -> Tensor:
        """The refractory counter after a step that left the distance `u` to the threshold."""
        spiked = ops.logical_and(u > 0, counter <= 1)
        return ops.where(spiked, self.refractory + 1.0, ops.relu(counter - 1.0))


_NAMES = ("current", "mask", "kernel", "alpha", "theta", "beta", "rho", "v", "a", "counter")


def run(membrane: Membrane, tensors: dict[str, Tensor | None]) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs a population of neurons along a sequence.

    Args:
        membrane: the kind of neurons.
        tensors: all of one float dtype; those that are None are left out of the model.
            "current": `(T, batch, units)`; "mask": `(T, batch, 1)`, 0 where a step is skipped;
            "kernel": recurrent weights `(units, units)`; "alpha" and "theta": `(units,)`;
            "beta" and "rho": `(units,)` of the adaptation; "v", "a", "counter": first states,
            `(batch, units)`.

    Returns:
        The spikes, and the states "v", "a" and "counter" after every step, all
        `(T, batch, units)`.
    """
    names = tuple(name for name in _NAMES if tensors.get(name) is not None)
    states = tuple(name for name in ("v", "a", "counter") if name in names)
    pass_ = _Pass(membrane, names, states)
    outputs = backend.with_gradient(pass_.forward, pass_.backward)(*(tensors[n] for n in names))
    return outputs[0], dict(zip(states, outputs[1:], strict=True))


@dataclass(frozen=True)
class _Pass:
    """Forward and backward pass over one choice of tensors."""

    membrane: Membrane
    names: tuple[str, ...]
    states: tuple[str, ...]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.names, inputs, strict=True))
        membrane, kernel = self.membrane, given.get("kernel")
        steps = [given["current"]] + ([given["mask"]] if "mask" in given else [])

        def step(before: list[Tensor], at: list[Tensor]) -> list[Tensor]:
            state = dict(zip(self.states, before, strict=True))
            z = membrane.spikes(distance(state, given), state.get("counter"))
            current = at[0] if kernel is None else at[0] + z @ kernel
            new = {
                "v": membrane.next_voltage(state["v"], z, current, given["alpha"], given["theta"])
            }
            if "a" in state:
                new["a"] = z + given["rho"] * (state["a"] - z)
            if "counter" in state:
                new["counter"] = membrane.next_counter(state["counter"], distance(new, given))
            after = [new[name] for name in self.states]
            if len(at) > 1:
                keep = at[1]
                after = [keep * n + (1.0 - keep) * b for n, b in zip(after, before, strict=True)]
            return after

        states = backend.running_states(step, [given[name] for name in self.states], steps)
        after = dict(zip(self.states, states, strict=True))
        return membrane.spikes(distance(after, given), after.get("counter")), *states

    def backward(self, inputs: tuple, outputs: tuple, cotangents: tuple) -> tuple:
        given = dict(zip(self.names, inputs, strict=True))
        after = dict(zip(self.states, outputs[1:], strict=True))
        arriving = dict(zip(("z", *self.states), cotangents, strict=True))
        membrane, kernel, mask = self.membrane, given.get("kernel"), given.get("mask")
        # Index t is the state before step t, and T the last state, after which no step follows.
        states = {
            name: ops.concatenate([ops.expand_dims(given[name], 0), visited])
            for name, visited in after.items()
        }
        u, counter = distance(states, given), states.get("counter")
        slope = membrane.slopes(u, counter)
        z = membrane.spikes(u, counter)[:-1]
        derivatives = _derivatives(membrane, given, states["v"][:-1], z)
        incoming = {
            name: _behind(ops.zeros_like(u[:1]), gradient)
            for name, gradient in arriving.items()
            if gradient is not None and name != "counter"
        }
        adjoints = _adjoints(slope, incoming, derivatives, given)
        later = adjoints["v"][1:]
        through_spikes = adjoints["v"] - _until_end(derivatives["keep"] * later)
        if "v" in incoming:
            through_spikes = through_spikes - incoming["v"]
        into_current = later * derivatives["current"] if "current" in derivatives else later
        stepped = later if mask is None else later * mask
        is_subtractive = membrane.reset == "subtractive"
        decaying = states["v"][:-1] if is_subtractive else states["v"][:-1] * (1.0 - z)
        gradients = {
            "current": into_current,
            "v": adjoints["v"][0],
            "alpha": _over_batch(stepped * decaying),
            "theta": -_over_batch(through_spikes),
        }
        if is_subtractive:
            gradients["theta"] = gradients["theta"] - _over_batch(stepped * z)
        if kernel is not None:
            units = kernel.shape[0]
            spikes = ops.transpose(ops.reshape(z, (-1, units)))
            gradients["kernel"] = spikes @ ops.reshape(into_current, (-1, units))
        if "a" in states:
            a, later_a = states["a"], adjoints["a"][1:]
            stepped_a = later_a if mask is None else later_a * mask
            gradients["a"] = adjoints["a"][0]
            gradients["beta"] = -_over_batch(through_spikes * a)
            gradients["rho"] = _over_batch(stepped_a * (a[:-1] - z))
        return tuple(gradients.get(name) for name in self.names)


def distance(state: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
    """u, how far the voltage is above the threshold."""
    u = state["v"] - given["theta"]
    return u - given["beta"] * state["a"] if "a" in state else u


def _derivatives(
    membrane: Membrane, given: dict[str, Tensor], v: Tensor, z: Tensor
) -> dict[str, Tensor]:
    """What every step makes of the voltage before it ("keep"), of the spikes and the current.

    `(units,)` where it is the same at all steps; "reset" is left out where it is 0, "current"
    where it is 1.
    """
    alpha, mask = given["alpha"], given.get("mask")
    derivatives = {}
    if membrane.reset == "subtractive":
        derivatives["keep"] = alpha
        reset = -given["theta"]
    elif membrane.reset == "multiplicative-1":
        current = given["current"]
        if "kernel" in given:
            current = current + z @ given["kernel"]
        derivatives["current"] = 1.0 - z
        derivatives["keep"] = alpha * (1.0 - z)
        reset = -(alpha * v + current)
    else:
        derivatives["keep"] = alpha * (1.0 - z)
        reset = -alpha * v
    if membrane.reset_gradient:
        derivatives["reset"] = reset
    if mask is not None:
        derivatives = {name: value * mask for name, value in derivatives.items()}
        derivatives["keep"] = derivatives["keep"] + (1.0 - mask)
        derivatives.setdefault("current", mask)
    return derivatives


def _adjoints(
    slope: Tensor,
    incoming: dict[str, Tensor],
    derivatives: dict[str, Tensor],
    given: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The gradients by every state, `(T+1, batch, units)`."""
    at_states = {name: _until_end(value) for name, value in derivatives.items()}
    into_spikes = slope * incoming["z"] if "z" in incoming else ops.zeros_like(slope)
    kernel = given.get("kernel")
    if "rho" in given:
        return _adaptive_adjoints(slope, into_spikes, incoming, at_states, given)
    drive = into_spikes + incoming["v"] if "v" in incoming else into_spikes
    decay = at_states["keep"]
    if "reset" in at_states:
        decay = decay + slope * at_states["reset"]
    elif len(decay.shape) < len(slope.shape):
        decay = ops.broadcast_to(decay, ops.shape(slope))
    if kernel is None:
        return {"v": linear_scan(decay, drive, reverse=True)}
    back = ops.transpose(kernel)
    steps = {"drive": drive, "decay": decay, "slope": slope}
    if "current" in at_states:
        steps["current"] = at_states["current"]

    def step(later: Tensor, at: dict[str, Tensor]) -> Tensor:
        into_current = later * at["current"] if "current" in at else later
        into_spikes = into_current @ back
        return at["drive"] + at["decay"] * later + at["slope"] * into_spikes

    nothing = ops.zeros_like(drive[0])
    return {"v": backend.running_states(step, nothing, steps, reverse=True)}


def _adaptive_adjoints(
    slope: Tensor,
    into_spikes: Tensor,
    incoming: dict[str, Tensor],
    at_states: dict[str, Tensor],
    given: dict[str, Tensor],
) -> dict[str, Tensor]:
    beta, rho = given["beta"], given["rho"]
    back = ops.transpose(given["kernel"]) if "kernel" in given else None
    mask = _until_end(given["mask"]) if "mask" in given else None
    # By the adaptation of the step after: of the adaptation and of the spikes before it.
    keep_a = rho if mask is None else rho * mask + (1.0 - mask)
    spikes_a = 1.0 - rho if mask is None else (1.0 - rho) * mask
    steps = {"slope": slope, "into_spikes": into_spikes, **at_states}
    steps.update(keep_a=keep_a, spikes_a=spikes_a)
    if "reset" in at_states:
        steps["reset"] = slope * at_states["reset"]
    for name in ("v", "a"):
        if name in incoming:
            steps[f"incoming_{name}"] = incoming[name]
    fixed = {name: value for name, value in steps.items() if len(value.shape) == 1}
    varying = {name: value for name, value in steps.items() if name not in fixed}

    def step(later: dict[str, Tensor], at: dict[str, Tensor]) -> dict[str, Tensor]:
        at = {**fixed, **at}
        v, a = later["v"], later["a"]
        back_through_time = at["spikes_a"] * a
        if back is not None:
            into_current = v * at["current"] if "current" in at else v
            back_through_time = back_through_time + into_current @ back
        through_spikes = at["into_spikes"] + at["slope"] * back_through_time
        if "reset" in at:
            through_spikes = through_spikes + at["reset"] * v
        new = {
            "v": at["keep"] * v + through_spikes,
            "a": at["keep_a"] * a - beta * through_spikes,
        }
        for name in new:
            if f"incoming_{name}" in at:
                new[name] = new[name] + at[f"incoming_{name}"]
        return new

    nothing = ops.zeros_like(slope[0])
    return backend.running_states(step, {"v": nothing, "a": nothing}, varying, reverse=True)


def _behind(first: Tensor, steps: Tensor) -> Tensor:
    return ops.concatenate([first, steps])


def _until_end(x: Tensor) -> Tensor:
    """Puts zeros behind `(T, ...)`, for the last state; what is the same at all steps stays."""
    if len(x.shape) == 1:
        return x
    return ops.concatenate([x, ops.zeros_like(x[:1])])


def _over_batch(x: Tensor) -> Tensor:
    return ops.sum(x, axis=(0, 1))
