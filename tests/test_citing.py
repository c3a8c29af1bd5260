"""What is cited is what was used, and each entry is whole."""

import re

import keras
import pytest
from harness import ROOT
from keras import layers

import keras_lsc
from keras_lsc import citing, methods

pytestmark = pytest.mark.once


def keys_of(text):
    return re.findall(r"^@\w+\{([^,]+),$", text, flags=re.MULTILINE)


def test_layers_wherever_they_are_are_cited_once_and_others_are_not():
    inner = keras.Sequential([keras.Input((8, 3)), layers.Bidirectional(layers.GRU(2))])
    inputs = keras.Input((8, 3))
    both = layers.Concatenate()([inner(inputs), keras_lsc.layers.LRU(2)(inputs)])
    cells = layers.RNN([layers.LSTMCell(2), keras_lsc.layers.ALIFCell(2), layers.LSTMCell(2)])
    model = keras.Model(inputs, layers.Concatenate()([both, cells(inputs)]))
    keys = keys_of(keras_lsc.cite(model))
    assert len(keys) == len(set(keys))
    expected = {"cho2014learning", "orvieto2023resurrecting", "hochreiter1997long"}
    assert expected | {"bellec2018long", "keras_lsc"} <= set(keys)
    assert not {"elman1990finding", "engelken2023gradient"} & set(keys)


def test_method_and_data_are_cited():
    text = keras_lsc.cite(method="flossing", dataset="smnist")
    assert "engelken2023gradient" in keys_of(text)
    assert text.endswith(keras_lsc.datasets.info("smnist").citation.strip())
    assert {"lsc", "level", "flossing", *methods.names()} == set(citing.METHODS)
    with pytest.raises(ValueError, match="method must be one of"):
        keras_lsc.cite(method="flosing")
    with pytest.raises(ValueError, match=r"model must be a keras\.Model"):
        keras_lsc.cite("lstm")


def test_every_entry_is_whole_and_used_and_that_of_the_paper_is_that_of_the_handbook():
    works = citing.references()
    used = {key for keys in (*citing.LAYERS.values(), *citing.METHODS.values()) for key in keys}
    assert set(works) == used | {*citing.BACKENDS.values(), *citing._ALWAYS, "chollet2015keras"}
    for key, entry in works.items():
        assert entry.count("{") == entry.count("}"), key
        assert {"title", "author", "year"} <= set(re.findall(r"^  (\w+) += \{", entry, re.M))
    assert works["herranzcelotti2023stabilizing"] in (ROOT / "docs" / "cite.md").read_text()
