"""A task of `keras_lsc.datasets`: what is known of it, and how it is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_lsc.arguments import flag, integer, one_of
from keras_lsc.datasets.examples import Examples
from keras_lsc.datasets.info import TaskInfo
from keras_lsc.datasets.source import chosen_data_dir
from keras_lsc.datasets.text import TokenStream

# Taken by every task, so that one call serves them all; what is read from no folder has no use of
# the last two.
SHARED_OPTIONS: Mapping[str, Any] = {"limit": None, "data_dir": None, "download": True}


@dataclass(frozen=True)
class Task:
    """A task that `keras_lsc.datasets.load` knows.

    The arguments that tasks share are checked here, before the reader sees them.

    Attributes:
        info: What is known of it before its data is read.
        reader: Function of a split and of keyword-only options, which returns its `Examples`.
        stream_reader: For texts, the same for a `TokenStream`; None for other tasks.
        reader_options: Mapping from the options of `reader` to their defaults; None reads them off
            its signature.
    """

    info: TaskInfo
    reader: Callable[..., Examples]
    stream_reader: Callable[..., TokenStream] | None = None
    reader_options: Mapping[str, Any] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that `keras_lsc.datasets.load` takes for this task, and their defaults."""
        return {**SHARED_OPTIONS, **self._reader_options()}

    def read(self, split: str, options: Mapping[str, Any]) -> Examples:
        """Returns the examples of a split.

        Raises:
            ValueError: The split or an option's value is not a known one.
            TypeError: The task has no such option.
        """
        self._check(split, options, self.options)
        taken = self._reader_options()
        return self.reader(split, **{name: options[name] for name in options if name in taken})

    def read_stream(self, split: str, options: Mapping[str, Any]) -> TokenStream:
        """Returns the text of a split as a stream of tokens; as `read`, for texts only."""
        assert self.stream_reader is not None, f"{self.info.name} is no text"
        self._check(split, options, _options(self.stream_reader))
        return self.stream_reader(split, **options)

    def _reader_options(self) -> Mapping[str, Any]:
        return _options(self.reader) if self.reader_options is None else self.reader_options

    def _check(self, split: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
        for option in options:
            if option not in known:
                raise TypeError(
                    f"{self.info.name} takes no option {option!r}; its options: {', '.join(known)}."
                )
        one_of("split", split, self.info.examples)
        if options.get("limit") is not None:
            integer("limit", options["limit"], at_least=1)
        if options.get("data_dir") is not None:
            chosen_data_dir(options["data_dir"])
        flag("download", options.get("download", True))


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name: one.default for one in parameters if one.name != "split"}
