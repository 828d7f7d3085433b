"""The header of a profile's folder: what was measured, on what. Anybody may have written it, so nothing is trusted."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from sim.catalog.profiles import HEADER
from sim.files import read_text

MOST_BYTES: Final = 2**20
"""Of a header: fifty times the largest that ships."""
DEEPEST: Final = 16
"""Nested sections and lists at most; a header needs four."""
MOST_TABLES: Final = 2**15 - 1
"""Number of a table at most, which the rows of the families' files hold in two bytes."""
MOST_OF_A_DEVICE: Final[Mapping[str, float]] = {"_bytes": 1e15, "_per_s": 1e18, "": 1e5}
"""Largest number of a device by how its key ends: bytes, FLOP or bytes per second, counts. A hundred to a thousand
times the largest on sale."""


def read_header(folder: Path) -> dict[str, Any]:
    """The header in a profile's folder.

    Raises OSError where it cannot be read, and ValueError with what is wrong: no plain YAML, keys that are missing, or
    a device that cannot be.
    """
    header = plain_yaml(read_text(folder / HEADER, MOST_BYTES))
    if not isinstance(header, dict) or not {"gpu", "engine", "tables"} <= header.keys():
        raise ValueError("expected keys gpu, engine and tables")
    for key in ("gpu", "engine"):
        if not isinstance(header[key], str) or not header[key]:
            raise ValueError(f"{key}: expected a name")
    _check_tables(header["tables"])
    header = {key: value for key, value in header.items() if value is not None}
    for key in ("attribution", "coverage", "device", "environment"):
        if not isinstance(header.get(key, {}), dict):
            raise ValueError(f"{key}: expected a section")
    if not isinstance(header.get("model", ""), str):
        raise ValueError("model: expected a name")
    _check_device(header.get("device", {}))
    _check_coverage(header)
    return header


def plain_yaml(text: str) -> Any:
    """The content of a YAML text without anchors, which could repeat a part of it without end.

    Raises ValueError with the line of what is wrong.
    """
    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    try:
        for event in yaml.parse(text, Loader=loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ValueError(f"line {line}: YAML anchors and aliases (& and *) are not supported")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"line {line}: nested more than {DEEPEST} levels deep")
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{where}not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _check_tables(tables: object) -> None:
    if not isinstance(tables, list):
        raise ValueError("tables: expected a list")
    numbers = set()
    for place, entry in enumerate(tables):
        names = ("kernel", "dtype", "source")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in names):
            raise ValueError(f"tables.{place}: expected a section with kernel, dtype and source as text")
        number, options, noise = entry.get("id"), entry.get("options", {}), entry.get("noise")
        if type(number) is not int or number in numbers or not 0 <= number <= MOST_TABLES:
            raise ValueError(
                f"tables.{place}.id: expected a whole number of its own from 0 to {MOST_TABLES:,}"
            )
        numbers.add(number)
        if not isinstance(options, dict) or not all(isinstance(o, str) for kv in options.items() for o in kv):
            raise ValueError(f"tables.{place}.options: expected names with values as text")
        if not isinstance(entry.get("backend", ""), str):
            raise ValueError(f"tables.{place}.backend: expected text")
        includes = entry.get("includes", [])
        if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
            raise ValueError(f"tables.{place}.includes: expected a list of kernel families")
        if noise is not None and not _number_to(noise, 1e3, least=0.0):
            raise ValueError(f"tables.{place}.noise: expected a share of the time")


def _check_coverage(header: Mapping[str, Any]) -> None:
    for table, counts in header.get("coverage", {}).items():
        pair = counts if isinstance(counts, list) else []
        if len(pair) != 2 or not all(type(n) is int for n in pair) or not 0 <= pair[0] <= pair[1] > 0:
            raise ValueError(f"coverage.{str(table)[:40]}: expected counts [measured, planned]")
    lacking = header.get("lacks", [])
    if not isinstance(lacking, list) or not all(isinstance(table, str) for table in lacking):
        raise ValueError("lacks: expected a list of tables")


def _check_device(device: Mapping[Any, Any]) -> None:
    for key, value in device.items():
        if isinstance(value, str) and not str(key).endswith(("_bytes", "_per_s")):
            continue  # its name, and whatever else is said of it
        most = next(most for end, most in MOST_OF_A_DEVICE.items() if str(key).endswith(end))
        if not _number_to(value, most):
            raise ValueError(f"device.{key}: expected a number above 0 to {most:g}, got {str(value)[:40]}")


def _number_to(value: object, most: float, least: float = math.ulp(0.0)) -> bool:
    """Whether it is a number from `least` (default: above 0) to `most`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
