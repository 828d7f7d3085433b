"""What must hold after every run, whatever the scenario."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestTable, RunRecord

TIMES = (
    "arrival_s", "prefill_start_s", "prefill_end_s", "placed_s", "received_s", "first_token_s", "finish_s",
)  # fmt: skip
"""The times of a request, in the order in which they come."""

ROUNDING = 1e-9
"""Relative error that sums of floating-point seconds may have."""


def check_invariants(record: RunRecord) -> list[str]:
    """A sentence for each invariant that does not hold; none after a sound run.

    - conservation of requests: arrived = completed + rejected + in flight, each request being one of them;
    - causality: arrival <= prefill start <= prefill end <= place on a decode rank <= KV received <= first token <=
      finish <= end of the run, arrivals in order;
    - conservation of tokens: prompt tokens computed in all pools = input - cached + recomputed (no less than the
      completed requests' and no more than all, while some are in flight); generated = requested output; at least
      one prompt token of each request computed;
    - KV blocks: none held when everything is over;
    - no pool works longer than there is time, or, where workers come and go, than its GPUs were paid for; no worker is
      in two states at once.
    """
    requests = record.requests
    if len({len(column) for column in vars(requests).values()}) > 1:
        return ["the columns of the request table differ in length"]
    found = [*_requests(requests), *_times(requests, record.end_s), *_tokens(record), *_pools(record)]
    return [*found, *_lives(record)]


def _requests(table: RequestTable) -> Iterator[str]:
    completed = ~np.isnan(table.finish_s)
    yield from _some(completed & table.rejected, "both completed and rejected")
    started = ~np.isnan(table.prefill_start_s) | (table.generated_tokens > 0)
    yield from _some(started & table.rejected, "rejected, and yet served")
    yield from _some(completed & np.isnan(table.first_token_s), "completed without a first token")


def _times(table: RequestTable, end_s: float) -> Iterator[str]:
    for early, late in itertools.pairwise(TIMES):
        before, after = getattr(table, early), getattr(table, late)
        # A time that never came (NaN) compares false; one that came without the one before it is wrong too.
        wrong = (after < before) | (np.isnan(before) & ~np.isnan(after))
        yield from _some(wrong, f"have {late} without or before {early}")
    blocked = (table.blocked_s < 0) | (table.blocked_s > table.prefill_start_s - table.arrival_s)
    yield from _some(blocked, "were blocked for longer than they waited")
    yield from _some(table.finish_s > end_s * (1 + ROUNDING), "finished after the end of the run")
    yield from _some(np.isnan(table.arrival_s) | (table.arrival_s < 0), "never arrived")
    if (np.diff(table.arrival_s) < 0).any():
        yield "requests are not in order of arrival: time went back"


def _tokens(record: RunRecord) -> Iterator[str]:
    table = record.requests
    completed = ~np.isnan(table.finish_s)
    yield from _some(
        completed & (table.generated_tokens != table.output_tokens), "generated not what was asked for"
    )
    yield from _some(table.generated_tokens > table.output_tokens, "generated more than was asked for")
    uncached = table.input_tokens - table.cached_tokens
    served = ~np.isnan(table.prefill_end_s)
    yield from _some(served & ((table.cached_tokens < 0) | (uncached < 1)), "had no prompt token to compute")
    yield from _some(
        (table.recomputed_tokens != 0) & (table.preemptions == 0) & ~_retried(record),
        "recomputed without preemption",
    )
    needed = (uncached + table.recomputed_tokens) * ~table.rejected
    least, most = int(needed[completed].sum()), int(needed.sum())
    computed = sum(pool.new_tokens for pool in record.pools.values())
    if not least <= computed <= most:
        expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield f"{computed:,} prompt tokens were computed; input - cached + recomputed is {expected}"


def _pools(record: RunRecord) -> Iterator[str]:
    start_s, end_s = record.window_s
    for role, pool in record.pools.items():
        if pool.kv_blocks_leaked:
            yield f"{role}: {pool.kv_blocks_leaked:,} KV blocks were never given back"
        busy_s, most_s = sum(pool.busy_gpu_s.values()), pool.gpus * record.end_s
        if busy_s > most_s * (1 + ROUNDING):
            yield f"{role}: {busy_s:g} busy GPU seconds of {most_s:g} that there were"
        if pool.busy_in_window_s > (end_s - start_s) * (1 + ROUNDING):
            yield f"{role}: busy for {pool.busy_in_window_s:g} s of a window of {end_s - start_s:g} s"
        if not 0 <= pool.kv_cache_peak <= 1:
            yield f"{role}: {pool.kv_cache_peak:.1%} of the KV budget were in use"


def _retried(record: RunRecord) -> NDArray[np.bool_]:
    """Requests that were asked again, because their worker had failed."""
    if record.life is None:
        return np.zeros(len(record.requests.arrival_s), dtype=bool)
    retried: NDArray[np.bool_] = record.life.retries > 0
    return retried


def _lives(record: RunRecord) -> Iterator[str]:
    life = record.life
    if life is None:
        return
    by_worker: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for span in life.spans:
        by_worker.setdefault((span.role, span.worker), []).append((span.start_s, span.end_s))
    for (role, worker), spans in by_worker.items():
        spans.sort()
        if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)):
            yield f"{role} worker {worker} was in two states at once"
    for role, pool in record.pools.items():
        busy_s, paid_s = sum(pool.busy_gpu_s.values()), life.paid(role).between(0.0, record.end_s)
        if busy_s > paid_s * (1 + ROUNDING):
            yield f"{role}: {busy_s:g} busy GPU seconds of {paid_s:g} that were paid for"
    if (again := int(life.retries.sum())) != len(life.retried_s):
        yield f"{len(life.retried_s):,} retries, of which the requests know {again:,}"


def _some(wrong: NDArray[np.bool_], says: str) -> Iterator[str]:
    """A sentence with the number of requests for which `wrong` is true, and the first of them."""
    if wrong.any():
        yield f"{int(wrong.sum()):,} requests {says} (request {int(np.argmax(wrong))} first)"
