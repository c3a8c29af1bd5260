"""The command on data: datasets."""

from pathlib import Path
from typing import Any

import typer

from keras_lsc_command.answer import Answer
from keras_lsc_command.options import DataDir


def datasets(data_dir: DataDir = None) -> Answer:
    """List the tasks of keras_lsc.datasets, their sizes, and whether their data is prepared.

    Nothing is fetched. A folder may hold a part of a dataset; the numbers are those it holds.
    """
    from keras_lsc import datasets as tasks
    from keras_lsc.datasets.source import chosen_data_dir

    folder = chosen_data_dir(data_dir)
    rows = [describe_task(name, folder) for name in tasks.names()]

    def show() -> None:
        _show_tasks(rows)
        for row in rows:
            if row["status"] == "in part":
                files = (f"{n:,} {file}" for file, n in row["prepared"]["examples"].items())
                typer.echo(f"{row['name']} is prepared in part: {', '.join(files)}.")
            if row["status"] == "damaged":
                typer.echo(row["problem"])
        typer.echo(f"Folder of the datasets: {folder}")

    return Answer({"folder": str(folder), "datasets": rows}, show)


def describe_task(name: str, data_dir: Path) -> dict[str, Any]:
    """Returns what is known of a task, and what is prepared of its data, as JSON types.

    Args:
        name: Name of the task.
        data_dir: Folder of the datasets.

    Returns:
        The fields of `TaskInfo`; "status", which is "generated", "prepared", "in part" or
        "absent", or "damaged" with the "problem"; and under "prepared" the folder, version,
        examples by file and bytes, or None.
    """
    from keras_lsc import datasets as tasks
    from keras_lsc.datasets.uea import find_problems

    info = tasks.info(name)
    content: dict[str, Any] = {**info.to_dict(), "prepared": None}
    if info.source is None:
        return {**content, "status": "generated"}
    if name == "uea":
        problems = find_problems(data_dir / "uea")
        return {**content, "status": "prepared" if problems else "absent", "problems": problems}
    try:
        found = tasks.prepared(name, data_dir)
    except tasks.DatasetUnavailableError as error:
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


def _show_tasks(rows: list[dict[str, Any]]) -> None:
    from keras_lsc_command import tables
    from keras_lsc_command.tables import Column

    def count(number: int | None) -> str:
        return "?" if number is None else f"{number:,}"

    shapes = [" x ".join("?" if n is None else str(n) for n in row["shape"]) for row in rows]
    found = [row["prepared"] for row in rows]
    sizes = [f"{one['bytes'] / 1e6:.0f}" if one else "" for one in found]
    console = tables.console()
    columns = [
        Column("name", [row["name"] for row in rows]),
        Column("input", shapes, is_number=True, rank=1),
        Column("outputs", [count(row["outputs"]) for row in rows], is_number=True, rank=3),
        *(
            Column(split, [count(row["examples"][split]) for row in rows], is_number=True, rank=2)
            for split in ("train", "validation", "test")
        ),
        Column("data", [row["status"] for row in rows]),
        Column("MB", sizes, is_number=True, rank=4),
    ]
    console.print(tables.table(columns, console.width))
