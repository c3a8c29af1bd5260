"""Fixtures for every test file."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lsc import datasets

SHARED = Path(__file__).parents[2] / "shared"


def prepared_data():
    """The folder of the prepared datasets: TFDS_DATA_DIR, or the one beside the checkout."""
    return Path(os.environ.get("TFDS_DATA_DIR") or SHARED / "tfds")


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(20)


@pytest.fixture
def uncompiled():
    """Where what is computed is the point: models of so few units compile for longer than they run.

    What is compiled is compared with it by the tests of radii, pre-training and the zoo.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    elif name == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def tfds_folder():
    """`prepared_data`, which the test needs."""
    folder = prepared_data()
    if not folder.is_dir():
        pytest.skip(f"no prepared data: {folder} does not exist; set TFDS_DATA_DIR")
    return folder


@pytest.fixture(scope="session")
def raw_folder(tfds_folder):
    """The folder of original files that TensorFlow Datasets does not have."""
    folder = tfds_folder.parent / "raw"
    if not folder.is_dir():
        pytest.skip(f"no original files: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def mnist_rows(tfds_folder):
    """256 digits as sequences of 28 rows of 28 pixels."""
    return datasets.load("smnist", limit=256, data_dir=tfds_folder, download=False)[0]
