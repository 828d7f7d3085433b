"""The books of a run: what happened to each request, and how long each pool worked."""

import math
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import NoRows, PoolRecord, RequestSummary, RequestTable
from sim.cluster.setup import PoolSetup
from sim.cluster.window import Window
from sim.serving.decode_batch import DecodeBatch
from sim.serving.decode_rank import Peak
from sim.serving.served_request import ServedRequest
from sim.workload import Request

Progress = Callable[[int, int], None]
"""(requests done, requests in all)"""

PROGRESS_REPORTS = 100
"""Times that a run reports its progress; a long one does so every REPORT_EVERY_S as well."""
REPORT_EVERY_S = 1.0

LEAST_ROOM = 1000
"""Rows that the books grow by at least."""
FOLDED = 2048
"""Rows of ended requests that go into a summary at once."""

TIMES = (
    "arrival_s", "prefill_start_s", "prefill_end_s", "placed_s", "received_s", "first_token_s", "finish_s", "blocked_s",
)  # fmt: skip
COUNTS = (
    "input_tokens", "cached_tokens", "cached_host_tokens", "cached_disk_tokens", "output_tokens",
    "preemptions", "recomputed_tokens", "generated_tokens",
)  # fmt: skip


class Ledger:
    """Times and counts per request that has arrived, written as they happen. A time is NaN until then.

    With a `summary` only requests in flight have rows: those that have ended are folded into it, and others take their
    rows.
    """

    def __init__(
        self, expected: int, progress: Progress | None, summary: RequestSummary | None = None
    ) -> None:
        """`expected`: requests known from the start; others may follow from them."""
        self.arrived = self.completed = 0
        self.end_s = 0.0
        """When the latest request completed."""
        self.arrival_s, self.prefill_start_s, self.prefill_end_s = array("d"), array("d"), array("d")
        self.placed_s, self.received_s = array("d"), array("d")
        self.first_token_s, self.finish_s = array("d"), array("d")
        self.blocked_s = array("d")
        self.input_tokens, self.cached_tokens, self.output_tokens = array("q"), array("q"), array("q")
        self.cached_host_tokens, self.cached_disk_tokens = array("q"), array("q")
        self.preemptions, self.recomputed_tokens, self.generated_tokens = array("q"), array("q"), array("q")
        self.rejected = array("b")
        self._room = self._used = 0
        """Rows that there are, and those that anybody ever had."""
        self._summary = summary
        self._free: list[int] = []
        self._ended: list[int] = []
        """Rows that nobody has, and of requests that have ended, where there is a summary."""
        self._grow(expected if summary is None else LEAST_ROOM)
        self.on_end: Callable[[int], None] | None = None
        """Told the number of each request (in its workload) that completes or is rejected."""
        self._progress, self._expected = progress, expected
        self._done = self._report_at = 0
        self._reported_s = time.monotonic()
        if progress is not None:
            progress(0, expected)  # until the first one ends, thousands may arrive

    def arrive(self, request: Request) -> ServedRequest:
        """The request arrived."""
        index = self.arrived
        if self._free:
            row = self._free.pop()
        else:
            row = self._used
            if row == self._room:
                self._grow(max(row, LEAST_ROOM))
            self._used = row + 1
        self.arrived = index + 1
        self.arrival_s[row] = request.arrival_s
        self.input_tokens[row] = prompt = request.input_tokens
        self.output_tokens[row] = request.output_tokens
        cached = request.cached_tokens if request.cached_tokens < prompt else prompt - 1
        self.cached_tokens[row] = cached
        return ServedRequest(
            index,
            prompt,
            cached,
            request.output_tokens,
            0,
            request.id,
            request.blocks,
            request.answer_blocks,
            row,
        )

    def reject(self, sequence: ServedRequest) -> None:
        """The request can never be served."""
        self.rejected[sequence.row] = True
        self._end(sequence)

    def start_prefill(self, started: list[ServedRequest], now: float) -> None:
        """Prompts began to be computed (again, if preempted)."""
        for sequence in started:
            row = sequence.row
            sequence.started_s = now
            if self.prefill_start_s[row] == self.prefill_start_s[row]:  # not NaN: computed before
                self.recomputed_tokens[row] += sequence.prefill_tokens - sequence.cached_tokens
                continue
            self.prefill_start_s[row] = now
            waited_s, blocked_s = now - self.arrival_s[row], sequence.blocked_s
            self.blocked_s[row] = blocked_s if blocked_s < waited_s else waited_s
            if sequence.cached_by_tier:
                self.cached_tokens[row] = sequence.cached_tokens
                _, self.cached_host_tokens[row], self.cached_disk_tokens[row] = sequence.cached_by_tier

    def end_prefill(self, sequence: ServedRequest, now: float) -> None:
        """The prompt is computed, and with it one more token generated."""
        if sequence.generated_tokens == 0:
            self.prefill_end_s[sequence.row] = now
        sequence.generated_tokens += 1

    def receive(
        self, sequence: ServedRequest, placed_s: float, received_s: float, relay_s: float = 0.0
    ) -> None:
        """A decode rank has room for the computed sequence, and gets its KV, at these times; only those before the
        first token are noted. `relay_s` before the former are part of the way."""
        row = sequence.row
        if self.first_token_s[row] != self.first_token_s[row]:  # NaN: the first time
            if relay_s:  # never before the prefill's end, which rounding may do
                placed_s = max(self.prefill_end_s[row], placed_s - relay_s)
            self.placed_s[row], self.received_s[row] = placed_s, received_s

    def deliver_first(self, sequence: ServedRequest, first_token_s: float) -> None:
        """A token reaches the client; only the first is noted."""
        row = sequence.row
        if self.first_token_s[row] != self.first_token_s[row]:  # NaN: the first time
            self.first_token_s[row] = first_token_s

    def preempt(self, sequence: ServedRequest) -> None:
        """The sequence lost its KV; prompt and generated tokens will be computed again, but for what is cached."""
        self.preemptions[sequence.row] += 1

    def finish(self, sequence: ServedRequest, now: float) -> None:
        """The last token was generated."""
        self.finish_s[sequence.row] = self.end_s = now
        self.generated_tokens[sequence.row] = sequence.generated_tokens
        self.completed += 1
        if self._progress is not None or self.on_end is not None or self._summary is not None:
            self._end(sequence)

    def close(self, end_s: float) -> RequestTable:
        """What the run leaves: the table of all requests, or none where the summary has them all by now."""
        if self._summary is None:
            return self._table()
        waiting = set(self._free)
        self._fold([row for row in range(self._used) if row not in waiting], end_s)
        return NoRows()

    def _table(self) -> RequestTable:
        """The memory of these books, not a copy."""
        kinds = dict.fromkeys(TIMES, np.float64) | dict.fromkeys(COUNTS, np.int64)
        columns: dict[str, Any] = {
            name: np.frombuffer(getattr(self, name), kind)[: self._used] for name, kind in kinds.items()
        }
        rejected = np.frombuffer(self.rejected, np.bool_)[: self._used]
        return RequestTable(**columns, rejected=rejected)

    def _grow(self, rows: int) -> None:
        for names, fresh in ((TIMES, math.nan), ((*COUNTS, "rejected"), 0)):
            for name in names:
                column = getattr(self, name)
                column.extend(array(column.typecode, [fresh]) * rows)
        self._room += rows

    def _fold(self, rows: list[int], end_s: float = math.inf) -> None:
        """Tell the summary of these requests, in order of arrival, and free their rows."""
        assert self._summary is not None
        at = np.array(rows, dtype=np.int64)
        at = at[np.argsort(np.frombuffer(self.arrival_s)[at], kind="stable")]
        self._summary.fold(self._table().take(at), self._retries(at), end_s)
        for name in TIMES:
            np.frombuffer(getattr(self, name))[at] = math.nan
        for name in COUNTS:
            np.frombuffer(getattr(self, name), np.int64)[at] = 0
        np.frombuffer(self.rejected, np.bool_)[at] = False
        self._free += rows

    def _retries(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these rows: nobody fails."""
        return np.zeros_like(at)

    def _end(self, sequence: ServedRequest) -> None:
        self._done += 1
        if self._summary is not None:
            self._ended.append(sequence.row)
            if len(self._ended) == FOLDED:
                self._fold(self._ended)
                self._ended = []
        if self._progress is not None:
            total = max(self._expected, self.arrived)
            now_s = time.monotonic()
            due = self._done >= self._report_at or now_s - self._reported_s >= REPORT_EVERY_S
            if due or self._done == total:
                self._progress(self._done, total)
                self._report_at, self._reported_s = self._done + max(1, total // PROGRESS_REPORTS), now_s
        if self.on_end is not None:
            self.on_end(sequence.request)


class Meter:
    """How long the workers of a pool worked, by activity, and how much of it inside the measurement window."""

    def __init__(self, setup: PoolSetup, window: Window) -> None:
        self._setup = setup
        self._window = window
        self._busy_s: defaultdict[str, float] = defaultdict(float)
        self._in_window_s = self._beyond_s = 0.0
        """In the measurement window, and after it."""
        self.peak = Peak()
        """Of the ranks that decode."""
        self.new_tokens = 0
        self.steps = 0

    def work(self, start_s: float, end_s: float, activity: str, seconds: float) -> None:
        """A worker was busy from `start_s` to `end_s`, for `seconds` of it with this; see `spend` for the rest."""
        window = self._window
        if window.start_s <= start_s and end_s <= window.end_s:
            self._in_window_s += end_s - start_s
        elif window.start_s <= start_s and window.end_s <= start_s:
            self._beyond_s += end_s - start_s
        else:
            self._in_window_s += max(0.0, min(end_s, window.end_s) - max(start_s, window.start_s))
            self._beyond_s += max(0.0, end_s - max(start_s, window.start_s, window.end_s))
        self._busy_s[activity] += seconds

    def spend(self, activity: str, seconds: float) -> None:
        """What else it did in that time."""
        self._busy_s[activity] += seconds

    def spent_s(self, *activities: str) -> float:
        """Worker seconds of these activities so far."""
        return sum(self._busy_s[activity] for activity in activities)

    def record(self, peak_blocks: int, blocks_left: int, batches: Iterable[DecodeBatch] = ()) -> PoolRecord:
        """The pool's totals; `batches` of its workers, where they decode."""
        decoded = [(batch.decoded_tokens, batch.sequence_steps) for batch in batches]
        setup = self._setup
        return PoolRecord(
            gpus=setup.workers * setup.gpus,
            busy_gpu_s={activity: s * setup.gpus for activity, s in self._busy_s.items()},
            busy_in_window_s=(self._in_window_s + (0.0 if self._window.steady else self._beyond_s))
            / setup.workers,
            new_tokens=self.new_tokens,
            steps=self.steps,
            decoded_tokens=sum(tokens for tokens, _ in decoded),
            sequence_steps=sum(steps for _, steps in decoded),
            kv_cache_peak=peak_blocks / setup.kv_blocks,
            kv_blocks_leaked=blocks_left,
        )
