"""What is known of trained weights: what they score, and how they came about."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Of Student's distribution, what leaves out 5 % on both sides together: of 1, 2, ... degrees of
# freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(_STUDENT) + 1


@dataclass(frozen=True)
class Trained:
    """What is known of the trained weights of a checkpoint.

    The twin is the same network from its weights before pre-training: trained on the same data, in
    the same batches and for as many epochs, with a learning rate of its own.

    Attributes:
        metric: Name of the task's metric in the figures below: accuracy, of which more is better,
            or perplexity or mean squared error, of which less is.
        test: The metric of the weights as they are stored, on the test split.
        validation: The same on the validation split.
        unrounded: The metric of the same weights before they were rounded, on the test split.
        seeds: The metric on the test split for every seed, which is that of the order of the
            batches; the weights of the seed that did best on the validation split are stored.
        twin: The same of the twin.
        learning_rate: Learning rate of Adam, of `learning_rates` the best on the validation split.
        twin_learning_rate: The same of the twin.
        learning_rates: Those that were tried, with the first seed.
        epochs: Number of epochs; the weights of the best on the validation split are kept.
        best_epoch: That epoch, of the weights that are stored.
        batch_size: Number of sequences of an update.
        limit: Most sequences of each split that were read; None for all.
        sequences: Number of sequences of each split that was read.
        masks: Whose masks padding was skipped by, as `FineTuning` has it.
        seconds: Seconds of all trainings together, those of the twin included.
        backend: Keras backend on which they were trained and measured.
        versions: Versions of the packages.
        start: The sha256 of the file of the start.
        sha256: The sha256 of the file of the weights.
        bytes: Size of that file.
        address: Where the file is fetched from where it is not in the package; None for nowhere.
    """

    metric: str
    test: float
    validation: float
    unrounded: float
    seeds: Sequence[float]
    twin: Sequence[float]
    learning_rate: float
    twin_learning_rate: float
    learning_rates: Sequence[float]
    epochs: int
    best_epoch: int
    batch_size: int
    limit: int | None
    sequences: Mapping[str, int]
    masks: str
    seconds: float
    backend: str
    versions: Mapping[str, str]
    start: str
    sha256: str
    bytes: int
    address: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trained":
        """Makes it of its JSON types, which are checked already."""
        return cls(**values)

    def __str__(self) -> str:
        return (
            f"{self.metric.replace('_', ' ')} {figure(self.metric, self.test)} on "
            f"{self.sequences['test']:,} test sequences; {interval(self.metric, self.seeds)} over "
            f"{len(self.seeds)} seeds, {interval(self.metric, self.twin)} from the default start"
        )


def half_width(values: Sequence[float]) -> float:
    """Returns half of Student's 95 % interval of a mean.

    Example:
        >>> round(half_width([1.0, 2.0, 3.0]), 2)
        2.48
    """
    count = len(values)
    return _STUDENT[count - 2] * float(np.std(values, ddof=1)) / math.sqrt(count)


def figure(metric: str, value: float) -> str:
    """A metric as it is shown: an accuracy in percent.

    Example:
        >>> figure("accuracy", 0.9512), figure("perplexity", 7.891)
        ('95.1 %', '7.89')
    """
    return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.3g}"


def interval(metric: str, values: Sequence[float]) -> str:
    """A mean with half of its 95 % interval, as it is shown.

    Example:
        >>> interval("accuracy", [0.94, 0.95, 0.96])
        '95.0 ± 2.5 %'
    """
    mean, half = float(np.mean(values)), half_width(values)
    if metric == "accuracy":
        return f"{100 * mean:.1f} ± {100 * half:.1f} %"
    return f"{mean:.3g} ± {half:.2g}"


def is_better(metric: str, value: float, than: float) -> bool:
    """Returns whether a value of a metric is better than another; nothing is better by NaN."""
    return value > than if metric == "accuracy" else value < than
