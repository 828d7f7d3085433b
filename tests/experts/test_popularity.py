"""Popularity: spread, drift and the cap of one pair per token and expert."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.catalog import popularity_sigma
from sim.experts.popularity import (
    counted_popularity,
    drift,
    lognormal_popularity,
    mean_rho,
    selection_probability,
)
from sim.scenario.schema import Experts


def test_sigma_is_the_spread_of_the_log_load() -> None:
    shares = lognormal_popularity(1.05, 200, 256, np.random.default_rng(0))
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert np.log(shares).std(axis=1).mean() == pytest.approx(1.05, rel=0.01)


def test_sigma_zero_is_exactly_even() -> None:
    assert (lognormal_popularity(0.0, 3, 256, np.random.default_rng(0)) == 1 / 256).all()


@pytest.mark.parametrize("rho", [0.95, 0.7, 0.5, 0.0])
def test_drift_has_the_stated_correlation_and_keeps_the_spread(rho: float) -> None:
    rng = np.random.default_rng(2)
    before = lognormal_popularity(1.05, 400, 256, rng)
    after = drift(before, rho, rng)
    logs = np.log(before), np.log(after)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*logs, strict=True)]) == pytest.approx(
        rho, abs=0.01
    )
    assert logs[1].std(axis=1).mean() == pytest.approx(1.05, rel=0.01)


def test_two_steps_of_drift_correlate_as_rho_squared() -> None:
    rng = np.random.default_rng(3)
    before = lognormal_popularity(1.0, 400, 256, rng)
    after = drift(drift(before, 0.8, rng), 0.8, rng)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.log(before), np.log(after), strict=True)]
    assert np.mean(correlation) == pytest.approx(0.64, abs=0.01)


def test_no_drift_at_rho_one() -> None:
    before = lognormal_popularity(1.0, 5, 32, np.random.default_rng(0))
    assert drift(before, 1.0, np.random.default_rng(1)) == pytest.approx(before)


def test_mean_rho_over_the_life_of_a_placement() -> None:
    assert mean_rho(0.9, 3) == pytest.approx((1 + 0.9 + 0.81) / 3)


def test_a_token_takes_an_expert_at_most_once() -> None:
    # Top-2 of shares .7 .2 .1: the first would be chosen 1.4 times per token. It is capped at 1;
    # the other pair goes 2 : 1 to the rest.
    assert selection_probability(np.array([[0.7, 0.2, 0.1]]), 2) == pytest.approx(
        np.array([[1.0, 2 / 3, 1 / 3]])
    )


@given(seed=st.integers(0, 2**32 - 1), sigma=st.floats(0, 4))
def test_selection_probabilities_sum_to_top_k(seed: int, sigma: float) -> None:
    chance = selection_probability(lognormal_popularity(sigma, 3, 64, np.random.default_rng(seed)), 8)
    assert chance.sum(axis=1) == pytest.approx(8.0)
    assert chance.max() <= 1.0
    assert chance.min() >= 0.0


def test_counts_are_smoothed_by_one() -> None:
    assert counted_popularity(np.array([[0.0, 2.0]])) == pytest.approx(np.array([[0.25, 0.75]]))


def test_experts_are_as_uneven_as_recorded_unless_said() -> None:
    assert Experts().sigma == popularity_sigma() == 1.05  # TensorRT-LLM tech blog 4, see test_load
    for balanced in ("balanced", 0):
        experts = Experts.model_validate({"popularity_sigma": balanced})
        assert experts.even and experts.sigma == 0
    assert not Experts().even
    recorded = Experts(counts="counts.json")
    assert recorded.sigma == 0 and not recorded.even
