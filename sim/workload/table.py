"""Small tables: columns of cells, and what is wrong with them. Each error names file, line and column.

What is wrong is told at once: broken lines are put aside while the others are read, and the first `MOST_TOLD` raised
together.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sim.scenario.errors import LocatedProblem, Place, ScenarioError

LARGEST_COUNT = 10**12
"""As in the scenario's own numbers: far above anything that runs, far below what overflows."""
LARGEST_NUMBER = 1e24
"""Of what is only compared with its like, such as weights: sums and products of many stay finite."""

MOST_TOLD = 10
"""Broken lines of a file that are told; how many more there are is said."""

THOUSANDS = re.compile(r"\d{1,3}([,' \u00a0\u202f])\d{3}(\1\d{3})*")
"""A count as people group it: `7,482`. With a decimal comma it would be no count."""

Wrong = tuple[int, str, str]
"""(row, name of the column, message)"""


@dataclass(frozen=True)
class FileTable:
    """Columns of cells, as read: text from CSV, JSON values from JSON lines. `None` where a row lacks the key."""

    file: str
    source: tuple[str, ...]
    """The file's lines."""
    line_of: tuple[int, ...]
    """The line of each row, from 1."""
    columns: dict[str, list[object]]
    broken: tuple[tuple[int, int, str], ...] = ()
    """Lines that are no rows: (line, column, message)."""
    separator: str = ","
    """Of the cells of a CSV line."""
    whole: bool = True
    """Whether these are all rows of the file; else it was read no further."""

    def __len__(self) -> int:
        return len(self.line_of)

    def convert(self, readings: Mapping[str, Callable[[object], Any]]) -> list[list[Any]]:
        """The cells of each named column through its reading, whose ValueError tells what is wrong with a cell.

        Raises:
            ScenarioError: with every broken line and cell, up to `MOST_TOLD` of them.
        """
        wrong: list[Wrong] = []
        columns = [self._read(name, reading, wrong) for name, reading in readings.items()]
        self.refuse(wrong)
        return columns

    def refuse(self, wrong: Iterable[Wrong]) -> None:
        """Raise the ScenarioError that these cells, and the lines that are no rows, are wrong, if there are any."""
        found: list[tuple[int, int | str, str]] = [*self.broken]
        found += [(self.line_of[row], name, message) for row, name, message in wrong]
        if not found:
            return
        found.sort(key=itemgetter(0))
        problems = [
            problem_at(self.file, self.source, line, self._column_of(line, at), says)
            for line, at, says in found[:MOST_TOLD]
        ]
        if more := len(found) - len(problems):
            problems.append(problem_at(self.file, (), None, None, f"and {more:,} more such mistakes"))
        raise ScenarioError(problems)

    def _read(self, name: str, reading: Callable[[object], Any], wrong: list[Wrong]) -> list[Any]:
        out = []
        for row, cell in enumerate(self.columns[name]):
            try:
                out.append(reading(cell))
            except ValueError as error:
                wrong.append((row, name, f"{name}: {error}"))
        return out

    def _column_of(self, line: int, name: str | int) -> int:
        if isinstance(name, int):
            return name
        text = self.source[line - 1] if line <= len(self.source) else ""
        if not text:  # Parquet: the row and the column, counted
            return [*self.columns].index(name) + 1
        if text.lstrip().startswith("{"):
            return text.find(f'"{name}"') + 1 or 1
        starts = cell_starts(text, self.separator)
        index = list(self.columns).index(name)
        return starts[index] if index < len(starts) else 1  # a row that goes on in the next line


def whole(cell: object, least: int) -> int:
    """A whole number of at least `least`: `12`, "12", "12.0" or "1,200".

    Raises:
        ValueError: naming what was found instead.
    """
    if type(cell) is int and least <= cell <= LARGEST_COUNT:
        return cell  # nearly every cell of a JSON file
    try:
        number = _finite(cell)
    except ValueError:
        if not (isinstance(cell, str) and THOUSANDS.fullmatch(cell.strip())):
            raise
        number = float(re.sub(r"\D", "", cell))
    if not number.is_integer():
        raise ValueError(f"expected a whole number, got {number:g}")
    if number < least:
        raise ValueError(f"expected at least {least}, got {int(number)}")
    if number > LARGEST_COUNT:
        raise ValueError(f"expected at most {LARGEST_COUNT:g}, got {number:g}")
    return int(number)


def real(cell: object) -> float:
    """A number that is small enough to be added up and multiplied with.

    Raises:
        ValueError: naming what was found instead.
    """
    number = _finite(cell)
    if not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:
        raise ValueError(f"expected at most {LARGEST_NUMBER:g} in size, got {number:g}")
    return number


def _finite(cell: object) -> float:
    if type(cell) is float and math.isfinite(cell):
        return cell
    if cell is None or cell == "":
        raise ValueError("expected a number, got nothing")
    try:
        if isinstance(cell, bool) or not isinstance(cell, str | int | float):
            raise ValueError
        number = float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a number, got {str(cell)[:40]!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {cell}")
    return number


def fault(
    file: str, source: tuple[str, ...], line: int | None, column: int | None, message: str
) -> ScenarioError:
    """One problem at a place of a file; `line` None is the file as a whole."""
    return ScenarioError([problem_at(file, source, line, column, message)])


def problem_at(
    file: str, source: tuple[str, ...], line: int | None, column: int | None, message: str
) -> LocatedProblem:
    text = source[line - 1] if line is not None and line <= len(source) else ""
    return LocatedProblem((), message, Place(file, line, column, text))


def cell_starts(line: str, separator: str = ",") -> list[int]:
    """The column, from 1, at which each cell of a CSV line begins; separators between quotes begin none."""
    starts, quoted = [1], False
    for position, character in enumerate(line, start=2):
        if character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            starts.append(position)
    return starts


def at_least(least: int) -> Callable[[object], int]:
    """The reading of whole numbers of at least `least`."""
    return lambda cell: whole(cell, least)
