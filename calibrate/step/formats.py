"""The patterns of `formats.yaml`, compiled."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

FORMATS: Final = Path(__file__).with_suffix(".yaml")
OTHER: Final = "other"
"""Family of the kernels that no pattern knows."""


@cache
def formats() -> Mapping[str, Any]:
    """The file as it is."""
    return yaml.safe_load(FORMATS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@cache
def patterns(section: str) -> Mapping[str, re.Pattern[str]]:
    """Name -> pattern of `lines` or `marks`."""
    return {name: re.compile(entry["pattern"]) for name, entry in formats()[section].items()}


@cache
def _families() -> tuple[tuple[str, re.Pattern[str]], ...]:
    listed = formats()["families"]["patterns"]
    return tuple((family, re.compile(pattern, re.IGNORECASE)) for family, pattern in listed)


@cache
def family_of(kernel: str) -> str:
    """The family of a kernel by its name; OTHER where no pattern knows it."""
    return next((family for family, pattern in _families() if pattern.search(kernel)), OTHER)
