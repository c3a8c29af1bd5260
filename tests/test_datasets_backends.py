"""The same arrays on every backend, read without TensorFlow."""

import hashlib
import json

import keras
import pytest
from harness import run_python

from keras_lsc import datasets

# Of the first 64 examples of each split; the suite runs on every
# backend, so one table is the agreement of all. Only tasks whose numbers are exact in IEEE
# arithmetic are in it: the others are tested by their laws.
EXPECTED = {
    "adding": "5d53c68cada41eb0",
    "cifar10": "ee530cc48a31a2f0",
    "cifar100": "a259b42c36feaf45",
    "copy_memory": "fe87dff78f21b4cd",
    "delayed_match": "08e4605bce901a28",
    "digits": "04a46545cea929ae",
    "mnist": "c5ca6e87896b7279",
    "parity": "c9187cf4f05f8083",
    "psmnist": "7925c8c08ea45e4e",
    "scifar10": "fc9df3439bda7090",
    "smnist": "23baf57454525a79",
    "smnist_latency": "bf3c57780b21963a",
    "tiny_shakespeare": "ae92dc0ce49b2cef",
    "uea": "aa32ce742c3b7784",
}

SPLITS = ("train", "validation", "test")


def options(name, folder, raw):
    """What reads a few examples of a task, or None where its data is not prepared."""
    if name == "uea":
        return {"limit": 64, "problem": "BasicMotions", "data_dir": f"{raw}/uea"}
    if datasets.info(name).source is not None and datasets.prepared(name, folder) is None:
        return None
    return {"limit": 64, "data_dir": folder, "download": False}


def test_every_task_is_the_same_everywhere(tfds_folder, raw_folder):
    found = {}
    for name in EXPECTED:
        taken = options(name, tfds_folder, raw_folder)
        if taken is None:
            continue
        digest = hashlib.sha256()
        for array in (one for split in SPLITS for one in datasets.load(name, split, **taken)):
            digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
        found[name] = digest.hexdigest()[:16]
    assert {"smnist", "tiny_shakespeare", "adding"} <= set(found)
    assert found == {name: digest for name, digest in EXPECTED.items() if name in found}


_READS_ALL = """
import json, sys
from keras_lsc import datasets

for name, options in json.loads(sys.argv[1]).items():
    assert len(datasets.load(name, "test", **options)[1]) == 1
print("tensorflow" in sys.modules)
"""


# One split each: the others are other rows of the same file.
@pytest.mark.once
def test_no_task_needs_tensorflow(tfds_folder, raw_folder):
    backend = keras.backend.backend()
    taken = {name: options(name, str(tfds_folder), raw_folder) for name in datasets.names()}
    taken = {name: {**found, "limit": 1} for name, found in taken.items() if found is not None}
    assert {"smnist", "tiny_shakespeare", "spoken_digit", "adding"} <= set(taken)
    printed = run_python(_READS_ALL, json.dumps(taken), backend=backend)
    assert printed.splitlines()[-1] == str(backend == "tensorflow")


@pytest.mark.once
@pytest.mark.parametrize("name", [one.INFO.name for one in datasets._MODULES])
def test_modules_say_how_to_load_them(name):
    task = getattr(datasets, name)
    for part in ("Args:", "Returns:", "Raises:", "Example:", "Source:"):
        assert part in task.read.__doc__
    assert f'datasets.load("{name}"' in task.read.__doc__
