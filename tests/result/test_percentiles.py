"""Percentiles and their intervals."""

import numpy as np
import pytest

from sim.result.percentiles import intervals, percentiles

NEVER = float("nan")


def test_percentiles_interpolate_between_order_statistics() -> None:
    got = percentiles(np.array([4.0, NEVER, 1.0, 2.0, 3.0, 5.0]))
    assert got == pytest.approx({"mean": 3, "p50": 3, "p90": 4.6, "p99": 4.96})
    assert percentiles(np.array([])) == {"mean": None, "p50": None, "p90": None, "p99": None}


def test_intervals_hold_what_they_promise() -> None:
    """Of exponential values: mean 1, p50 ln 2, p90 ln 10, p99 ln 100. 95 of 100 intervals hold them: of 400, 363 to 397
    with four standard deviations of chance."""
    truth = {"mean": 1.0, "p50": np.log(2), "p90": np.log(10), "p99": np.log(100)}
    rng, held = np.random.default_rng(1), dict.fromkeys(truth, 0)
    for _ in range(400):
        found = intervals(rng.exponential(1.0, 10_000)) or {}
        for name, value in truth.items():
            low, high = found[name] or (0.0, 0.0)
            held[name] += low <= value <= high
    assert all(363 <= count <= 397 for count in held.values()), held


def test_intervals_are_left_out_where_there_are_too_few() -> None:
    values = np.arange(1000.0)
    found = intervals(values)
    assert found is not None and found["p99"] is None and found["p90"] is not None
    assert intervals(values[1:]) is None
    assert intervals(np.full(2000, NEVER)) is None
