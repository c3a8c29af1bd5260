"""The bar that long commands show."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Shows a bar while it is open.

    Args:
        title: What is done.
        total: Number of steps.
        done: How many of them were done before.

    Yields:
        A function that is called after every step, with a remark on it.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}"),
        TimeElapsedColumn(),
    )
    console = Console(highlight=False, markup=False)
    with Progress(*columns, console=console, expand=True) as progress:
        shown = progress.add_task(title, total=total, completed=done, remark="")
        yield lambda remark: progress.update(shown, advance=1, remark=remark)
