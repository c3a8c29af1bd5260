"""GradInit: one scale a weight, learned so that one step of training helps."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops, tree

from keras_lsc.arguments import number, one_of, positive_integer
from keras_lsc.methods.draws import generator_of
from keras_lsc.methods.method import Method
from keras_lsc.methods.virtual_step import VirtualStep
from keras_lsc.progress import Progress
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.graph import structure_of
from keras_lsc.stability.placing import place

Array = np.ndarray

_LARGEST_SLOPE = 1.0
# Below it a weight would be gone.
_LEAST = 0.01
# A gradient that overflows says in no scale where to go: all of them shrink.
_SHRINK = 0.5


@dataclass(frozen=True)
class GradInit(Method):
    """Learns one scale for every weight, so that a first step of training lowers the loss most.

    The step is a virtual one, of SGD or Adam, and the gradient that it goes along is held below a
    bound: where it is above, an iteration lowers its norm, and else the loss of the step on a
    batch of which a half is new. Needs labels, and a model that is compiled with a loss; any Keras
    layers. A weight that is zero, as a bias may be, stays so.

    Args:
        optimizer: "sgd" or "adam", whose step is taken: along the gradient, bounded in its
            Euclidean norm, or along its sign, bounded in the sum of absolute values.
        step: length of the virtual step.
        bound: gamma, of the norm of the gradient. Without it 1 for SGD; for Adam 1/step, at which
            the loss falls by 1 at most in the first order.
        iterations: number of iterations.
        learning_rate: of Adam, which moves the scales.
        batch_size: of a batch.

    Raises:
        FloatingPointError: the loss or its gradient stays infinite or NaN.
        ValueError: the norm of the gradient is above its bound at the end; or no labels, no loss.

    Source: Zhu et al., arXiv 2102.08098, algorithm 1 and equation 1. The bound of Adam is this
        project's where none is given; the model runs in inference.

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> x = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
        >>> stack = [keras.layers.Dense(16, "relu") for _ in range(3)]
        >>> model = keras.Sequential([keras.Input((8,)), *stack, keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> method = keras_lsc.methods.GradInit(iterations=5)
        >>> report = keras_lsc.stabilize(model, x, y=x[:, :1], method=method)
    """

    name: ClassVar[str] = "gradinit"
    needs_labels: ClassVar[bool] = True
    optimizer: str = "sgd"
    step: float = 0.1
    bound: float | None = None
    iterations: int = 200
    learning_rate: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, ("sgd", "adam"))
        number("step", self.step, above=0)
        if self.bound is not None:
            number("bound", self.bound, above=0)
        positive_integer("iterations", self.iterations)
        number("learning_rate", self.learning_rate, above=0)
        positive_integer("batch_size", self.batch_size)

    @property
    def gamma(self) -> float:
        """The bound of the norm of the gradient."""
        if self.bound is not None:
            return self.bound
        return 1.0 if self.optimizer == "sgd" else 1.0 / self.step

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Learns the scales, and gives the weights theirs; see `Method.apply`."""
        if y is None or not getattr(model, "compiled", False):
            lacks = "labels: give y" if y is None else "a loss: call model.compile(loss=...) first"
            raise ValueError(f"method={self.name!r} needs {lacks}.")
        frozen = frozen_variables(model)
        weights = [w for w in model.trainable_variables if id(w) not in frozen]
        if not weights:
            raise ValueError(
                f"Nothing of model {model.name!r} may be moved: all of it is frozen. Set "
                "trainable=True on the layers to scale."
            )
        structure = structure_of(model, x)
        rows = [np.asarray(array) for array in (*tree.flatten(x), y)]
        virtual = VirtualStep(model, weights, structure, self.step, self.optimizer == "adam")
        learning = _Learning(self, virtual, rows, seed)
        progress = Progress(model.name, self.iterations, verbose)
        for iteration in range(self.iterations):
            norm = learning.iterate()
            progress.on_train_batch_end(iteration, {"max_deviation": max(norm - self.gamma, 0.0)})
        progress.leave()
        norm = learning.bounded()
        if not norm <= self.gamma:
            kind = FloatingPointError if not np.isfinite(norm) else ValueError
            raise kind(
                f"The gradient of model {model.name!r} has the norm {norm:.3g} after "
                f"{self.iterations} iterations of {self.name!r}, above the bound {self.gamma:g}. "
                "Allow more iterations or a larger bound: keras_lsc.methods.GradInit(...)."
            )
        for weight, scale in zip(weights, ops.convert_to_numpy(learning.scales), strict=True):
            place(weight, ops.convert_to_numpy(weight.value) * scale)


def _at_least(scales: Any) -> Any:
    """The constraint of the scales."""
    return ops.maximum(ops.convert_to_tensor(scales), _LEAST)


class _Learning:
    """The scales, and Adam that moves them.

    Args:
        method: with its options.
        virtual: the loss as a function of the scales.
        rows: inputs, flat, and targets.
        seed: of the batches.
    """

    def __init__(self, method: GradInit, virtual: VirtualStep, rows: list[Array], seed: int):
        self._method, self._virtual, self._rows = method, virtual, rows
        self._generator = generator_of(seed, method.name)
        self._size = min(method.batch_size, len(rows[0]))
        self._batch = self._draw(self._size)
        self.scales = keras.Variable(np.ones(len(virtual.sizes)), dtype="float32", name="scales")
        self.scales.constraint = _at_least
        self._adam = keras.optimizers.Adam(method.learning_rate, clipvalue=_LARGEST_SLOPE)

    def iterate(self) -> float:
        """One iteration; returns the norm of the gradient before it."""
        method, virtual = self._method, self._virtual
        batch = self._batch
        norm, by_norm = self._evaluated(virtual.norm, [batch])
        if norm > method.gamma or not np.isfinite(norm):
            self._move(by_norm)
        else:
            kept = self._size // 2
            new = self._draw(self._size - kept)
            others = [np.concatenate([a[:kept], b]) for a, b in zip(batch, new, strict=True)]
            self._move(self._evaluated(virtual.loss, [batch, others])[1])
        self._batch = self._draw(self._size)
        return norm

    def bounded(self) -> float:
        """The norm of the gradient at the end, brought under its bound where noise left it."""
        for _ in range(20):
            norm, by_norm = self._evaluated(self._virtual.norm, [self._batch])
            if norm <= self._method.gamma:
                break
            self._move(by_norm)
        return norm

    def _draw(self, count: int) -> list[Array]:
        chosen = self._generator.choice(len(self._rows[0]), count, replace=False)
        return [array[chosen] for array in self._rows]

    def _evaluated(self, function: Any, batches: list[list[Array]]) -> tuple[float, Array]:
        given = tree.map_structure(ops.convert_to_tensor, (self.scales.value, self._virtual.values))
        tensors = [[ops.convert_to_tensor(array) for array in batch] for batch in batches]
        found = function(*given, *tensors)
        value, slope = (ops.convert_to_numpy(ops.stop_gradient(part)) for part in found)
        return float(value[0]), np.array(slope, "float32")

    def _move(self, slope: Array) -> None:
        """A step of Adam."""
        if np.isfinite(slope).all():
            self._adam.apply([ops.convert_to_tensor(slope)], [self.scales])
        else:
            self.scales.assign(_at_least(_SHRINK * self.scales.value))
