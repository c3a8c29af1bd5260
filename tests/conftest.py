"""Fixtures for every test file."""

import gc
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from prepared import Prepared

from keras_lsc import datasets

SHARED = Path(__file__).parents[2] / "shared"


def prepared_data():
    """The folder of the prepared datasets: TFDS_DATA_DIR, or the one beside the checkout."""
    return Path(os.environ.get("TFDS_DATA_DIR") or SHARED / "tfds")


def pytest_addoption(parser):
    parser.addoption("--ray", action="store_true", help="run the tests on a Ray cluster as well")


def pytest_collection_modifyitems(config, items):
    """Leaves tests marked `once` to one of the backends that make runs; by hand all are run.

    It is the first of them, or that of `once(on=...)`: what takes many steps runs fastest on JAX.
    Those marked `ray` are run where they are asked for.
    """
    tested = os.environ.get("KERAS_LSC_TESTED", keras.backend.backend()).split()
    elsewhere = []
    for item in items:
        if item.get_closest_marker("ray") and not config.getoption("--ray"):
            elsewhere.append(item)
            continue
        once = item.get_closest_marker("once")
        if once is not None:
            home = once.kwargs.get("on", tested[0])
            if keras.backend.backend() != (home if home in tested else tested[0]):
                elsewhere.append(item)
    config.hook.pytest_deselected(items=elsewhere)
    left_out = set(elsewhere)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """JAX compiles for seconds what runs for milliseconds: equal programs are compiled once."""
    if keras.backend.backend() == "jax":
        import jax

        folder = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            folder = folder.parent  # that of all workers of this run
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
        # Only a cache with a limit locks what two processes write at once.
        jax.config.update("jax_compilation_cache_max_size", 2**34)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session", autouse=True)
def _garbage_is_collected_seldom():
    """Tracing makes objects without end, and every collection looks at all of a backend's own."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def _empty_home_of_keras(tmp_path_factory):
    """Where MNIST is not prepared it is absent, whatever Keras has fetched on this computer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(20)


@pytest.fixture(scope="module")
def prepared():
    """A process that starts copies of itself."""
    process = Prepared()
    yield process
    process.end()


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
