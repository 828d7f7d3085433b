"""Ends of what can be measured: beyond them a number is broken, whoever wrote it."""

from typing import Final

from sim.kernels import FAMILIES

LEAST_US, MOST_US = 1e-3, 1e8
"""Microseconds of a launch: a thousandth of what any takes, and a hundred seconds."""
MOST_OF_AXIS: Final = 1e15
"""Coordinates of a shape are at most the bytes that no GPU holds."""
COUNTED: Final = frozenset(axis for family in FAMILIES.values() for axis in family.needs) | {"queries"}
"""Axes that work is counted by: of each there is one at least, as work is divided by some."""
AT_MOST: Final = {"new": "context", "queries": "context", "nodes": "ep"}
"""Axis -> the one that it is a part of: a context's keys include those of its new tokens, each node has a GPU."""
OF_A_ROW: Final = frozenset({"table", "us", "taken_out_us", "weight"})
"""Columns of a family's file that are no axes of a shape."""
LEAST: Final = {**dict.fromkeys(COUNTED, 1.0), "us": LEAST_US, "weight": 1e-6}


def least_of(column: str) -> float:
    """The smallest number of a column: an axis, or one of `OF_A_ROW`."""
    return LEAST.get(column, 0.0)


def most_of(column: str) -> float:
    """The largest, likewise."""
    return MOST_US if column == "us" else MOST_OF_AXIS
