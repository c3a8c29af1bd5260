"""Fixtures for every test file."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lsc import datasets

PREPARED = Path(__file__).parents[2] / "shared" / "tfds"


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(20)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def mnist_rows():
    """256 digits as sequences of 28 rows of 28 pixels."""
    if not os.environ.get("TFDS_DATA_DIR"):
        if not PREPARED.is_dir():
            pytest.skip(f"no prepared data: TFDS_DATA_DIR is unset and {PREPARED} is absent")
        return datasets.load("smnist", limit=256, data_dir=PREPARED, download=False)[0]
    return datasets.load("smnist", limit=256, download=False)[0]
