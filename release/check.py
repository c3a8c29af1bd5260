"""Whether what is committed could be released today: `make release-check`.

    python release/check.py [--backend jax] [--python python3.12] [--keras 3.14.0]

Wheel and sdist are built twice, in two folders, from the commit; then the wheel is tried as a new
user would, in an empty environment, without a network. What was built and found is in
build/release; `tried.json` says with which backend, Python and Keras, and so what was not tried.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "release"
TRIALS = ROOT / "release" / "trials.py"
# Far from one another in what they need, so each group has an environment of its own.
TOOLS = {"build": ["build", "twine", "cyclonedx-bom"], "cff": ["cffconvert>=2"]}
# In builds for the CPU.
PACKAGES = {"tensorflow": "tensorflow-cpu"}
# What the package index takes of one file without being asked, in bytes.
LARGEST = 100e6


class NotReadyError(Exception):
    """Something has to be mended before a release."""


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """Returns what a command printed; raises NotReadyError with its last lines where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise NotReadyError(f"{' '.join(map(str, command))}:\n" + "\n".join(lines[-15:]))
    return done.stdout


def environment(name: str, *packages: object, python: str = sys.executable) -> Path:
    """Returns the folder of the programs of a new environment with these packages."""
    folder = OUT / f"env-{name}"
    if python == sys.executable:
        venv.create(folder, with_pip=True, clear=True)
    else:
        run(python, "-m", "venv", "--clear", folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages)
    return folder / "bin"


def built(tools: Path) -> tuple[Path, Path]:
    """Builds wheel and sdist twice from the commit; returns them, which are equal byte for byte."""
    date = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    archive = OUT / "commit.tar"
    run("git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    hashes = []
    for name in ("one", "two"):
        source, target = OUT / f"source-{name}", OUT / f"dist-{name}"
        with tarfile.open(archive) as tar:
            tar.extractall(source, filter="data")
        run(tools / "python", "-m", "build", "--outdir", target, source, SOURCE_DATE_EPOCH=date)
        hashes.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(target.iterdir())
            }
        )
    if hashes[0] != hashes[1]:
        raise NotReadyError(f"Two builds of one commit differ: {hashes}.")
    (wheel,), (sdist,) = (list((OUT / "dist-one").glob(end)) for end in ("*.whl", "*.tar.gz"))
    return wheel, sdist


def contents(wheel: Path, sdist: Path) -> str:
    """Returns what is in the wheel, which has a licence and nothing but the package."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = file.read(metadata).decode()
    if not any(name.endswith("licenses/LICENSE") for name in names):
        raise NotReadyError("The wheel has no licence file.")
    strange = {name.split("/")[0] for name in names} - {"keras_lsc", "keras_lsc_command"}
    strange = {name for name in strange if not name.endswith(".dist-info")}
    if strange:
        raise NotReadyError(f"The wheel installs {', '.join(sorted(strange))} beside the package.")
    if "License-Expression: Apache-2.0" not in text:
        raise NotReadyError("The metadata of the wheel name no licence.")
    large = [path.name for path in (wheel, sdist) if path.stat().st_size > LARGEST]
    if large:
        raise NotReadyError(
            f"{', '.join(large)}: the package index takes files up to {LARGEST / 1e6:.0f} MB."
        )
    sizes = [f"{path.suffix} of {path.stat().st_size / 1e6:.1f} MB" for path in (wheel, sdist)]
    return f"{len(names)} files, {' and '.join(sizes)}"


def version(wheel: Path) -> str:
    """Returns the version, which the wheel, the citation and the changelog have from one place."""
    said = re.findall(r'^__version__ = "(.*)"$', (ROOT / "keras_lsc/version.py").read_text(), re.M)
    (here,) = said
    citation = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    if f"-{here}-" not in wheel.name or citation != [here]:
        raise NotReadyError(f"version.py has {here}, CITATION.cff {citation}, and {wheel.name}.")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    dates = re.findall(rf"^## \[{re.escape(here)}\] - (\d{{4}}-\d\d-\d\d)$", changelog, re.M)
    if len(dates) != 1:
        raise NotReadyError(f"CHANGELOG.md has no line `## [{here}] - YYYY-MM-DD`, or several.")
    return f"{here} of {dates[0]}"


def bill_of_materials(tools: Path, python: Path) -> str:
    """Writes what was installed with the wheel as CycloneDX, and returns how much it is."""
    path = OUT / "sbom.json"
    run(tools / "cyclonedx-py", "environment", "--output-file", path, python)
    found = {part["name"].lower() for part in json.loads(path.read_text())["components"]}
    if not {"keras-lsc", "keras", "numpy"} <= found:
        raise NotReadyError(f"{path} lacks keras-lsc, keras or numpy.")
    return f"{len(found)} packages, in {path.relative_to(ROOT)}"


def tried(backend: str, wheel: Path, python: str, keras: str | None) -> tuple[Path, str]:
    """Installs the wheel with one backend in an empty environment and runs the trials offline."""
    backend_package = PACKAGES.get(backend)
    extras = "demo" if backend_package else f"demo,{backend}"
    packages = [f"{wheel}[{extras}]", *([backend_package] if backend_package else [])]
    packages += [f"keras=={keras}"] if keras else []
    programs = environment(backend, *packages, python=python)
    folder = OUT / f"trials-{backend}"
    folder.mkdir(exist_ok=True)
    readme = ROOT / "README.md"
    shown = run(
        programs / "python",
        "-I",
        TRIALS,
        readme,
        cwd=folder,
        KERAS_BACKEND=backend,
        KERAS_HOME=str(folder),
        MPLBACKEND="Agg",
        TFDS_DATA_DIR=str(folder),
    )
    found = json.loads(shown.splitlines()[-1])
    (OUT / "tried.json").write_text(json.dumps(found, indent=1) + "\n")
    return programs / "python", ", ".join(f"{name} {value}" for name, value in found.items())


def main() -> None:
    """Checks everything, and says at the end what has to be mended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow", "torch"))
    parser.add_argument("--python", default=sys.executable, help="that of the empty environment")
    parser.add_argument("--keras", help="version of Keras; the newest without it")
    options = parser.parse_args()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    failed = []

    def check(what: str, function: Callable[[], Any]) -> Any:
        try:
            result = function()
        except NotReadyError as error:
            failed.append(what)
            print(f"NOT READY  {what}: {error}", flush=True)
            return None
        shown = result[-1] if isinstance(result, tuple) else result
        print(f"ready      {what}: {shown}", flush=True)
        return result

    changed = run("git", "status", "--porcelain", cwd=ROOT).strip()
    if changed:
        print("Files differ from the commit, which is what is built.")
    tools = environment("build", *TOOLS["build"])
    files = check("two equal builds", lambda: built(tools))
    if files is None:
        sys.exit(1)
    wheel, sdist = files
    check("contents", lambda: contents(wheel, sdist))
    check("version", lambda: version(wheel))
    check("metadata", lambda: run(tools / "twine", "check", "--strict", wheel, sdist).split()[-1])
    check(
        "CITATION.cff",
        lambda: run(
            environment("cff", *TOOLS["cff"]) / "cffconvert",
            *("--validate", "--infile", ROOT / "CITATION.cff"),
        ).strip(),
    )
    used = check(
        f"{options.backend}, offline",
        lambda: tried(options.backend, wheel, options.python, options.keras),
    )
    if used is not None:
        check("bill of materials", lambda: bill_of_materials(tools, used[0]))
    if failed:
        sys.exit(f"Not ready: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
