"""Intervals of a sampled fleet beside half the sample, by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.result.percentiles import in_batches
from sim.result.sample import doublings, widened

Floats = NDArray[np.float64]
NAMES = ("ttft_s", "tpot_s", "e2e_s")


def answer(values: Floats) -> dict[str, Any]:
    """A run's JSON, with intervals of no width."""
    told = {"mean": values.mean(), "p50": np.percentile(values, 50), "p90": np.percentile(values, 90)}
    ci = {figure: [value, value] for figure, value in told.items()}
    return {"latency": {name: {**told, "ci": {**ci}} for name in NAMES}, "fleet": {"ci": None}}


def slow(share: float) -> Floats:
    """1,000 requests in ten alike batches; of each this share takes 2 s, the others 1 s."""
    batch = np.ones(100)
    batch[: round(100 * share)] = 2.0
    return np.tile(batch, 10)


def moved(sample: Floats, half: Floats, times: float) -> dict[str, list[float]]:
    told = answer(sample)
    widened(told, answer(half), lambda _: in_batches(sample), lambda _: in_batches(half), times)
    found: dict[str, list[float]] = told["latency"]["tpot_s"]["ci"]
    return found


def test_a_percentile_falls_over_the_jump_that_its_share_comes_to() -> None:
    """14% of the sample takes 2 s, 16% of its half: p90 is 2 s in both. Two doublings on it is 10%, or 14% still."""
    found = moved(slow(0.14), slow(0.16), 2.5)
    assert found["p90"] == pytest.approx([1.0, 2.0])
    assert found["p50"] == pytest.approx([1.0, 1.0])
    assert found["mean"] == pytest.approx([1.14 - 2.5 * 0.02, 1.14]), "halving moved it by 0.02 s"


def test_it_stays_on_its_side_where_the_share_does_not_come_so_far() -> None:
    assert moved(slow(0.2), slow(0.22), 2)["p90"] == pytest.approx([2.0, 2.0])


def test_intervals_reach_to_the_side_to_which_the_fleet_lies() -> None:
    """A larger sample is faster, so that the fleet may be faster still, but is not slower."""
    found = moved(np.full(1000, 1.0), np.full(1000, 1.1), 2)
    assert found["mean"] == pytest.approx([0.8, 1.0])


def test_doublings_lead_from_half_the_sample_to_the_fleet() -> None:
    assert doublings(16, 4) == 2
    assert doublings(9, 3) == pytest.approx(1.0), "from one to three is as far as from three to nine"
