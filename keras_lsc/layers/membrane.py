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

import functools
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_lsc import backend
from keras_lsc.backend import multiply_add
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
        hard = backend.heaviside(u)
        return hard if counter is None else hard * self.may_spike(counter)

    def slopes(self, u: Tensor, counter: Tensor | None, scale: Tensor) -> Tensor:
        """The surrogate derivative of the spikes by u, times `scale`."""
        slope = self.surrogate.derivative(u, scale)
        return slope if counter is None else slope * self.may_spike(counter)

    def next_voltage(self, v: Tensor, z: Tensor, current: Tensor, alpha: Any, theta: Any) -> Tensor:
        """The voltage one step on; `z` are the spikes of the step before."""
        if self.reset == "subtractive":
            return multiply_add(-theta, z, multiply_add(alpha, v, current))
        if self.reset == "multiplicative-1":
            return multiply_add(alpha, v, current) * (1.0 - z)
        return multiply_add(alpha * v, 1.0 - z, current)

    def next_counter(self, counter: Tensor, u: Tensor) -> Tensor:
        """The refractory counter after a step that left the distance `u` to the threshold."""
        spiked = ops.logical_and(u > 0, counter <= 1)
        return ops.where(spiked, self.refractory + 1.0, ops.relu(counter - 1.0))


_GIVEN = ("current", "mask", "kernel", "alpha", "theta", "beta", "rho", "slope")
_NAMES = (*_GIVEN, "v", "a", "counter")


def run(membrane: Membrane, tensors: dict[str, Tensor | None]) -> tuple[Tensor, dict[str, Tensor]]:
    """Runs a population of neurons along a sequence.

    Args:
        membrane: the kind of neurons.
        tensors: all of one float dtype; those that are None are left out of the model.
            "current": `(T, batch, units)`; "mask": `(T, batch, 1)`, 0 where a step is skipped;
            "kernel": recurrent weights `(units, units)`; "alpha" and "theta": `(units,)`;
            "beta" and "rho": `(units,)` of the adaptation; "slope": `(1,)`, a factor on the
            surrogate derivative, which gets no gradient; "v", "a", "counter": first states,
            `(batch, units)`.

    Returns:
        The spikes, and the states "v", "a" and "counter" after every step, all
        `(T, batch, units)`.
    """
    names = tuple(name for name in _NAMES if tensors.get(name) is not None)
    states = tuple(name for name in ("v", "a", "counter") if name in names)
    pass_ = _Pass(membrane, names, states)
    outputs = backend.custom_gradient(pass_.forward, pass_.backward)(*(tensors[n] for n in names))
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
        steps = (given["current"], *([given["mask"]] if "mask" in given else []))

        def step(before: tuple, at: tuple) -> tuple:
            state = dict(zip(self.states, before, strict=True))
            z = membrane.spikes(distance(state, given), state.get("counter"))
            current = at[0] if kernel is None else at[0] + z @ kernel
            new = {
                "v": membrane.next_voltage(state["v"], z, current, given["alpha"], given["theta"])
            }
            if "a" in state:
                new["a"] = multiply_add(given["rho"], state["a"] - z, z)
            if "counter" in state:
                new["counter"] = membrane.next_counter(state["counter"], distance(new, given))
            after = [new[name] for name in self.states]
            if len(at) > 1:
                keep = at[1]
                after = [keep * n + (1.0 - keep) * b for n, b in zip(after, before, strict=True)]
            return tuple(after)

        start = tuple(given[name] for name in self.states)
        visited = backend.running_states(step, start, steps)
        after = dict(zip(self.states, visited, strict=True))
        return membrane.spikes(distance(after, given), after.get("counter")), *visited

    def backward(self, inputs: tuple, outputs: tuple, cotangents: tuple) -> tuple:
        given = dict(zip(self.names, inputs, strict=True))
        after = dict(zip(self.states, outputs[1:], strict=True))
        incoming = {
            name: gradient
            for name, gradient in zip(("z", *self.states), cotangents, strict=True)
            if gradient is not None and name != "counter"
        }
        return _Backward(self.membrane, given, outputs[0], after, incoming).gradients(self.names)


def distance(state: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
    """u, how far the voltage is above the threshold."""
    u = state["v"] - given["theta"]
    return u - given["beta"] * state["a"] if "a" in state else u


class _Backward:
    """The gradients of a population, by its states after every step and what comes in there.

    The adjoint at the state after step t needs what step t+1 does to that state. So everything is
    kept at the states after the steps 1..T, and the first state, of which a gradient is rarely
    wanted, is treated by itself.
    """

    def __init__(
        self,
        membrane: Membrane,
        given: dict[str, Tensor],
        spikes: Tensor,
        after: dict[str, Tensor],
        incoming: dict[str, Tensor],
    ):
        self.membrane = membrane
        self.given = given
        self.start = {name: given[name] for name in after}
        self.first_spikes = membrane.spikes(distance(self.start, given), given.get("counter"))
        self.spikes = spikes
        self.after = after
        self.incoming = incoming
        slope = membrane.slopes(distance(after, given), after.get("counter"), given["slope"])
        self.at_states = self._coefficients(after, spikes, slope, following=True)
        self.into_spikes = slope * incoming["z"] if "z" in incoming else None
        self.adjoint, self.adjoint_a = self._adjoints(slope)

    def gradients(self, names: tuple[str, ...]) -> tuple:
        """For every tensor the function that makes its gradient."""
        makers = {
            "current": self._by_current,
            "kernel": self._by_kernel,
            "alpha": self._by_alpha,
            "theta": self._by_theta,
            "beta": self._by_beta,
            "rho": self._by_rho,
            "v": lambda: self._at_start[0],
            "a": lambda: self._at_start[1],
        }
        return tuple(makers.get(name) for name in names)

    def _coefficients(
        self, states: dict[str, Tensor], z: Tensor, slope: Tensor, following: bool
    ) -> dict[str, Tensor]:
        """What a step makes of the states before it, at these states.

        "keep": of the voltage, "current": of the current (1 without it), "spikes": of the spikes
        through reset, times the slope; "keep_a" and "spikes_a" of the adaptation. `(units,)` where
        it is the same at all steps.
        """
        given, alpha, v = self.given, self.given["alpha"], states["v"]
        at = {"slope": slope, "keep": alpha}
        mask = self._of_step("mask", following)
        if self.membrane.reset == "subtractive":
            reset = -given["theta"]
        elif self.membrane.reset == "multiplicative-1":
            current = self._of_step("current", following)
            if "kernel" in given:
                current = current + z @ given["kernel"]
            at["current"] = 1.0 - z
            at["keep"] = alpha * (1.0 - z)
            reset = -(alpha * v + current)
        else:
            at["keep"] = alpha * (1.0 - z)
            reset = -alpha * v
        if "rho" in given:
            at["keep_a"], at["spikes_a"] = given["rho"], 1.0 - given["rho"]
        if self.membrane.reset_gradient:
            at["spikes"] = slope * reset
        if mask is not None:
            for name in at:
                at[name] = at[name] if name == "slope" else at[name] * mask
            for name in ("keep", "keep_a"):
                if name in at:
                    at[name] = at[name] + (1.0 - mask)
            at.setdefault("current", mask)
        return at

    def _of_step(self, name: str, following: bool) -> Tensor | None:
        """What is given to each step but the first and, after the last, to none; or to the first.

        After the last step nothing comes back, so what stands there has no effect.
        """
        if name not in self.given:
            return None
        steps = self.given[name]
        return ops.concatenate([steps[1:], steps[:1]]) if following else steps[0]

    def _adjoints(self, slope: Tensor) -> tuple[Tensor, Tensor | None]:
        at = self.at_states
        kernel = self.given.get("kernel")
        nothing = ops.zeros_like(slope[0])
        if "rho" not in self.given and kernel is None:
            decay = at["keep"] + at["spikes"] if "spikes" in at else at["keep"]
            drive = self._drive(slope)
            return linear_scan(decay, drive, reverse=True), None
        fixed = {name: value for name, value in at.items() if len(value.shape) == 1}
        moving = {name: value for name, value in at.items() if name not in fixed}
        if self.into_spikes is not None:
            moving["into_spikes"] = self.into_spikes
        for name in ("v", "a"):
            if name in self.incoming:
                moving[f"incoming_{name}"] = self.incoming[name]
        names, back = tuple(moving), None if kernel is None else ops.transpose(kernel)

        def step(later: tuple, values: tuple) -> tuple:
            return self._before(later, {**fixed, **dict(zip(names, values, strict=True))}, back)

        start = (nothing, nothing) if "rho" in self.given else (nothing,)
        adjoints = backend.running_states(step, start, tuple(moving.values()), reverse=True)
        return adjoints if len(adjoints) == 2 else (adjoints[0], None)

    def _drive(self, like: Tensor) -> Tensor:
        drives = [x for x in (self.into_spikes, self.incoming.get("v")) if x is not None]
        return sum(drives[1:], drives[0]) if drives else ops.zeros_like(like)

    def _before(
        self, later: tuple, at: dict[str, Tensor], back: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The adjoints of the states before a step, from those of the states after it."""
        v = later[0]
        into = None
        if back is not None:
            into = (v * at["current"] if "current" in at else v) @ back
        if len(later) == 2:
            by_adaptation = at["spikes_a"] * later[1]
            into = by_adaptation if into is None else into + by_adaptation
        through = at.get("into_spikes")
        if into is not None:
            through = _add_product(at["slope"], into, through)
        if "spikes" in at:
            through = _add_product(at["spikes"], v, through)
        new = [_add_product(at["keep"], v, through)]
        if len(later) == 2:
            new.append(at["keep_a"] * later[1] - self.given["beta"] * through)
        for k, name in enumerate(("incoming_v", "incoming_a")):
            if name in at:
                new[k] = new[k] + at[name]
        return tuple(new)

    @functools.cached_property
    def _start_coefficients(self) -> dict[str, Tensor]:
        u, counter = distance(self.start, self.given), self.given.get("counter")
        slope = self.membrane.slopes(u, counter, self.given["slope"])
        return self._coefficients(self.start, self.first_spikes, slope, following=False)

    @functools.cached_property
    def _at_start(self) -> tuple[Tensor, ...]:
        later = [x[0] for x in (self.adjoint, self.adjoint_a) if x is not None]
        back = ops.transpose(self.given["kernel"]) if "kernel" in self.given else None
        return self._before(tuple(later), self._start_coefficients, back)

    @functools.cached_property
    def _z_before(self) -> Tensor:
        return _before_steps(self.first_spikes, self.spikes)

    @functools.cached_property
    def _stepped(self) -> Tensor:
        return self.adjoint * self.given["mask"] if "mask" in self.given else self.adjoint

    @functools.cached_property
    def _stepped_a(self) -> Tensor:
        return self.adjoint_a * self.given["mask"] if "mask" in self.given else self.adjoint_a

    def _by_current(self) -> Tensor:
        if self.membrane.reset == "multiplicative-1":
            return self._stepped * (1.0 - self._z_before)
        return self._stepped

    def _by_kernel(self) -> Tensor:
        units = self.given["kernel"].shape[0]
        spikes = ops.transpose(ops.reshape(self._z_before, (-1, units)))
        return spikes @ ops.reshape(self._by_current(), (-1, units))

    def _by_alpha(self) -> Tensor:
        if self.membrane.reset == "subtractive":
            return _sum_with_before(self._stepped, self.start["v"], self.after["v"])
        start = self.start["v"] * (1.0 - self.first_spikes)
        return _sum_with_before(self._stepped, start, self.after["v"] * (1.0 - self.spikes))

    @functools.cached_property
    def _through_spikes(self) -> tuple[Tensor, Tensor]:
        """What comes back through the spikes of the first state, and of the others."""
        keep, keep_first = self.at_states["keep"], self._start_coefficients["keep"]
        later = ops.concatenate([self.adjoint[1:], ops.zeros_like(self.adjoint[:1])])
        others = self.adjoint - keep * later
        if "v" in self.incoming:
            others = others - self.incoming["v"]
        return self._at_start[0] - keep_first * self.adjoint[0], others

    def _by_theta(self) -> Tensor:
        first, others = self._through_spikes
        gradient = -ops.sum(first, axis=0) - _over_batch(others)
        if self.membrane.reset == "subtractive":
            before = _sum_with_before(self._stepped, self.first_spikes, self.spikes)
            gradient = gradient - before
        return gradient

    def _by_beta(self) -> Tensor:
        first, others = self._through_spikes
        return -ops.sum(first * self.start["a"], axis=0) - _over_batch(others * self.after["a"])

    def _by_rho(self) -> Tensor:
        start, after = self.start["a"] - self.first_spikes, self.after["a"] - self.spikes
        return _sum_with_before(self._stepped_a, start, after)


def _add_product(x: Tensor, y: Tensor, z: Tensor | None) -> Tensor:
    return x * y if z is None else multiply_add(x, y, z)


def _before_steps(first: Tensor, after: Tensor) -> Tensor:
    """What was there before every step, from what was there at first and after every step."""
    return ops.concatenate([ops.expand_dims(first, 0), after[:-1]])


def _sum_with_before(steps: Tensor, first: Tensor, after: Tensor) -> Tensor:
    """Sums over steps and batch the product with what was there before every step."""
    return _over_batch(steps[1:] * after[:-1]) + ops.sum(steps[0] * first, axis=0)


def _over_batch(x: Tensor) -> Tensor:
    return ops.sum(x, axis=(0, 1))
