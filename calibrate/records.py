"""Records of measured points: append-only JSONL that survives a kill at any moment.

One record per line, no header, flushed to disk before the next point starts. A file holds one environment. A last
line that a kill tore is cut off when the file is opened again, and its point is measured again.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TextIO

from sim.cost.record import Record
from sim.cost.record_form import check_record
from sim.model.operations import Operation

FILE_NAME: Final = "records.jsonl"

Key = tuple[str, str, str, str, str]


class RecordsError(Exception):
    """A records file that cannot be used: broken, of another environment, or in use."""


@dataclass(frozen=True, slots=True)
class Measurement(Record):
    """One point: one backend on one case. Times in microseconds per call.

    Where `ok` is false the point counts for nothing: the kernel failed or disagreed with its reference, `error`
    says how, and there are no times.
    """

    flop: float = 0.0
    bytes: float = 0.0
    samples_us: tuple[float, ...] = ()
    method: str | None = None
    """graph, events or clock."""
    fraction_of_ceiling: float | None = None
    """Least time that the measured ceilings allow (compute and copy), over the median."""
    deviation: float | None = None
    """Distance from the reference, 0 when equal; see `calibrate.kernels.backend.difference`."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Clock, power, temperature and throttling while it ran."""
    error: str | None = None

    @property
    def key(self) -> Key:
        """What makes a point the same point."""
        return point_key(self.operation, self.shape, self.dtype, self.options, self.backend)


def point_key(
    operation: str, shape: Mapping[str, float], dtype: str, options: Mapping[str, str], backend: str
) -> Key:
    """Identity of a point: numbers compare by value, the order of axes and options does not matter."""
    axes = json.dumps({axis: float(value) for axis, value in shape.items()}, sort_keys=True)
    return operation, axes, dtype, json.dumps(dict(options), sort_keys=True), backend


def operation_key(operation: Operation, backend: str) -> Key:
    """Identity of an operation measured with a backend."""
    return point_key(operation.kernel, operation.shape, operation.dtype, operation.options, backend)


def read_measurements(path: Path) -> list[Measurement]:
    """Points of a file; a last line that a kill tore is left out.

    Raises RecordsError, with the line's number, for a broken line that is not the last.
    """
    points = []
    for number, line in enumerate(_whole_lines(path.read_bytes()), start=1):
        try:
            raw = json.loads(line)
            check_record(raw)
            lists = {name: tuple(raw[name]) for name in ("samples_us", "flags")}
            points.append(Measurement(**{**raw, **lists}))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordsError(f"{path}, line {number}: not a record ({error})") from None
    return points


def _whole_lines(content: bytes) -> list[bytes]:
    """Lines that end in a newline; a kill can only tear the last one, which then has none."""
    return content.split(b"\n")[:-1]


class RecordFile:
    """The records of one environment, open for appending; one process at a time.

    Raises RecordsError when the file is of another environment, broken, or open elsewhere.
    """

    def __init__(self, folder: Path, environment: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self.environment = environment
        self._stream: TextIO = self.path.open("a")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.records = self._load()
        except OSError:
            self._stream.close()
            raise RecordsError(f"{self.path} is open in another calibration") from None
        except RecordsError:
            self._stream.close()
            raise
        self.keys = {record.key for record in self.records}

    def _load(self) -> list[Measurement]:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        records = read_measurements(self.path)
        for record in records:
            if record.environment != self.environment:
                raise RecordsError(f"{self.path} was {_difference(record.environment, self.environment)}")
        return records

    def append(self, record: Measurement) -> None:
        """Write one record and wait until the disk has it. Raises ValueError for one that holds an infinity."""
        self._stream.write(json.dumps(asdict(record), sort_keys=True, allow_nan=False) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.records.append(record)
        self.keys.add(record.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two environments, in words."""
    changed = [
        f"{name} {before.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    return (
        f"measured in another environment ({'; '.join(changed)}). Give another --out folder, or restore it."
    )
