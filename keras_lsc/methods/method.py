"""What every method is: an object with its options, and one function that changes a model."""

from typing import Any, ClassVar

import keras


class Method:
    """A way to a start, with its options; `keras_lsc.stabilize(model, x, method=...)` takes it.

    A subclass is a frozen dataclass: its fields are the options.

    Attributes:
        name: under which `stabilize` knows it, with the options as they are without others.
        needs_labels: whether it needs y, and a model that is compiled with a loss.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False

    def apply(
        self, model: keras.Model, x: Any, y: Any = None, seed: int = 0, verbose: str | int = 0
    ) -> None:
        """Changes the weights of a model, in place; where it raises they may have changed.

        `stabilize` calls it, gives them back after any error, and measures what came of it.

        Args:
            model: a built model.
            x: arrays of its inputs, in the nest that it takes.
            y: targets, where `needs_labels`.
            seed: of what is drawn, by NumPy.
            verbose: as of `stabilize`.
        """
        raise NotImplementedError
