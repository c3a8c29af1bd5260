"""Public names are those of api.txt: who adds or drops one changes that file, and says so."""

from types import ModuleType

import pytest
from harness import ROOT

import keras_lsc

pytestmark = pytest.mark.once


def public(module, path):
    """Every name that `__all__` of the package, and of the modules it names, has."""
    for name in module.__all__:
        value = getattr(module, name)
        yield f"{path}.{name}"
        if isinstance(value, ModuleType) and hasattr(value, "__all__"):
            yield from public(value, f"{path}.{name}")


def test_public_names_are_those_of_the_list():
    listed = (ROOT / "tests" / "api.txt").read_text().split()
    assert listed == sorted(set(listed))
    found = set(public(keras_lsc, "keras_lsc"))
    assert found == set(listed), "tests/api.txt has other names: change it, and CHANGELOG.md"
