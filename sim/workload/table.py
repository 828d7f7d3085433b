"""Small tables from files: CSV or JSON lines, plain, .gz or .xz. Each error names file, line and column.

What is wrong is told at once: broken lines are put aside while the others are read, and the first `MOST_TOLD` raised
together.
"""

import csv
import gzip
import io
import json
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from sim.files import LARGEST_BYTES, read_regular
from sim.scenario.errors import (
    DeploymentError,
    KeyPath,
    LocatedProblem,
    Place,
    Problem,
    ScenarioError,
    did_you_mean,
)

LARGEST_COUNT = 10**12
"""As in the scenario's own numbers: far above anything that runs, far below what overflows."""

MOST_TOLD = 10
"""Broken lines of a file that are told; how many more there are is said."""

LONGEST_EXCERPT = 160
"""Characters of a line that an error still shows: a line of block hashes can have thousands."""

Wrong = tuple[int, str, str]
"""(row, name of the column, message)"""


@dataclass(frozen=True)
class Table:
    """Columns of cells, as read: text from CSV, JSON values from JSON lines. `None` where a row lacks the key."""

    file: str
    source: tuple[str, ...]
    """The file's lines."""
    line_of: tuple[int, ...]
    """The line of each row, from 1."""
    columns: dict[str, list[object]]
    broken: tuple[tuple[int, int, str], ...] = ()
    """Lines that are no rows: (line, column, message)."""

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
            _problem(self.file, self.source, line, self._column_of(line, at), says)
            for line, at, says in found[:MOST_TOLD]
        ]
        if more := len(found) - len(problems):
            problems.append(_problem(self.file, (), None, None, f"and {more:,} more such mistakes"))
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
        text = self.source[line - 1]
        if text.lstrip().startswith("{"):
            return text.find(f'"{name}"') + 1 or 1
        starts = cell_starts(text)
        index = list(self.columns).index(name)
        return starts[index] if index < len(starts) else 1  # a row that goes on in the next line


def whole(cell: object, least: int) -> int:
    """A whole number of at least `least`: `12`, "12" or "12.0".

    Raises:
        ValueError: naming what was found instead.
    """
    if type(cell) is int and least <= cell <= LARGEST_COUNT:
        return cell  # nearly every cell of a JSON file
    number = real(cell)
    if not number.is_integer():
        raise ValueError(f"expected a whole number, got {number:g}")
    if number < least:
        raise ValueError(f"expected at least {least}, got {int(number)}")
    if number > LARGEST_COUNT:
        raise ValueError(f"expected at most {LARGEST_COUNT:g}, got {number:g}")
    return int(number)


def real(cell: object) -> float:
    """A finite number.

    Raises:
        ValueError: naming what was found instead.
    """
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


def locate(name: str, base_folder: Path | None, shipped: Iterable[str], key: KeyPath) -> Path:
    """The file of a name that is none of `shipped`, relative to the folder of the scenario.

    Raises:
        DeploymentError: at `key`, if there is no such file.
    """
    path = (base_folder or Path()) / name
    if not path.is_file():
        known = sorted(shipped)
        says = f"; shipped: {', '.join(known)}{did_you_mean(name, known)}" if known else ""
        raise DeploymentError([Problem(key, f"no file '{path}'{says}")])
    return path


def read(path: Path) -> Table:
    """The table in a .csv or .jsonl file, which may be compressed as .gz or .xz.

    Raises:
        ScenarioError: if the file cannot be read as such, or has no rows.
    """
    name = str(path)
    kinds = path.suffixes[-2:] if path.suffix in (".gz", ".xz") else path.suffixes[-1:]
    parse = {".csv": _csv, ".jsonl": _json_lines}.get(kinds[0] if kinds else "")
    if parse is None:
        raise fault(name, (), None, None, "expected a .csv or .jsonl file, or one of them as .gz or .xz")
    try:
        text = _unpacked(read_regular(path), path.suffix).decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise fault(name, (), None, None, f"cannot be read: {reason}") from None
    table = parse(name, tuple(line.removesuffix("\r") for line in text.split("\n")))
    if not len(table):
        table.refuse(())
        raise fault(name, (), None, None, "has no rows")
    return table


def _unpacked(raw: bytes, suffix: str) -> bytes:
    """What a .gz or .xz file holds: no more than a plain file may."""
    packed = {".gz": gzip.open, ".xz": lzma.open}.get(suffix)
    if packed is None:
        return raw
    with packed(io.BytesIO(raw)) as file:
        content: bytes = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"holds more than {LARGEST_BYTES:,} bytes")
    return content


def fault(
    file: str, source: tuple[str, ...], line: int | None, column: int | None, message: str
) -> ScenarioError:
    """One problem at a place of a file; `line` None is the file as a whole."""
    return ScenarioError([_problem(file, source, line, column, message)])


def _problem(
    file: str, source: tuple[str, ...], line: int | None, column: int | None, message: str
) -> LocatedProblem:
    text = source[line - 1] if line is not None and line <= len(source) else ""
    shown = text if len(text) <= LONGEST_EXCERPT else ""
    return LocatedProblem((), message, Place(file, line, column, shown))


def cell_starts(line: str) -> list[int]:
    """The column, from 1, at which each cell of a CSV line begins; commas between quotes begin none."""
    starts, quoted = [1], False
    for position, character in enumerate(line, start=2):
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            starts.append(position)
    return starts


def _csv(file: str, source: tuple[str, ...]) -> Table:
    rows: list[list[str]] = []
    line_of: list[int] = []
    broken: list[tuple[int, int, str]] = []
    reader = csv.reader(source, strict=True)
    line = 1  # where the next row begins; a quoted cell may run over several lines
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                line_of.append(line)
            line = reader.line_num + 1
    except csv.Error as error:  # what follows cannot be told apart into rows
        broken.append((line, 1, f"broken CSV: {error}"))
    if not rows:
        return Table(file, source, (), {}, tuple(broken))
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise fault(file, source, line_of[0], 1, "a column's name appears twice")
    whole_rows, whole_lines = [], []
    for row, line in zip(rows[1:], line_of[1:], strict=True):
        if len(row) == len(names):
            whole_rows.append(row)
            whole_lines.append(line)
            continue
        starts = cell_starts(source[line - 1])
        column = starts[min(len(names), len(starts) - 1)]
        broken.append((line, column, f"expected {len(names)} cells ({','.join(names)}), got {len(row)}"))
    columns: dict[str, list[object]] = {
        name: [row[place] for row in whole_rows] for place, name in enumerate(names)
    }
    return Table(file, source, tuple(whole_lines), columns, tuple(broken))


def _json_lines(file: str, source: tuple[str, ...]) -> Table:
    rows: list[dict[str, object]] = []
    line_of: list[int] = []
    broken: list[tuple[int, int, str]] = []
    for line, text in enumerate(source, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            broken.append((line, error.colno, f"broken JSON: {error.msg}"))
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets as deep
            broken.append((line, 1, f"broken JSON: {error}"))
            continue
        if isinstance(row, dict):
            rows.append(row)
            line_of.append(line)
        else:
            broken.append((line, 1, "expected an object: {...}"))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table(file, source, tuple(line_of), columns, tuple(broken))


def at_least(least: int) -> Callable[[object], int]:
    """The reading of whole numbers of at least `least`."""
    return lambda cell: whole(cell, least)
