"""The wheel: what is installed is the package with its checkpoints, and needs nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from harness import run_python

from keras_lsc import zoo

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT],
        check=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_every_start_and_stays_small(wheel):
    names = {Path(name).stem for name in zipfile.ZipFile(wheel).namelist() if "/starts/" in name}
    assert names == set(zoo.list(hidden=True))
    assert sum(zoo.info(name).bytes for name in names) < 5e6
    trained = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/trained/" in name}
    kept = {path.name for path in (ROOT / "zoo" / "trained").iterdir()}
    assert trained == kept > {"plan.toml"}
    assert wheel.stat().st_size < 8e6


def test_the_installed_package_lists_loads_and_verifies(wheel, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-t", tmp_path, wheel],
        check=True,
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import keras_lsc\n"
        "from keras_lsc import zoo\n"
        "assert keras_lsc.__file__.startswith(sys.argv[1]), keras_lsc.__file__\n"
        "for name in zoo.list('test_*', hidden=True):\n"
        "    result = zoo.verify(name)\n"
        "    assert result.passed, str(result)\n"
        "print(len(zoo.list()))\n"
    )
    printed = run_python(program, tmp_path, backend=keras.backend.backend())
    assert int(printed.split()[-1]) == len(zoo.list())
