"""Files to tables: CSV with `,`, `;`, tab or `|`, JSON lines, Parquet; text plain, or as .gz or .xz."""

import csv
import json
import lzma
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sim.files import open_regular
from sim.scenario.errors import DeploymentError, KeyPath, Problem, did_you_mean
from sim.workload.table import FileTable, cell_starts, fault
from sim.workload.unpacking import MOST_BYTES, text_of

SEPARATORS: Final = (",", ";", "\t", "|")

# What a table may hold, checked before it is parsed: a cell takes a hundred bytes as an object, so a small packed file
# could fill the memory. The largest public traces of requests have 1.4 million rows and 60 MB.
MOST_ROWS: Final = 3_000_000
MOST_CELLS: Final = 25_000_000
MOST_COLUMNS: Final = 1000
DECODER: Final = json.JSONDecoder()
BATCH_ROWS: Final = 256
"""Of a Parquet file that are unpacked before their size is looked at."""


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


def read(path: Path, most_rows: float = math.inf) -> FileTable:
    """The table in a .csv, .tsv, .jsonl or .parquet file; text may be compressed as .gz or .xz.

    After `most_rows` rows, or a few more, it is read no further: the table is not `whole`.

    Raises:
        ScenarioError: if the file cannot be read as such, or has no rows.
    """
    name = str(path)
    kinds = path.suffixes[-2:] if path.suffix in (".gz", ".xz") else path.suffixes[-1:]
    kind = kinds[0].lower() if kinds else ""
    parse = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(kind)
    if parse is None and kind != ".parquet":
        raise fault(
            name,
            (),
            None,
            None,
            "expected a .csv or .jsonl file, or one of them as .gz or .xz; or a .parquet file",
        )
    try:
        if parse is None:
            return _parquet(path, most_rows)
        raw, whole = text_of(path, most_rows)
        _check_size(lines := raw.count(b"\n"), lines + max(raw.count(sign.encode()) for sign in SEPARATORS))
        text = raw.decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise fault(name, (), None, None, f"cannot be read: {reason}") from None
    table = parse(name, tuple(line.removesuffix("\r") for line in text.split("\n")), whole)
    if not len(table):
        table.refuse(())
        raise fault(name, (), None, None, "has no rows")
    return table


def _check_size(rows: int, cells: int) -> None:
    """Raises ValueError for more than a table may hold."""
    for count, most, what in ((rows, MOST_ROWS, "rows"), (cells, MOST_CELLS, "cells")):
        if count > most:
            raise ValueError(f"holds about {count:,} {what}; at most {most:,} can be read")


def _separator(source: tuple[str, ...]) -> str:
    """The separator that splits the first line that is not empty into most cells."""
    first = next((line for line in source if line.strip()), "")
    return max(SEPARATORS, key=lambda separator: len(cell_starts(first, separator)))


def _csv(file: str, source: tuple[str, ...], whole: bool) -> FileTable:
    rows: list[list[str]] = []
    line_of: list[int] = []
    broken: list[tuple[int, int, str]] = []
    separator = _separator(source)
    reader = csv.reader(source, delimiter=separator, strict=True)
    line = 1  # where the next row begins; a quoted cell may run over several lines
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                line_of.append(line)
            line = reader.line_num + 1
    except csv.Error as error:  # what follows cannot be told apart into rows
        if whole or reader.line_num < len(source):  # else a cell of several lines that is read no further
            broken.append((line, 1, f"broken CSV: {error}"))
    if not rows:
        return FileTable(file, source, (), {}, tuple(broken), separator)
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise fault(file, source, line_of[0], 1, "a column's name appears twice")
    whole_rows, whole_lines = [], []
    for row, line in zip(rows[1:], line_of[1:], strict=True):
        if len(row) == len(names):
            whole_rows.append(row)
            whole_lines.append(line)
            continue
        starts = cell_starts(source[line - 1], separator)
        column = starts[min(len(names), len(starts) - 1)]
        broken.append(
            (line, column, f"expected {len(names)} cells ({separator.join(names)}), got {len(row)}")
        )
    columns: dict[str, list[object]] = {
        name: [row[place] for row in whole_rows] for place, name in enumerate(names)
    }
    return FileTable(file, source, tuple(whole_lines), columns, tuple(broken), separator, whole)


def _json_lines(file: str, source: tuple[str, ...], whole: bool) -> FileTable:
    rows: list[dict[str, object]] = []
    line_of: list[int] = []
    broken: list[tuple[int, int, str]] = []
    for line, text in enumerate(source, start=1):
        if not text.strip():
            continue
        try:
            row = _json(text)
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
    if len(names) > MOST_COLUMNS:
        raise fault(file, (), None, None, f"has {len(names):,} keys; expected at most {MOST_COLUMNS:,}")
    columns = {name: [row.get(name) for row in rows] for name in names}
    return FileTable(file, source, tuple(line_of), columns, tuple(broken), whole=whole)


def _json(text: str) -> object:
    """`json.loads`, in half the time where nothing stands around the value."""
    try:
        value, end = DECODER.raw_decode(text)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(text) else json.loads(text)


def _parquet(path: Path, most_rows: float) -> FileTable:
    """The rows of a Parquet file; a line is a row, counted from 1."""
    name = str(path)
    import pyarrow as pa  # noqa: PLC0415 - a tenth of a second that only Parquet needs
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with open_regular(path) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            count = min(file.metadata.num_rows, most_rows)
            if len(file.schema_arrow) > MOST_COLUMNS:
                raise ValueError(f"has {len(file.schema_arrow):,} columns; expected at most {MOST_COLUMNS:,}")
            _check_size(int(count), int(count) * len(file.schema_arrow))
            parts, held, read_rows = [], 0, 0
            plain = pa.schema(
                (name, getattr(kind, "value_type", kind) if pa.types.is_dictionary(kind) else kind)
                for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True)
            )
            for part in file.iter_batches(BATCH_ROWS, use_threads=False):
                parts.append(part.cast(plain))  # a word list would hide how long its words are
                held += parts[-1].nbytes
                if held > MOST_BYTES:
                    raise ValueError(f"holds more than {MOST_BYTES:,} bytes")
                read_rows += len(part)
                if read_rows >= most_rows:
                    break
            rows = pa.Table.from_batches(parts, plain)
        columns: dict[str, list[object]] = {
            key: rows[key].to_pylist() for key in dict.fromkeys(rows.column_names)
        }
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise fault(name, (), None, None, f"cannot be read as Parquet: {error}") from None
    if not rows.num_rows:
        raise fault(name, (), None, None, "has no rows")
    whole = rows.num_rows == file.metadata.num_rows
    return FileTable(name, (), tuple(range(1, rows.num_rows + 1)), columns, whole=whole)
