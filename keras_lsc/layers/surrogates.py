"""Surrogate gradients: spikes that are exactly 0 or 1 and differentiate as something smooth.

A spike is `stop_gradient(hard) + (soft - stop_gradient(soft))`, where `soft` is the primitive of
the surrogate derivative: the value is that of `hard`, every derivative that of `soft`. Because
this is ordinary arithmetic, it differentiates in reverse, forward and vectorised mode on every
backend; a custom gradient does so on none, and on TensorFlow is silently zero when vectorised.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_lsc import arguments, backend
from keras_lsc import plot as drawing

Tensor = Any


class Shape(NamedTuple):
    """A surrogate derivative f of height 1 and area 1, and its odd primitive F.

    Attributes:
        formula: f(x) as text.
        derivative: (x, tail) -> f(x).
        primitive: (x, tail) -> F(x).
    """

    formula: str
    derivative: Callable[[Tensor, float], Tensor]
    primitive: Callable[[Tensor, float], Tensor]


def _odd(one_sided: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """sign(x) one_sided(|x|), with the right derivative at 0 too, where |x| has none."""
    is_right = x >= 0
    right, left = ops.where(is_right, x, 0.0), ops.where(is_right, 0.0, -x)
    return one_sided(right) - one_sided(left)


def _rectangular(x: Tensor, _: float) -> Tensor:
    return ops.cast(ops.abs(x) < 0.5, x.dtype)


def _rectangular_primitive(x: Tensor, _: float) -> Tensor:
    inside = ops.abs(x) < 0.5
    return ops.where(inside, x, 0.5 * ops.sign(x))


def _triangular(x: Tensor, _: float) -> Tensor:
    return ops.relu(1.0 - ops.abs(x))


def _triangular_primitive(x: Tensor, _: float) -> Tensor:
    inside = ops.abs(x) < 1.0
    x_inside = ops.where(inside, x, 0.0)
    return ops.where(inside, x_inside - 0.5 * x_inside * ops.abs(x_inside), 0.5 * ops.sign(x))


def _exponential(x: Tensor, _: float) -> Tensor:
    return ops.exp(-2.0 * ops.abs(x))


def _exponential_primitive(x: Tensor, _: float) -> Tensor:
    return _odd(lambda r: -0.5 * ops.expm1(-2.0 * r), x)


def _gaussian(x: Tensor, _: float) -> Tensor:
    return ops.exp(-math.pi * ops.square(x))


def _gaussian_primitive(x: Tensor, _: float) -> Tensor:
    return 0.5 * ops.erf(math.sqrt(math.pi) * x)


def _sigmoid_derivative(x: Tensor, _: float) -> Tensor:
    sigmoid = ops.sigmoid(4.0 * x)
    return 4.0 * sigmoid * (1.0 - sigmoid)


def _sigmoid_primitive(x: Tensor, _: float) -> Tensor:
    return ops.sigmoid(4.0 * x) - 0.5


def _fast_sigmoid(x: Tensor, _: float) -> Tensor:
    return ops.square(ops.reciprocal(1.0 + 2.0 * ops.abs(x)))


def _fast_sigmoid_primitive(x: Tensor, _: float) -> Tensor:
    return x / (1.0 + 2.0 * ops.abs(x))


def _cauchy(x: Tensor, _: float) -> Tensor:
    return 1.0 / (1.0 + ops.square(math.pi * x))


def _cauchy_primitive(x: Tensor, _: float) -> Tensor:
    return ops.arctan(math.pi * x) / math.pi


def _q_pseudo_spike(x: Tensor, q: float) -> Tensor:
    return ops.power(1.0 + 2.0 / (q - 1.0) * ops.abs(x), -q)


def _q_pseudo_spike_primitive(x: Tensor, q: float) -> Tensor:
    return _odd(lambda r: 0.5 - 0.5 * ops.power(1.0 + 2.0 / (q - 1.0) * r, 1.0 - q), x)


SHAPES: dict[str, Shape] = {
    "rectangular": Shape("1 where |x| < 1/2, else 0", _rectangular, _rectangular_primitive),
    "triangular": Shape("max(0, 1 - |x|)", _triangular, _triangular_primitive),
    "exponential": Shape("exp(-2 |x|)", _exponential, _exponential_primitive),
    "gaussian": Shape("exp(-pi x^2)", _gaussian, _gaussian_primitive),
    "sigmoid_derivative": Shape(
        "4 sigmoid(4 x) (1 - sigmoid(4 x))", _sigmoid_derivative, _sigmoid_primitive
    ),
    "fast_sigmoid": Shape("(1 + 2 |x|)^-2", _fast_sigmoid, _fast_sigmoid_primitive),
    "cauchy": Shape("1 / (1 + (pi x)^2)", _cauchy, _cauchy_primitive),
    "q_pseudo_spike": Shape("(1 + 2 |x| / (q - 1))^-q", _q_pseudo_spike, _q_pseudo_spike_primitive),
}


@keras.saving.register_keras_serializable(package="keras_lsc")
class Surrogate:
    """The spike function H(u), with dz/du = dampening * f(sharpness * u) as its derivative.

    Args:
        shape: name of f, one of `SHAPES`, each of height 1 and area 1; or a callable, the
            primitive of your own f, made of `keras.ops`. Register a callable with
            `keras.saving.register_keras_serializable` if models that use it are to be saved.
        dampening: height of the derivative at 0 (the paper's gamma), positive.
        sharpness: factor on u (the paper's s), positive.
        tail: the q of "q_pseudo_spike", above 1: 2 is the fast sigmoid, infinity exponential.

    Raises:
        ValueError: an unknown shape, or a number outside its range.

    Source: arXiv 2202.00282, table of surrogate gradients.

    Example:
        >>> spike = Surrogate("triangular", dampening=0.3)
        >>> u = ops.convert_to_tensor([-0.5, 0.0, 2.0])
        >>> ops.convert_to_numpy(spike(u)).tolist()
        [0.0, 0.0, 1.0]
        >>> np.round(ops.convert_to_numpy(spike.derivative(u)), 3).tolist()
        [0.15000000596046448, 0.30000001192092896, 0.0]
    """

    def __init__(
        self,
        shape: str | Callable[[Tensor], Tensor] = "fast_sigmoid",
        dampening: float = 0.5,
        sharpness: float = 1.0,
        tail: float = 2.0,
    ):
        if not callable(shape):
            own = "Or pass a callable: the primitive of a surrogate derivative."
            arguments.one_of("shape", shape, SHAPES, advice=own)
        silent = "Otherwise no gradient passes through a spike."
        self.shape = shape
        self.dampening = arguments.number("dampening", dampening, above=0, advice=silent)
        self.sharpness = arguments.number("sharpness", sharpness, above=0, advice=silent)
        self.tail = arguments.number("tail", tail, above=1, advice="Its area is infinite below.")

    def __call__(self, u: Tensor, scale: Tensor | None = None) -> Tensor:
        """Returns 1 where u > 0 and 0 elsewhere, in the dtype of `u`, with the surrogate gradient.

        Args:
            u: distance to the threshold, floats of any shape.
            scale: a factor on the derivative, of a shape that broadcasts; none without it.

        Returns:
            Spikes of the shape of `u`.
        """
        u = ops.convert_to_tensor(u)
        soft = self.primitive(u) if scale is None else scale * self.primitive(u)
        hard = ops.cast(u > 0, u.dtype)
        return ops.stop_gradient(hard) + (soft - ops.stop_gradient(soft))

    def primitive(self, u: Tensor) -> Tensor:
        """Returns the smooth function whose derivative a spike takes."""
        x = self.sharpness * ops.convert_to_tensor(u)
        primitive = self.shape(x) if callable(self.shape) else self._named.primitive(x, self.tail)
        return self.dampening / self.sharpness * primitive

    def derivative(self, u: Tensor, scale: Tensor | None = None) -> Tensor:
        """Returns scale * dampening * f(sharpness * u), element by element."""
        u = ops.convert_to_tensor(u)
        if not callable(self.shape):
            x = u if self.sharpness == 1.0 else self.sharpness * u
            height = self.dampening if scale is None else self.dampening * scale
            return height * self._named.derivative(x, self.tail)
        y, pullback = backend.vjp(self.primitive, u)
        return pullback(ops.ones_like(y) if scale is None else scale * ops.ones_like(y))

    @property
    def _named(self) -> Shape:
        return SHAPES[str(self.shape)]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        shape = self.shape
        if callable(shape):
            shape = keras.saving.serialize_keras_object(shape)
        return {
            "shape": shape,
            "dampening": self.dampening,
            "sharpness": self.sharpness,
            "tail": self.tail,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Surrogate":
        """Makes a surrogate from `get_config`."""
        shape = config["shape"]
        if not isinstance(shape, str):
            shape = keras.saving.deserialize_keras_object(shape)
        return cls(**{**config, "shape": shape})


def get(identifier: Any) -> Surrogate:
    """Returns a surrogate from a name, a primitive, a configuration or a surrogate.

    Args:
        identifier: a `Surrogate`, the name of a shape, a callable (a primitive, which gets
            dampening and sharpness 1), or what `keras.saving.serialize_keras_object` made of one.

    Returns:
        A `Surrogate`.

    Raises:
        ValueError: the name is unknown, or `identifier` is none of these.

    Example:
        >>> get("cauchy").dampening
        0.5
        >>> get(ops.tanh).dampening
        1.0
    """
    if isinstance(identifier, Surrogate):
        return identifier
    if isinstance(identifier, str):
        return Surrogate(identifier)
    if isinstance(identifier, dict) and "class_name" in identifier:
        identifier = keras.saving.deserialize_keras_object(identifier)
        if isinstance(identifier, Surrogate):
            return identifier
    if callable(identifier):
        return Surrogate(identifier, dampening=1.0)
    raise ValueError(
        f"Cannot make a surrogate of {identifier!r}. Pass the name of a shape "
        f"({', '.join(SHAPES)}), a Surrogate, or a callable: the primitive of a derivative."
    )


@keras.saving.register_keras_serializable(package="keras_lsc")
def straight_through(u: Tensor) -> Tensor:
    """The primitive of the straight-through estimator: spikes differentiate as their distance u.

    The derivative is 1 at any distance, so it has no area and no dampening. The transition in time
    of a layer with a subtractive reset is then alpha - theta on the diagonal, plus the transposed
    recurrent weights, at all states, whether neurons fire or not: the radius knows nothing of the
    data, and is that of this one matrix. A multiplicative reset adds the voltage to it.

    Args:
        u: distance to the threshold.

    Returns:
        u itself.

    Source: Bengio, Leonard and Courville, arXiv 1308.3432, section 4.

    Example:
        >>> float(get(straight_through).derivative(ops.convert_to_tensor(5.0)))
        1.0
    """
    return ops.convert_to_tensor(u)


def table() -> str:
    r"""Returns a Markdown table of the shapes: formula, height, and what is left far from 0.

    Example:
        >>> print(table().splitlines()[2])
        | `rectangular` | 1 where \|x\| < 1/2, else 0 | 0 | 0 |
    """
    lines = ["| shape | derivative f(x) | f(1) | f(3) |", "|---|---|---|---|"]
    for name, shape in SHAPES.items():
        far = ops.convert_to_numpy(shape.derivative(ops.convert_to_tensor([1.0, 3.0]), 2.0))
        formula = shape.formula.replace("|", "\\|")
        lines.append(f"| `{name}` | {formula} | {far[0]:.2g} | {far[1]:.2g} |")
    return "\n".join(lines)


def page() -> str:
    """Returns the page `docs/surrogates.md`, with the table.

    Example:
        >>> page().splitlines()[0]
        '# Surrogate gradients'
    """
    return (
        "# Surrogate gradients\n\n"
        "A spike is 1 where the voltage v is above the threshold and 0 elsewhere, so it has no "
        "useful\nderivative. In its place stands dampening * f(sharpness * (v - threshold)), with "
        "one of these f, each\nof height and area 1. Of the last, q is the `tail`: 2 gives the "
        "fast sigmoid, infinity the exponential.\nIn the table q = 2.\n\n"
        f"{table()}\n\n"
        "What is left far from the threshold, in the last columns, decides whether a silent neuron "
        "still\nlearns: with `rectangular` and `triangular` it does not.\n\n"
        "![The eight shapes and their primitives](surrogates.png)\n\n"
        "```python\n"
        "import keras_lsc\n"
        "from keras import ops\n\n"
        'keras_lsc.layers.LIF(64, surrogate="cauchy")\n'
        'surrogate = keras_lsc.layers.Surrogate("gaussian", dampening=0.3, sharpness=2.0)\n'
        "keras_lsc.layers.LIF(64, surrogate=surrogate)\n"
        "keras_lsc.layers.LIF(64, surrogate=ops.tanh)  # your own, by its primitive\n"
        "```\n\n"
        "This page and its picture are made by `keras_lsc.layers.surrogates.page()` and `plot()`."
        "\n"
    )


def plot(tail: float = 4.0) -> Any:
    """Draws every shape and its primitive.

    Args:
        tail: the q of "q_pseudo_spike".

    Returns:
        The matplotlib `Figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, panels = drawing.new_figure(4.6, 2, 4, width=10, sharex=True, sharey=True)
    (first, _), (second, _) = drawing.STYLES[:2]
    u = np.linspace(-2.0, 2.0, 801, dtype="float32")
    for panel, (name, shape) in zip(panels.flat, SHAPES.items(), strict=True):
        surrogate = Surrogate(name, dampening=1.0, tail=tail)
        title = name.replace("_", " ") + (f", q = {tail:g}" if name == "q_pseudo_spike" else "")
        panel.set_title(title, fontsize=10)
        derivative = ops.convert_to_numpy(surrogate.derivative(u))
        soft = ops.convert_to_numpy(shape.primitive(ops.convert_to_tensor(u), tail)) + 0.5
        panel.fill_between(u, derivative, alpha=0.25, color=second, linewidth=0)
        panel.plot(u, derivative, color=second, label="derivative f")
        panel.plot(u, soft, color=first, linewidth=1.2, label="primitive + 1/2")
        panel.plot(u, u > 0, color="0.4", linewidth=0.8, linestyle=":", label="spike")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[1]:
        panel.set_xlabel("x = s (v - threshold)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
