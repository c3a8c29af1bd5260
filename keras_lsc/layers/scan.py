"""Linear recurrences h_t = a_t h_{t-1} + b_t over a whole sequence, real or complex.

The sequence is cut into blocks; the steps inside a block run one after another, for all blocks at
once, and the states between the blocks are again such a recurrence, a sixteenth as long. So ten
thousand steps take some sixty operations on large arrays, forward and backward, on every backend.
Nothing is divided and no decay is raised to a negative power, so nothing under- or overflows that
the loop would not. (`ops.associative_scan` drops imaginary parts and float64 on torch.)
"""

import functools
import math
from typing import Any

from keras import ops

from keras_lsc import backend

Tensor = Any
# A number is a tuple of its parts: (real,) or (real, imaginary).
Number = tuple[Tensor, ...]

_BLOCK = 16
# From so many numbers a step on, a plain loop is faster: it reads and writes memory once.
_WIDE = 4096


def linear_scan(a: Tensor, b: Tensor, start: Tensor | None = None, reverse: bool = False) -> Tensor:
    """Returns every state of h_t = a_t h_{t-1} + b_t.

    Args:
        a: decay, `(T, ...)` as `b`, or without the time axis where it is the same at every step.
        b: drive, `(T, ...)` floats, time first. It has at least as many axes as `a`.
        start: h before the first step, `(...)`; zero without it.
        reverse: whether time runs from the last step to the first.

    Returns:
        `(T, ...)` states, of the shape of `b`.

    Source: Blelloch 1990, "Prefix sums and their applications", section 1.4.

    Example:
        >>> import numpy as np
        >>> b = np.ones((4, 1), "float32")
        >>> np.ravel(ops.convert_to_numpy(linear_scan(np.float32([0.5]), b))).tolist()
        [1.0, 1.5, 1.75, 1.875]
    """
    start = None if start is None else (start,)
    return _scan((a,), (b,), start, reverse)[0]


def complex_scan(
    a: tuple[Tensor, Tensor],
    b: tuple[Tensor, Tensor],
    start: tuple[Tensor, Tensor] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns every state of h_t = a_t h_{t-1} + b_t for complex numbers.

    Args:
        a: real and imaginary part of the decay, each as in `linear_scan`.
        b: real and imaginary part of the drive.
        start: real and imaginary part of h before the first step; zero without it.
        reverse: whether time runs from the last step to the first.

    Returns:
        Real and imaginary part of the states, each `(T, ...)`.

    Example:
        >>> import numpy as np
        >>> quarter_turn = np.float32([0.0]), np.float32([1.0])
        >>> impulse = np.float32([[1.0], [0.0], [0.0]]), np.zeros((3, 1), "float32")
        >>> real, imag = complex_scan(quarter_turn, impulse)
        >>> np.ravel(ops.convert_to_numpy(real)).tolist()
        [1.0, 0.0, -1.0]
    """
    real, imag = _scan(tuple(a), tuple(b), None if start is None else tuple(start), reverse)
    return real, imag


def _scan(a: Number, b: Number, start: Number | None, reverse: bool) -> Number:
    a = tuple(map(ops.convert_to_tensor, a))
    b = tuple(map(ops.convert_to_tensor, b))
    if start is None:
        start = tuple(ops.zeros_like(part[0]) for part in b)
    else:
        start = tuple(map(ops.convert_to_tensor, start))
    parts, is_constant = len(b), len(a[0].shape) < len(b[0].shape)
    is_wide = _is_wide(b[0])

    def forward(*inputs: Tensor) -> Number:
        a, b, start = _split(inputs, parts)
        if is_wide:
            return _loop(a, b, start, is_constant, reverse)
        if reverse:
            a, b = (a if is_constant else flipped(a)), flipped(b)
        states = _states(a, b, start, is_constant)
        return flipped(states) if reverse else states

    def backward(inputs: tuple, states: Number, cotangents: tuple) -> tuple:
        a, _, start = _split(inputs, parts)
        cotangents = tuple(
            ops.zeros_like(state) if g is None else g
            for state, g in zip(states, cotangents, strict=True)
        )
        conjugate = _conjugate(a)
        # The adjoint obeys the same recurrence the other way, with the decay of the step after.
        decay = conjugate if is_constant else shifted(conjugate, _like_end(conjugate), not reverse)
        adjoint = _scan(decay, cotangents, None, not reverse)

        @functools.cache
        def by_decay() -> Number:
            return _times(adjoint, _conjugate(shifted(states, start, reverse)))

        @functools.cache
        def by_start() -> Number:
            first = -1 if reverse else 0
            decay = conjugate if is_constant else tuple(part[first] for part in conjugate)
            return _times(decay, tuple(part[first] for part in adjoint))

        return (
            *((lambda k=k: _sum_to(by_decay()[k], a[k])) for k in range(parts)),
            *((lambda k=k: adjoint[k]) for k in range(parts)),
            *((lambda k=k: _sum_to(by_start()[k], start[k])) for k in range(parts)),
        )

    return backend.custom_gradient(forward, backward)(*a, *b, *start)


def _is_wide(b: Tensor) -> bool:
    # An exported graph is of any number of sequences, which is a symbol on JAX.
    if backend.is_exporting() or not all(isinstance(size, int) for size in b.shape):
        return False
    return math.prod(b.shape[1:]) >= _WIDE


def _split(inputs: tuple, parts: int) -> tuple[Number, Number, Number]:
    return inputs[:parts], inputs[parts : 2 * parts], inputs[2 * parts :]


def _states(a: Number, b: Number, start: Number, is_constant: bool) -> Number:
    length = backend.static_length(b[0])
    if length is None or length <= _BLOCK:
        return _loop(a, b, start, is_constant)
    b = blocked(b, length)
    nothing = tuple(ops.zeros_like(part[0]) for part in b)
    if is_constant:
        local = _loop(a, b, nothing, is_constant)
        powers = [a]
        for _ in range(_BLOCK - 1):
            powers.append(_times(powers[-1], a))
        decay = tuple(ops.stack(parts) for parts in zip(*powers, strict=True))
        to_end = powers[-1]
        # One axis for the blocks and those that the decay lacks.
        missing = len(b[0].shape) - len(decay[0].shape)
        decay = tuple(
            ops.reshape(part, (_BLOCK, *(1,) * missing, *part.shape[1:])) for part in decay
        )
    else:
        a = blocked(a, length)
        local, decay = _local_states(a, b, nothing)
        to_end = tuple(part[-1] for part in decay)
    ends = _states(to_end, tuple(part[-1] for part in local), start, is_constant)
    entering = shifted(ends, start, False)
    states = _plus(local, _times(decay, entering))
    return joined(states, length)


def _loop(a: Number, b: Number, start: Number, is_constant: bool, reverse: bool = False) -> Number:
    if is_constant:
        return backend.running_states(lambda h, b: _advance(a, h, b), start, b, reverse)
    parts = len(a)

    def step(h: Number, at: tuple) -> Number:
        return _advance(at[:parts], h, at[parts:])

    return backend.running_states(step, start, (*a, *b), reverse)


def _local_states(a: Number, b: Number, nothing: Number) -> tuple[Number, Number]:
    """The states inside the blocks and the products of their decays so far."""
    parts = len(a)
    one = (ops.ones_like(nothing[0]), *nothing[1:])

    def step(carry: tuple, at: tuple) -> tuple:
        h, product = carry[:parts], carry[parts:]
        a, b = at[:parts], at[parts:]
        return (*_advance(a, h, b), *_times(a, product))

    visited = backend.running_states(step, (*nothing, *one), (*a, *b))
    return visited[:parts], visited[parts:]


def blocked(number: Number, length: int, block: int = _BLOCK) -> Number:
    """`(T, ...)` to `(step in block, number of the block, ...)`, with zeros behind the end."""
    blocks = math.ceil(length / block)
    missing = blocks * block - length
    parts = []
    for part in number:
        if missing:
            part = ops.pad(part, [(0, missing), *((0, 0),) * (len(part.shape) - 1)])
        part = ops.reshape(part, (blocks, block, *_sizes(part)[1:]))
        parts.append(ops.swapaxes(part, 0, 1))
    return tuple(parts)


def joined(number: Number, length: int, block: int = _BLOCK) -> Number:
    """`(step in block, number of the block, ...)` to `(T, ...)`, the inverse of `blocked`."""
    steps = math.ceil(length / block) * block
    return tuple(
        ops.reshape(ops.swapaxes(part, 0, 1), (steps, *_sizes(part)[2:]))[:length]
        for part in number
    )


def _sizes(x: Tensor) -> list[int]:
    """The shape with -1 for one unknown size."""
    return [-1 if size is None else size for size in x.shape]


def _times(x: Number, y: Number) -> Number:
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _advance(a: Number, h: Number, b: Number) -> Number:
    """a h + b."""
    if len(a) == 1:
        return (backend.multiply_add(a[0], h[0], b[0]),)
    return _plus(_times(a, h), b)


def _plus(x: Number, y: Number) -> Number:
    return tuple(p + q for p, q in zip(x, y, strict=True))


def _conjugate(x: Number) -> Number:
    return x if len(x) == 1 else (x[0], -x[1])


def flipped(x: Number) -> Number:
    """With time, the first axis, the other way."""
    return tuple(ops.flip(part, axis=0) for part in x)


def _like_end(x: Number) -> Number:
    return tuple(ops.zeros_like(part[0]) for part in x)


def shifted(x: Number, end: Number, towards_start: bool) -> Number:
    """Moves `(T, ...)` by one step in time, `end` taking the place that becomes free."""
    if towards_start:
        return tuple(
            ops.concatenate([part[1:], ops.expand_dims(last, 0)])
            for part, last in zip(x, end, strict=True)
        )
    return tuple(
        ops.concatenate([ops.expand_dims(first, 0), part[:-1]])
        for part, first in zip(x, end, strict=True)
    )


def _sum_to(gradient: Tensor, like: Tensor) -> Tensor:
    """Sums a gradient over the axes along which `like` was broadcast."""
    extra = len(gradient.shape) - len(like.shape)
    axes = [*range(extra)]
    axes += [
        k + extra for k, n in enumerate(like.shape) if n == 1 and gradient.shape[k + extra] != 1
    ]
    if not axes:
        return gradient
    return ops.reshape(ops.sum(gradient, axis=axes), ops.shape(like))
