"""Tiny Shakespeare: the next character of a play."""

from __future__ import annotations

import os

import numpy as np

from keras_lsc.arguments import positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import damaged
from keras_lsc.datasets.text import DEFAULT_STEPS, TokenStream, read_text

INFO = TaskInfo(
    name="tiny_shakespeare",
    description="Plays of Shakespeare, character by character.",
    kind="text",
    shape=(DEFAULT_STEPS,),
    dtype="int32",
    target="next token",
    outputs=65,
    examples={"train": 1_003_854, "validation": 55_770, "test": 55_770},
    source="tiny_shakespeare",
    licence="public domain (the plays); MIT (their collection)",
    homepage="https://github.com/karpathy/char-rnn",
    citation="""@misc{karpathy2015charrnn,
  title        = {char-rnn},
  author       = {Karpathy, Andrej},
  year         = {2015},
  howpublished = {https://github.com/karpathy/char-rnn}
}""",
)


def read_stream(
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> TokenStream:
    """Reads one split as a stream of characters.

    Args:
        split: "train" (1,003,854 characters), "validation" (55,770) or "test" (55,770).
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        A `TokenStream`; its vocabulary is the 65 characters of the training split, sorted.

    Raises:
        ValueError: `split` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    texts = {
        part: np.frombuffer(
            read_text("tiny_shakespeare", part, data_dir=data_dir, download=download), np.uint8
        )
        for part in dict.fromkeys(("train", split))
    }
    # The characters are ASCII, so a table of the bytes translates them at once.
    known, index = np.unique(texts["train"]), np.full(256, -1, dtype=np.int32)
    index[known] = np.arange(len(known))
    tokens = index[texts[split]]
    if not known.size or known[-1] > 127:
        what = "has characters that are not ASCII" if known.size else "is empty"
        raise damaged("tiny_shakespeare", data_dir, f"the training text {what}")
    if not tokens.size or tokens.min() < 0:
        what = "has characters that the training text lacks" if tokens.size else "is empty"
        raise damaged("tiny_shakespeare", data_dir, f"the text of {split} {what}")
    return TokenStream(tokens, tuple(map(chr, known)))


def read(
    split: str = "train",
    *,
    steps: int = DEFAULT_STEPS,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads consecutive windows of characters, to predict the next one at every step.

    Args:
        split: "train" (1,003,854 characters), "validation" (55,770) or "test" (55,770).
        steps: characters of a window.
        limit: return only the first `limit` windows; None returns them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        download: whether the data may be downloaded and prepared when it is not in `data_dir`.
            Preparing, unlike reading, needs TensorFlow.

    Returns:
        Inputs: int32 (N, steps), 0 to 64. Targets: int32 (N, steps), the same one character later.

    Raises:
        ValueError: `split` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("tiny_shakespeare", split="test", steps=50)
        >>> vocabulary = datasets.vocabulary("tiny_shakespeare")
        >>> print("".join(vocabulary[token] for token in x[0, :11]))
        rance ta'en

    Source:
        A. Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015.
    """
    positive_integer("steps", steps)
    return read_stream(split, data_dir=data_dir, download=download).windows(steps, limit)
