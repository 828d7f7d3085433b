"""What a run's tokens cost by hand: who pays for which GPU-seconds, storage, overhead and margin."""

import pytest
from priced_runs import SERVED, SPLIT, price, record, requests

from sim.cluster.record import PoolRecord
from sim.price import Purchase, allocate, purchase


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


def test_whole_nodes_are_bought() -> None:
    """12 GPUs take two nodes of 8: 16 are paid for, 4 are stranded."""
    buy = purchase(12, 8)
    assert (buy.bought, buy.stranded) == (16, 4)
    pools = {"serve": PoolRecord(gpus=12, busy_gpu_s={"decode": 1.0})}
    paid = price(record(pools, SERVED))
    assert paid.usd_per_hour == 16 * 2.0
    assert paid.json()["stranded_gpus"] == 4


def test_no_gpu_is_missing_because_two_means_of_the_same_are_rounded() -> None:
    """0.1 + 0.2 GPUs used of the 0.3 that were bought."""
    assert Purchase(used=0.1 + 0.2, bought=0.3, unit=1).stranded == 0


def test_deepseeks_own_day() -> None:
    """open-infra-index, day 6: 226.75 nodes of 8 H800 at $2 for a day cost $87,072."""
    assert purchase(1814, 1).bought * 2.0 * 24 == 87_072
