"""The same arrays on every backend, read without TensorFlow."""

import json

import keras
import pytest
from harness import run_python

from keras_lsc import datasets

# Of the first 64 examples of each split as `_DIGESTS` computes them; the suite runs on every
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

_DIGESTS = """
import hashlib, json, sys
import keras
from keras_lsc import datasets

folder, raw = sys.argv[1:]
digests = {}
for name in datasets.names():
    info = datasets.info(name)
    options = {"limit": 64}
    if name == "uea":
        options |= {"problem": "BasicMotions", "data_dir": raw + "/uea"}
    elif info.source is not None:
        if datasets.prepared(name, folder) is None:
            continue
        options |= {"data_dir": folder, "download": False}
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for array in datasets.load(name, split, **options):
            digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    digests[name] = digest.hexdigest()[:16]
print(json.dumps({"digests": digests, "tensorflow": "tensorflow" in sys.modules}))
"""


def test_every_task_is_the_same_everywhere_and_needs_no_tensorflow(tfds_folder, raw_folder):
    backend = keras.backend.backend()
    printed = run_python(_DIGESTS, tfds_folder, raw_folder, backend=backend)
    result = json.loads(printed.splitlines()[-1])
    assert result["tensorflow"] == (backend == "tensorflow")
    found = result["digests"]
    assert {"smnist", "tiny_shakespeare", "spoken_digit", "adding"} <= set(found)
    assert {name: found[name] for name in EXPECTED if name in found} == {
        name: digest for name, digest in EXPECTED.items() if name in found
    }


@pytest.mark.parametrize("name", datasets.names())
def test_modules_say_how_to_load_them(name):
    task = getattr(datasets, name)
    for part in ("Args:", "Returns:", "Raises:", "Example:", "Source:"):
        assert part in task.read.__doc__
    assert f'datasets.load("{name}"' in task.read.__doc__
