"""What the reference needs to know of this package's docstrings, for griffe, which parses them."""

import re
from typing import Any

import griffe

_SOURCE = re.compile(r"^Source: (.+(?:\n[ ]+.+)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Examples are code, and a source is a paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object before it is parsed."""
        if obj.docstring is None:
            return
        text = obj.docstring.value
        text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
        obj.docstring.value = _SOURCE.sub(
            lambda found: "**Source:** " + " ".join(found[1].split()), text
        )
