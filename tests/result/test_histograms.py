"""Histograms: within their bound of the values that they counted, and exact when merged."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.result.histogram import WIDTH, Batches, Histogram, merged
from sim.result.percentiles import intervals, percentiles


def told(histogram: Histogram) -> tuple[Any, ...]:
    """Everything that a histogram knows."""
    ends = len(histogram) and (histogram.mean_s, histogram.lowest_s, histogram.highest_s)
    return len(histogram), ends, list(histogram.bins())


SECONDS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200)


def test_the_bound_is_below_half_a_percent() -> None:
    assert WIDTH < 0.005


@given(SECONDS)
def test_percentiles_are_within_a_bin_of_numpy_s(values: list[float]) -> None:
    shares = (0, 1, 25, 50, 90, 99, 100)
    got = Histogram(values).percentiles(shares)
    assert got == pytest.approx(np.percentile(values, shares), rel=WIDTH * 1.0001)
    assert Histogram(values).mean_s == pytest.approx(np.mean(values), rel=1e-3)


@given(st.lists(SECONDS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merging_is_exact_in_any_order(parts: list[list[float]], rng: Any) -> None:
    whole = Histogram([value for part in parts for value in part])
    histograms = [pickle.loads(pickle.dumps(Histogram(part))) for part in parts]
    rng.shuffle(histograms)
    assert told(merged(histograms)) == told(whole)
    assert sum(count for *_, count in whole.bins()) == len(whole)


def drawn(seed: int) -> Histogram:
    return Histogram(np.random.default_rng(seed).lognormal(size=1000))


def test_what_processes_have_counted_adds_up() -> None:
    with ProcessPoolExecutor(2) as pool:
        found = merged(pool.map(drawn, range(4)))
    values = np.concatenate([np.random.default_rng(seed).lognormal(size=1000) for seed in range(4)])
    assert told(found) == told(Histogram(values))


def test_nothing_and_no_time_at_all() -> None:
    assert percentiles(Histogram()) == dict.fromkeys(("mean", "p50", "p90", "p99"))
    assert percentiles(Histogram([0.0, 0.0])) == dict.fromkeys(("mean", "p50", "p90", "p99"), 0.0)
    assert percentiles(Histogram([3.0] * 5)) == pytest.approx(
        dict.fromkeys(("mean", "p50", "p90", "p99"), 3.0)
    )


@given(st.lists(st.sampled_from([0.0, 1e-15, 1e-9, 2e-9, 0.5, 2.0]), min_size=1, max_size=200))
def test_no_time_at_all_is_none_among_others(values: list[float]) -> None:
    shares = (0, 1, 25, 50, 90, 99, 100)
    exact, got = np.percentile(values, shares), Histogram(values).percentiles(shares)
    assert got == pytest.approx(exact, rel=WIDTH * 1.0001, abs=1e-14)
    if 1e-15 not in values:
        assert (got[exact == 0] == 0).all()
    bins = list(Histogram(values).bins())
    assert sum(count for *_, count in bins) == len(values)
    assert all(low < high for low, high, _ in bins)
    for value in values:
        assert any(low <= value < high for low, high, _ in bins)


@pytest.mark.parametrize("count", [50, 999, 1000, 12_345, 100_000])
def test_batches_keep_their_number_and_know_what_batch_means_know(count: int) -> None:
    from sim.result.percentiles import batch_means  # noqa: PLC0415

    values = np.random.default_rng(count).lognormal(size=count)
    batches = Batches()
    for part in np.array_split(values, 7):
        batches.add(part)
    whole = batches.whole()
    assert told(whole) == told(Histogram(values))
    parts = batches.parts(10)
    assert len(parts) == 10 and len(whole) - len(merged(parts)) < max(8, count / 10)
    got, exact = batch_means(whole, parts), intervals(values)
    assert (got is None) == (exact is None)
    for name, ends in (exact or {}).items():
        assert got is not None
        if ends is None:
            assert got[name] is None
        else:
            half = (ends[1] - ends[0]) / 2  # batches of 3% more or less are others
            assert got[name] == pytest.approx(ends, abs=half * 0.5)
