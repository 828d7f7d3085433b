"""Interpolation in a ragged grid: nested one-dimensional interpolation, one axis after the other.

A measured table is seldom a full box (long contexts are measured at small batches only), so every node keeps
its own knots. A coordinate beyond its node's knots is clamped to the nearest one and reported as outside.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ON_KNOT = 1e-9
"""Relative distance below which a coordinate counts as a knot: queries that repeat a measured shape hit it."""


@dataclass(frozen=True, slots=True)
class GridNode:
    """One axis at fixed outer coordinates: sorted knots, and below each a node of the next axis or a value."""

    knots: tuple[float, ...]
    children: "tuple[GridNode, ...] | tuple[float, ...]"


def build(coordinates: Sequence[Floats], values: Floats) -> GridNode:
    """A tree over the axes in the given order, outermost first.

    coordinates: one array per axis, values: one number per point. Points that repeat are averaged.

    Raises:
        ValueError: there are no points.
    """
    if not len(values):
        raise ValueError("a table needs at least one point")
    return _tree([axis.tolist() for axis in coordinates], values.tolist(), range(len(values)), 0)


def _tree(columns: list[list[float]], values: list[float], rows: Iterable[int], axis: int) -> GridNode:
    """Of some of the points, from an axis on."""
    column, groups = columns[axis], dict[float, list[int]]()
    for row in rows:
        groups.setdefault(column[row], []).append(row)
    knots = tuple(sorted(groups))
    if axis + 1 < len(columns):
        return GridNode(knots, tuple(_tree(columns, values, groups[knot], axis + 1) for knot in knots))
    means = (reduce(add, (values[row] for row in groups[knot])) / len(groups[knot]) for knot in knots)
    return GridNode(knots, tuple(means))


Carry = Callable[[float, Sequence[float], int, float], float]
"""(value at a knot, point with the outer axes at the knots in use, depth, knot) -> value at the point."""

ON_KNOTS, INSIDE, OUTSIDE = 2, 1, 0
"""Where a point lies: on measured coordinates, between them, beyond them."""


def lookup(node: GridNode, point: Sequence[float], carry: Carry | None = None) -> tuple[float, int]:
    """Value at `point`, and where the point lies: ON_KNOTS, INSIDE or OUTSIDE the measured hull.

    Linear between neighbouring knots on every axis. Beyond the first and last knot the nearest one's value,
    taken on to the point by `carry` where given.
    """
    return _lookup(node, list(point), 0, carry)


def _lookup(node: GridNode, point: list[float], depth: int, carry: Carry | None) -> tuple[float, int]:
    x, knots = point[depth], node.knots
    slack = ON_KNOT * (1.0 + abs(x))
    i = bisect_left(knots, x - slack)
    if i < len(knots) and knots[i] <= x + slack:
        return _below(node, i, point, depth, carry)
    if i in (0, len(knots)):
        nearest = min(i, len(knots) - 1)
        value, _ = _below(node, nearest, point, depth, carry)
        return carry(value, point, depth, knots[nearest]) if carry else value, OUTSIDE
    low, low_where = _below(node, i - 1, point, depth, carry)
    high, high_where = _below(node, i, point, depth, carry)
    weight = (x - knots[i - 1]) / (knots[i] - knots[i - 1])
    return low + (high - low) * weight, min(low_where, high_where, INSIDE)


def _below(node: GridNode, i: int, point: list[float], depth: int, carry: Carry | None) -> tuple[float, int]:
    child = node.children[i]
    if not isinstance(child, GridNode):
        return child, ON_KNOTS
    if carry is None:
        return _lookup(child, point, depth + 1, None)
    at_knot = point.copy()
    at_knot[depth] = node.knots[i]
    return _lookup(child, at_knot, depth + 1, carry)
