"""A task that becomes harder as it is learned."""

from typing import Any

import keras

from keras_lsc.arguments import flag, number, text
from keras_lsc.datasets import GrowingTask


class NCurriculum(keras.callbacks.Callback):
    """Makes a task harder, n to n + 1, after every epoch whose accuracy is above a threshold.

    With several heads let it watch `keras_lsc.callbacks.LowestAccuracy`, the 98 % rule for every
    head; the published code asks it of the mean of the heads and of the newest.

    Args:
        task: a `keras_lsc.datasets.GrowingTask`, the same one that is trained on.
        monitor: name of the metric that decides.
        threshold: value that the metric has to exceed.
        stop_at_largest: whether to end the training when the largest n is passed too.

    Attributes:
        history: the n of every epoch so far.

    Raises:
        ValueError: there is no such metric; or an argument is of no use.

    Example:
        >>> import keras_lsc
        >>> task = keras_lsc.datasets.GrowingTask("parity", n=2, largest=10)
        >>> curriculum = keras_lsc.callbacks.NCurriculum(task)
        >>> curriculum.threshold
        0.98

    Source:
        arXiv 2309.12927: N grows by 1 when the accuracy exceeds 98 %.
    """

    def __init__(
        self,
        task: GrowingTask,
        monitor: str = "accuracy",
        threshold: float = 0.98,
        stop_at_largest: bool = True,
    ):
        super().__init__()
        if not isinstance(task, GrowingTask):
            raise ValueError(
                f"task must be a keras_lsc.datasets.GrowingTask, got {task!r}. Give the one that "
                "is trained on."
            )
        self.task = task
        self.monitor = text("monitor", monitor)
        self.threshold = number("threshold", threshold)
        self.stop_at_largest = flag("stop_at_largest", stop_at_largest)
        self.history: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets n grow if the accuracy is high enough."""
        del epoch
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"NCurriculum found no {self.monitor!r} among the metrics {sorted(logs)}. Compile "
                "the model with it, or choose another with monitor=."
            )
        self.history.append(self.task.n)
        passed = float(logs[self.monitor]) > self.threshold
        if passed and not self.task.grow() and self.stop_at_largest:
            self.model.stop_training = True
