"""Runs the notebooks from their first cell and keeps what they show.

    python colab/execute.py                     # all, in place
    python colab/execute.py 01_quickstart.ipynb
    python colab/execute.py --quick --discard   # do they still run?

The notebooks run on KERAS_BACKEND, or on JAX where it is not set, with the package of this
checkout. What is stored depends on the code alone: no times, no kernel, no logs of frameworks.
"""

import argparse
import os
import re
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SIZES = "sizes"
_SECONDS_PER_CELL = 900


def names() -> list[str]:
    """Returns the file names of all notebooks, in their order."""
    return sorted(path.name for path in HERE.glob("*.ipynb"))


def read(name: str) -> nbformat.NotebookNode:
    """Returns a notebook as it is stored."""
    return nbformat.read(HERE / name, as_version=4)


def execute(notebook: nbformat.NotebookNode, quick: bool = False) -> nbformat.NotebookNode:
    """Runs a notebook in a process of its own and returns it with the outputs.

    Args:
        notebook: which is changed.
        quick: whether to run with the small numbers that the cell of the sizes has in its
            metadata, which take seconds and show little.

    Returns:
        The notebook, in the form in which it is stored.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message has the traceback.
    """
    if quick:
        for cell in notebook.cells:
            for variable, value in cell.metadata.get("quick", {}).items():
                cell.source = _assign(cell.source, variable, value)
    environment = {
        **os.environ,
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "jax"),
        # The package of this checkout, wherever another one is installed.
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *_python_path()]),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    client = NotebookClient(
        notebook, timeout=_SECONDS_PER_CELL, kernel_name="python3", record_timing=False
    )
    client.execute(cwd=str(HERE), env=environment)
    return normalize(notebook)


def normalize(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Takes from a notebook what depends on where and when it ran; returns the notebook."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index + 1:02d}"
        kept = {key: cell.metadata[key] for key in ("quick", "tags") if key in cell.metadata}
        cell.metadata = kept
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = {}
    return notebook


def _python_path() -> list[str]:
    # The kernel runs in another folder, where relative paths would not hold.
    given = os.environ.get("PYTHONPATH", "")
    return [os.path.abspath(part) for part in given.split(os.pathsep) if part]


def _assign(source: str, variable: str, value: int) -> str:
    changed, count = re.subn(
        rf"^{variable} = [\d_.]+", f"{variable} = {value}", source, flags=re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"The cell of the sizes has no line '{variable} = <number>':\n{source}")
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the notebooks and keeps what they show.")
    parser.add_argument("names", nargs="*", help="file names in colab/; all without them")
    parser.add_argument("--quick", action="store_true", help="with small sizes; implies --discard")
    parser.add_argument("--discard", action="store_true", help="do not write the outputs")
    options = parser.parse_args()
    for name in options.names or names():
        started = time.perf_counter()
        notebook = execute(read(name), options.quick)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if not (options.discard or options.quick):
            nbformat.write(notebook, HERE / name)


if __name__ == "__main__":
    main()
