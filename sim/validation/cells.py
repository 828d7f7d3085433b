"""The cells of a line of a table, by column: what they must be, and which one is wrong."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from sim.scenario.errors import brief

FLAGS: Final = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}

LEAST, MOST = 1e-9, 1e15
"""Of any number that somebody measured, whatever its unit: wide of all that is, and safe to divide by."""


class TableError(ValueError):
    """A table that cannot be read; says where and what was expected."""


class Cells:
    """The filled cells of one line. Every reader raises TableError, which names the column."""

    def __init__(self, cells: Mapping[str, Any]) -> None:
        self.asked: set[str] = set()
        """Columns that somebody looked for."""
        self._cells = {str(k): text for k, v in cells.items() if not pd.isna(v) and (text := str(v).strip())}

    def __bool__(self) -> bool:
        return bool(self._cells)

    def __contains__(self, column: str) -> bool:
        self.asked.add(column)
        return column in self._cells

    def text(self, column: str, default: str | None = None) -> str:
        """Any text; `default` where the cell is empty, which is wrong without one."""
        self.asked.add(column)
        found = self._cells.get(column, default)
        if found is None:
            raise TableError(f"{column}: expected a value, got nothing")
        return found

    def number(self, column: str) -> float:
        """A number above zero, and no number out of this world."""
        try:
            value = float(self.text(column))
        except ValueError:
            value = float("nan")
        if not LEAST <= value <= MOST:
            raise TableError(f"{column}: expected a number above 0, got {brief(self.text(column))!r}")
        return value

    def count(self, column: str, default: int | None = None) -> int:
        """A whole number, at least zero; `8.0` is one."""
        given = self.text(column, None if default is None else str(default))
        try:
            value = float(given)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= MOST or value != int(value):
            raise TableError(f"{column}: expected a whole number, got {given!r}")
        return int(value)

    def flag(self, column: str, default: bool | None = None) -> bool:
        """0 or 1, false or true, no or yes; 1.0 too, as a table with gaps writes it."""
        given = self.text(column, None if default is None else str(default))
        value = FLAGS.get(given.lower().removesuffix(".0"))
        if value is None:
            raise TableError(f"{column}: expected 0 or 1, got {given!r}")
        return value
