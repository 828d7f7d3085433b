"""A benchmark is told as its client tells it, a service that goes on by its steady window."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import small_run

from sim.cluster.window import can_tell_growth, is_steady, whole_run
from sim.result.books import RowBooks
from sim.result.statistics import is_stable
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import parse
from sim.simulation import simulate

WORK = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 128}}
price: {usd_per_gpu_hour: 2.0, overhead_fraction: 0.0}
"""
LENGTHS = "lengths: {input: {constant: 2000}, output: {constant: 200}}"


def ran(workload: str, more: str = "") -> dict[str, Any]:
    return simulate(parse(f"{WORK}workload: {{{workload}}}\n{more}").scenario).json()


def poisson(rate: float, more: str = "") -> str:
    return f"arrivals: {{poisson: {{rate_per_s: {rate}}}}}, {LENGTHS}{more}"


def usd_per_million(run: dict[str, Any], seconds: float, tokens: float) -> float:
    """8 GPUs at 2 dollars an hour."""
    return 16 * seconds / 3600 / tokens * 1e6


@pytest.mark.parametrize(
    "workload",
    [
        poisson(10, ", requests: 32"),
        poisson(1000, ", requests: 32"),
        f"arrivals: {{all_at_once: {{}}}}, {LENGTHS}, requests: 32",
        f"arrivals: {{closed_loop: {{concurrency: 32}}}}, {LENGTHS}, requests: 32",
    ],
    ids=["a few", "a burst", "all at once", "one each"],
)
def test_a_benchmark_is_told_from_its_first_arrival_to_its_last_answer(workload: str) -> None:
    run = ran(workload)
    client, throughput = run["throughput"]["client"], run["throughput"]
    assert (run["stable"], run["basis"]) == (None, "whole run")
    assert run["tokens"]["output"] == 32 * 200
    assert client["output_tokens_per_s"] == pytest.approx(32 * 200 / client["duration_s"])
    assert client["total_tokens_per_s"] == pytest.approx(32 * 2200 / client["duration_s"])
    assert run["window_s"][1] - run["window_s"][0] == pytest.approx(client["duration_s"])
    assert throughput["output_tokens_per_s"] == pytest.approx(client["output_tokens_per_s"])
    assert run["goodput_requests_per_s"] == pytest.approx(32 / client["duration_s"])
    assert 0 < run["utilization"]["serve"] <= 1
    blended = run["cost"]["usd_per_million"]["blended"]
    assert blended == pytest.approx(usd_per_million(run, client["duration_s"], 32 * 2200))
    assert all(run["latency"][name]["p99"] > 0 for name in ("ttft_s", "tpot_s", "e2e_s"))
    assert run["latency"]["e2e_s"]["p99"] <= client["duration_s"]


def test_requests_and_a_duration_that_cuts_the_same_are_told_alike() -> None:
    by_count = simulate(parse(f"{WORK}workload: {{{poisson(10, ', requests: 32')}}}").scenario)
    last_s = float(by_count.requests.arrival_s.max())
    one, other = by_count.json(), ran(poisson(10), f"duration_s: {last_s + 1e-6}")
    for key in ("stable", "basis", "window_s", "requests", "throughput", "latency", "utilization", "cost"):
        assert one[key] == other[key], key


def test_a_trace_that_ends(tmp_path: Path) -> None:
    rows = "".join(f"2023-11-16 18:15:4{i}.000000,2000,200\n" for i in range(6))
    trace = tmp_path / "six.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows, encoding="utf-8")
    whole = ran(f"trace: {trace}")
    client = whole["throughput"]["client"]
    assert (whole["stable"], whole["requests"]["completed"]) == (None, 6)
    assert client["duration_s"] == pytest.approx(5 + whole["latency"]["e2e_s"]["mean"], rel=0.3)
    assert client["output_tokens_per_s"] == pytest.approx(1200 / client["duration_s"])
    cut = ran(f"trace: {trace}", "duration_s: 3")
    assert cut["throughput"]["client"]["output_tokens_per_s"] > 0
    assert cut["stable"] is None and cut["requests"]["completed"] < 6


def test_a_service_that_goes_on_is_priced_by_its_steady_window_with_the_client_beside() -> None:
    run = ran(poisson(2), "duration_s: 150")
    start_s, end_s = run["window_s"]
    client = run["throughput"]["client"]
    assert (run["stable"], run["basis"]) == (True, "steady window")
    assert (start_s, end_s) == (0, pytest.approx(150, abs=5))
    assert client["duration_s"] > end_s - start_s
    by_client = usd_per_million(
        run, client["duration_s"], client["total_tokens_per_s"] * client["duration_s"]
    )
    by_window = usd_per_million(run, 1, run["throughput"]["total_tokens_per_s_per_gpu"] * 8)
    assert run["cost"]["usd_per_million"]["blended"] == pytest.approx(by_window)
    assert by_window == pytest.approx(by_client, rel=0.1)


def test_an_overload_long_enough_to_tell_has_no_percentiles() -> None:
    run = ran(poisson(30), "duration_s: 150")
    assert (run["stable"], run["basis"]) == (False, "steady window")
    assert run["latency"]["ttft_s"]["p99"] is None
    assert run["throughput"]["client"]["duration_s"] > 160


def test_an_overload_that_ends_before_its_batches_are_full_is_still_one() -> None:
    """An answer alone takes 1.8 s; in a full batch, behind all the prompts, a minute. Arrivals go on for 30 s, or 4."""
    run = ran(poisson(200), "duration_s: 30")
    assert (run["stable"], run["basis"]) == (False, "whole run")
    assert run["latency"]["e2e_s"]["p50"] is None
    burst = ran(poisson(1000, ", requests: 4000"))
    assert (burst["stable"], burst["basis"]) == (None, "whole run")
    assert burst["latency"]["ttft_s"]["p99"] > burst["latency"]["ttft_s"]["p50"] > 0


def test_what_the_warm_up_leaves_out_the_client_leaves_out() -> None:
    run = ran(poisson(10, ", requests: 32"), "warmup_s: 1")
    client = run["throughput"]["client"]
    assert run["requests"]["arrived"] < 32
    assert client["output_tokens_per_s"] * client["duration_s"] == pytest.approx(run["tokens"]["output"])
    assert run["window_s"][0] == 1


def steady_after(stay_s: float, lasts_s: float, requests: int) -> bool:
    """Even arrivals that wait long and stay `stay_s`, a third of it in prefill."""
    arrival_s = np.linspace(0, lasts_s, requests)
    start_s = arrival_s + 1000.0
    first_s = start_s + stay_s / 3 + 50.0  # 50 s until there is a place to decode
    table = replace(
        small_run().requests, arrival_s=arrival_s, prefill_start_s=start_s, prefill_end_s=start_s + stay_s / 3,
        first_token_s=first_s, finish_s=first_s + stay_s * 2 / 3,
    )  # fmt: skip
    return is_steady(table, (0.0, lasts_s))


def test_a_window_is_steady_from_three_stays_and_sixteen_late_arrivals_on() -> None:
    assert steady_after(9.99, 30.0, 200)
    assert not steady_after(10.01, 30.0, 200)
    assert steady_after(1.0, 50.0, 32)
    assert not steady_after(1.0, 50.0, 30)


def test_growth_can_be_told_from_three_unhindered_stays_on() -> None:
    """Answers of 100 tokens stay 10 s alone and the others ten times as long; one of 2 tokens stays 1 s."""
    n = 50
    arrival_s, zeros = np.linspace(0, 60, n), np.zeros(n)
    stay_s, tokens = np.full(n, 100.0), np.full(n, 100)
    stay_s[:2], tokens[0] = (1.0, 10.0), 2
    table = replace(
        small_run().requests, arrival_s=arrival_s, output_tokens=tokens, prefill_start_s=arrival_s,
        prefill_end_s=arrival_s, first_token_s=arrival_s, finish_s=arrival_s + stay_s, blocked_s=zeros,
    )  # fmt: skip
    assert can_tell_growth(table, (0.0, 30.0)) and not can_tell_growth(table, (0.0, 29.9))
    assert not is_steady(table, (0.0, 60.0)), "a mean stay is 96 s"
    assert not can_tell_growth(replace(table, finish_s=zeros * np.nan), (0.0, 60.0))


def test_nothing_served_is_not_steady() -> None:
    table = small_run().requests
    nothing = replace(table, finish_s=np.full(4, np.nan))
    assert not is_steady(nothing, (0.0, 20.0))
    assert whole_run(table, 0.0, 27.0) == (2.0, 27.0)
    assert whole_run(table, 10.0, 27.0) == (10.0, 27.0)
    assert whole_run(table, 30.0, 27.0) == (30.0, 30.0), "the run ended in the warm-up"
    assert whole_run(table, 21.0, 27.0) == (21.0, 21.0), "all requests came in the warm-up"


def test_a_steady_window_tells_growth_whatever_the_longest_answers_need() -> None:
    """19 of 20 answers stay 1 s and the twentieth 40 s, alone: 3 s a request on average. 100 s hold many such stays,
    though not three of the longest; the wait for the first token grows by half a second every second."""
    n = 400
    arrival_s = np.linspace(0, 100, n)
    stay_s, tokens = np.where(np.arange(n) % 20, 1.0, 40.0), np.where(np.arange(n) % 20, 10, 400)
    first_s = arrival_s * 1.5 + 0.1
    table = replace(
        small_run().requests, arrival_s=arrival_s, output_tokens=tokens, prefill_start_s=first_s,
        prefill_end_s=first_s, first_token_s=first_s, finish_s=first_s + stay_s, rejected=np.zeros(n, dtype=bool),
    )  # fmt: skip
    window_s = (0.0, 100.0)
    assert is_steady(table, window_s) and not can_tell_growth(table, window_s)
    record = small_run(requests=table, window_s=window_s, steady=True)
    assert is_stable(record, RowBooks(record)) is False
    prompt = replace(record, requests=replace(table, first_token_s=arrival_s + 0.1))
    assert is_stable(prompt, RowBooks(prompt)) is True


def test_requests_that_all_come_in_the_warm_up_are_not_measured() -> None:
    together = f"arrivals: {{all_at_once: {{}}}}, {LENGTHS}, requests: 8"
    with pytest.raises(DeploymentError, match="leaves nothing to measure"):
        ran(together, "warmup_s: 0.1")
    run = ran(f"arrivals: {{closed_loop: {{concurrency: 8}}}}, {LENGTHS}, requests: 8", "warmup_s: 0.1")
    assert run["requests"]["arrived"] == 0 and run["notes"][-1].startswith("nothing was measured")
    assert run["throughput"]["output_tokens_per_s"] is run["cost"]["usd_per_million"]["blended"] is None
    assert run["utilization"]["serve"] is None


def test_a_loop_that_starts_all_of_its_work_in_the_warm_up_measures_nothing() -> None:
    work = f"arrivals: {{closed_loop: {{concurrency: 65536}}}}, {LENGTHS}, requests: 40"
    found = simulate(parse(f"{WORK}workload: {{{work}}}\nwarmup_s: 1").scenario)
    assert not found.record.invariants
    assert found.json()["utilization"]["serve"] is None
    assert any("nothing was measured" in note for note in found.notes)
