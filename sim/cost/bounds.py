"""Ends of what can be measured: beyond them a number is broken, whoever wrote it. No library is needed for these."""

from typing import Final

LEAST_US, MOST_US = 1e-3, 1e8
"""Microseconds of a launch: a thousandth of what any takes, and a hundred seconds."""
LEAST_OF_AXIS, MOST_OF_AXIS = 1e-6, 1e15
"""Coordinates of a shape: above 0, as work is divided by some, and at most the bytes that no GPU holds."""
MAY_BE_ZERO: Final = frozenset({"cached", "taken_out_us", "table"})
"""Columns in which 0 means something: nothing cached, nothing taken out, the first table."""


def least_of(axis: str) -> float:
    """The smallest coordinate of an axis."""
    return 0.0 if axis in MAY_BE_ZERO else LEAST_OF_AXIS
