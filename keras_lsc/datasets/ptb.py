"""Penn Treebank: the next word of the Wall Street Journal."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc.arguments import positive_integer
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import damaged
from keras_lsc.datasets.text import DEFAULT_STEPS, TokenStream, read_text

INFO = TaskInfo(
    name="ptb",
    description="Penn Treebank (Wall Street Journal), word by word, in Mikolov's version.",
    kind="text",
    shape=(DEFAULT_STEPS,),
    dtype="int32",
    target="next token",
    outputs=10_000,
    examples={"train": 929_589, "validation": 73_760, "test": 82_430},
    source="ptb",
    licence="LDC User Agreement (LDC99T42); this package does not redistribute it",
    homepage="https://catalog.ldc.upenn.edu/LDC99T42",
    citation=(Path(__file__).parent / "builders" / "ptb" / "CITATIONS.bib").read_text().strip(),
)
END_OF_SENTENCE = "<eos>"


def read_stream(
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> TokenStream:
    """Reads one split as a stream of words, with "<eos>" at the end of every line.

    Args:
        split: "train" (929,589 tokens), "validation" (73,760) or "test" (82,430).
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        manual_dir: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, from which the data
            is prepared when it is not in `data_dir`; None fetches them. Neither needs TensorFlow.
        download: whether the data may be fetched when it is not in `data_dir`.

    Returns:
        A `TokenStream`; its vocabulary is the 10,000 words of the training split, the most
        frequent first, and in alphabetical order among those of equal frequency.

    Raises:
        ValueError: `split` is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.
    """
    words = {
        part: _words(part, data_dir=data_dir, manual_dir=manual_dir, download=download)
        for part in dict.fromkeys(("train", split))
    }
    counts = Counter(words["train"])
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    index = {word: token for token, word in enumerate(vocabulary)}
    unknown = sorted(set(words[split]) - index.keys())
    if unknown:
        reason = f"{split} has the word {unknown[0][:40]!r}, which the training text lacks"
        raise damaged("ptb", data_dir, reason)
    tokens = np.fromiter(map(index.__getitem__, words[split]), np.int32, len(words[split]))
    return TokenStream(tokens, tuple(vocabulary))


def read(
    split: str = "train",
    *,
    steps: int = DEFAULT_STEPS,
    limit: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Examples:
    """Reads consecutive windows of words, to predict the next one at every step.

    Args:
        split: "train" (929,589 tokens), "validation" (73,760) or "test" (82,430).
        steps: words of a window.
        limit: return only the first `limit` windows; None returns them all.
        data_dir: folder of the datasets; None means TFDS_DATA_DIR or ~/tensorflow_datasets.
        manual_dir: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, from which the data
            is prepared when it is not in `data_dir`; None fetches them. Neither needs TensorFlow.
        download: whether the data may be fetched when it is not in `data_dir`.

    Returns:
        Inputs: int32 (N, steps), 0 to 9999. Targets: int32 (N, steps), the same one word later.

    Raises:
        ValueError: `split` or a number is not a possible one.
        DatasetUnavailableError: the data is not there, unreadable, or could not be fetched.
        ModuleNotFoundError: the packages that read the data are not installed.

    Example:
        >>> from keras_lsc import datasets
        >>> x, y = datasets.load("ptb", split="test", steps=35)  # doctest: +SKIP
        >>> x.shape  # doctest: +SKIP
        (2355, 35)

    Source:
        The preparation of T. Mikolov and others, Interspeech 2010, of the Penn Treebank.
    """
    positive_integer("steps", steps)
    stream = read_stream(split, data_dir=data_dir, manual_dir=manual_dir, download=download)
    return stream.windows(steps, limit)


def _words(split: str, *, data_dir: str | os.PathLike[str] | None, **options: Any) -> list[str]:
    text = read_text("ptb", split, data_dir=data_dir, **options)
    try:
        words = text.decode().replace("\n", f" {END_OF_SENTENCE} ").split()
    except UnicodeDecodeError as error:
        raise damaged("ptb", data_dir, f"the text of {split} is not UTF-8: {error}") from error
    if not words:
        raise damaged("ptb", data_dir, f"the text of {split} has no words")
    return words
