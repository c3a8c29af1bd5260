"""The command on data: datasets."""

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from keras_lsc import datasets as tasks
from keras_lsc.cli.shared import (
    AsJson,
    Backend,
    DataDir,
    check_backend,
    print_json,
)
from keras_lsc.datasets.source import DatasetUnavailableError, chosen_data_dir
from keras_lsc.datasets.uea import find_problems


def datasets(
    data_dir: DataDir = None,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks of keras_lsc.datasets, their sizes, and whether their data is prepared.

    Nothing is fetched. A folder may hold a part of a dataset; the numbers are those it holds.
    """
    check_backend(backend)
    folder = chosen_data_dir(data_dir)
    rows = [describe_task(name, folder) for name in tasks.names()]
    if as_json:
        print_json({"folder": str(folder), "datasets": rows})
    else:
        # Where there is no terminal rich would cut the table to 80 columns.
        Console(width=None if sys.stdout.isatty() else 120).print(_table_of_tasks(rows))
        for row in rows:
            if row["status"] == "in part":
                files = (f"{n:,} {file}" for file, n in row["prepared"]["examples"].items())
                typer.echo(f"{row['name']} is prepared in part: {', '.join(files)}.")
            if row["status"] == "damaged":
                typer.echo(row["problem"])
        typer.echo(f"Folder of the datasets: {folder}")


def describe_task(name: str, data_dir: Path) -> dict[str, Any]:
    """Returns what is known of a task, and what is prepared of its data, as JSON types.

    Args:
        name: of the task.
        data_dir: folder of the datasets.

    Returns:
        The fields of `TaskInfo`; "status", which is "generated", "prepared", "in part" or
        "absent", or "damaged" with the "problem"; and under "prepared" the folder, version,
        examples by file and bytes, or None.
    """
    info = tasks.info(name)
    content: dict[str, Any] = {**info.to_dict(), "prepared": None}
    if info.source is None:
        return {**content, "status": "generated"}
    if name == "uea":
        problems = find_problems(data_dir / "uea")
        return {**content, "status": "prepared" if problems else "absent", "problems": problems}
    try:
        found = tasks.prepared(name, data_dir)
    except DatasetUnavailableError as error:
        return {**content, "status": "damaged", "problem": str(error)}
    if found is None:
        return {**content, "status": "absent"}
    # A text is one example of many tokens.
    expected = sum(count or 0 for count in info.examples.values())
    is_part = info.kind != "text" and sum(found.examples.values()) < expected
    content["prepared"] = {
        "folder": str(found.folder),
        "version": found.version,
        "examples": found.examples,
        "bytes": found.size,
    }
    return {**content, "status": "in part" if is_part else "prepared"}


def _table_of_tasks(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for title in ("input", "outputs", "train / validation / test"):
        table.add_column(title, justify="right")
    table.add_column("data")
    table.add_column("MB", justify="right")
    for row in rows:
        sizes = [row["examples"][split] for split in ("train", "validation", "test")]
        found = row["prepared"]
        table.add_row(
            row["name"],
            " x ".join("?" if size is None else str(size) for size in row["shape"]),
            "?" if row["outputs"] is None else f"{row['outputs']:,}",
            " / ".join("?" if size is None else f"{size:,}" for size in sizes),
            row["status"],
            f"{found['bytes'] / 1e6:.0f}" if found else "",
        )
    return table
