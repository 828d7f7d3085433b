"""The measured window is priced by hand: its share of the work pays its share of the cost."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from priced_runs import price, record, requests

from sim.cluster.record import PoolRecord, RunRecord
from sim.result.statistics import throughput


def windowed(window_s: tuple[float, float], **changes: Any) -> RunRecord:
    """A run of two hours: warm-up and drain busy otherwise than the window.

    | request | prompt (cached) | prefill | first | finish | tokens |
    |---------|-----------------|---------|-------|--------|--------|
    | 0       | 20 M (8 M)      | 1000-3000 | 3000 | 5000   | 4 M + 1 |
    | 1       | 10 M (0)        | 6000-7000 | 7000 | 7200   | 2 M   |
    """
    table = replace(
        requests([20_000_000, 10_000_000], [8_000_000, 0], [4_000_001, 2_000_000], [True, True]),
        prefill_start_s=np.array([1000.0, 6000.0]),
        prefill_end_s=np.array([3000.0, 7000.0]),
        first_token_s=np.array([3000.0, 7000.0]),
        finish_s=np.array([5000.0, 7200.0]),
    )
    pools = {
        "prefill": PoolRecord(gpus=16, busy_gpu_s={"prefill": 66_000.0, "cached": 4000.0}),
        "decode": PoolRecord(gpus=48, busy_gpu_s={"decode": 9e4}),
    }
    return replace(record(pools, table, 7200.0, **changes), pools=pools, window_s=window_s)


def test_the_window_is_priced_by_hand() -> None:
    """2000 s to 4000 s of 64 GPUs at $2: $128 x 2000 / 3600 = $71.11, a quarter of it prefill's.

    Half of request 0's prompt lies inside: 4 M tokens cached, 6 M computed; and its first token with half of the
    4 M others. 66,000 GPU-seconds x 6 of 22 M computed tokens = 18,000, and 4,000 x 4 of 8 M cached ones = 2,000:
    prefill's $17.78 go nine to one to 6 M and 4 M tokens; decode's $53.33 to 2 M.
    """
    paid = price(windowed((2000.0, 4000.0)))
    rates = paid.usd_per_million
    assert rates.input_cache_miss == pytest.approx(16 / 6)
    assert rates.input_cache_hit == pytest.approx(16 / 9 / 4)
    assert rates.output == pytest.approx(160 / 3 / 2, rel=1e-5)
    assert rates.blended == pytest.approx(640 / 9 / 12, rel=1e-5)
    assert (paid.hours, paid.usd_per_hour, paid.usd) == (2.0, 128.0, 256.0)


@pytest.mark.parametrize("window_s", [(0.0, 7200.0), (500.0, 3500.0), (2000.0, 7000.0)])
def test_the_windows_tokens_earn_the_windows_cost(window_s: tuple[float, float]) -> None:
    """Blended price x tokens = USD per hour x hours of the window / (1 - margin), tokens as in throughput."""
    run = windowed(window_s, price={"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.1, "margin": 0.2})
    paid, length_s = price(run), window_s[1] - window_s[0]
    tokens_per_s = (throughput(run)["total_tokens_per_s_per_gpu"] or 0.0) * 64
    assert paid.usd_per_million.blended is not None
    income = paid.usd_per_million.blended * tokens_per_s * length_s / 1e6
    assert income == pytest.approx(paid.usd_per_hour * length_s / 3600 / 0.8)


def test_work_on_the_other_side_of_the_windows_edge_is_paid_for_inside() -> None:
    """Prompts go first: all decoding is done after the window, yet half of the answer's tokens count in it.

    100 s to 500 s of 8 GPUs at $2: $1.78. Of 800 + 2400 GPU-seconds for prompt and answer all of the prompt's (100 s to
    300 s) and half of the answer's: 800 and 1200, so two parts to 8 M and three to 1 M tokens.
    """
    table = replace(
        requests([8_000_000], [0], [2_000_001], [True]),
        prefill_start_s=np.array([100.0]),
        prefill_end_s=np.array([300.0]),
        first_token_s=np.array([300.0]),
        finish_s=np.array([700.0]),
    )
    pools = {"serve": PoolRecord(gpus=8, busy_gpu_s={"prefill": 800.0, "decode": 2400.0})}
    rates = price(replace(record(pools, table, 700.0), window_s=(100.0, 500.0))).usd_per_million
    usd = 16 * 400 / 3600
    assert rates.input_cache_miss == pytest.approx(usd * 2 / 5 / 8, rel=1e-5)
    assert rates.output == pytest.approx(usd * 3 / 5 / 1, rel=1e-5)


@pytest.mark.parametrize("window_s", [(3000.0, 3000.0), (9000.0, 9000.0)])
def test_an_empty_window_has_no_price(window_s: tuple[float, float]) -> None:
    paid = price(windowed(window_s))
    assert set(paid.json()["usd_per_million"].values()) == {None}
    assert paid.usd_per_hour == 128.0
