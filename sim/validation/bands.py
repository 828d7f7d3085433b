"""How far off the published cases of the readers may be (`bands.yaml`)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.validation.case import Case

FILE: Final = Path(__file__).with_name("bands.yaml")
MISSED: Final = "missed"


@cache
def bands() -> Mapping[str, Any]:
    """`bands.yaml`."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def banded(cases: Iterable[Case], reader: str) -> Iterator[Case]:
    """The cases of a reader with their bands: published +- a share of its size, whose sign a gain may have."""
    for case in cases:
        told = bands()[reader][case.metric]
        room = told["band"] * abs(case.published)
        yield replace(
            case,
            band=(case.published - room, case.published + room),
            why=told["why"],
            missed=bands()[MISSED].get(case.id, ""),
        )
