"""Whole runs of workloads that repeat themselves: what the prefix cache finds, and what it costs."""

from typing import Any

import pytest

import sim
from sim.scenario.schema import Scenario

SPLIT = {
    "prefill": {"workers": 8, "gpus": 8, "tp": 1, "ep": 8},
    "decode": {"workers": 4, "gpus": 16, "tp": 1, "ep": 16, "max_batch_per_gpu": 128},
}
AMPLE = {
    "enabled": True,
    "scope": "cluster",
    "block_tokens": 512,
    "hbm_tokens": 3_000_000,
    "host_gb": 10_000.0,
}


def run(seed: int = 0, **form: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"model": "deepseek-v3.2", "gpu": "h200_sxm", "deployment": SPLIT}
    result = sim.simulate(Scenario.model_validate(base | {"price": {"usd_per_gpu_hour": 2.0}} | form), seed)
    data = result.json()
    assert data["invariants"] == []
    return data


def test_mooncake_conversation_with_ample_cache_finds_what_can_be_found() -> None:
    """37.4% of the tokens were in an earlier prompt (design/MODEL.md section 5, issue 5: computed outside)."""
    data = run(workload={"trace": "mooncake-conversation"}, prefix_cache=AMPLE, router="prefix_aware")
    assert data["prefix_cache"]["hit_rate"] == pytest.approx(0.374, abs=0.01)
    assert data["requests"]["completed"] >= 11_000
    assert data["tokens"]["input_cached"] / data["tokens"]["input"] == data["prefix_cache"]["hit_rate"]
    tiers = [data["prefix_cache"][f"{tier}_tokens"] for tier in ("hbm", "host", "disk")]
    assert sum(tiers) == data["tokens"]["input_cached"]
    assert min(tiers[:2]) > 0 == tiers[2]
    prices = data["cost"]["usd_per_million"]
    assert 0 < prices["input_cache_hit"] < prices["input_cache_miss"]
    # 10,000 GB at $1.99 a GB-month, 730 h.
    assert data["cost"]["storage_usd_per_hour"] == pytest.approx(27.26, abs=0.01)


def test_a_smaller_cache_finds_less_and_no_cache_nothing() -> None:
    """The first 1,000 requests: a tenth of the room, a cache per rank, no cache."""
    asked = {"workload": {"trace": "mooncake-conversation", "requests": 1000}}
    small = {**AMPLE, "hbm_tokens": 300_000, "host_gb": 0.0}
    rates = [
        run(prefix_cache=cache, **asked)["prefix_cache"]["hit_rate"]
        for cache in (AMPLE, small, {**AMPLE, "scope": "rank", "hbm_tokens": None})
    ]
    assert rates[0] > 1.5 * rates[1] > 0
    assert rates[0] > 1.5 * rates[2] > 0
    off = run(**asked)
    assert (off["prefix_cache"], off["tokens"]["input_cached"]) == (None, 0)


AGENTS = {
    "workload": {"trace": "agentic-coding", "arrivals": {"closed_loop": {"concurrency": 24}}},
    "deployment": {"serve": {"workers": 2, "gpus": 8, "tp": 1, "ep": 8, "max_batch_per_gpu": 32}},
    "prefix_cache": {"enabled": True, "scope": "rank", "block_tokens": 512},
    "duration_s": 400.0,
}


def test_a_router_that_knows_prefixes_keeps_agents_where_their_context_is() -> None:
    """Sessions repeat 96.3% of their prompts (counted in the recording, without limits of memory)."""
    aware, blind = (
        run(**AGENTS, router=router)["prefix_cache"] for router in ("prefix_aware", "round_robin")
    )
    assert 0.963 >= aware["hit_rate"] > 1.5 * blind["hit_rate"] > 0


def test_agents_keep_their_places_until_the_end() -> None:
    data = run(**AGENTS, router="prefix_aware", warmup_s=100.0)
    assert data["window_s"][1] >= 400.0
    assert data["requests"]["in_flight"] == 0
    assert data == run(**AGENTS, router="prefix_aware", warmup_s=100.0) | {"wall_s": data["wall_s"]}


def test_a_closed_loop_bounded_by_time_goes_on_until_then() -> None:
    lengths = {"input": {"constant": 500}, "output": {"constant": 50}}
    data = run(
        workload={"arrivals": {"closed_loop": {"concurrency": 8}}, "lengths": lengths}, duration_s=60.0
    )
    assert data["requests"]["completed"] > 8 * 10
    assert 60.0 <= data["window_s"][1] < 65.0


def test_an_offline_batch_has_rates() -> None:
    lengths = {"input": {"constant": 500}, "output": {"constant": 50}}
    data = run(workload={"arrivals": {"all_at_once": {}}, "lengths": lengths, "requests": 100})
    assert data["throughput"]["output_tokens_per_s"] == pytest.approx(100 * 50 / data["window_s"][1])
    assert 0 < data["utilization"]["decode"] <= 1


def test_clients_run_and_a_cache_without_hashes_says_so() -> None:
    data = run(workload={"trace": "servegen-r1"}, duration_s=60.0, prefix_cache=AMPLE)
    assert data["prefix_cache"]["hit_rate"] == 0.0
    assert any("no block hashes" in note for note in data["notes"])
    told = run(workload={"trace": "servegen-r1", "cached_fraction": 0.5}, duration_s=60.0, prefix_cache=AMPLE)
    assert told["prefix_cache"]["hit_rate"] == pytest.approx(0.5, abs=0.01)


def test_hbm_set_aside_for_the_cache_is_not_there_for_running_sequences() -> None:
    pools = {"serve": {"gpus": 8, "tp": 1, "ep": 8}}
    lengths = {"input": {"constant": 20_000}, "output": {"constant": 10}}
    form: dict[str, Any] = {"deployment": pools, "workload": {
        "arrivals": {"all_at_once": {}}, "lengths": lengths, "requests": 64}}  # fmt: skip
    free = run(**form)
    cache = {"enabled": True, "scope": "rank", "hbm_tokens": 100_000}
    tight = run(**form, prefix_cache=cache)
    # The same tokens fill more of what is left.
    assert tight["utilization"]["kv_cache_peak"] > free["utilization"]["kv_cache_peak"]
