"""The measured record: one schema for imported tables, for `calibrate run` and for fits.

A record says what ran (`operation`, `shape`, `dtype`, `options`), how long (`us_median` and its spread) and where
the number comes from (`source`, `backend`, `environment`). On disk: JSON Lines, one record per line, no header.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sim.cost.record_form import check_record
from sim.files import read_regular

CALIBRATION: Final = "tokenworks calibrate run"
"""The source of records, and of profiles, that were measured on one's own GPUs."""


class BadRecord(ValueError):
    """A line that is not a record; says the file, the line number and what was expected."""


@dataclass(frozen=True, slots=True)
class Record:
    """One measured kernel launch. Times in microseconds; the shape's axes are those of `Operation.shape`."""

    operation: str
    """Kernel family, such as `gemm` or `mla_decode`: the name that `Operation.kernel` carries."""
    shape: Mapping[str, float]
    dtype: str
    """Arithmetic precision: bf16, fp8 or nvfp4."""
    us_median: float | None
    """Median time of one launch; None where `ok` is false."""
    ok: bool = True
    """Whether the kernel ran and agreed with its reference."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What else selects a table, such as kv_cache or stage."""
    us_p10: float | None = None
    us_p90: float | None = None
    source: str = ""
    """Where the measurement was made: campaign and table, or the program that timed it."""
    backend: str = ""
    """Implementation that ran, such as deepgemm or flashmla."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """GPU, driver, clocks and library versions."""
    flags: tuple[str, ...] = ()
    """Reasons to trust the times less, such as throttled."""


def to_line(record: Record) -> str:
    """The record as one line of JSON."""
    return json.dumps(asdict(record), sort_keys=True)


def read_records(path: Path) -> Iterator[Record]:
    """Every record of a JSONL file, in order.

    Unknown keys are ignored, so that newer writers stay readable. So is a last line without an end: the writer was
    stopped in the middle of it.

    Raises:
        OSError: there is no such regular file.
        BadRecord: a line is not JSON, lacks `operation`, `shape` or `us_median`, or has a value that cannot be.
    """
    known = Record.__dataclass_fields__
    for number, line in enumerate(read_regular(path).splitlines(keepends=True), start=1):
        if not line.strip():
            continue
        torn = not line.endswith(b"\n")
        try:
            raw = json.loads(line.decode())
            torn = False
            check_record(raw)
        except UnicodeDecodeError as error:
            raise BadRecord(f"{path}:{number}: not UTF-8 text") from error
        except ValueError as error:
            if torn:
                return
            raise BadRecord(f"{path}:{number}: not a measured record ({error})") from error
        except RecursionError as error:
            raise BadRecord(f"{path}:{number}: not a measured record (nested too deep)") from error
        yield Record(**{"dtype": "bf16", **{k: v for k, v in raw.items() if k in known}})


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL, replacing the file."""
    path.write_text("".join(to_line(r) + "\n" for r in records), encoding="utf-8")
