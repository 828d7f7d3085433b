"""Interpolation in a ragged grid: nested one-dimensional interpolation, one axis after the other.

A measured table is seldom a full box (long contexts are measured at small batches only), so every node keeps
its own knots. A coordinate beyond its node's knots is clamped to the nearest one and reported as outside.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

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
    order = np.lexsort(coordinates[::-1])  # those that repeat stay in order
    columns = [axis[order] for axis in coordinates]
    new, starts = np.arange(len(order)) == 0, list[Ints]()
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
        starts.append(np.flatnonzero(new))  # rows with which a knot of the axis begins
    below: Sequence[Any] = _means(values[order].tolist(), starts[-1].tolist())
    for axis in reversed(range(len(columns))):
        own, outer = starts[axis], starts[axis - 1] if axis else starts[0][:1]
        knots = columns[axis][own].tolist()
        first = [*own.searchsorted(outer).tolist(), len(knots)]  # knots with which a node begins
        below = [GridNode(tuple(knots[i:j]), tuple(below[i:j])) for i, j in pairwise(first)]
    root: GridNode = below[0]
    return root


def _means(values: list[float], starts: list[int]) -> list[float]:
    """Of the values from each start to the next."""
    if len(starts) == len(values):
        return values
    return [reduce(add, values[i:j]) / (j - i) for i, j in pairwise([*starts, len(values)])]


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
