"""The image tasks: a row of `TASKS` each. To add one, add a row."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from keras_lsc.datasets.examples import Examples, Inputs
from keras_lsc.datasets.image_sources import CIFAR10, CIFAR100, DIGITS, MNIST, ImageSource
from keras_lsc.datasets.image_transforms import (
    LatencyCode,
    in_unit_range,
    permuted,
    standardized,
    z_scored,
)
from keras_lsc.datasets.info import Kind, TaskInfo
from keras_lsc.datasets.task import SHARED_OPTIONS, Task


@dataclass(frozen=True)
class ImageTask:
    """A task that is pictures in some form.

    Attributes:
        name: String, as `keras_lsc.datasets.load` takes it.
        description: String, one sentence.
        source: `ImageSource`, where the pictures are from.
        shape: Shape of one input at the default options, without the batch axis.
        transform: Function of the pixels `(N, height, width, channels)` that returns the inputs. If
            it is a dataclass, its fields are options of the task.
        kind: String, "image" or "spikes".
    """

    name: str
    description: str
    source: ImageSource
    shape: tuple[int, ...]
    transform: Callable[[np.ndarray], Inputs]
    kind: Kind = "image"

    def read(
        self,
        split: str = "train",
        *,
        limit: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        **options: Any,
    ) -> Examples:
        """Reads one split.

        Args:
            split: "train", "validation" or "test"; no picture is in two of them.
            limit: Positive integer, how many pictures to read at most, counted from the start of
                the split; None reads them all.
            data_dir: Folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
            download: Boolean, whether the data may be fetched and prepared where it is absent.
            **options: Fields of `transform`.

        Returns:
            Inputs, float32 `(N, *shape)` or spike trains, and int32 labels `(N,)`.

        Raises:
            ValueError: An option's value is not a possible one.
            DatasetUnavailableError: The data is not there, unreadable, or could not be fetched.
            ModuleNotFoundError: The packages that read the data are not installed.
        """
        # First, so that a wrong option costs no reading.
        transform: Any = replace(self.transform, **options) if options else self.transform  # type: ignore[type-var]
        pixels, labels = self.source.read(split, limit, data_dir, download)
        inputs = transform(pixels)
        if isinstance(inputs, np.ndarray):
            inputs = inputs.reshape(len(inputs), *self.shape)
        return Examples(inputs, labels)

    def task(self) -> Task:
        """Returns it as one of the tasks that `keras_lsc.datasets.load` knows."""
        info = TaskInfo(
            name=self.name,
            description=self.description,
            kind=self.kind,
            shape=self.shape,
            target="label",
            outputs=self.source.classes,
            examples=self.source.examples,
            source=self.source.folder,
            licence=self.source.licence,
            homepage=self.source.homepage,
            citation=self.source.citation,
        )
        own: tuple[Field[Any], ...] = fields(self.transform) if is_dataclass(self.transform) else ()
        options = {field.name: getattr(self.transform, field.name) for field in own}
        return Task(info, self.read, reader_options={**SHARED_OPTIONS, **options})


TASKS = (
    ImageTask(
        "digits",
        "Small handwritten digits, one row of 8 pixels a step; comes with scikit-learn.",
        DIGITS,
        (8, 8),
        # The moments of the training split, whose pixels are 0 to 16.
        standardized(4.887, 6.016),
    ),
    ImageTask(
        "smnist",
        "Handwritten digits, one row of 28 pixels a step.",
        MNIST,
        (28, 28),
        in_unit_range,
    ),
    ImageTask(
        # arXiv 1504.00941
        "psmnist",
        "Handwritten digits, one pixel a step, in one fixed random order.",
        MNIST,
        (784, 1),
        permuted,
    ),
    ImageTask(
        "smnist_latency",
        "Handwritten digits as spikes: each of 784 pixels fires once, bright ones first.",
        MNIST,
        (100, 784),
        LatencyCode(),
        kind="spikes",
    ),
    ImageTask(
        "mnist",
        "Handwritten digits, all 784 pixels at once, z-scored (feed-forward).",
        MNIST,
        (784,),
        z_scored((0.1307,), (0.3081,)),
    ),
    ImageTask(
        "cifar10",
        "Colour photographs of 10 kinds, all 3072 values at once, z-scored (feed-forward).",
        CIFAR10,
        (3072,),
        z_scored((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    ImageTask(
        "scifar10",
        "Colour photographs of 10 kinds, one pixel of 3 colours a step.",
        CIFAR10,
        (1024, 3),
        in_unit_range,
    ),
    ImageTask(
        "cifar100",
        "Colour photographs of 100 kinds, all 3072 values at once, z-scored (feed-forward).",
        CIFAR100,
        (3072,),
        z_scored((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ),
)
