"""What a run says of its own figures: of one seed, of the drawn load, and where TPOT hides a wait."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_run import scenario, small_run

from sim.cluster.record import RequestTable, RunRecord
from sim.result.books import books
from sim.result.notes import NEEDED, chance_notes, handover_notes
from sim.serving.handover import HandoverRules

WAITS = HandoverRules(first_token="joined", answers_between_steps=True)


def run(requests: int, stable: bool | None = True, **ci: list[float] | None) -> dict[str, Any]:
    """JSON of a run in which every latency is 1 s."""
    figures: dict[str, Any] = dict.fromkeys(("mean", "p50", "p90", "p99"), 1.0)
    latency = {name: {**figures, "ci": ci or None} for name in ("ttft_s", "tpot_s", "e2e_s")}
    return {"latency": latency, "requests": {"arrived": 0, "completed": requests}, "stable": stable}


@pytest.mark.parametrize(
    ("requests", "stable", "ci", "says"),
    [
        (540, True, {}, "intervals of percentiles: 540 requests of one seed, 1,000 are needed"),
        (2000, True, {"p50": [0.9, 1.1], "p99": None}, "of p99: 2,000 requests of one seed, 10,000 are needed"),
        (32, None, {}, "those of 32 requests and one seed"),
        (20000, True, {"p50": [0.99, 1.01], "p99": [0.9, 1.2]}, "TTFT p99 1 s (900 ms to 1.2 s)"),
        (20000, True, {"mean": [0.1, 9.0], "p50": [0.99, 1.01], "p99": [0.9, 1.1]}, ""),
    ],
)  # fmt: skip
def test_percentiles_that_one_seed_does_not_tell(
    requests: int, stable: bool | None, ci: dict[str, Any], says: str
) -> None:
    notes = " ".join(chance_notes(small_run(), run(requests, stable, **ci)))
    assert (says in notes) if says else notes == ""


def test_nothing_is_said_of_percentiles_that_are_not_there() -> None:
    told = run(540, False)
    told["latency"] = {name: {**dict.fromkeys(of), "ci": None} for name, of in told["latency"].items()}
    assert [*chance_notes(small_run(), told)] == []


def test_an_interval_needs_ten_requests_beyond_its_percentile_in_each_of_ten_batches() -> None:
    assert NEEDED["p99"] * 0.01 == 10 * 10
    assert NEEDED["p90"] * 0.1 == 10 * 10


@pytest.mark.parametrize(
    ("rate", "says"), [(0.305, ""), (0.25, "drew 0.3 requests/s where 0.25"), (1.0, "(-70.0%)")]
)
def test_a_load_that_was_drawn_unlike_the_asked_one(rate: float, says: str) -> None:
    """Three requests in the 10 s from the warm-up to the last arrival: 0.3 per second, 1.6% off 0.305."""
    arrivals = {"arrivals": {"poisson": {"rate_per_s": rate}}, "requests": 4}
    lengths = {"lengths": {"input": {"constant": 1}, "output": {"constant": 1}}}
    record = small_run(scenario=scenario(warmup_s=10.0, workload={**arrivals, **lengths}))
    told = run(20000, True, p50=[1.0, 1.0], p99=[1.0, 1.0])
    told["requests"]["arrived"] = 3
    notes = " ".join(chance_notes(record, told))
    assert (says in notes) if says else True
    assert bool(notes) == (abs(0.3 / rate - 1) > 0.03)


def waiting(wait_s: float, requests: int = 50, tokens: int = 101) -> RunRecord:
    """Every request's KV has come after 2 s, a token takes 0.1 s, and the first one waits for an answer so long."""
    arrival_s = np.arange(requests, dtype=float)
    zeros, received_s = np.zeros(requests, dtype=int), arrival_s + 2.0
    table = RequestTable(
        arrival_s=arrival_s, input_tokens=zeros + 10, cached_tokens=zeros, cached_host_tokens=zeros,
        cached_disk_tokens=zeros, output_tokens=zeros + tokens, prefill_start_s=arrival_s, blocked_s=zeros * 0.0,
        prefill_end_s=arrival_s + 1.0, placed_s=arrival_s + 1.0, received_s=received_s,
        first_token_s=received_s + wait_s, finish_s=np.maximum(received_s + wait_s, received_s + 0.1 * (tokens - 1)),
        preemptions=zeros, recomputed_tokens=zeros, generated_tokens=zeros + tokens,
        rejected=zeros.astype(bool),
    )  # fmt: skip
    loop = {"arrivals": {"closed_loop": {"concurrency": 4}}, "requests": requests}
    lengths = {"lengths": {"input": {"constant": 10}, "output": {"constant": tokens}}}
    return replace(
        small_run(scenario=scenario(workload={**loop, **lengths})), requests=table, window_s=(0.0, 60.0)
    )


@pytest.mark.parametrize("wait_s", [0.05, 0.9, 3.0])
def test_tpot_that_hides_a_wait_for_the_prefill_side_is_told_with_what_a_token_takes(wait_s: float) -> None:
    """100 tokens in 10 s; while the first one waits 3 s, the client sees the others in 7: TPOT 70 ms, not 100."""
    record = waiting(wait_s)
    notes = [*handover_notes(record, books(record), WAITS)]
    assert bool(notes) == (wait_s > 1.0)  # from a tenth of the answer's time on
    if notes:
        assert (
            "TPOT (mean 70 ms)" in notes[0] and "decode pool, 100 ms" in notes[0] and "3 s after" in notes[0]
        )
    without = replace(WAITS, answers_between_steps=False)
    assert [*handover_notes(record, books(record), without)] == []


def test_short_answers_that_wait_for_a_place_in_the_batch_hide_nothing() -> None:
    """Two tokens, the first of which waits for the step that runs: half of their time, and no wait for an answer."""
    record = waiting(0.05, tokens=2)
    assert [*handover_notes(record, books(record), WAITS)] == []
