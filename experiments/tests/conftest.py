"""Fixtures of the tests of the experiments."""

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(20)


@pytest.fixture
def rng():
    return np.random.default_rng(7)
