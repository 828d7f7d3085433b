"""Prices by hand arithmetic."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import catalog
from sim.cluster.record import PoolRecord, RequestTable, RunRecord
from sim.deployment.plan import resolve
from sim.price import RunPrice, allocate, api_prices, gpu_hour, purchase
from sim.price import price as price_of
from sim.result.statistics import throughput
from sim.scenario.schema import Price, Scenario


def requests(
    input_tokens: list[int], cached: list[int], output: list[int], finished: list[bool]
) -> RequestTable:
    n = len(input_tokens)
    done = np.array(finished)
    times = np.where(done, 1.0, np.nan)
    zeros = np.zeros(n, dtype=np.int64)
    return RequestTable(
        arrival_s=np.zeros(n),
        input_tokens=np.array(input_tokens),
        cached_tokens=np.array(cached),
        cached_host_tokens=zeros,
        cached_disk_tokens=zeros,
        output_tokens=np.array(output),
        prefill_start_s=times,
        blocked_s=times - times,
        prefill_end_s=times,
        placed_s=times,
        received_s=times,
        first_token_s=times,
        finish_s=times,
        preemptions=zeros,
        recomputed_tokens=zeros,
        generated_tokens=np.where(done, np.array(output), 0),
        rejected=~done,
    )


def record(
    pools: dict[str, PoolRecord], table: RequestTable, end_s: float = 3600.0, **changes: Any
) -> RunRecord:
    pool = {"gpus": 8, "ep": 8}
    serve = "serve" in pools
    scenario = Scenario.model_validate(
        {
            "model": "deepseek-v3.2",
            "gpu": "h200",
            "deployment": {"serve": pool} if serve else {"prefill": pool, "decode": pool},
            "workload": {
                "arrivals": {"all_at_once": {}},
                "lengths": {"input": {"constant": 1}, "output": {"constant": 1}},
                "requests": 1,
            },
            "price": {"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.0},
        }
        | changes
    )
    return RunRecord(scenario, 0, table, pools, (0.0, end_s), end_s, 0, 0.0, {})


def price(run: RunRecord) -> RunPrice:
    return price_of(run, resolve(run.scenario))


SPLIT = {
    "prefill": PoolRecord(gpus=16, busy_gpu_s={"prefill": 9000.0, "cached": 1000.0}),
    "decode": PoolRecord(gpus=48, busy_gpu_s={"decode": 86_400.0}),
}
SERVED = requests([30_000_000, 20_000_000], [8_000_000, 12_000_000], [3_000_000, 5_000_000], [True, True])


def test_disaggregated_by_hand() -> None:
    """64 GPUs for one hour at $2: $128, of which prefill's 16 GPUs $32 and decode's 48 GPUs $96.

    Prefill worked 10,000 of its 57,600 GPU-seconds, nine tenths on new tokens: $28.80 for 30 M uncached tokens and
    $3.20 for 20 M cached ones; the idle rest follows. Decode: $96 for 8 M tokens.
    """
    paid = price(record(SPLIT, SERVED))
    assert paid.usd_per_hour == 128.0
    assert paid.usd == 128.0
    assert paid.usd_per_million.input_cache_miss == pytest.approx(28.80 / 30)
    assert paid.usd_per_million.input_cache_hit == pytest.approx(3.20 / 20)
    assert paid.usd_per_million.output == pytest.approx(96 / 8)
    assert paid.usd_per_million.blended == pytest.approx(128 / 58)


def test_idle_time_follows_the_busy_time_of_its_own_pool() -> None:
    """An aggregated pool busy half the hour: 3/8 prefill, 1/8 cached, 4/8 decode of ALL its cost ($16)."""
    pools = {"serve": PoolRecord(gpus=8, busy_gpu_s={"prefill": 5400.0, "cached": 1800.0, "decode": 7200.0})}
    paid = price(record(pools, SERVED))
    assert paid.usd == 16.0
    assert paid.usd_per_million.input_cache_miss == pytest.approx(6 / 30)
    assert paid.usd_per_million.input_cache_hit == pytest.approx(2 / 20)
    assert paid.usd_per_million.output == pytest.approx(8 / 8)


def test_nothing_is_lost_in_the_allocation() -> None:
    """Selling every token at its price earns the cost back."""
    paid = price(record(SPLIT, SERVED))
    rates = paid.usd_per_million
    assert (
        rates.input_cache_hit is not None and rates.input_cache_miss is not None and rates.output is not None
    )
    income = 20 * rates.input_cache_hit + 30 * rates.input_cache_miss + 8 * rates.output
    assert income == pytest.approx(paid.usd)
    assert sum(allocate(SPLIT, cached_tokens=1).values()) == pytest.approx(1)


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


def test_answers_that_took_no_decode_step_have_no_price() -> None:
    """One pool, answers of one token: prefill brings them out, and carries all the cost. $0 would be a lie."""
    pools = {"serve": PoolRecord(gpus=8, busy_gpu_s={"prefill": 1800.0})}
    rates = price(record(pools, requests([4_000_000], [0], [1], [True]))).usd_per_million
    assert rates.output is None
    assert rates.input_cache_miss == pytest.approx(16 / 4)


def test_cached_tokens_pay_for_their_storage_by_hand() -> None:
    """One prefill worker of 8 ranks: 8 caches of 100 GB host memory at $3.65 and 1,000 GB disk at $0.73 a GB-month, 8 x
    (365 + 730) / 730 h = $12 an hour, on top of the $3.20 of re-reading."""
    cache = {"enabled": True, "scope": "rank", "host_gb": 100.0, "disk_gb": 1000.0}
    rates = {"host_usd_per_gb_month": 3.65, "disk_usd_per_gb_month": 0.73}
    money = {"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.0, **rates}
    paid = price(record(SPLIT, SERVED, prefix_cache=cache, price=money))
    assert paid.storage_usd_per_hour == pytest.approx(12.0)
    assert paid.usd_per_hour == pytest.approx(140.0)
    assert paid.usd_per_million.input_cache_hit == pytest.approx((3.20 + 12) / 20)
    assert paid.usd_per_million.input_cache_miss == pytest.approx(28.80 / 30)
    assert paid.usd_per_million.blended == pytest.approx(140 / 58)
    nothing_found = requests([50_000_000], [0], [8_000_000], [True])
    missed = price(record(SPLIT, nothing_found, prefix_cache=cache, price=money)).usd_per_million
    assert missed.input_cache_miss == pytest.approx((32 + 12) / 50)
    off = price(record(SPLIT, SERVED, prefix_cache={**cache, "enabled": False}, price=money))
    assert off.storage_usd_per_hour == 0.0


def test_storage_is_priced_by_the_catalog_where_the_scenario_does_not_say() -> None:
    """Google's E2 memory: 0.00292353 USD per GiB-hour; local SSD: 0.08 USD per GiB-month. A GiB is 1.0737 GB."""
    cache = {"enabled": True, "scope": "cluster", "host_gb": 1000.0, "disk_gb": 10_000.0}
    paid = price(record(SPLIT, SERVED, prefix_cache=cache))
    by_hand = 1000 * 0.00292353 / 1.0737 + 10_000 * 0.08 / 1.0737 / 730
    assert paid.storage_usd_per_hour == pytest.approx(by_hand, rel=0.002)


def test_no_cached_token_no_hit_price() -> None:
    """Prefill then carries the re-reading of preempted sequences."""
    table = requests([50_000_000], [0], [8_000_000], [True])
    rates = price(record(SPLIT, table)).usd_per_million
    assert rates.input_cache_hit is None
    assert rates.input_cache_miss == pytest.approx(32 / 50)


def test_a_pool_that_never_worked_is_paid_by_its_role() -> None:
    """Answers of one token come out of prefill: the idle decode pool still has to be paid for."""
    pools = {"prefill": PoolRecord(gpus=8, busy_gpu_s={"prefill": 1.0}), "decode": PoolRecord(gpus=8)}
    assert allocate(pools, 0) == {"prefill": 0.5, "decode": 0.5, "cached": 0.0}


def test_nobody_asked_for_the_prefixes_that_preempted_requests_read_again() -> None:
    # 30 of 60 GPU-seconds on prompts, 10 on prefixes that a preempted request found when it was computed again.
    pools = {"serve": PoolRecord(gpus=8, busy_gpu_s={"prefill": 30.0, "cached": 10.0, "decode": 20.0})}
    assert allocate(pools, 0) == pytest.approx({"prefill": 2 / 3, "decode": 1 / 3, "cached": 0.0})
    assert allocate(pools, 1) == pytest.approx({"prefill": 1 / 2, "decode": 1 / 3, "cached": 1 / 6})


def test_rejected_requests_pay_nothing() -> None:
    table = requests([30_000_000, 999], [0, 0], [8_000_000, 999], [True, False])
    rates = price(record(SPLIT, table)).usd_per_million
    assert rates.output == pytest.approx(96 / 8)
    assert rates.input_cache_miss == pytest.approx(32 / 30)


def test_nothing_served_has_no_price() -> None:
    rates = price(record(SPLIT, requests([5], [0], [5], [False]))).usd_per_million
    assert (rates.input_cache_hit, rates.input_cache_miss, rates.output, rates.blended) == (None,) * 4


def test_overhead_and_margin() -> None:
    """10% on top of the GPUs is cost; a margin of 20% of the selling price divides it by 0.8."""
    paid = price(
        record(SPLIT, SERVED, price={"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.1, "margin": 0.2})
    )
    assert paid.usd_per_hour == pytest.approx(128 * 1.1)
    assert paid.usd_per_million.output == pytest.approx(96 * 1.1 / 0.8 / 8)


def test_default_overhead_comes_from_the_catalog() -> None:
    paid = price(record(SPLIT, SERVED, price={"usd_per_gpu_hour": 2.0}))
    assert paid.overhead_fraction == 0.05
    assert paid.usd_per_hour == pytest.approx(128 * 1.05)


def test_whole_nodes_are_bought() -> None:
    """12 GPUs take two nodes of 8: 16 are paid for, 4 are stranded."""
    buy = purchase(12, 8)
    assert (buy.bought, buy.stranded) == (16, 4)
    pools = {"serve": PoolRecord(gpus=12, busy_gpu_s={"decode": 1.0})}
    paid = price(record(pools, SERVED))
    assert paid.usd_per_hour == 16 * 2.0
    assert paid.json()["stranded_gpus"] == 4


def test_racks_where_the_tier_sells_racks() -> None:
    assert gpu_hour(catalog.gpu("gb200"), Price(tier="own_neocloud")).unit_gpus == 72
    assert gpu_hour(catalog.gpu("gb200"), Price(tier="on_demand_low")).unit_gpus == 4
    assert gpu_hour(catalog.gpu("h200"), Price(tier="own_neocloud")).unit_gpus == 8


def test_every_price_names_its_tier() -> None:
    cost = price(record(SPLIT, SERVED, price={})).json()
    assert (cost["tier"], cost["usd_per_gpu_hour"], cost["as_of"]) == ("rent_3yr", 2.05, "2026-07")
    assert cost["source"].startswith("SemiAnalysis")
    assert price(record(SPLIT, SERVED)).json()["tier"] == "given"


def test_tiers() -> None:
    assert (
        gpu_hour(catalog.gpu("h800"), Price()).usd == 2.0
    )  # DeepSeek's own assumption; the only tier of the H800
    assert gpu_hour(catalog.gpu("h100"), Price(tier="on_demand_hyperscaler")).usd == 6.88
    with pytest.raises(catalog.UnknownName, match="rent_3yr"):
        gpu_hour(catalog.gpu("h100"), Price(tier="rent_3y"))
    with pytest.raises(catalog.UnknownName, match="usd_per_gpu_hour"):
        gpu_hour(catalog.gpu("h20"), Price())


def test_deepseeks_own_day() -> None:
    """open-infra-index, day 6: 226.75 nodes of 8 H800 at $2 for a day cost $87,072."""
    assert purchase(1814, 1).bought * 2.0 * 24 == 87_072


def test_public_prices_of_v32() -> None:
    """DeepSeek: $0.028 hit, $0.28 miss, $0.42 output from 2025-09-29."""
    first = api_prices("deepseek-v3.2").iloc[0]
    assert first["official"] and first["provider"] == "DeepSeek"
    assert first["input_cache_hit_usd_per_million"] == 0.028
    assert first["input_cache_miss_usd_per_million"] == 0.28
    assert first["output_usd_per_million"] == 0.42


def test_public_prices_follow_the_release_that_was_named() -> None:
    """V3.1: 0.07 / 0.56 / 1.68; V3: 0.07 / 0.27 / 1.10; both are one architecture."""
    assert api_prices("deepseek-v3.1").iloc[0]["output_usd_per_million"] == 1.68
    assert api_prices("DeepSeek-V3").iloc[0]["output_usd_per_million"] == 1.10
    assert api_prices("qwen3-235b").empty
    with pytest.raises(catalog.UnknownName):
        api_prices("gpt")


def test_every_public_price_has_source_and_date() -> None:
    v3 = ("deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "deepseek-r1", "deepseek-r1-0528")
    for model in (*v3, "deepseek-v4-flash", "deepseek-v4-pro-0813"):
        rows = api_prices(model)
        assert len(rows) > 5
        assert rows["source"].str.len().min() > 0
        assert rows["as_of"].str.match(r"20\d\d-\d\d").all()
        assert (rows["output_usd_per_million"] > 0).all()
        # A cache hit is never dearer than a miss.
        hit = rows["input_cache_hit_usd_per_million"].fillna(0)
        assert (hit <= rows["input_cache_miss_usd_per_million"]).all()


def test_v4_costs_twice_as_much_at_peak() -> None:
    """DeepSeek's list from 2026-08-16: peak UTC 01:00-04:00 and 06:00-10:00, Monday to Friday."""
    rows = api_prices("deepseek-v4-pro-0813")
    off, peak = (row for _, row in rows[rows["official"]].iterrows())
    for kind in ("input_cache_hit", "input_cache_miss", "output"):
        assert peak[f"{kind}_usd_per_million"] == pytest.approx(2 * off[f"{kind}_usd_per_million"])
    assert off["note"].startswith("off-peak")
    assert "01:00-04:00 and 06:00-10:00" in peak["note"]
