"""What `stabilize` tells while it runs, and to whom."""

import io
import re
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_lsc

pytestmark = pytest.mark.once


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch):
    """Replaces standard output by a file, or a terminal."""

    def replaced(make):
        stream = make()
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return replaced


def stabilized(**options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 3)), layers.SimpleRNN(8, return_sequences=True), layers.SimpleRNN(8)],
        name="net",
    )
    x = np.random.default_rng(0).standard_normal((96, 6, 3))
    return keras_lsc.stabilize(model, x, 0.6, **{"tolerance": 0.1, **options})


def test_at_a_terminal_one_line_is_written_over_and_ends_in_what_was_reached(stream):
    written = stream(Terminal)
    deviation = stabilized().max_deviation(0.6)
    text = written.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    last = text.rstrip("\n").split("\r")[-1]
    found = re.fullmatch(
        r"net: largest deviation (0\.\d{3}) -> (0\.\d{3}), (\d+) updates, \d+ s *", last
    )
    assert found is not None, last
    assert float(found[2]) == pytest.approx(deviation, abs=6e-4)
    assert float(found[1]) > float(found[2])
    assert re.search(r"\rnet: \d+/400 updates, off by 0\.\d{3} at most, \d+ s", text)


def test_a_file_gets_lines_only_if_it_is_asked_for(stream):
    written = stream(io.StringIO)
    stabilized()
    assert written.getvalue() == ""
    for verbose in (1, 2):
        stabilized(verbose=verbose)
        lines = written.getvalue().splitlines()
        assert lines[0] == "net: compiling, 0 s"
        assert lines[-1].startswith("net: largest deviation")
        assert "\r" not in written.getvalue()


def test_nobody_is_told_who_does_not_want_to_know(stream):
    written = stream(Terminal)
    stabilized(verbose=0)
    keras.config.disable_interactive_logging()
    try:
        stabilized()
    finally:
        keras.config.enable_interactive_logging()
    assert written.getvalue() == ""


def test_an_error_has_a_line_of_its_own(stream):
    written = stream(Terminal)
    with pytest.raises(keras_lsc.NotStabilizedError):
        stabilized(max_updates=2, tolerance=1e-4)
    assert written.getvalue().endswith("\n")
    assert "largest deviation" not in written.getvalue()


def test_a_notebook_is_told_and_not_who_has_its_kernel_installed(stream, monkeypatch):
    written = stream(io.StringIO)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    stabilized()
    assert written.getvalue() == ""
    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    stabilized()
    assert written.getvalue().startswith("\rnet: compiling")
