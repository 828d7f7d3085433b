"""What columns of names that nobody knows may hold, so that an error can say which one to name. Nothing is read so."""

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from sim.workload.dates import is_a_date
from sim.workload.table import FileTable, real, whole

if TYPE_CHECKING:
    from sim.workload.columns import Columns

LOOKED_AT: Final = 100
"""Cells of a column."""
RISING: Final = 3
"""Of them, that can be told to rise."""


def maybe_times(table: FileTable, columns: "Columns") -> str | None:
    """The one column, of those that are not read, that holds dates; else the one whose numbers rise by uneven steps."""
    others = [name for name in table.columns if name not in columns.json().values()]
    for kind in (_dates, _rises):
        found = [name for name in others if kind(_cells(table, name))]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def maybe_tokens(table: FileTable, read: Collection[str | None]) -> list[str]:
    """The columns, of those that are not `read`, that hold counts and do not rise."""
    cells = {name: _cells(table, name) for name in table.columns if name not in read}
    return [name for name, some in cells.items() if some and _all(some, _count) and not _rises(some)]


def _cells(table: FileTable, name: str) -> list[object]:
    """Some that are not empty."""
    return [cell for cell in table.columns[name][:LOOKED_AT] if cell not in (None, "")]


def _dates(cells: list[object]) -> bool:
    return bool(cells) and all(map(is_a_date, cells))


def _rises(cells: list[object]) -> bool:
    """As times do; even steps are those of a number of rows."""
    if len(cells) < RISING or not _all(cells, real):
        return False
    numbers = [real(cell) for cell in cells]
    steps = {after - before for before, after in pairwise(numbers)}
    return min(steps) >= 0 and len(steps) > 1


def _count(cell: object) -> int:
    return whole(cell, 0)


def _all(cells: list[object], reading: Callable[[object], object]) -> bool:
    """Whether each can be read so."""
    try:
        return all(True for _ in map(reading, cells))
    except ValueError:
        return False
