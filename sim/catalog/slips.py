"""What keys of a scenario usually lie within; beyond it somebody may have slipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import inf

from sim.catalog.facts import read


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual range of a number, and what its owner is asked beyond either end."""

    least: float
    most: float
    unit: str
    asks: Mapping[str, str]
    """By `least` and `most`."""


@cache
def usual_ranges() -> Mapping[str, Usual]:
    """By dotted key; `*` stands for any text in it."""
    found = {}
    for key, ends in read("slips.yaml").items():
        values = {end: float(fact["value"]) for end, fact in ends.items()}
        unit = next(fact["unit"] for fact in ends.values())
        asks = {end: fact["note"] for end, fact in ends.items()}
        found[key] = Usual(values.get("least", -inf), values.get("most", inf), unit, asks)
    return found
