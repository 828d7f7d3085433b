"""The numbers of a run's JSON, reckoned by hand on a run of four requests."""

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_run import NEVER, scenario, small_run

from sim.cluster.record import PoolRecord, RunRecord
from sim.result import Result
from sim.result.statistics import throughput


class Cost:
    def json(self) -> dict[str, Any]:
        return {"usd_per_hour": 48.0}


def data(record: RunRecord) -> dict[str, Any]:
    return Result(record, Cost()).json()


def test_cached_tokens_by_tier() -> None:
    """Requests 1 and 2: 300 of 900 tokens, 50 of them from host memory, 30 + 10 from disk."""
    looked = data(small_run(scenario=scenario(warmup_s=10.0, prefix_cache={"enabled": True})))
    assert looked["prefix_cache"] == {
        "hit_rate": pytest.approx(1 / 3),
        "hbm_tokens": 210,
        "host_tokens": 50,
        "disk_tokens": 40,
        "given_tokens": 0,
    }
    form = scenario().workload.model_dump(exclude_none=True) | {"cached_fraction": 1 / 3}
    told = data(small_run(scenario=scenario(warmup_s=10.0, workload=form)))
    assert (told["prefix_cache"]["hbm_tokens"], told["prefix_cache"]["given_tokens"]) == (0, 300)


def test_tokens_per_step_are_counted_where_drafts_are_on() -> None:
    """94 tokens in 40 steps of sequences."""
    pools = {"serve": PoolRecord(gpus=8, new_tokens=1630, decoded_tokens=94, sequence_steps=40)}
    drafting = scenario(warmup_s=10.0, speculation={"draft_tokens": 2, "acceptance": [0.9, 0.5]})
    drafted = data(small_run(scenario=drafting, pools=pools))
    assert drafted["speculation"] == {"draft_tokens": 2, "accept_length": 2.35}
    assert data(small_run(scenario=drafting))["speculation"]["accept_length"] is None
    assert data(small_run(pools=pools))["speculation"] is None


def test_every_number_of_the_small_run() -> None:
    got = data(small_run())
    # The warm-up leaves request 0 out of counts, tokens and latencies.
    assert got["requests"] == {"arrived": 3, "completed": 2, "rejected": 1, "in_flight": 0}
    assert got["tokens"] == {"input": 900, "input_cached": 300, "output": 6}
    assert got["prefix_cache"] is None, "nothing looked for prefixes"
    assert got["gpus"] == 24
    # TTFT 13 - 10 = 3 and 23 - 14 = 9; p50 6, p90 3 + 0.9 x 6, p99 3 + 0.99 x 6.
    assert all(got["latency"][name].pop("ci") is None for name in ("ttft_s", "tpot_s", "e2e_s")), "too few"
    assert got["latency"]["ttft_s"] == pytest.approx({"mean": 6, "p50": 6, "p90": 8.4, "p99": 8.94})
    # TPOT: none for one token; (27 - 23) / 4 = 1.
    assert got["latency"]["tpot_s"] == {"mean": 1, "p50": 1, "p90": 1, "p99": 1}
    # End to end 3 and 13.
    assert got["latency"]["e2e_s"]["mean"] == 8
    # Requests 1 and 2. Queue 0 and 2 - 1.5; prefill 2 and 6; for room 0 + 0.25 and 1.5 + 0.5; transfer 0.5 and 0.25;
    # 0.25 from there. Together the 6 of the mean TTFT.
    assert got["latency"]["ttft_breakdown"] == {
        "queue_s": 0.25,
        "prefill_s": 4.0,
        "transfer_s": 0.375,
        "admission_s": 1.125,
        "first_step_s": 0.25,
    }
    # Output in the window: request 0's ten later tokens come evenly from 9 to 19, nine tenths of them after 10: 9;
    # request 1's only token at 13: 1; request 2's after the window: 0. 10 tokens in 10 s.
    # Prompts: request 1 whole, 600; request 2 from 16 to 22, four sixths of 300: 200. 800 in 10 s.
    # The client of requests 1 to 3: 6 and 900 tokens between the arrival at 10 and the last answer at 27.
    assert got["throughput"].pop("client") == pytest.approx(
        {"output_tokens_per_s": 6 / 17, "total_tokens_per_s": 906 / 17, "duration_s": 17}
    )
    assert got["throughput"] == pytest.approx(
        {
            "output_tokens_per_s": 1.0,
            "output_tokens_per_s_per_gpu": 1 / 24,
            "output_tokens_per_s_per_decode_gpu": 1 / 16,
            "input_tokens_per_s_per_prefill_gpu": 10.0,
            "total_tokens_per_s_per_gpu": 81 / 24,
        }
    )
    # No objective: every request that finishes in the window is good, whenever it arrived: 0 and 1; 2 is late.
    assert got["goodput_requests_per_s"] == pytest.approx(0.2)
    assert got["utilization"] == {"prefill": 0.6, "decode": 0.9, "serve": None, "kv_cache_peak": 0.5}
    assert got["priced_by"] == {
        "measured": 0.75,
        "fitted": 0,
        "scaled": 0,
        "extrapolated": 0,
        "analytic": 0.25,
    }
    assert got["cost"] == {"usd_per_hour": 48.0}
    assert (got["seed"], got["events"], got["wall_s"], got["expected_error"]) == (7, 42, 0.5, None)
    assert got["stable"] is True
    assert got["invariants"] == []
    assert got["scenario"]["workload"]["arrivals"] == {"poisson": {"rate_per_s": 1.0}}


def test_the_keys_of_the_contract() -> None:
    """As INTERFACES lists them, "JSON of a run"."""
    got = data(small_run())
    for key in ("scenario", "seed", "version", "catalog_date", "requests", "tokens", "gpus", "throughput", "latency",
                "goodput_requests_per_s", "stable", "utilization", "cost", "priced_by", "expected_error", "wall_s",
                "events"):  # fmt: skip
        assert key in got, key
    latencies = ("ttft_s", "tpot_s", "e2e_s")
    assert set(got["latency"]) == {*latencies, "ttft_breakdown"}
    assert all(set(got["latency"][name]) == {"mean", "p50", "p90", "p99", "ci"} for name in latencies)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_numbers_are_plain_python_whatever_the_record_holds() -> None:
    record = small_run(window_s=(np.float64(10.0), np.float64(20.0)))
    record.pools["decode"].busy_in_window_s = np.float64(9.0)

    def leaves(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [leaf for item in inner for leaf in leaves(item)]

    assert {type(leaf) for leaf in leaves(data(record))} <= {int, float, bool, str, type(None)}


def test_without_warm_up_everything_counts() -> None:
    got = data(small_run(window_s=(0.0, 20.0)))
    assert got["requests"] == {"arrived": 4, "completed": 3, "rejected": 1, "in_flight": 0}
    assert got["tokens"] == {"input": 1900, "input_cached": 300, "output": 17}
    # All 11 of request 0, 1 of request 1; prompts 1000 + 600 + 200.
    assert got["throughput"]["output_tokens_per_s"] == pytest.approx(12 / 20)
    assert got["throughput"]["total_tokens_per_s_per_gpu"] == pytest.approx((12 + 1800) / 20 / 24)


@pytest.mark.parametrize(
    ("objectives", "good"),
    [
        ({"ttft_p99_s": 7.0}, 0.2),  # request 0: 7 s
        ({"ttft_p99_s": 3.0}, 0.1),  # request 1: exactly 3 s
        ({"ttft_p99_s": 2.9}, 0.0),
        ({"ttft_p99_s": 3.0, "e2e_p99_s": 2.0}, 0.0),
        ({"tpot_p99_s": 0.001}, 0.1),  # one token has no TPOT to miss
    ],
)
def test_goodput_keeps_all_objectives(objectives: dict[str, float], good: float) -> None:
    got = data(small_run(scenario=scenario(warmup_s=10.0, objectives=objectives)))
    assert got["goodput_requests_per_s"] == pytest.approx(good)


def test_goodput_of_a_closed_loop_is_its_throughput_over_the_mean_answer() -> None:
    """300 in flight, each 60 s long, of 101 tokens; 600 s of them after a warm-up.

    300 / 60 s = 5 requests/s leave at any time from 60 s on, those first that arrived during the warm-up.
    """
    places, turns = np.meshgrid(np.arange(300) * 0.2, np.arange(12) * 60.0)
    arrival_s = np.sort((places + turns).ravel())
    n = len(arrival_s)
    zeros, tokens = np.zeros(n, dtype=np.int64), np.full(n, 101)
    table = replace(
        small_run().requests, arrival_s=arrival_s, input_tokens=tokens, cached_tokens=zeros, output_tokens=tokens,
        cached_host_tokens=zeros, cached_disk_tokens=zeros,
        prefill_start_s=arrival_s, prefill_end_s=arrival_s, first_token_s=arrival_s, finish_s=arrival_s + 60.0,
        blocked_s=np.zeros(n), placed_s=arrival_s, received_s=arrival_s,
        preemptions=zeros, recomputed_tokens=zeros, generated_tokens=tokens, rejected=zeros.astype(bool),
    )  # fmt: skip
    got = data(small_run(requests=table, window_s=(90.0, 690.0), end_s=780.0))
    assert got["goodput_requests_per_s"] == pytest.approx(5, rel=0.01)
    per_request = got["throughput"]["output_tokens_per_s"] / 101
    assert got["goodput_requests_per_s"] == pytest.approx(per_request, rel=0.01)


def test_in_flight_requests_count_with_the_tokens_they_have() -> None:
    record = small_run(window_s=(0.0, 27.0))
    table = record.requests
    table.finish_s[2], table.generated_tokens[2] = NEVER, 3
    got = data(record)
    assert got["requests"] == {"arrived": 4, "completed": 2, "rejected": 1, "in_flight": 1}
    assert got["tokens"]["output"] == 15
    # Its first token at 23, two more until the end of the run at 27, all inside the window.
    assert got["throughput"]["output_tokens_per_s"] == pytest.approx(15 / 27)


def test_an_unstable_run_has_no_latency() -> None:
    """One request a second for 400 s, served one every two seconds."""
    arrival_s = np.arange(400.0)
    left_s = np.arange(400.0) * 2 + 2
    zeros, ones = np.zeros(400, dtype=np.int64), np.ones(400, dtype=np.int64)
    base = small_run()
    table = replace(
        base.requests, arrival_s=arrival_s, input_tokens=ones, cached_tokens=zeros, output_tokens=ones,
        cached_host_tokens=zeros, cached_disk_tokens=zeros,
        prefill_start_s=left_s - 2, prefill_end_s=left_s, first_token_s=left_s, finish_s=left_s, preemptions=zeros,
        blocked_s=np.zeros(400), placed_s=left_s, received_s=left_s,
        recomputed_tokens=zeros, generated_tokens=ones, rejected=zeros.astype(bool),
    )  # fmt: skip
    pools = {"serve": PoolRecord(gpus=8, new_tokens=400)}
    overloaded = small_run(
        requests=table, pools=pools, window_s=(0.0, 399.0), end_s=802.0, scenario=scenario()
    )
    got = data(overloaded)
    assert got["stable"] is False
    assert got["latency"]["ttft_s"] == {"mean": None, "p50": None, "p90": None, "p99": None, "ci": None}
    assert set(got["latency"]["ttft_breakdown"].values()) == {None}
    # Tokens leave at 2, 4, ..., 398: 199 in 399 s.
    assert got["throughput"]["output_tokens_per_s"] == pytest.approx(199 / 399)
    # The same times in a closed loop are what was asked for.
    closed = scenario(workload=_closed_loop())
    assert data(replace(overloaded, scenario=closed))["stable"] is True


def _closed_loop() -> dict[str, Any]:
    lengths = {"input": {"constant": 1}, "output": {"constant": 1}}
    return {"arrivals": {"closed_loop": {"concurrency": 400}}, "lengths": lengths, "requests": 400}


def test_a_warm_up_that_outlasts_the_arrivals_is_told() -> None:
    """The last request of the small run comes at 20 s."""
    said = "nothing was measured"
    assert not [note for note in data(small_run(window_s=(20.0, 20.0)))["notes"] if said in note]
    [note] = [note for note in data(small_run(window_s=(30.0, 30.0)))["notes"] if said in note]
    assert note == "nothing was measured: the last request came at 20.0 s, in the warm-up of 30.0 s"


def test_aggregated_serving_has_no_rates_per_pool() -> None:
    got = data(small_run(pools={"serve": PoolRecord(gpus=8, busy_in_window_s=5.0, new_tokens=1630)}))
    assert got["throughput"]["output_tokens_per_s_per_decode_gpu"] is None
    assert got["throughput"]["input_tokens_per_s_per_prefill_gpu"] is None
    assert got["throughput"]["output_tokens_per_s_per_gpu"] == pytest.approx(1 / 8)
    assert got["utilization"]["serve"] == pytest.approx(0.5)
    assert got["utilization"]["prefill"] is None


@pytest.mark.parametrize("window_s", [(0.0, 0.0), (30.0, 30.0)])
def test_an_empty_window_has_no_rates(window_s: tuple[float, float]) -> None:
    record = small_run(window_s=window_s)
    for pool in record.pools.values():
        pool.busy_in_window_s = 0.0
    got = data(record)
    assert set(throughput(record).values()) == {None}
    assert got["goodput_requests_per_s"] is None
    assert got["utilization"]["decode"] is None
    json.dumps(got, allow_nan=False)


def test_a_run_without_requests() -> None:
    empty = {name: column[:0] for name, column in vars(small_run().requests).items()}
    pools = {"prefill": PoolRecord(gpus=8), "decode": PoolRecord(gpus=16)}
    table = replace(small_run().requests, **empty)
    got = data(small_run(requests=table, pools=pools, window_s=(0.0, 0.0), end_s=0.0, priced_gpu_s={}))
    assert got["requests"]["arrived"] == 0
    assert got["latency"]["ttft_s"]["p99"] is None
    assert got["stable"] is True
    assert got["invariants"] == []
    json.dumps(got, allow_nan=False)


@given(cuts=st.lists(st.floats(0.01, 26.99), min_size=1, max_size=6, unique=True))
@settings(max_examples=50, deadline=None)
def test_windows_side_by_side_hold_each_token_once(cuts: list[float]) -> None:
    """Whatever the cuts, the parts of a run add up to its 17 output tokens and 1,900 prompt tokens."""
    edges = [0.0, *sorted(cuts), 27.0]
    output = prompts = 0.0
    assume(min(np.diff(edges)) > 1e-6)
    assume(not {9.0, 13.0, 23.0} & set(cuts))  # a first token on an edge would count on both sides
    for start_s, end_s in itertools.pairwise(edges):
        rates = throughput(small_run(window_s=(start_s, end_s)))
        output += (rates["output_tokens_per_s"] or 0.0) * (end_s - start_s)
        prompts += (rates["input_tokens_per_s_per_prefill_gpu"] or 0.0) * 8 * (end_s - start_s)
    assert output == pytest.approx(17, abs=1e-6)
    assert prompts == pytest.approx(1900, abs=1e-4)
