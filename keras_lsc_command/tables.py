"""Tables that fit the terminal, and how reports are shown in them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from keras_lsc import GradientEnergies, StabilityReport

# Of what is written to a file or a pipe, nothing is to be cut or broken.
_UNBOUNDED = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Head of the column.
        cells: A text for each row.
        is_number: Whether the texts end below each other.
        rank: 0 for what is always shown; of the others the highest is left out first where there
            is no room.
    """

    title: str
    cells: Sequence[str]
    is_number: bool = False
    rank: int = 0

    @property
    def width(self) -> int:
        """Width of the widest text."""
        return max(map(cell_len, (self.title, *self.cells)))


def console() -> Console:
    """The console of stdout: as wide as the terminal, or as COLUMNS says."""
    is_bounded = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(
        width=None if is_bounded else _UNBOUNDED, highlight=False, markup=False, emoji=False
    )


def table(columns: Sequence[Column], width: int) -> Table:
    """Makes a table that has all columns where there is room.

    Where there is not, columns move closer, then those of the highest rank are left out, then long
    texts are broken.

    Args:
        columns: From left to right.
        width: Most characters of a line.
    """
    kept = list(columns)
    gap = 2
    while sum(one.width for one in kept) + gap * (len(kept) - 1) > width:
        if gap == 2:
            gap = 1
            continue
        last = max(kept, key=lambda one: one.rank)
        if last.rank == 0:
            break
        kept.remove(last)
        gap = 2
    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for one in kept:
        made.add_column(one.title, justify="right" if one.is_number else "left", overflow="fold")
    for cells in zip(*(one.cells for one in kept), strict=True):
        made.add_row(*map(Text, cells))
    return made


def facts(named: Mapping[str, str]) -> Table:
    """Makes a table of names and what is known of each, which is broken between words."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, text in named.items():
        made.add_row(name, Text(text))
    return made


def report(found: "StabilityReport", width: int) -> Table:
    """Makes the table of what was measured."""
    from keras_lsc.stability.report import HEADER

    rows = found.rows
    # The name is always shown, and so are the numbers.
    ranks = {"of": 2, "shape": 1}
    texts = ("transition", *ranks)
    return table(
        [
            Column(title, [row[k] for row in rows], title not in texts, ranks.get(title, 0))
            for k, title in enumerate(HEADER)
        ],
        width,
    )


def energies(before: "GradientEnergies | None", found: "GradientEnergies", width: int) -> Table:
    """Makes the table of a gradient's energies, with those before if given, and of its twin."""
    names, shown, reaches, differences = (list(column) for column in zip(*found.rows, strict=True))
    title = "energy"
    if before is not None and before.layers == found.layers:
        title = "energy before -> after"
        shown = [f"{old[1]} -> {new}" for old, new in zip(before.rows, shown, strict=True)]
    return table(
        [
            Column("layer", names),
            Column(title, shown, is_number=True),
            Column("reach", reaches, is_number=True, rank=1),
            Column("forward", differences, is_number=True, rank=2),
        ],
        width,
    )


def change(
    before: "StabilityReport",
    after: "StabilityReport",
    wanted: Mapping[str, float],
    width: int,
) -> Table:
    """Makes the table of radii and gains before and after pre-training.

    Args:
        before: Report before it.
        after: Report of the same network after it.
        wanted: Target radius by the kind of the transition.
        width: Most characters of a line.
    """
    rows = after.transitions
    first = {row.name: row for row in before.transitions}
    targets = [f"{wanted[row.kind]:.3f}" if row.kind in wanted else "-" for row in rows]
    radii = [f"{first[row.name].radius:.3f} -> {row.radius:.3f}" for row in rows]
    gains = [f"{first[row.name].gain:.3f} -> {row.gain:.3f}" for row in rows]
    return table(
        [
            Column("transition", [row.name for row in rows]),
            Column("of", [row.state for row in rows], rank=3),
            Column("target", targets, is_number=True, rank=1),
            Column("radius before -> after", radii, is_number=True),
            Column("std", [f"{row.radius_std:.3f}" for row in rows], is_number=True, rank=2),
            Column("gain before -> after", gains, is_number=True),
        ],
        width,
    )
