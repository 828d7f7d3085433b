"""What must hold after every run, whatever the scenario."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestTable, RunRecord

Flags = NDArray[np.bool_]

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
    if record.summary is not None:
        found, needed = record.summary.unsound(), record.summary.needed_tokens
        return [*found, *_computed(record, *needed), *_pools(record), *_lives(record)]
    table = record.requests
    if len({len(column) for column in vars(table).values()}) > 1:
        return ["the columns of the request table differ in length"]
    retries = record.life.retries if record.life else np.zeros_like(table.preemptions)
    found = [_told(wrong, says) for wrong, says in wrong_rows(table, retries, record.end_s) if wrong.any()]
    if (np.diff(table.arrival_s) < 0).any():
        found.append("requests are not in order of arrival: time went back")
    return [*found, *_computed(record, *needed_tokens(table)), *_pools(record), *_lives(record)]


def wrong_rows(table: RequestTable, retries: NDArray[np.int64], end_s: float) -> Iterator[tuple[Flags, str]]:
    """Which requests break an invariant, and what is said of them; most often none does."""
    yield from _requests(table)
    yield from _times(table, end_s)
    yield from _tokens(table, retries > 0)


def needed_tokens(table: RequestTable) -> tuple[int, int]:
    """Prompt tokens that had to be computed for those that were completed, and for all that were not rejected."""
    uncached = table.input_tokens - table.cached_tokens
    needed = (uncached + table.recomputed_tokens) * ~table.rejected
    return int(needed[~np.isnan(table.finish_s)].sum()), int(needed.sum())


def _requests(table: RequestTable) -> Iterator[tuple[Flags, str]]:
    completed = ~np.isnan(table.finish_s)
    yield completed & table.rejected, "both completed and rejected"
    started = ~np.isnan(table.prefill_start_s) | (table.generated_tokens > 0)
    yield started & table.rejected, "rejected, and yet served"
    yield completed & np.isnan(table.first_token_s), "completed without a first token"


def _times(table: RequestTable, end_s: float) -> Iterator[tuple[Flags, str]]:
    for early, late in itertools.pairwise(TIMES):
        before, after = getattr(table, early), getattr(table, late)
        # A time that never came (NaN) compares false; one that came without the one before it is wrong too.
        wrong = (after < before) | (np.isnan(before) & ~np.isnan(after))
        yield wrong, f"have {late} without or before {early}"
    blocked = (table.blocked_s < 0) | (table.blocked_s > table.prefill_start_s - table.arrival_s)
    yield blocked, "were blocked for longer than they waited"
    yield table.finish_s > end_s * (1 + ROUNDING), "finished after the end of the run"
    yield np.isnan(table.arrival_s) | (table.arrival_s < 0), "never arrived"


def _tokens(table: RequestTable, retried: Flags) -> Iterator[tuple[Flags, str]]:
    completed = ~np.isnan(table.finish_s)
    yield completed & (table.generated_tokens != table.output_tokens), "generated not what was asked for"
    yield table.generated_tokens > table.output_tokens, "generated more than was asked for"
    uncached = table.input_tokens - table.cached_tokens
    served = ~np.isnan(table.prefill_end_s)
    yield served & ((table.cached_tokens < 0) | (uncached < 1)), "had no prompt token to compute"
    again = (table.recomputed_tokens != 0) & (table.preemptions == 0) & ~retried
    yield again, "recomputed without preemption"


def _computed(record: RunRecord, least: int, most: int) -> Iterator[str]:
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
    again = int(life.retries.sum()) if record.summary is None else record.summary.retried
    if again != len(life.retried_s):
        yield f"{len(life.retried_s):,} retries, of which the requests know {again:,}"


def _told(wrong: Flags, says: str) -> str:
    """With the number of requests for which `wrong` is true, and the first of them."""
    return f"{int(wrong.sum()):,} requests {says} (request {int(np.argmax(wrong))} first)"
