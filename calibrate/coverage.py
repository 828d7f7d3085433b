"""How much of its plan a calibration has measured, table by table: what a profile that was cut short lacks."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sim.cost.record import BadRecord
from sim.files import read_text
from sim.saving import write_whole

FILE_NAME: Final = "coverage.json"
"""Beside the records."""

Coverage = Mapping[str, tuple[int, int]]
"""Table, such as `moe fp8`, -> shapes measured by some back-end, and shapes planned."""


def table_words(kernel: str, dtype: str, options: Mapping[str, str]) -> str:
    """A table in words, such as `mla_decode bf16 kv_cache=fp8`."""
    return " ".join((kernel, dtype, *(f"{name}={value}" for name, value in sorted(options.items()))))


def count(planned: Iterable[tuple[str, object]], measured: Iterable[tuple[str, object]]) -> Coverage:
    """Coverage from (table, shape) of what was planned and of what was measured."""
    shapes: dict[str, set[object]] = {}
    for table, shape in planned:
        shapes.setdefault(table, set()).add(shape)
    done = set(measured)
    return {table: (sum((table, s) in done for s in wanted), len(wanted)) for table, wanted in shapes.items()}


def lacks(coverage: Coverage) -> list[str]:
    """Tables that are not complete, in words, those with the least first."""
    left = [
        (done / planned, table, done, planned)
        for table, (done, planned) in coverage.items()
        if done < planned
    ]
    return [f"{table} ({done} of {planned})" for _, table, done, planned in sorted(left)]


def write(folder: Path, coverage: Coverage) -> None:
    """Note the coverage beside the records of a folder."""
    write_whole(folder / FILE_NAME, json.dumps(coverage, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> Coverage:
    """The coverage noted beside records; empty where none is, as for records of other programs.

    Raises OSError where it cannot be read, and BadRecord where it is no coverage.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    try:
        told = json.loads(read_text(path)).items()
        if not all(_is_count(pair) for _, pair in told):
            raise ValueError("counts are [measured, planned]")
        return {table: (done, planned) for table, (done, planned) in told}
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadRecord(
            f"{path}: not the coverage that `calibrate run` notes ({error}); without it, nothing is said to be missing"
        ) from error


def _is_count(pair: object) -> bool:
    """[measured, planned], of which something was planned."""
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(n) is int for n in pair)
        and 0 <= pair[0] <= pair[1] > 0
    )
