"""Each invariant has a run that breaks it, and a sound run breaks none."""

from collections.abc import Callable

import numpy as np
import pytest
from small_run import NEVER, small_run

from sim.cluster.record import RunRecord
from sim.result import check_invariants


def test_a_sound_run_breaks_none() -> None:
    assert check_invariants(small_run()) == []


def _set(column: str, row: int, value: float) -> Callable[[RunRecord], None]:
    def change(record: RunRecord) -> None:
        getattr(record.requests, column)[row] = value

    return change


def _pool(role: str, name: str, value: object) -> Callable[[RunRecord], None]:
    return lambda record: setattr(record.pools[role], name, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("rejected", 1, True), "1 requests both completed and rejected (request 1 first)"),
        (_set("generated_tokens", 3, 2), "rejected, and yet served"),
        (_set("prefill_start_s", 3, 21.0), "rejected, and yet served"),
        (_set("first_token_s", 1, NEVER), "completed without a first token"),
        (_set("prefill_start_s", 1, 9.0), "prefill_start_s without or before arrival_s"),
        (_set("prefill_end_s", 0, 3.0), "prefill_end_s without or before prefill_start_s"),
        (_set("first_token_s", 0, 7.0), "first_token_s without or before received_s"),
        (_set("placed_s", 0, 7.5), "placed_s without or before prefill_end_s"),
        (_set("received_s", 0, 7.9), "received_s without or before placed_s"),
        (_set("blocked_s", 2, 2.5), "were blocked for longer than they waited (request 2 first)"),
        (_set("finish_s", 0, 8.5), "finish_s without or before first_token_s"),
        (_set("prefill_end_s", 0, NEVER), "placed_s without or before prefill_end_s"),
        (_set("finish_s", 2, 27.1), "finished after the end of the run"),
        (_set("arrival_s", 2, 9.5), "time went back"),
        (_set("arrival_s", 3, NEVER), "never arrived"),
        (_set("generated_tokens", 0, 10), "generated not what was asked for"),
        (_set("generated_tokens", 0, 12), "generated more than was asked for"),
        (_set("cached_tokens", 1, 600), "had no prompt token to compute"),
        (_set("cached_tokens", 1, -1), "had no prompt token to compute"),
        (
            _set("cached_tokens", 1, 100),
            "1,630 prompt tokens were computed; input - cached + recomputed is 1,730",
        ),
        (_set("preemptions", 2, 0), "recomputed without preemption"),
        (_set("recomputed_tokens", 2, 31), "input - cached + recomputed is 1,631"),
        (_pool("prefill", "new_tokens", 1629), "1,629 prompt tokens were computed"),
        (_pool("decode", "kv_blocks_leaked", 3), "decode: 3 KV blocks were never given back"),
        (
            _pool("decode", "busy_gpu_s", {"decode": 433.0}),
            "decode: 433 busy GPU seconds of 432 that there were",
        ),
        (_pool("prefill", "busy_in_window_s", 10.1), "prefill: busy for 10.1 s of a window of 10 s"),
        (_pool("decode", "kv_cache_peak", 1.01), "decode: 101.0% of the KV budget were in use"),
        (lambda r: setattr(r.requests, "rejected", np.zeros(3, dtype=bool)), "differ in length"),
    ],
)
def test_each_invariant_can_break(change: Callable[[RunRecord], None], sentence: str) -> None:
    record = small_run()
    change(record)
    assert any(sentence in found for found in check_invariants(record)), check_invariants(record)


def test_requests_in_flight_may_be_partly_computed() -> None:
    record = small_run()
    for name in ("prefill_end_s", "placed_s", "received_s", "first_token_s", "finish_s"):
        getattr(record.requests, name)[2] = NEVER
    record.requests.generated_tokens[2] = 0
    for computed, sound in ((1399, False), (1400, True), (1500, True), (1630, True), (1631, False)):
        record.pools["prefill"].new_tokens = computed
        assert (check_invariants(record) == []) is sound, computed
