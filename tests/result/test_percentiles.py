"""Percentiles and their intervals."""

import numpy as np
import pytest

from sim.result.histogram import Histogram
from sim.result.percentiles import at_share, intervals, percentiles, shares_at

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


def test_the_interval_of_a_mean_allows_for_what_none_of_the_requests_was() -> None:
    """One request in 2,000 takes 1.4 s instead of 1: a mean of 1.0002, which 1,000 requests without any would rule out.
    Rule of three: 3 / 1,000 of the mean at either end. Of 200 samples 95%, 178 at least by four standard deviations."""
    rng, held = np.random.default_rng(2), 0
    for _ in range(200):
        found = intervals(np.where(rng.random(1000) < 1 / 2000, 1.4, 1.0))
        assert found is not None and found["mean"] is not None
        held += found["mean"][0] <= 1.0002 <= found["mean"][1]
    assert held >= 178
    assert (intervals(np.ones(1000)) or {})["mean"] == pytest.approx([0.997, 1.003])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_share_and_its_seconds_lead_to_each_other(share: float) -> None:
    values = np.random.default_rng(3).lognormal(size=2001)
    for kind in (values, Histogram(values)):
        assert shares_at(kind, at_share(kind, share)) == pytest.approx([share, share], abs=0.002)
    assert shares_at(Histogram(values), at_share(values, share)) == pytest.approx([share, share], abs=0.002)
    assert shares_at(Histogram([0.0, 0.0, 1.0]), 0.0) == pytest.approx([2 / 3, 2 / 3])
    assert shares_at(np.array([0.0, 0.0, 1.0]), 0.0) == pytest.approx([0, 2 / 3])
    assert at_share(values, 1.5) == values.max() and at_share(values, -0.5) == values.min()
