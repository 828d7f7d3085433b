"""Ends of what can be measured: beyond them a number is broken, whoever wrote it. No library is needed for these."""

from typing import Final

LEAST_US, MOST_US = 1e-3, 1e8
"""Microseconds of a launch: a thousandth of what any takes, and a hundred seconds."""
LEAST_OF_AXIS, MOST_OF_AXIS = 1.0, 1e15
"""Coordinates of a shape: counts of something that is there, and at most the bytes that no GPU holds."""
OF_A_ROW: Final = frozenset({"table", "us", "taken_out_us", "weight"})
"""Columns of a family's file that are no axes of a shape."""
LEAST: Final = {"cached": 0.0, "table": 0.0, "us": LEAST_US, "taken_out_us": 0.0, "weight": 1e-6}
"""Where it is another one: nothing cached, the first table, nothing taken out."""


def least_of(column: str) -> float:
    """The smallest number of a column: an axis, or one of `OF_A_ROW`."""
    return LEAST.get(column, LEAST_OF_AXIS)


def most_of(column: str) -> float:
    """The largest, likewise."""
    return MOST_US if column == "us" else MOST_OF_AXIS
