"""What fails, how long it is away, and how soon workers come: where a scenario does not say."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sim.catalog.facts import read, values


@dataclass(frozen=True, slots=True)
class Repair:
    """A class of failures."""

    share: float
    """Of all failures."""
    least_h: float
    most_h: float
    """Hours that the node is away, evenly between the two; 0: it is not."""


@cache
def operations() -> dict[str, Any]:
    """The file's values, by section and name."""
    found: dict[str, Any] = values(read("operations.yaml"))
    return found


@cache
def repairs() -> tuple[Repair, ...]:
    """The classes of failures; their shares sum to 1."""
    return tuple(Repair(*map(float, given)) for given in operations()["repair"].values())
