"""Texts as one stream of tokens, and windows of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lsc.arguments import positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.source import Part, damaged, read_examples

DEFAULT_STEPS = 35


@dataclass(frozen=True)
class TokenStream:
    """A text as tokens.

    Attributes:
        tokens: int32 array (n,), indices into `vocabulary`, in the order of the text.
        vocabulary: the tokens as text; those of the training split.
    """

    tokens: np.ndarray
    vocabulary: tuple[str, ...]

    def windows(self, steps: int = DEFAULT_STEPS, limit: int | None = None) -> Examples:
        """Cuts the stream into consecutive windows, each labelled with the tokens that follow.

        Args:
            steps: tokens of a window.
            limit: return only the first `limit` windows; None returns them all.

        Returns:
            Inputs and targets int32 (N, steps); targets are the inputs one token later. What is
            left after the last whole window is left out.

        Raises:
            ValueError: a number is not a possible one.

        Example:
            >>> import numpy as np
            >>> windows = TokenStream(np.arange(8), tuple("abcdefgh")).windows(steps=3)
            >>> windows.inputs[:].tolist(), windows.targets.tolist()
            ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
        """
        positive_integer("steps", steps)
        if limit is not None:
            positive_integer("limit", limit)
        count = (len(self.tokens) - 1) // steps
        if count == 0:
            raise ValueError(
                f"steps={steps} is too long for a text of {len(self.tokens)} tokens; "
                f"use at most {len(self.tokens) - 1}."
            )
        count = count if limit is None else min(count, limit)
        inputs = self.tokens[: count * steps].reshape(count, steps)
        targets = self.tokens[1 : count * steps + 1].reshape(count, steps)
        return Examples(inputs, targets)


def read_text(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None, **options: Any
) -> bytes:
    """Reads the one text that a split of a dataset is.

    Args:
        name: Name of the dataset.
        split: Split of it.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        **options: Options of `read_examples`.

    Raises:
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    examples = read_examples(name, Part(split), {"text": "bytes"}, data_dir=data_dir, **options)
    if len(examples) != 1:
        raise damaged(name, data_dir, f"{split} has {len(examples)} texts, and not one")
    return examples[0]["text"]
