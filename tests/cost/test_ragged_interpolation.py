"""Nested interpolation in a ragged grid, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.interpolate import INSIDE, ON_KNOTS, OUTSIDE, GridNode, build, lookup

BATCH = np.array([1.0, 1.0, 1.0, 2.0, 2.0])
CONTEXT = np.array([10.0, 20.0, 40.0, 10.0, 20.0])
VALUE = np.array([1.0, 2.0, 6.0, 3.0, 5.0])
"""Batch 2 was not measured at context 40."""


@pytest.fixture(scope="module")
def tree():
    return build([BATCH, CONTEXT], VALUE)


def test_measured_points_come_back_as_they_are(tree):
    for batch, context, value in zip(BATCH, CONTEXT, VALUE, strict=True):
        assert lookup(tree, [batch, context]) == (value, ON_KNOTS)


def test_between_knots_it_is_linear_on_each_axis(tree):
    # at batch 1: 1 + (2 - 1) * 0.5 = 1.5; at batch 2: 3 + (5 - 3) * 0.5 = 4; halfway: 2.75
    assert lookup(tree, [1.5, 15.0]) == (pytest.approx(2.75), INSIDE)


def test_a_corner_that_was_not_measured_is_outside(tree):
    # batch 1 at context 30: 2 + (6 - 2) / 2 = 4, measured; batch 2 clamps to context 20: 5; halfway: 4.5
    assert lookup(tree, [1.0, 30.0]) == (pytest.approx(4.0), INSIDE)
    assert lookup(tree, [1.5, 30.0]) == (pytest.approx(4.5), OUTSIDE)


def test_beyond_the_last_knot_the_value_is_carried_on(tree):
    def proportional(value, point, depth, knot):
        return value * point[depth] / knot

    # batch 1 context 80: 6 x 80 / 40; batch 4 clamps to batch 2: 5 x 4 / 2, context 20 is a knot
    assert lookup(tree, [1.0, 80.0], proportional) == (pytest.approx(12.0), OUTSIDE)
    assert lookup(tree, [4.0, 20.0], proportional) == (pytest.approx(10.0), OUTSIDE)
    assert lookup(tree, [4.0, 40.0], proportional) == (pytest.approx(5.0 * 2 * 2), OUTSIDE)


def test_repeated_points_are_averaged():
    tree = build([np.array([1.0, 1.0, 2.0])], np.array([2.0, 4.0, 5.0]))
    assert lookup(tree, [1.0]) == (3.0, ON_KNOTS)


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="at least one point"):
        build([np.array([])], np.array([]))


def grouped(points, values):
    """The tree by its definition: under each coordinate the points that have it; repeated ones averaged."""
    if not points[0]:
        return sum(values) / len(values)
    knots = sorted({point[0] for point in points})
    at = [[i for i, point in enumerate(points) if point[0] == knot] for knot in knots]
    below = [grouped([points[i][1:] for i in rows], [values[i] for i in rows]) for rows in at]
    return GridNode(tuple(knots), tuple(below))


@given(st.integers(1, 4).flatmap(lambda axes: st.lists(st.tuples(*[st.integers(0, 3)] * axes), min_size=1)))
@settings(max_examples=100, deadline=None)
def test_a_tree_holds_its_points_in_any_order_and_repeated(points):
    values = np.random.default_rng(len(points)).random(len(points))
    columns = [np.array(column, dtype=float) for column in zip(*points, strict=True)]
    assert build(columns, values) == grouped(points, values.tolist())
